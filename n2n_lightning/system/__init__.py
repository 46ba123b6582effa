"""Exit codes, messages and signals, the Hydra application, locks, atomic writes, safe loading."""
