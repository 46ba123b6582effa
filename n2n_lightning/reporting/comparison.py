"""Compare runs: which of them differ only in the seed, which settings were swept, and which run is best.

``read_runs`` (in ``runs.py``) reads the folders, and ``compare_runs`` makes a ``Comparison`` of them. Tables, claims,
figures and the page are all made from that one object.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from n2n_lightning.reporting.runs import Curve, Run
from n2n_lightning.reporting.study import STUDY_MODELS, model_title
from n2n_lightning.system.run_names import SET_BY_MINUTES
from n2n_lightning.training.filter_scores import SURE

PSNR = "val/psnr"
PAIRS = "val/psnr_pairs"  # PSNR, estimated from pairs of noisy images


@dataclass(frozen=True)
class Group:
    """Runs of one model with the same settings and different seeds. A run that is not done is a group of its own."""

    runs: tuple[Run, ...]
    settings: dict[str, str]  # swept key -> its value in these runs
    metric: str  # that the comparison is ranked by
    rank: int | None = None  # 1 for the best; None if it is not ranked

    @property
    def model(self) -> str:
        return self.runs[0].model

    @property
    def title(self) -> str:
        return model_title(self.model)

    @property
    def status(self) -> str:
        return self.runs[0].status

    @property
    def settings_text(self) -> str:
        """The swept settings as text: ``optimizer sgd, train_pairs 2000``."""
        return ", ".join(f"{key.removeprefix('data.')} {value}" for key, value in self.settings.items())

    @property
    def label(self) -> str:
        """The title, and the swept settings if there are any."""
        return f"{self.title} ({self.settings_text})" if self.settings else self.title

    def numbers(self, key: str) -> list[float]:
        return [value for run in self.runs if (value := run.number(key)) is not None]

    def mean(self, key: str) -> float | None:
        numbers = self.numbers(key)
        return statistics.fmean(numbers) if numbers else None

    def sd(self, key: str) -> float | None:
        """Return the sample standard deviation over the seeds; None for fewer than two."""
        numbers = self.numbers(key)
        return statistics.stdev(numbers) if len(numbers) > 1 else None

    @property
    def best(self) -> float:
        """Mean of the best values that the comparison is ranked by; of a ranked group."""
        return self.mean(self.metric) or 0.0

    @property
    def gain_db(self) -> float | None:
        """PSNR of the estimate minus PSNR of the noisy input, mean over the seeds; both estimated if not measured."""
        keys = (self.metric, PAIRS, SURE)
        metric = next((key for key in keys if self.mean(key) is not None), self.metric)
        pairs = [(run.number(metric), run.number(noisy_key(metric))) for run in self.runs]
        gains = [psnr - noisy for psnr, noisy in pairs if psnr is not None and noisy is not None]
        return statistics.fmean(gains) if gains else None

    @property
    def best_filter_db(self) -> float | None:
        """Score of the best filter on the validation images, mean over the seeds."""
        scores = [found.best[1] for run in self.runs if (found := run.filter_scores)]
        return statistics.fmean(scores) if scores else None

    def curves(self, column: str) -> list[Curve]:
        """Return each run's curve, at the epochs that all runs have."""
        curves = [run.history.get(column, {}) for run in self.runs]
        common = sorted(set.intersection(*(set(curve) for curve in curves)))
        return [{epoch: curve[epoch] for epoch in common} for curve in curves]

    def curve(self, column: str) -> Curve:
        """Return the mean over the seeds, at each epoch."""
        curves = self.curves(column)
        return {epoch: statistics.fmean(curve[epoch] for curve in curves) for epoch in curves[0]}

    @property
    def own_optimizer(self) -> bool:
        """Whether the model was trained with the optimizer that its configuration brings.

        Training records it. For older runs it is found from their overrides: an optimizer that was chosen by hand is
        the model's own if it is the one of the course report.
        """
        run = self.runs[0]
        if isinstance(recorded := run.record.get("own_optimizer"), bool):
            return recorded
        if not any(key.split(".")[0] == "optimizer" for key in run.overrides):
            return True
        optimizer = run.part("optimizer")
        chosen = (str(optimizer.get("name")).lower(), optimizer.get("lr"))
        return self.model in STUDY_MODELS and chosen == STUDY_MODELS[self.model].optimizer


