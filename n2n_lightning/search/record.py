"""What a search has found, for readers without Optuna: ``search.json`` in the study's folder, and one line."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from n2n_lightning.reporting.search import FILE
from n2n_lightning.reporting.table import score_text
from n2n_lightning.search.space import value_text
from n2n_lightning.system.atomic import write_json

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def write_record(study: optuna.Study, folder: Path) -> None:
    """Write ``search.json``: the trials, and how much each setting mattered."""
    trials = study.get_trials(deepcopy=False)
    record = {
        "monitor": study.user_attrs.get("monitor"),
        "direction": study.direction.name.lower(),
        "space": study.user_attrs.get("space", {}),
        "trials": [describe(trial) for trial in trials],
        "importances": importances(study),
    }
    write_json(folder / FILE, record)


def describe(trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial in plain values. The value of one that was pruned is that of its last epoch."""
    return {
        "number": trial.number,
        "state": STATES.get(trial.state, "interrupted"),
        "value": trial.value,
        "epochs": max(trial.intermediate_values, default=None),
        "folder": trial.user_attrs.get("folder"),
        "params": {name: value_text(value) for name, value in trial.params.items()},
    }


def importances(study: optuna.Study) -> dict[str, float]:
    """Return the share of each setting in what the trials' values differ by; empty where too few have ended."""
    values = {trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))}
    if len(values) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return {name: float(share) for name, share in optuna.importance.get_param_importances(study).items()}


def search_line(study: optuna.Study, planned: int) -> str:
    """Return how many trials ended in which way, and which is the best."""
    trials = study.get_trials(deepcopy=False)
    counts = Counter(STATES.get(trial.state, "interrupted") for trial in trials)
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    line = f"search: {sum(trial.state.is_finished() for trial in trials)} of {planned} trials: {states}"
    if not counts["complete"]:
        return line
    best, monitor = study.best_trial, str(study.user_attrs.get("monitor"))
    settings = " ".join(f"{name}={value_text(value)}" for name, value in best.params.items())
    return f"{line}; best {monitor} {score_text(monitor, best.value or 0.0)} in trial {best.number}: {settings}"
