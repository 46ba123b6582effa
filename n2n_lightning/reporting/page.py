"""The report's page: one HTML file with the pictures in it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from n2n_lightning import __version__
from n2n_lightning.reporting.architecture import sequential_rows
from n2n_lightning.reporting.claims import FAILS, HOLDS, judge_study_claims
from n2n_lightning.reporting.comparison import MODEL_TITLES, Comparison, noisy_key
from n2n_lightning.reporting.figures import PngFigure, model_colours
from n2n_lightning.reporting.summary import duration, headline, notes, settings
from n2n_lightning.reporting.table import METRIC_TITLES, NOTHING, Column, columns, footnote, why_unranked


class Pictures(NamedTuple):
    """The figures, by section of the page."""

    curves: list[PngFigure]
    images: list[PngFigure]
    networks: list[PngFigure]


def render(comparison: Comparison, pictures: Pictures, *, name: str, warnings: Sequence[str] = ()) -> str:
    """The page. ``name`` is the study's; ``warnings`` are of runs that could not be read."""
    environment = Environment(
        loader=PackageLoader("n2n_lightning", "reporting"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {"b64": _base64, "mood": _mood, "digits": _digits, "time": _time}
    shown = columns(comparison)
    now = datetime.now(UTC)
    return environment.get_template("page.html.jinja").render(
        name=name,
        date=f"{now.day} {now:%B %Y, %H:%M} UTC",
        version=__version__,
        headline=headline(comparison),
        notes=[*warnings, *notes(comparison)],
        columns=shown,
        rows=_rows(comparison, shown),
        metric=comparison.metric,
        metric_title=METRIC_TITLES.get(comparison.metric, comparison.metric),
        seeds=any(len(group.runs) > 1 for group in comparison.ranked),
        footnote=footnote(shown),
        pictures=pictures,
        sequential=_sequential(comparison),
        judgement=judge_study_claims(comparison),
        settings=settings(comparison),
        runs=comparison.runs,
        monitors={run.monitor for run in comparison.runs},
    )


def _rows(comparison: Comparison, shown: Sequence[Column]) -> list[dict[str, Any]]:
    """The table's rows and what a page adds: the model's colour, and the metric as a bar from the noisy input on."""
    colours = model_colours(comparison)
    metric = comparison.metric
    noisy = [value for group in comparison.ranked for value in group.numbers(noisy_key(metric))]
    best = [value for group in comparison.ranked for value in group.numbers(metric)]
    span = max(best) - min(noisy) if noisy and best else 0.0
    rows = []
    for index, group in enumerate(comparison.groups):
        psnr = group.mean(metric) if group.rank else None
        share = round(max(0.0, 100 * (psnr - min(noisy)) / span), 1) if psnr is not None and span > 0 else None
        kind = {0: "best"}.get(index, "") if group.rank else "out"
        if index == len(comparison.ranked):
            kind += " first"
        why = why_unranked(group)
        kind += " reasoned" if why else ""
        texts = [group.runs[0].status if column.key == "status" else column.text(group) for column in shown]
        cells = list(zip(shown, texts, strict=True))
        rows.append({"cells": cells, "kind": kind, "share": share, "colour": colours[group.model], "why": why})
    return rows


def _sequential(comparison: Comparison) -> list[tuple[str, str, int]]:
    """Table 1 of the report, where a sequential model was run."""
    runs = [run for run in comparison.runs if run.model in MODEL_TITLES and run.model != "unet"]
    if not runs:
        return []
    shape = next((shape for run in runs if (shape := run.image_shape)), (3, 0, 0))
    return sequential_rows(shape[0])


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _mood(verdict: object) -> str:
    """The style of a verdict or of a check's result."""
    return "yes" if verdict in (True, HOLDS) else "no" if verdict in (False, FAILS) else "open"


def _digits(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4g}"


def _time(seconds: float | None) -> str:
    return NOTHING if seconds is None else duration(seconds)
