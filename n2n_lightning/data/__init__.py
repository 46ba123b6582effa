"""Pairs of noisy images: one module for each choice of ``data=``, and the data module."""
