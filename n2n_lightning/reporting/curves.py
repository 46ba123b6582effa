"""Curves of PSNR and loss against the epoch (Figures 2 to 4 of the course report)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from n2n_lightning.reporting.comparison import PAIRS, PSNR, Comparison, Group, noisy_key
from n2n_lightning.reporting.figures import DARK, GREY, LIGHT, PngFigure, Theme, model_colours, png_bytes
from n2n_lightning.training.filter_scores import SURE

LINE_STYLES = ["-", "--", ":", "-."]
MAX_BELOW_NOISY_DB = 3.0  # curves further below the noisy input are cut off by the axis
NARROW, DARK_THEME = "(max-width: 640px)", "(prefers-color-scheme: dark)"  # CSS media queries of the page
BESIDE_LETTERS, BELOW_LETTERS = 36, 52  # of a name in a legend beside the axes; of a line of one below a narrow figure
LEGEND_ROW_INCHES = 0.2
LOSS_RANGE = 8.0  # the loss axis ends at this multiple of the lowest loss


class Chart(NamedTuple):
    """The texts of a figure of curves, and the entry of the record that is drawn as a dashed line."""

    file: str
    title: str
    axis: str
    level: str = ""
    level_name: str = ""
    level_sentence: str = ""


NOISY_INPUT = ("noisy input {:.2f} dB", "The dashed grey line is the noisy input.")
LOSS_FLOOR = ("floor: the targets' noise", "With noisy targets no net can come below the dashed grey line.")
CHARTS = {  # column of metrics.csv -> chart
    PSNR: Chart("psnr.png", "Validation PSNR by epoch", "validation PSNR (dB)", noisy_key(PSNR), *NOISY_INPUT),
    PAIRS: Chart(
        *("psnr_pairs.png", "PSNR from noisy pairs by epoch", "PSNR from noisy pairs (dB)"),
        *(noisy_key(PAIRS), *NOISY_INPUT),
    ),
    SURE: Chart(
        "psnr_sure.png", "PSNR estimated by SURE, by epoch", "PSNR by SURE (dB)", noisy_key(SURE), *NOISY_INPUT
    ),
    "train/loss": Chart("train_loss.png", "Training loss by epoch", "training loss"),
    "val/loss": Chart("val_loss.png", "Validation loss by epoch", "validation loss", "val/loss_floor", *LOSS_FLOOR),
}


@dataclass(frozen=True)
class _GroupLine:
    """A group's curve, and how it is drawn."""

    group: Group
    epochs: NDArray[np.int64]
    mean: NDArray[np.float64]  # over the seeds
    deviation: NDArray[np.float64] | None  # standard deviation over the seeds; None for one seed
    colour: str
    style: str
    bold: bool
    best: float | None  # the epoch to mark as the best

    @property
    def name(self) -> str:
        extra = [self.group.settings_text] if self.group.settings else []
        extra += [self.group.status] if self.group.status != "done" else []
        return f"{self.group.title} ({', '.join(extra)})" if extra else self.group.title


def draw_curves(comparison: Comparison, column: str) -> PngFigure | None:
    """Draw one line per group against the epoch; None if no run has the column."""
    lines = _group_lines(comparison, column)
    if not lines:
        return None
    figure, sentences = _draw_figure(comparison, column, lines, LIGHT)
    variants = {
        media: png_bytes(_draw_figure(comparison, column, lines, theme, narrow="width" in media)[0])
        for media, theme in ((f"{NARROW} and {DARK_THEME}", DARK), (NARROW, LIGHT), (DARK_THEME, DARK))
    }
    chart = CHARTS[column]
    return PngFigure(chart.file, chart.title, " ".join(sentences), png_bytes(figure), variants)


def _group_lines(comparison: Comparison, column: str) -> list[_GroupLine]:
    """Return the lines to draw, each model's best group first.

    Where there are more settings than line styles, only each model's best group is bold.
    """
    drawn = [(group, curves) for group in comparison.groups if (curves := group.curves(column))[0]]
    colours = model_colours(comparison)
    settings = sorted({group.settings_text for group, _ in drawn})
    crowded = len(settings) > len(LINE_STYLES)
    lines: list[_GroupLine] = []
    for group, curves in drawn:
        bold = not crowded or all(line.group.model != group.model for line in lines)
        one_run = column == comparison.metric and bold and group.rank and len(group.runs) == 1
        best = group.mean("best_epoch") if one_run else None
        style = LINE_STYLES[0] if crowded else LINE_STYLES[settings.index(group.settings_text)]
        epochs, values = np.array(list(curves[0])), np.array([list(curve.values()) for curve in curves])
        mean, deviation = values.mean(0), values.std(0, ddof=1) if len(values) > 1 else None
        lines.append(_GroupLine(group, epochs, mean, deviation, colours[group.model], style, bold, best))
    return lines


