"""Curves of a comparison against the epoch (Figures 2 to 4 of the report)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from n2n_lightning.reporting.comparison import PAIRS, PSNR, Comparison, Group, noisy_key
from n2n_lightning.reporting.figures import DARK, GREY, LIGHT, PngFigure, Theme, model_colours, png_bytes
from n2n_lightning.reporting.runs import Curve

STYLES = ["-", "--", ":", "-."]
HOPELESS_DB = 3.0  # this far below the noisy input a curve is left to the axis' edge
LOSS_RANGE = 8.0  # the loss axis ends at this multiple of the lowest loss


class Chart(NamedTuple):
    """What to call a figure of curves, and the entry of the record that it shows as a dashed line."""

    file: str
    title: str
    axis: str
    level: str = ""


CHARTS = {  # by column of metrics.csv
    PSNR: Chart("psnr.png", "Validation PSNR by epoch", "validation PSNR (dB)", noisy_key(PSNR)),
    PAIRS: Chart("psnr_pairs.png", "PSNR from noisy pairs by epoch", "PSNR from noisy pairs (dB)", noisy_key(PAIRS)),
    "train/loss": Chart("train_loss.png", "Training loss by epoch", "training loss"),
    "val/loss": Chart("val_loss.png", "Validation loss by epoch", "validation loss", "val/loss_floor"),
}


@dataclass(frozen=True)
class _Line:
    """A group's curve and how it is drawn."""

    group: Group
    curve: Curve
    spread: Curve  # standard deviation over the seeds; empty for one seed
    colour: str
    style: str
    bold: bool


def draw_curves(comparison: Comparison, column: str) -> PngFigure | None:
    """One line per group against the epoch; None where no run has the column."""
    lines = _lines(comparison, column)
    if not lines:
        return None
    figure, notes = _figure(comparison, column, lines, LIGHT)
    dark, _ = _figure(comparison, column, lines, DARK)
    chart = CHARTS[column]
    return PngFigure(chart.file, chart.title, " ".join(notes), png_bytes(figure), png_bytes(dark))


def _figure(comparison: Comparison, column: str, lines: Sequence[_Line], theme: Theme) -> tuple[Figure, list[str]]:
    """The figure, and the sentences that explain it."""
    figure = Figure(figsize=(9.6, 5.2), layout="constrained", facecolor=theme.paper)
    axes = figure.add_subplot()
    for line in lines:
        _draw_line(axes, line, theme)
    last = max(max(line.curve) for line in lines)
    is_loss, chart = "loss" in column, CHARTS[column]
    levels = _levels(comparison, chart.level)
    low, high = _loss_limits(lines, levels) if is_loss else _psnr_limits(lines, levels)
    unit = f" ({_loss_name(comparison)})" if is_loss else ""
    axes.set(xlim=(0.5, last + 0.5), ylim=(low, high), xlabel="epoch", ylabel=chart.axis + unit)
    axes.set_xticks(_epoch_ticks(last))
    notes = _notes(lines, low, high)
    notes += _draw_floor(axes, levels) if is_loss else _draw_baseline(axes, levels)
    notes += _mark_best(axes, lines, theme) if column == comparison.metric else []
    notes += _scale_by_logarithm(axes, low, high) if is_loss else []
    _dress(axes, theme)
    _name_lines(axes, lines, comparison, theme)
    return figure, notes


def _lines(comparison: Comparison, column: str) -> list[_Line]:
    """The lines to draw, each model's best group first. With too many settings to tell apart only that one is bold."""
    drawn = [(group, curve) for group in comparison.groups if (curve := group.curve(column))]
    colours = model_colours(comparison)
    settings = sorted({group.settings_text for group, _ in drawn})
    crowded = len(settings) > len(STYLES)
    lines: list[_Line] = []
    for group, curve in drawn:
        first = all(line.group.model != group.model for line in lines)
        style = STYLES[0] if crowded else STYLES[settings.index(group.settings_text)]
        curves = group.curves(column)
        spread = {e: statistics.stdev(one[e] for one in curves) for e in curve} if len(curves) > 1 else {}
        lines.append(_Line(group, curve, spread, colours[group.model], style, first or not crowded))
    return lines


