"""Noise for clean images: its kinds, the functions behind text and pixelation, and the choices of ``noise=``."""