@dataclass(frozen=True)
class Comparison:
    """All runs of a folder: finished runs are grouped and ranked, each of the others is a group of its own."""

    runs: list[Run]
    metric: str  # that the runs are ranked by: one of the above, or "val/loss"
    swept: list[str]  # keys of overrides with more than one value, and "study" if there are several studies
    ranked: list[Group]  # best first
    others: list[Group]  # interrupted, dead, failed, or without the metric

    @property
    def groups(self) -> list[Group]:
        return self.ranked + self.others

    @property
    def models(self) -> list[str]:
        """Each model once: the course report's five in its order, then the others by name."""
        found = {run.model for run in self.runs}
        return [model for model in STUDY_MODELS if model in found] + sorted(found - STUDY_MODELS.keys())


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Group the runs that differ only in the seed, and rank the groups by the mean of their best value."""
    metric = _choose_metric(runs)
    swept = _swept_keys(runs)
    done = [run for run in runs if run.status == "done" and run.number(metric) is not None]
    same: dict[str, list[Run]] = {}
    for run in done:
        same.setdefault(_identity(run), []).append(run)

    def make_group(members: Sequence[Run]) -> Group:
        return Group(tuple(members), {key: setting_value(members[0], key) for key in swept}, metric)

    groups = sorted(map(make_group, same.values()), key=lambda group: sort_key(metric, group.best))
    ranked = [replace(group, rank=rank) for rank, group in enumerate(groups, start=1)]
    rest = [run for run in runs if run not in done]
    rest.sort(key=lambda run: (run.status != "interrupted", run.status, run.name))
    return Comparison(list(runs), metric, swept, ranked, [make_group([run]) for run in rest])


def sort_key(metric: str, value: float | None) -> float:
    """Return a number that is lower for better values: the loss itself, and minus the PSNR."""
    return (1 if "loss" in metric else -1) * (value or 0.0)


def noisy_key(metric: str) -> str:
    """Return the record's key for the metric of the noisy input; a record has none for a loss."""
    return metric.replace("val/", "noisy_")


def setting_value(run: Run, key: str) -> str:
    """Return an override's value, or the value in the run's configuration if it was not overridden."""
    if key == "study":
        return run.folder.resolve().parent.name if run.study == "." else run.study
    if key in run.overrides:
        return canonical_text(run.overrides[key])
    if key in SET_BY_MINUTES and run.part("config").get("minutes"):
        return "by minutes"
    configured, recorded = (_look_up(run.part("config"), key), _look_up(run.record, key))
    if configured is not _MISSING:
        return canonical_text(configured)
    return "default" if recorded is _MISSING or recorded is None else canonical_text(recorded)


_MISSING = object()


def _look_up(tree: object, key: str) -> object:
    """Return the value of a dotted key; of a group such as the optimizer its name."""
    for name in key.split("."):
        tree = tree.get(name, _MISSING) if isinstance(tree, dict) else _MISSING
    if isinstance(tree, dict):
        name = tree.get("name", _MISSING)
        return name.lower() if isinstance(name, str) else name
    return tree


def canonical_text(value: object) -> str:
    """Return one text for all ways to write a value: 1e-3 and 0.001, "[0.9, 0.99]" and [0.9,0.99]."""
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


def _choose_metric(runs: Sequence[Run]) -> str:
    """Return PSNR if a finished run has it, otherwise an estimate of it, otherwise what the runs monitored."""
    candidates = [run for run in runs if run.status == "done"] or runs
    monitors = [run.monitor for run in candidates] or [PSNR]
    keys = (PSNR, PAIRS, SURE, *monitors)
    return next((key for key in keys if any(run.number(key) is not None for run in candidates)), monitors[0])


def _swept_keys(runs: Sequence[Run]) -> list[str]:
    keys = sorted({key for run in runs for key in run.overrides} - {"seed"})
    swept = [key for key in keys if len({setting_value(run, key) for run in runs}) > 1]
    return ["study", *swept] if len({run.study for run in runs}) > 1 else swept


def _identity(run: Run) -> str:
    """Return a text that is the same for runs that differ only in the seed."""
    overrides = {key: canonical_text(value) for key, value in run.overrides.items()}
    keys = ("optimizer", "scheduler", "loss", "data", "batch_size", "train_pairs", "val_pairs", "max_epochs")
    settings = {key: run.record.get(key) for key in keys}
    return json.dumps([run.study, run.model, _without_seed(overrides), _without_seed(settings)], sort_keys=True)


def _without_seed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_seed(item) for key, item in value.items() if key != "seed"}
    return value
