"""Measures of what matters for Noise2Noise in noisy frames."""