def _draw_line(axes: Axes, line: _Line, theme: Theme) -> None:
    """The curve, a band of one standard deviation, and a mark where an unfinished or dead run stopped."""
    epochs, values = np.array(list(line.curve)), np.array(list(line.curve.values()))
    width, alpha, order = (2.0, 1.0, 3) if line.bold else (1.0, 0.4, 2)
    axes.plot(epochs, values, line.style, color=line.colour, lw=width, alpha=alpha, zorder=order)
    if line.spread and line.bold:
        spread = np.array(list(line.spread.values()))
        axes.fill_between(epochs, values - spread, values + spread, color=line.colour, alpha=0.15, lw=0)
    if line.group.runs[0].status != "done":
        marker, fill = ("o", theme.paper) if line.group.runs[0].status == "interrupted" else ("X", line.colour)
        axes.plot(epochs[-1], values[-1], marker, color=line.colour, mfc=fill, ms=7, zorder=4)
    elif len(epochs) == 1:
        axes.plot(epochs, values, "o", color=line.colour, ms=7, zorder=4)


def _psnr_limits(lines: Sequence[_Line], noisy: Sequence[float]) -> tuple[float, float]:
    """All of it, but for what lies far below the noisy input: one bad run must not press the others flat."""
    values = [value for line in lines for value in line.curve.values()]
    floor = min([*noisy, max(values)]) - HOPELESS_DB if noisy else min(values)
    low, high = min([*(value for value in values if value >= floor), *noisy]), max([*values, *noisy])
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def _loss_limits(lines: Sequence[_Line], floors: Sequence[float]) -> tuple[float, float]:
    """The floors, and from the lowest loss to a multiple of it; all of them where different losses differ in size."""
    values = [value for line in lines for value in line.curve.values()]
    low, high = min(values), max(values)
    one_loss = len({str(run.part("loss")) for line in lines for run in line.group.runs}) == 1
    if low <= 0:
        return low - 0.05 * (high - low or 1.0), high + 0.05 * (high - low or 1.0)
    high = min(high, LOSS_RANGE * low) if one_loss else high
    return min([low, *floors]) / 1.06, max([high, *floors]) * 1.06


def _notes(lines: Sequence[_Line], low: float, high: float) -> list[str]:
    """How to read the lines, and which of them the axis cuts off."""
    notes = []
    seeds = {len(line.group.runs) for line in lines} - {1}
    if seeds:
        notes.append(f"Mean of {' or '.join(str(n) for n in sorted(seeds))} seeds, band: one standard deviation.")
    if not all(line.bold for line in lines):
        notes.append("Bold: each model's best setting; thin: its other settings.")
    statuses = {line.group.runs[0].status for line in lines if low <= line.curve[max(line.curve)] <= high}
    if "interrupted" in statuses:
        notes.append("A ring marks where an unfinished run stands.")
    if statuses - {"interrupted", "done"}:
        notes.append("A cross marks the end of a run that died or failed.")
    below = dict.fromkeys(_name(line.group) for line in lines if min(line.curve.values()) < low)
    above = dict.fromkeys(_name(line.group) for line in lines if max(line.curve.values()) > high)
    for where, names in (("below", below), ("above", above)):
        if names:
            notes.append(f"Partly or wholly {where} the axis: {', '.join(names)}.")
    return notes


def _levels(comparison: Comparison, key: str) -> list[float]:
    """The distinct values of a number of the record, one for every data set; of many the lowest."""
    return sorted({float(f"{value:.4g}") for run in comparison.runs if (value := run.number(key)) is not None})[:4]


def _draw_baseline(axes: Axes, levels: Sequence[float]) -> list[str]:
    """A dashed line at the noisy input's own PSNR."""
    for level in levels:
        axes.axhline(level, color=GREY, lw=1.2, ls=(0, (5, 3)), zorder=1)
        _name_level(axes, level, f"noisy input {level:.2f} dB", at_right=True)
    return ["The dashed grey line is the noisy input."] if levels else []


def _draw_floor(axes: Axes, levels: Sequence[float]) -> list[str]:
    """A thin dashed line where the noise of the targets alone puts the loss."""
    for level in levels:
        axes.axhline(level, color=GREY, lw=0.8, ls=(0, (5, 3)), zorder=1)
        _name_level(axes, level, "floor: the targets' noise", at_right=False)  # curves begin high, and end low
    return ["Against noisy targets no net can come below the dashed grey line."] if levels else []


def _name_level(axes: Axes, level: float, text: str, *, at_right: bool) -> None:
    where, offset, side = ((1, level), (-4, 3), "right") if at_right else ((0, level), (4, 3), "left")
    at = ("axes fraction", "data")
    axes.annotate(text, where, offset, xycoords=at, textcoords="offset points", size=9.5, color=GREY, ha=side)


