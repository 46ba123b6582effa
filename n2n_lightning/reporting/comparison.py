"""Runs compared: which of them are the same but for the seed, what was swept, who is ahead.

``read_runs`` (from ``runs.py``) reads the folders, ``compare_runs`` makes a ``Comparison`` of them; tables, claims,
figures and the page are all made from that one object. ``table.py`` has the table's columns.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from n2n_lightning.reporting.runs import Curve, Run

PSNR = "val/psnr"
PAIRS = "val/psnr_pairs"  # the same, estimated from pairs of noisy images
MODEL_TITLES = {
    "unet": "U-Net",
    "nn_relu": "NN + ReLU",
    "nn_sigmoid": "NN + Sigmoid",
    "convtrans_relu": "Convtrans + ReLU",
    "convtrans_sigmoid": "Convtrans + Sigmoid",
}
OTHER_TITLES = {  # of models that are not the report's
    "nafnet": "NAFNet",
    "nafnet32": "NAFNet, width 32",
    "dncnn": "DnCNN",
    "red30": "RED30",
}
STUDY_OPTIMIZERS = {"unet": ("adam", 0.001)}  # the report's choice for each of its models: name and learning rate
SEQUENTIAL_OPTIMIZER = ("sgd", 0.1)


@dataclass(frozen=True)
class Group:
    """Runs of one model with the same settings, whose seeds differ. A run that is not done stands alone."""

    runs: tuple[Run, ...]
    settings: dict[str, str]  # what the sweep varied -> its value here
    metric: str  # what ranks the comparison it belongs to
    rank: int | None = None  # 1 for the best; None for what is out of the ranking

    @property
    def model(self) -> str:
        return self.runs[0].model

    @property
    def title(self) -> str:
        return (MODEL_TITLES | OTHER_TITLES).get(self.model, self.model)

    @property
    def settings_text(self) -> str:
        """The swept values in words: ``optimizer sgd, train_pairs 2000``."""
        return ", ".join(f"{key.removeprefix('data.')} {value}" for key, value in self.settings.items())

    @property
    def label(self) -> str:
        """The title and, where something was swept, its value."""
        return f"{self.title} ({self.settings_text})" if self.settings else self.title

    def numbers(self, key: str) -> list[float]:
        return [value for run in self.runs if (value := run.number(key)) is not None]

    def mean(self, key: str) -> float | None:
        numbers = self.numbers(key)
        return statistics.fmean(numbers) if numbers else None

    def sd(self, key: str) -> float | None:
        """Sample standard deviation over the seeds; None for fewer than two."""
        numbers = self.numbers(key)
        return statistics.stdev(numbers) if len(numbers) > 1 else None

    @property
    def gain_db(self) -> float | None:
        """By how much the estimate is above the noisy input, mean over the seeds."""
        pairs = [(run.number(self.metric), run.number(noisy_key(self.metric))) for run in self.runs]
        gains = [psnr - noisy for psnr, noisy in pairs if psnr is not None and noisy is not None]
        return statistics.fmean(gains) if gains else None

    def curves(self, column: str) -> list[Curve]:
        """Each run's curve, cut to the epochs that all of them have."""
        curves = [run.history.get(column, {}) for run in self.runs]
        common = sorted(set.intersection(*(set(curve) for curve in curves)))
        return [{epoch: curve[epoch] for epoch in common} for curve in curves]

    def curve(self, column: str) -> Curve:
        """Mean over the seeds, epoch by epoch."""
        curves = self.curves(column)
        return {epoch: statistics.fmean(curve[epoch] for curve in curves) for epoch in curves[0]}

    @property
    def own_optimizer(self) -> bool:
        """Whether the model trains with the optimizer it brings: not overridden, or overridden by the same."""
        if not any(key.split(".")[0] == "optimizer" for key in self.runs[0].overrides):
            return True
        if self.model not in MODEL_TITLES:
            return False
        optimizer = self.runs[0].part("optimizer")
        own = STUDY_OPTIMIZERS.get(self.model, SEQUENTIAL_OPTIMIZER)
        return (_short_name(optimizer), optimizer.get("lr")) == own


