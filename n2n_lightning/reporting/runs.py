"""Read the folders of runs: ``result.json`` and ``metrics.csv`` of every run below a folder."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from n2n_lightning.training.filter_scores import FilterScores

Curve = dict[int, float]  # epoch, counted from 1 -> value


@dataclass(frozen=True)
class Run:
    """One run: ``record`` is its result.json, ``history`` has a curve for each column of metrics.csv."""

    folder: Path
    name: str  # path of the folder, relative to the folder that was searched
    study: str  # path of the folder around it, relative as well; "." for the searched folder itself
    model: str
    status: str  # "done", "dead", "pruned", "failed" or "interrupted"
    reason: str
    overrides: dict[str, str]
    record: dict[str, Any]
    history: dict[str, Curve]

    def number(self, key: str) -> float | None:
        """Return a number of the record; None if it is missing, NaN or infinite."""
        value = self.record.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        return float(value) if math.isfinite(value) else None

    def part(self, key: str) -> dict[str, Any]:
        """Return an object of the record (optimizer, data, versions, ...); empty if it is missing."""
        value = self.record.get(key)
        return value if isinstance(value, dict) else {}

    @property
    def monitor(self) -> str:
        return str(self.record.get("monitor") or "val/psnr")

    @property
    def filter_scores(self) -> FilterScores | None:
        """The scores of filters on its validation images; None if it has none."""
        return FilterScores.read(self.record)

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Shape of its images, (C, H, W)."""
        match self.record.get("image_shape"):
            case [int(channels), int(height), int(width)]:
                return channels, height, width
        return None

    @property
    def epochs_text(self) -> str:
        """Finished and planned epochs: ``7/20``."""
        done, planned = self.number("epochs") or 0, self.number("max_epochs")
        return f"{done:.0f}/{planned:.0f}" if planned else f"{done:.0f}"


class FoundRuns(NamedTuple):
    """The runs in a folder, sorted by name, and a warning for each run that could not be read."""

    runs: list[Run]
    warnings: list[str]


def read_runs(folder: Path) -> FoundRuns:
    """Read every run at any depth below ``folder``; a folder with a result.json is a run."""
    runs, warnings = [], []
    for path in sorted(folder.rglob("result.json")):
        try:
            runs.append(read_run(path.parent, root=folder))
        except (OSError, ValueError) as error:
            warnings.append(f"{path.relative_to(folder)} is left out, because it cannot be read: {error}")
    return FoundRuns(runs, warnings)


def read_run(folder: Path, *, root: Path | None = None) -> Run:
    """Read the folder of one run.

    Args:
        folder: the run's.
        root: the folder that was searched; by default the run's parent.

    Raises:
        ValueError, OSError: it has no result.json of a run.
    """
    record = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    if not isinstance(record, dict):
        raise ValueError(f"expected a JSON object, got {type(record).__name__}")
    missing = [key for key in ("model", "status") if not isinstance(record.get(key), str)]
    if missing:
        raise ValueError(f"it has no {' and no '.join(missing)}")
    overrides = record.get("overrides")
    relative = folder.relative_to(root) if root else Path(folder.name)
    at_root = relative == Path(".")
    return Run(
        folder=folder,
        name=folder.resolve().name if at_root else relative.as_posix(),
        study="." if at_root else relative.parent.as_posix(),
        model=record["model"],
        status=record["status"],
        reason=str(record.get("reason") or ""),
        overrides={str(k).lstrip("+"): str(v) for k, v in overrides.items()} if isinstance(overrides, dict) else {},
        record=record,
        history=_read_history(folder / "metrics.csv"),
    )


def _read_history(path: Path) -> dict[str, Curve]:
    """Read column -> curve. Cells without a finite number are skipped; a later row of an epoch replaces the earlier."""
    history: dict[str, Curve] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return history
    for row in rows:
        numbers = {column: value for column, cell in row.items() if (value := _finite(cell)) is not None}
        epoch = numbers.pop("epoch", None)
        if epoch is not None:
            for column, value in numbers.items():
                history.setdefault(column, {})[int(epoch)] = value
    return history


def _finite(cell: object) -> float | None:
    try:
        value = float(cell) if isinstance(cell, str) else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
