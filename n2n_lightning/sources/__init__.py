"""Where pairs come from: one module for each choice of ``data=``."""
