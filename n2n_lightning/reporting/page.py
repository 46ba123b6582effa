"""The report's page: one HTML file with the figures in it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from n2n_lightning import __version__
from n2n_lightning.reporting.architecture import sequential_rows
from n2n_lightning.reporting.claims import judge_study_claims
from n2n_lightning.reporting.comparison import Comparison, noisy_key
from n2n_lightning.reporting.figures import PngFigure, model_colours
from n2n_lightning.reporting.printing import EMPTY_CELL
from n2n_lightning.reporting.search import Search
from n2n_lightning.reporting.study import SEQUENTIAL_MODELS
from n2n_lightning.reporting.summary import format_duration, headline, notes, settings_list
from n2n_lightning.reporting.table import Column, columns, filter_line, footnote, metric_title, row_texts, why_unranked


class PageFigures(NamedTuple):
    """The figures of each section of the page."""

    curves: list[PngFigure]
    images: list[PngFigure]
    networks: list[PngFigure]
    search: list[PngFigure] = []  # noqa: RUF012  # a NamedTuple's default


def render_page(
    comparison: Comparison,
    figures: PageFigures,
    *,
    name: str,
    warnings: Sequence[str] = (),
    search: Search | None = None,
) -> str:
    """Return the page as HTML.

    Args:
        comparison: the runs.
        figures: are put into the page.
        name: of the study.
        warnings: about runs that could not be read.
        search: that the runs are the trials of.
    """
    environment = Environment(
        loader=PackageLoader("n2n_lightning", "reporting"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {
        "b64": lambda content: base64.b64encode(content).decode(),
        "digits": lambda value: EMPTY_CELL if value is None else f"{value:.4g}",
        "time": lambda seconds: EMPTY_CELL if seconds is None else format_duration(seconds),
    }
    shown = columns(comparison)
    now = datetime.now(UTC)
    return environment.get_template("page.html.jinja").render(
        name=name,
        date=f"{now.day} {now:%B %Y, %H:%M} UTC",
        version=__version__,
        headline=headline(comparison),
        notes=[*warnings, *notes(comparison)],
        columns=shown,
        rows=_page_rows(comparison, shown),
        metric=comparison.metric,
        metric_title=metric_title(comparison.metric),
        seeds=any(len(group.runs) > 1 for group in comparison.ranked),
        footnote=footnote(shown),
        filter_line=filter_line(comparison),
        figures=figures,
        search=search,
        sequential=_sequential_table(comparison),
        judgement=judge_study_claims(comparison),
        settings=settings_list(comparison),
        runs=comparison.runs,
        monitors={run.monitor for run in comparison.runs},
    )


def _page_rows(comparison: Comparison, shown: Sequence[Column]) -> list[dict[str, Any]]:
    """Return the table's rows with the model's colour, and a bar: the share of the best run's gain, in percent."""
    colours = model_colours(comparison)
    metric = comparison.metric
    noisy = [value for group in comparison.ranked for value in group.numbers(noisy_key(metric))]
    best = [value for group in comparison.ranked for value in group.numbers(metric)]
    span = max(best) - min(noisy) if noisy and best else 0.0
    rows = []
    for index, (group, texts) in enumerate(zip(comparison.groups, row_texts(comparison, shown), strict=True)):
        share = round(max(0.0, 100 * (group.best - min(noisy)) / span), 1) if group.rank and span > 0 else None
        why = why_unranked(group)
        styles = ["best" * (group.rank == 1), "out" * (not group.rank), "reasoned" * bool(why)]
        styles += ["first" * (index == len(comparison.ranked))]
        cells = list(zip(shown, texts, strict=True))
        kind = " ".join(filter(None, styles))
        rows.append({"cells": cells, "kind": kind, "share": share, "colour": colours[group.model], "why": why})
    return rows


def _sequential_table(comparison: Comparison) -> list[tuple[str, str, int]]:
    """Return Table 1 of the course report if a sequential model was run."""
    runs = [run for run in comparison.runs if run.model in SEQUENTIAL_MODELS]
    if not runs:
        return []
    channels, *_ = next((shape for run in runs if (shape := run.image_shape)), (3,))
    return sequential_rows(channels)