def _draw_figure(
    comparison: Comparison, column: str, lines: Sequence[_GroupLine], theme: Theme, *, narrow: bool = False
) -> tuple[Figure, list[str]]:
    """Return the figure, for the screen of a telephone if ``narrow``, and the sentences that explain it."""
    size = (5.2, 4.6) if narrow else (9.6, 5.2)  # inches; text is 10 points in both
    figure = Figure(figsize=size, layout="constrained", facecolor=theme.paper)
    axes = figure.add_subplot()
    for line in lines:
        _draw_line(axes, line, theme)
    is_loss, chart = "loss" in column, CHARTS[column]
    recorded = {float(f"{value:.4g}") for run in comparison.runs if (value := run.number(chart.level)) is not None}
    levels = sorted(recorded)[:4]  # one for each data set
    low, high = _loss_limits(lines, levels) if is_loss else _psnr_limits(lines, levels)
    last = max(line.epochs[-1] for line in lines)
    losses = {str(name).upper() for run in comparison.runs if (name := run.part("loss").get("name"))}
    unit = f" ({', '.join([*(losses if len(losses) == 1 else ()), 'images in 0 to 1'])})" if is_loss else ""
    axes.set(xlim=(0.5, last + 0.5), ylim=(low, high), xlabel="epoch", ylabel=chart.axis + unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    sentences = _explain_lines(lines, low, high)
    for level in levels:
        _draw_level(axes, level, chart.level_name.format(level), at_right=not is_loss)  # losses start high and end low
    sentences += [chart.level_sentence] if levels else []
    if is_loss and low > 0:
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=[1, 2, 5] if high / low > 20 else [1, 1.5, 2, 3, 4, 5, 7]))
        axes.yaxis.set_major_formatter("{x:.4g}")
        sentences.append("The axis is logarithmic.")
    _style_axes(axes, theme)
    _name_lines(axes, lines, comparison, theme, below=narrow)
    return figure, sentences


def _draw_line(axes: Axes, line: _GroupLine, theme: Theme) -> None:
    """Draw the curve, a band of one standard deviation, and marks at its best epoch and at an unfinished end."""
    width, alpha, order = (2.0, 1.0, 3) if line.bold else (1.0, 0.4, 2)
    epochs, mean, colour = line.epochs, line.mean, line.colour
    axes.plot(epochs, mean, line.style, color=colour, lw=width, alpha=alpha, zorder=order)
    if line.deviation is not None and line.bold:
        axes.fill_between(epochs, mean - line.deviation, mean + line.deviation, color=colour, alpha=0.15, lw=0)
    if line.group.status != "done" or len(epochs) == 1:
        marker = "o" if line.group.status in ("done", "interrupted", "pruned") else "X"
        fill = theme.paper if line.group.status in ("interrupted", "pruned") else colour
        axes.plot(epochs[-1], mean[-1], marker, color=colour, mfc=fill, ms=7, zorder=4)
    best = epochs == line.best
    axes.plot(epochs[best], mean[best], "o", color=colour, ms=7, mec=theme.paper, mew=1.2, zorder=4)


def _psnr_limits(lines: Sequence[_GroupLine], noisy: Sequence[float]) -> tuple[float, float]:
    """Return the limits of the axis. Values far below the noisy input are cut off, to leave room for the others."""
    values = np.concatenate([line.mean for line in lines])
    lowest = min([*noisy, values.max()]) - MAX_BELOW_NOISY_DB if noisy else values.min()
    low, high = min([*values[values >= lowest], *noisy]), max([*values, *noisy])
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def _loss_limits(lines: Sequence[_GroupLine], floors: Sequence[float]) -> tuple[float, float]:
    """Return the limits of the axis, from the floors or the lowest loss up to a multiple of the lowest loss.

    Different losses differ in size: then all values are shown.
    """
    values = np.concatenate([line.mean for line in lines])
    low, high = float(values.min()), float(values.max())
    if low <= 0:
        margin = 0.05 * (high - low or 1.0)
        return low - margin, high + margin
    if len({str(run.part("loss")) for line in lines for run in line.group.runs}) == 1:
        high = min(high, LOSS_RANGE * low)
    return min([low, *floors]) / 1.06, max([high, *floors]) * 1.06


