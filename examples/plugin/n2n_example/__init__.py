"""A plugin for n2n_lightning."""
