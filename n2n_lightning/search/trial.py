"""A job's end of a search: tell Optuna the monitor after each epoch, and end a trial that is not worth going on."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2n_lightning.system.errors import InputError

if TYPE_CHECKING:
    from n2n_lightning.training.pruning import Pruning

SEARCH = "N2N_SEARCH"  # environment of a search and its processes: storage, study and pruner as JSON
TRIAL = "N2N_TRIAL"  # environment of a job, in whichever process it runs: Optuna's id of its trial


def is_trial() -> bool:
    """Return whether this job is a trial of a search."""
    return SEARCH in os.environ and TRIAL in os.environ


def search_pruning(folder: Path) -> Pruning | None:
    """Return what the search needs in the run of ``folder``; None if the job is not a trial."""
    if not is_trial():
        return None
    return trial_pruning(folder, **json.loads(os.environ[SEARCH]), trial=int(os.environ[TRIAL]))


def trial_pruning(folder: Path, *, storage: str, study: str, pruner: Any, trial: int) -> Pruning:
    """Return the callback that reports to a trial.

    Args:
        folder: of the run; its name is noted in the trial.
        storage: URL of the database.
        study: its name there.
        pruner: name and arguments as in ``hydra.sweeper.pruner``.
        trial: Optuna's id of the trial.
    """
    import optuna

    from n2n_lightning.search.storage import load_search, storage_faults
    from n2n_lightning.training.pruning import Pruning

    found = load_search(storage, study, pruner)
    if found is None:
        raise InputError(f"there is no search {study!r} in {storage.rpartition('@')[2]}; start it with the sweep")
    with storage_faults(storage):
        ours = optuna.trial.Trial(found, trial)
        ours.set_user_attr("folder", folder.name)
        reported = set(found.trials[ours.number].intermediate_values)  # before an interruption

    def is_hopeless(epoch: int, value: float) -> bool:
        try:
            with storage_faults(storage):
                if epoch not in reported:
                    ours.report(value, epoch)
                return bool(ours.should_prune())
        except InputError as error:  # the run is worth more than its report
            print(f"warning: {error}", file=sys.stderr, flush=True)
            return False

    return Pruning(is_hopeless)
