"""Denoisers as LightningModules: every step, the architecture families, checkpoints."""
