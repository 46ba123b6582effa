"""Search for good settings with Optuna: ``hydra/sweeper=optuna``. Optuna is imported only by a search."""