def _mark_best(axes: Axes, lines: Sequence[_Line], theme: Theme) -> list[str]:
    """A dot at the epoch whose weights a run keeps."""
    marked = [line for line in lines if line.bold and line.group.rank and len(line.group.runs) == 1]
    for line in marked:
        epoch = int(line.group.mean("best_epoch") or 0)
        if epoch in line.curve:
            axes.plot(epoch, line.curve[epoch], "o", color=line.colour, ms=7, mec=theme.paper, mew=1.2, zorder=4)
    return ["Dots are the best epochs."] if marked else []


def _scale_by_logarithm(axes: Axes, low: float, high: float) -> list[str]:
    """A logarithmic axis with few, round ticks; matplotlib's own leave less than a decade almost bare."""
    if low <= 0:
        return []
    axes.set_yscale("log")
    axes.minorticks_off()
    ladder = [1, 2, 5] if high / low > 20 else [1, 1.5, 2, 3, 4, 5, 7]
    ticks = [step * 10.0**power for power in range(-12, 7) for step in ladder]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) < 3:
        ticks = [float(tick) for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]
    axes.set_yticks(ticks, [f"{tick:.4g}" for tick in ticks])
    return ["The axis is logarithmic."]


def _epoch_ticks(last: int) -> list[int]:
    """The first epoch, then round ones: 1, 2, 4, ... or 1, 5, 10, ..."""
    step = next(step for power in range(9) for step in (10**power, 2 * 10**power, 5 * 10**power) if last <= 10 * step)
    return sorted({1, *range(step, last + 1, step)})


def _loss_name(comparison: Comparison) -> str:
    """The loss has no unit of its own; it is of images whose range is 1."""
    names = {str(run.part("loss").get("name") or "") for run in comparison.runs} - {""}
    return f"{names.pop().upper()}, images in 0 to 1" if len(names) == 1 else "images in 0 to 1"


def _dress(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor(theme.paper)
    axes.grid(axis="y", color=GREY, alpha=0.25, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(color=GREY, labelcolor=theme.ink, labelsize=10)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(size=11, color=theme.ink)


def _name(group: Group) -> str:
    extra = [group.settings_text] if group.settings else []
    if group.runs[0].status != "done":
        extra.append(group.runs[0].status)
    return f"{group.title} ({', '.join(extra)})" if extra else group.title


def _name_lines(axes: Axes, lines: Sequence[_Line], comparison: Comparison, theme: Theme) -> None:
    """Names at the lines' ends while each model has one line, else a key beside the axes."""
    if len(lines) <= 8 and len({line.group.model for line in lines}) == len(lines):
        _name_ends(axes, lines)
        return
    keys, all_bold = [], all(line.bold for line in lines)
    for model in comparison.models:
        line = next((line for line in lines if line.group.model == model), None)
        if line:
            text = line.group.title if all_bold else line.group.label
            keys.append(Line2D([], [], color=line.colour, lw=2.5, label=text))
    if all_bold:
        styles = {line.group.settings_text: line.style for line in lines if line.group.settings}
        keys += [
            Line2D([], [], color=theme.ink, lw=1.6, ls=style, label=text) for text, style in sorted(styles.items())
        ]
    place = (1.01, 0.5)
    axes.legend(
        handles=keys, loc="center left", bbox_to_anchor=place, frameon=False, handlelength=2.4, labelcolor=theme.ink
    )


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Sorted heights in 0..1, moved as little as leaves ``gap`` between them; those too close share a middle."""
    clusters: list[list[float]] = []
    for height in heights:
        clusters.append([height])
        while (
            len(clusters) > 1
            and _middle(clusters[-1]) - _middle(clusters[-2]) < gap * (len(clusters[-1]) + len(clusters[-2])) / 2
        ):
            clusters[-2:] = [clusters[-2] + clusters[-1]]
    places = [_middle(c) + gap * (i - (len(c) - 1) / 2) for c in clusters for i in range(len(c))]
    over = max(places[-1] - 1.0, 0.0) if places else 0.0
    return [place - over for place in places]


def _middle(heights: Sequence[float]) -> float:
    return sum(heights) / len(heights)


def _name_ends(axes: Axes, lines: Sequence[_Line]) -> None:
    """Each name at the right of the axes, at its line's height or as near as leaves room for the others."""
    to_fraction = axes.transScale + axes.transLimits
    ends = sorted(
        ((line, min(max(to_fraction.transform((1, list(line.curve.values())[-1]))[1], 0.0), 1.0)) for line in lines),
        key=lambda end: end[1],
    )
    places = _spread([height for _, height in ends], gap=0.055)
    for (line, _), place in zip(ends, places, strict=True):
        where, at, offset = (1, place), "axes fraction", "offset points"
        text = axes.annotate(_name(line.group), where, (6, 0), xycoords=at, textcoords=offset, va="center")
        text.set(color=line.colour, size=10, weight="bold")
