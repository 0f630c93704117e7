"""What all backends share: registry, lanes, the pull loop and the pipeline."""
