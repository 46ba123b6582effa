"""Noise: corruption functions, text overlays, and the choices of ``noise=``."""
