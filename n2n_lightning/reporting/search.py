"""Read what a search has found: ``search.json`` in a study's folder, which the search writes after each trial."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from n2n_lightning.reporting.printing import EMPTY_CELL
from n2n_lightning.reporting.table import score_text
from n2n_lightning.system.atomic import read_json

FILE = "search.json"
STATES = ("complete", "pruned", "interrupted", "failed")  # in the order of the ranking


class Trial(NamedTuple):
    """One trial; the value of one that was pruned is that of its last epoch."""

    number: int
    state: str  # one of ``STATES``
    value: float | None
    epochs: int | None
    folder: str | None  # name of the run's folder
    params: dict[str, str]  # setting -> its value, in Hydra's syntax


@dataclass(frozen=True)
class Search:
    """A search with its trials, the best first."""

    monitor: str
    space: dict[str, str]  # setting -> its values, in Hydra's sweep syntax
    trials: list[Trial]
    importances: dict[str, float]  # setting -> its share in what the values differ by, the largest first; or empty

    @property
    def headline(self) -> str:
        """How many trials ended in which way, and the best settings."""
        counts = [(state, sum(trial.state == state for trial in self.trials)) for state in STATES]
        states = ", ".join(f"{count} {state}" for state, count in counts if count)
        text = f"{len(self.trials)} trials: {states}."
        best = self.trials[0] if self.trials else None
        if best is None or best.state != "complete":
            return text
        settings = ", ".join(f"{name} {value}" for name, value in best.params.items())
        return f"{text} The best, trial {best.number}, reaches {self.value_text(best)} with {settings}."

    def value_text(self, trial: Trial) -> str:
        return EMPTY_CELL if trial.value is None else score_text(self.monitor, trial.value)


def read_search(folder: Path) -> Search | None:
    """Return the search in a study's folder; None if it holds none."""
    record: dict[str, Any] = read_json(folder / FILE)
    if not record:
        return None
    sign = -1 if record["direction"] == "maximize" else 1

    def rank(trial: Trial) -> tuple[float, ...]:
        reached = 0 if trial.state == "complete" else -(trial.epochs or 0)
        return STATES.index(trial.state), reached, sign * (trial.value or 0.0), trial.number

    trials = sorted((Trial(**trial) for trial in record["trials"]), key=rank)
    return Search(str(record["monitor"]), record["space"], trials, record["importances"])