def _explain_lines(lines: Sequence[_GroupLine], low: float, high: float) -> list[str]:
    """Return sentences on how to read the lines, and which of them the axis cuts off."""
    sentences = []
    seeds = {len(line.group.runs) for line in lines} - {1}
    if seeds:
        sentences.append(f"Mean of {' or '.join(map(str, sorted(seeds)))} seeds, band: one standard deviation.")
    if not all(line.bold for line in lines):
        sentences.append("Bold: each model's best setting; thin: its other settings.")
    statuses = {line.group.status for line in lines if low <= line.mean[-1] <= high}
    if statuses & {"interrupted", "pruned"}:
        sentences.append("A ring marks the last epoch of an unfinished run.")
    if statuses - {"interrupted", "pruned", "done"}:
        sentences.append("A cross marks the end of a run that died or failed.")
    if any(line.best for line in lines):
        sentences.append("Dots are the best epochs.")
    below = dict.fromkeys(line.name for line in lines if line.mean.min() < low)
    above = dict.fromkeys(line.name for line in lines if line.mean.max() > high)
    for where, names in (("below", below), ("above", above)):
        if names:
            sentences.append(f"Partly or wholly {where} the axis: {', '.join(names)}.")
    return sentences


def _draw_level(axes: Axes, level: float, text: str, *, at_right: bool) -> None:
    """Draw a dashed horizontal line with its name."""
    axes.axhline(level, color=GREY, lw=1.0, ls=(0, (5, 3)), zorder=1)
    x, offset, side = (1, (-4, 3), "right") if at_right else (0, (4, 3), "left")
    where = ("axes fraction", "data")
    axes.annotate(text, (x, level), offset, xycoords=where, textcoords="offset points", size=9.5, color=GREY, ha=side)


def _style_axes(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor(theme.paper)
    axes.grid(axis="y", color=GREY, alpha=0.25, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(color=GREY, labelcolor=theme.ink, labelsize=10)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(size=11, color=theme.ink)


def _name_lines(axes: Axes, lines: Sequence[_GroupLine], comparison: Comparison, theme: Theme, *, below: bool) -> None:
    """Write names at the ends of the lines if each model has one, else in a legend beside or below the axes."""
    if not below and len(lines) <= 8 and len({line.group.model for line in lines}) == len(lines):
        _name_ends(axes, lines)
        return
    handles, all_bold = [], all(line.bold for line in lines)
    for model in comparison.models:
        line = next((line for line in lines if line.group.model == model), None)
        if line:
            label = line.group.title if all_bold else line.group.label
            handles.append(Line2D([], [], color=line.colour, lw=2.5, label=label))
    if all_bold:
        styles = sorted({(line.group.settings_text, line.style) for line in lines if line.group.settings})
        handles += [Line2D([], [], color=theme.ink, lw=1.6, ls=style, label=text) for text, style in styles]
    longest = max(len(str(handle.get_label())) for handle in handles)
    where: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}
    if below or longest > BESIDE_LETTERS:
        columns = 2 if below and longest <= BESIDE_LETTERS else 1
        where = {"loc": "upper left", "bbox_to_anchor": (0, -0.14), "ncols": columns, "columnspacing": 1}
    if longest > BESIDE_LETTERS:  # below, and the figure grows by what is below
        for handle in handles:
            handle.set_label(textwrap.fill(str(handle.get_label()), BELOW_LETTERS if below else 2 * BELOW_LETTERS))
        figure = axes.get_figure(root=True)
        assert figure is not None
        rows = sum(str(handle.get_label()).count("\n") + 1 for handle in handles)
        figure.set_figheight(figure.get_figheight() + LEGEND_ROW_INCHES * rows)
    axes.legend(handles=handles, frameon=False, handlelength=2.4, labelcolor=theme.ink, **where)


def _name_ends(axes: Axes, lines: Sequence[_GroupLine]) -> None:
    """Write each name at the right of the axes, as close to the end of its line as the other names allow."""
    to_fraction = axes.transScale + axes.transLimits
    ends = [(min(max(to_fraction.transform((1, line.mean[-1]))[1], 0.0), 1.0), line) for line in lines]
    ends.sort(key=lambda end: end[0])
    heights = spread_heights([height for height, _ in ends], gap=0.055)
    for (_, line), height in zip(ends, heights, strict=True):
        text = axes.annotate(
            line.name, (1, height), (6, 0), xycoords="axes fraction", textcoords="offset points", va="center"
        )
        text.set(color=line.colour, size=10, weight="bold")


def spread_heights(heights: Sequence[float], gap: float) -> list[float]:
    """Move sorted heights in 0..1 as little as possible so that they are at least ``gap`` apart."""
    steps = gap * np.arange(len(heights))
    spread = isotonic_regression(np.array(heights) - steps).x + steps  # the least sum of squared distances
    return [float(height) for height in spread - max(spread[-1] - 1, 0)]
