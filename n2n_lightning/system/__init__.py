"""Exit codes and messages, the Hydra application, locks, atomic writes, safe loading."""
