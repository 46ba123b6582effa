"""What a run's record says of filters beside its net. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

TITLES = {
    "median": "median",
    "gaussian": "Gaussian blur",
    "non_local_means": "non-local means",
    "total_variation": "total variation",
    "wavelet": "wavelets",
}
SURE = "val/psnr_sure"  # of runs on single images, where their noise is known
RANDOM_START = "starting from random weights"  # entry ``start`` of a record
NET = "net"  # beside the filters' names, where the net was scored on the same part of the validation images
LEARNT_CHANNELS = (1, 3)  # of the images that training can start from trained weights for
LEAST_LEAD_DB = 0.01  # of a filter: less is no difference


class FilterScores(NamedTuple):
    """The scores of a net and of filters on the same validation images, dB."""

    net: float
    filters: dict[str, float]  # title -> score, best first
    part: bool  # whether they were scored on a part of the validation images

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self | None:
        """Read the entry ``filters`` of a ``result.json``; None if it has none."""
        monitor = SURE if SURE in record else str(record.get("monitor"))
        entries = record.get("filters")
        if not isinstance(entries, dict):
            return None
        key = monitor.removeprefix("val/")
        found = {name: entry[key] for name, entry in entries.items() if isinstance(entry, dict) and key in entry}
        net = found.pop(NET, record.get(monitor))
        if net is None or not found:
            return None
        ranked = sorted(found, key=lambda name: found[name], reverse=True)
        return cls(net, {TITLES.get(name, name): found[name] for name in ranked}, NET in entries)

    @property
    def best(self) -> tuple[str, float]:
        """The title of the best filter, and its score."""
        return next(iter(self.filters.items()))

    @property
    def net_loses(self) -> bool:
        return self.net < self.best[1] - LEAST_LEAD_DB

    @property
    def text(self) -> str:
        """All scores: ``non-local means 35.1, Gaussian blur 33.9, median 33.0 dB``."""
        scores = ", ".join(f"{title} {score:.1f}" for title, score in self.filters.items()) + " dB"
        return f"on a part of the validation images: net {self.net:.1f}, {scores}" if self.part else scores

    @property
    def difference(self) -> str:
        """The best filter's lead: ``non-local means is 2.13 dB better``."""
        title, score = self.best
        return f"{title} is {score - self.net:.2f} dB better"


def advice(records: Sequence[Mapping[str, Any]]) -> str:
    """Return what may help nets that a filter is better than, by the records of their runs: what they did not do."""
    configs = [config if isinstance(config := record.get("config"), dict) else {} for record in records]
    settings = dict.fromkeys("minutes" if config.get("minutes") else "trainer.max_epochs" for config in configs)
    longer = f"train longer ({' or '.join(f'a larger {name}=' for name in settings)})"
    if all(record.get("best_epoch") == 0 for record in records):  # training has only harmed
        longer = "train with a smaller optimizer.lr"
    shapes = [record.get("image_shape") for record in records if record.get("start") in (None, RANDOM_START)]
    fit = [not shape or shape[0] in LEARNT_CHANNELS for shape in shapes]  # early versions recorded no shape
    start = ", or start from trained weights (init_from=...)" if any(fit) else ""
    each = ", or put each channel through trained weights (predict auto)" if not all(fit) else ""
    return longer + start + each
