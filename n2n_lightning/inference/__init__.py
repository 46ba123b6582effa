"""Trained denoisers at work: arrays, tiles, files."""
