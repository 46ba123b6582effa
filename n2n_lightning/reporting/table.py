"""The table of a comparison: its columns, and the table as terminal text, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from n2n_lightning.reporting.comparison import PAIRS, PSNR, Comparison, Group, noisy_key

REPORT_PSNR_DB = {
    "unet": 25.55,
    "nn_relu": 23.79,
    "nn_sigmoid": 23.29,
    "convtrans_relu": 24.05,
    "convtrans_sigmoid": 23.44,
}  # the report's Table 2, measured on the course's data
NOTHING = "–"
METRIC_TITLES = {PSNR: "best PSNR (dB)", PAIRS: "PSNR from noisy pairs (dB)"}


@dataclass(frozen=True)
class Column:
    """One column: ``text`` for people, ``value`` for the CSV file (None leaves the cell empty)."""

    key: str
    title: str
    text: Callable[[Group], str]
    value: Callable[[Group], object]
    numeric: bool = True
    terminal: bool = True  # narrow enough, and needed, in a terminal


def columns(comparison: Comparison) -> list[Column]:
    """The columns that have something to say about these runs."""
    metric = comparison.metric
    found = [
        Column("rank", "#", lambda group: str(group.rank or NOTHING), lambda group: group.rank),
        Column("model", "model", lambda group: group.title, lambda group: group.model, numeric=False),
        *(_swept_column(key) for key in comparison.swept),
        Column("targets", "targets", targets_text, targets_text, numeric=False),
        _number_column(metric, METRIC_TITLES.get(metric, f"best {metric}"), 2 if "psnr" in metric else 5),
        Column("best_epoch", "epoch", _epoch_text, _epoch),
        _number_column("val/ssim", "SSIM", 3, spread=False),
        Column("params", "parameters", _parameters_text, _parameters, terminal=False),
        _number_column("gmac", "GMAC", 3, spread=False, significant=True, terminal=False),
        Column("images_per_second", "images/s", _speed_text, _speed, terminal=False),
        _number_column(noisy_key(metric), "noisy (dB)", 2, spread=False, terminal=False),
        Column("gain_db", "gain (dB)", lambda group: signed(group.gain_db), lambda group: group.gain_db),
        Column("report_psnr", "report (dB)*", _report_text, report_psnr_db, terminal=False),
        Column("status", "status", status_text, lambda group: group.runs[0].status, numeric=False),
    ]
    if metric != PSNR:
        found = [column for column in found if column.key != "report_psnr"]
    always = {"model", "status", metric}
    return [one for one in found if one.key in always or any(one.text(group) != NOTHING for group in comparison.groups)]


def report_psnr_db(group: Group) -> float | None:
    """What the report reached with this model and this optimizer, on the course's data."""
    return REPORT_PSNR_DB.get(group.model) if group.own_optimizer and group.runs[0].monitor == PSNR else None


def targets_text(group: Group) -> str:
    """``noisy, fixed``: what the targets were, and whether noise was drawn anew in every epoch."""
    data = group.runs[0].part("data")
    return f"{data.get('targets', 'noisy')}, {data.get('draws', 'fixed')}"


def status_text(group: Group) -> str:
    """``done``, ``interrupted (epoch 7/20: signal 15)``, ``dead (black image)``."""
    why = why_unranked(group)
    return f"{group.runs[0].status} ({why})" if why else group.runs[0].status


def why_unranked(group: Group) -> str:
    """How far a run came and why it is out of the ranking; empty for what is ranked."""
    run = group.runs[0]
    if group.rank:
        return ""
    if run.status == "done":
        score, lack = run.number(run.monitor), "clean images" if group.metric == PSNR else "pairs of noisy images"
        return "not measured" if score is None else f"no {lack}: {run.monitor} {score_text(run.monitor, score)}"
    words = [f"epoch {run.epochs_text}"] if run.status == "interrupted" else []
    return ": ".join([*words, *filter(None, [run.reason])])


def score_text(metric: str, value: float) -> str:
    """``25.60 dB``; a loss has no unit."""
    return f"{value:.2f} dB" if "psnr" in metric else f"{value:.4g}"


def signed(value: float | None, digits: int = 2) -> str:
    """+1.23, with a true minus sign for what is below zero."""
    return NOTHING if value is None else f"{value:+.{digits}f}".replace("-", "−")


