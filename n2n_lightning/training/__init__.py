"""One training run: configuration to objects, checks, callbacks, checkpoints, metadata."""