@dataclass(frozen=True)
class Comparison:
    """All runs of a folder: the done ones grouped and ranked, the others one by one."""

    runs: list[Run]
    metric: str  # what ranks them: "val/psnr" where clean images were there, else "val/psnr_pairs", else "val/loss"
    swept: list[str]  # override keys whose value differs, and "study" when there are several
    ranked: list[Group]  # best first
    others: list[Group]  # interrupted, dead, failed, or without the metric

    @property
    def groups(self) -> list[Group]:
        return self.ranked + self.others

    @property
    def models(self) -> list[str]:
        """Every model once: the report's five in its order, then others by name."""
        known = list(MODEL_TITLES)
        found = {run.model for run in self.runs}
        return sorted(found, key=lambda name: (known.index(name) if name in known else len(known), name))


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Group runs that differ in the seed only, and rank the groups by the mean of their best value."""
    metric = _metric(runs)
    swept = _swept(runs)
    done = [run for run in runs if run.status == "done" and run.number(metric) is not None]
    same: dict[str, list[Run]] = {}
    for run in done:
        same.setdefault(_identity(run), []).append(run)
    groups = [Group(tuple(members), _settings(members[0], swept), metric) for members in same.values()]
    groups.sort(key=lambda group: sign(metric) * (group.mean(metric) or 0.0))
    ranked = [replace(group, rank=rank) for rank, group in enumerate(groups, start=1)]
    counted = {run.folder for run in done}
    rest = [run for run in runs if run.folder not in counted]
    rest.sort(key=lambda run: (run.status != "interrupted", run.status, run.name))
    others = [Group((run,), _settings(run, swept), metric) for run in rest]
    return Comparison(list(runs), metric, swept, ranked, others)


def sign(metric: str) -> int:
    """Times this, the best value is the lowest."""
    return 1 if "loss" in metric else -1


def noisy_key(metric: str) -> str:
    """Where a record has the metric of the noisy input; of a loss there is none."""
    return metric.replace("val/", "noisy_")


def setting(run: Run, key: str) -> str:
    """An override's value; where the run did not override it, what its configuration resolved to."""
    if key == "study":
        return run.study
    if key in run.overrides:
        return shown(run.overrides[key])
    for tree in (run.part("config"), run.record):
        value: Any = tree
        for name in key.split("."):
            value = value.get(name, _MISSING) if isinstance(value, dict) else _MISSING
        if isinstance(value, dict):
            value = None if value.get("name", "") is None else _short_name(value) or _MISSING
        if value is not _MISSING and (value is not None or tree is not run.record):
            return shown(value)
    return "default"


_MISSING = object()


def shown(value: object) -> str:
    """One way to write a value, so that 1e-3 and 0.001 are the same, and "[0.9, 0.99]" and [0.9,0.99]."""
    text = str(value).strip("'\"")
    if text.lower() in ("null", "none", "true", "false"):
        return text.lower().replace("null", "none")
    if text.startswith(("[", "{")):
        return text.replace(" ", "").replace("'", "")
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def _short_name(part: dict[str, Any]) -> str:
    """``adam`` for {"name": "adam", ...}."""
    return str(part.get("name") or "").lower()


def _metric(runs: Sequence[Run]) -> str:
    """PSNR wherever a run has it, else its estimate from pairs, else what the runs themselves monitored."""
    told = [run for run in runs if run.status == "done"] or runs
    monitors = [run.monitor for run in told] or [PSNR]
    keys = (PSNR, PAIRS, *monitors)
    return next((key for key in keys if any(run.number(key) is not None for run in told)), monitors[0])


def _swept(runs: Sequence[Run]) -> list[str]:
    keys = sorted({key for run in runs for key in run.overrides} - {"seed"})
    swept = [key for key in keys if len({setting(run, key) for run in runs}) > 1]
    return ["study", *swept] if len({run.study for run in runs}) > 1 else swept


def _settings(run: Run, swept: Sequence[str]) -> dict[str, str]:
    return {key: setting(run, key) for key in swept}


def _identity(run: Run) -> str:
    """The same text for runs that differ in nothing but the seed."""
    overrides = {key: shown(value) for key, value in run.overrides.items()}
    keys = ("optimizer", "scheduler", "loss", "data", "batch_size", "train_pairs", "val_pairs", "max_epochs")
    settings = {key: run.record.get(key) for key in keys}
    return json.dumps([run.study, run.model, _seedless(overrides), _seedless(settings)], sort_keys=True)


def _seedless(value: object) -> object:
    if isinstance(value, dict):
        return {key: _seedless(item) for key, item in value.items() if key != "seed"}
    return value