def console_table(comparison: Comparison) -> Table:
    """The table for the terminal: the best is bold, what is out of the ranking is dim and has its reason below."""
    reasons = [f"{group.label}: {status_text(group)}" for group in comparison.others if why_unranked(group)]
    table = Table(header_style="bold", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, caption_justify="left")
    table.caption = Text("\n".join(reasons)) if reasons else None
    shown = [column for column in columns(comparison) if column.terminal]
    for column in shown:
        title = Text(column.title.replace("best PSNR (dB)", "PSNR dB").replace("(", "").replace(")", ""))
        table.add_column(title, justify="right" if column.numeric else "left", no_wrap=column.key == "model")
    for group in comparison.groups:
        style = "dim" if group.rank is None else "bold" if group.rank == 1 and len(comparison.ranked) > 1 else ""
        texts = [group.runs[0].status if column.key == "status" else column.text(group) for column in shown]
        table.add_row(*(Text(text) for text in texts), style=style)
    return table


def markdown(comparison: Comparison) -> str:
    """The table in Markdown, every column of it."""
    shown = columns(comparison)
    lines = [[column.title for column in shown], ["---:" if column.numeric else "---" for column in shown]]
    lines += [[column.text(group).replace("|", "\\|") for column in shown] for group in comparison.groups]
    text = "".join(f"| {' | '.join(' '.join(cell.split()) for cell in line)} |\n" for line in lines)
    return text + (f"\n{note}\n" if (note := footnote(shown)) else "")


def footnote(shown: Sequence[Column]) -> str:
    """What a reader must know of the columns; empty where they speak for themselves."""
    keys = {column.key for column in shown}
    if "report_psnr" in keys:
        return "* Table 2 of the report, measured on the course's own images: a landmark, not the same test."
    if PAIRS in keys:
        return "In brackets: the estimate's 95 % bootstrap interval; over several seeds, the means of its ends."
    return ""


def as_csv(comparison: Comparison) -> str:
    """The table as CSV: numbers unrounded, seeds counted, and the folders of the runs in the last column."""
    shown, metric = columns(comparison), comparison.metric
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    bounds = [f"{metric}_low", f"{metric}_high"] if metric == PAIRS else []
    writer.writerow([*(column.key for column in shown), f"{metric}_sd", *bounds, "seeds", "reason", "runs"])
    for group in comparison.groups:
        names = "; ".join(run.name for run in group.runs)
        cells = [column.value(group) for column in shown]
        cells += [group.sd(metric), *(group.mean(key) for key in bounds)]
        writer.writerow([*cells, len(group.runs), group.runs[0].reason or why_unranked(group), names])
    return file.getvalue()


def _swept_column(key: str) -> Column:
    def text(group: Group) -> str:
        return group.settings[key]

    return Column(key, key, text, text, numeric=False)


def _number_column(
    key: str, title: str, digits: int, *, spread: bool = True, significant: bool = False, terminal: bool = True
) -> Column:
    """The mean of a number and its interval; with ``spread`` also ``± sd (n)`` where there are several seeds."""
    form = f".{digits}{'g' if significant else 'f'}"

    def text(group: Group) -> str:
        mean, sd = group.mean(key), group.sd(key)
        if mean is None:
            return NOTHING
        seeds = f" ± {sd:{form}} ({len(group.numbers(key))})" if spread and sd is not None else ""
        low, high = group.mean(f"{key}_low"), group.mean(f"{key}_high")
        interval = "" if low is None or high is None else f" [{low:.1f}, {high:.1f}]"
        return f"{mean:{form}}{seeds}{interval}"

    return Column(key, title, text, lambda group: group.mean(key), terminal=terminal)


def _epoch_text(group: Group) -> str:
    """The best epoch; over several seeds, the first and the last of them."""
    epochs = [int(epoch) for epoch in group.numbers("best_epoch")]
    if not epochs:
        return NOTHING
    return str(epochs[0]) if min(epochs) == max(epochs) else f"{min(epochs)} to {max(epochs)}"


def _epoch(group: Group) -> float | None:
    return _whole(group.mean("best_epoch"))


def _parameters(group: Group) -> float | None:
    return _whole(group.mean("params"))


def _parameters_text(group: Group) -> str:
    return _thousands(group.mean("params"))


def _speed(group: Group) -> float | None:
    return group.mean("images_per_second")


def _speed_text(group: Group) -> str:
    return _thousands(_speed(group))


def _whole(value: float | None) -> float | None:
    """991203 and not 991203.0 where it is a whole number."""
    return int(value) if value is not None and value.is_integer() else value


def _thousands(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def _report_text(group: Group) -> str:
    value = report_psnr_db(group)
    return NOTHING if value is None else f"{value:.2f}"
