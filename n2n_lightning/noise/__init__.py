"""Corruptions of clean images: pure functions, the kinds of noise made of them, and the choices of ``noise=``."""
