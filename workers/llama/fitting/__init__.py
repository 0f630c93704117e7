"""What a model file needs and how it is loaded so that it fits the machine."""
