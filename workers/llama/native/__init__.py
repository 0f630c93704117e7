"""llama.cpp itself: the library, a model in a context, what it was built with."""
