"""The figure of a search: parallel coordinates, a line for each trial through its settings to its value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from n2n_lightning.reporting.figures import DARK, GREY, LIGHT, PngFigure, Theme, png_bytes
from n2n_lightning.reporting.search import Search, Trial

FILE = "search.png"
COLOURS = colormaps["viridis"]
TICKS = 5  # of an axis with numbers
FAR = 1.5  # times the range of the middle half: as in a box plot, values further away do not stretch the axis


class Coordinate(NamedTuple):
    """A vertical axis: the height of each value, from 0 to 1, and its ticks."""

    title: str
    heights: dict[str, float]  # value -> height
    ticks: dict[float, str]  # height -> text


def draw_search(search: Search) -> list[PngFigure]:
    """Return the figure, in light and dark; none with fewer than two trials that have a value."""
    shown = [trial for trial in search.trials if trial.value is not None]
    if len({trial.value for trial in shown if trial.state == "complete"}) < 2:
        return []
    caption = (
        f"Each line is a trial: its settings, and at the right its {search.monitor}, from low (violet) to high "
        "(yellow). Grey trials were pruned."
    )
    light, dark = (png_bytes(draw(search, shown, theme)) for theme in (LIGHT, DARK))
    variants = {"(prefers-color-scheme: dark)": dark}
    return [PngFigure(FILE, "What the trials set, and what they reached", caption, light, variants)]


def draw(search: Search, trials: Sequence[Trial], theme: Theme) -> Figure:
    """Draw the trials that have a value."""
    names = list(search.importances) or list(search.space)
    coordinates = [make_coordinate(search, name, [trial.params[name] for trial in trials]) for name in names]
    coordinates.append(value_coordinate(search.monitor, trials))
    figure = Figure(figsize=(9.6, 4.6), layout="constrained", facecolor=theme.paper)
    axes = figure.add_subplot()
    for trial in reversed(trials):  # the best on top
        words = [*(trial.params[name] for name in names), str(trial.value)]
        heights = [coordinate.heights[word] for coordinate, word in zip(coordinates, words, strict=True)]
        done = trial.state == "complete"
        colour = COLOURS(0.9 * heights[-1]) if done else GREY
        axes.plot(heights, color=colour, lw=1.8 if done else 0.9, alpha=0.9 if done else 0.5)
    for place, coordinate in enumerate(coordinates):
        draw_coordinate(axes, place, coordinate, theme)
    axes.set(xlim=(-0.15, len(coordinates) - 0.55), ylim=(-0.06, 1.04), xticks=range(len(coordinates)), yticks=[])
    axes.set_xticklabels([coordinate.title for coordinate in coordinates])
    axes.tick_params(length=0, labelcolor=theme.ink, labelsize=11)
    axes.set_facecolor(theme.paper)
    axes.spines[:].set_visible(False)
    return figure


def draw_coordinate(axes: Axes, place: int, coordinate: Coordinate, theme: Theme) -> None:
    """Draw the vertical axis at a place, with its ticks."""
    axes.axvline(place, color=GREY, lw=1.0, zorder=3)
    for height, text in coordinate.ticks.items():
        box = {"boxstyle": "round,pad=0.15", "fc": theme.paper, "ec": "none", "alpha": 0.75}
        axes.annotate(
            text, (place, height), (5, 0), textcoords="offset points", size=9.5, color=theme.ink, va="center", bbox=box
        )


def make_coordinate(search: Search, name: str, values: Sequence[str]) -> Coordinate:
    """Return the axis of a setting: numbers of a range have a scale, choices a place each."""
    space = search.space[name]
    distinct = sorted(set(values), key=lambda value: (number(value) is None, number(value) or 0.0, value))
    numbers = [found for value in distinct if (found := number(value)) is not None]
    if len(numbers) < len(distinct) or not ("interval" in space or "range" in space):
        last = max(1, len(distinct) - 1)
        heights = {value: place / last for place, value in enumerate(distinct)}
        return Coordinate(name, heights, {height: value for value, height in heights.items()})
    logarithmic = "log" in space and numbers[0] > 0
    scaled = [math.log(found) if logarithmic else found for found in numbers]
    low, span = scaled[0], (scaled[-1] - scaled[0]) or 1.0
    heights = {value: (found - low) / span for value, found in zip(distinct, scaled, strict=True)}
    ends = [place / (TICKS - 1) for place in range(TICKS)] if len(distinct) > 1 else [0.0]
    texts = [low + height * span for height in ends]
    ticks = {height: f"{math.exp(t) if logarithmic else t:.3g}" for height, t in zip(ends, texts, strict=True)}
    return Coordinate(f"{name} (log)" if logarithmic else name, heights, ticks)


def value_coordinate(monitor: str, trials: Sequence[Trial]) -> Coordinate:
    """Return the axis of the monitor. It ends where values are far from those of most trials that were not pruned."""
    values = [trial.value or 0.0 for trial in trials]
    first, third = np.quantile([trial.value for trial in trials if trial.state == "complete"], [0.25, 0.75])
    reach = FAR * (third - first)
    low, high = max(min(values), first - reach), min(max(values), third + reach)
    span = (high - low) or 1.0
    heights = {str(value): min(max((value - low) / span, 0.0), 1.0) for value in values}
    ticks = {place / (TICKS - 1): f"{low + span * place / (TICKS - 1):.4g}" for place in range(TICKS)}
    ticks[0.0] = f"≤ {ticks[0.0]}" if min(values) < low else ticks[0.0]
    ticks[1.0] = f"≥ {ticks[1.0]}" if max(values) > high else ticks[1.0]
    return Coordinate(monitor, heights, ticks)


def number(text: str) -> float | None:
    """Return the number that a value is, or None."""
    try:
        return float(text)
    except ValueError:
        return None
