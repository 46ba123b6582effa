"""The table of a comparison: its columns, and the table for the terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from n2n_lightning.reporting.comparison import PAIRS, PSNR, Comparison, Group, noisy_key
from n2n_lightning.reporting.printing import EMPTY_CELL, TextTable
from n2n_lightning.reporting.study import STUDY_MODELS
from n2n_lightning.training.filter_scores import SURE, advice

MAX_LISTED_GROUPS = 4  # a longer list of names becomes their number
METRIC_TITLES = {PSNR: "best PSNR (dB)", PAIRS: "PSNR from noisy pairs (dB)", SURE: "PSNR by SURE (dB)"}


@dataclass(frozen=True)
class Column:
    """One column: ``text`` for readers, ``value`` for the CSV file (None leaves the cell empty)."""

    key: str
    title: str
    text: Callable[[Group], str]
    value: Callable[[Group], object]
    numeric: bool = True
    terminal: bool = True  # shown in the terminal too, where there is less room


def columns(comparison: Comparison) -> list[Column]:
    """Return the columns that are not empty for these runs."""
    metric = comparison.metric
    estimates = [key for key in (PAIRS, SURE) if key != metric]  # of runs that are not ranked, as they have no other
    found = [
        Column("rank", "#", lambda group: str(group.rank or EMPTY_CELL), lambda group: group.rank),
        Column("model", "model", lambda group: group.title, lambda group: group.model, numeric=False),
        *(_swept_column(key) for key in comparison.swept),
        Column("targets", "targets", targets_text, targets_text, numeric=False),
        _metric_column(metric),
        *(_metric_column(key, of_others=True) for key in estimates),
        Column("best_epoch", "epoch", _epoch_text, lambda group: _integer(group.mean("best_epoch"))),
        _number_column("val/ssim", "SSIM", ".3f", terminal=True),
        _number_column("params", "parameters", ",.0f", lambda group: _integer(group.mean("params"))),
        _number_column("gmac", "GMAC", ".3g"),
        _number_column("images_per_second", "images/s", ",.0f"),
        _number_column(noisy_key(metric), "noisy (dB)", ".2f"),
        *(_noisy_column(key) for key in estimates),
        Column("best_filter", "best filter (dB)", _filter_text, lambda group: group.best_filter_db, terminal=False),
        Column("gain_db", "gain (dB)", lambda group: format_signed(group.gain_db), lambda group: group.gain_db),
        _number_column("report_psnr", "course report (dB)*", ".2f", report_psnr_db),
        Column("status", "status", status_text, lambda group: group.status, numeric=False),
    ]
    if metric != PSNR:
        found = [column for column in found if column.key != "report_psnr"]
    always = {"model", "status", metric}
    groups = comparison.groups
    return [c for c in found if c.key in always or any(c.text(group) != EMPTY_CELL for group in groups)]


def metric_title(metric: str) -> str:
    return METRIC_TITLES.get(metric, f"best {metric}")


def _swept_column(key: str) -> Column:
    def text(group: Group) -> str:
        return group.settings[key]

    return Column(key, key, text, text, numeric=False)


def _number_column(
    key: str, title: str, form: str, value: Callable[[Group], float | None] | None = None, *, terminal: bool = False
) -> Column:
    """Return a column of ``value``, by default the mean of ``key``, with a format for the text."""
    number = value or (lambda group: group.mean(key))

    def text(group: Group) -> str:
        return EMPTY_CELL if (found := number(group)) is None else f"{found:{form}}"

    return Column(key, title, text, number, terminal=terminal)


def _metric_column(metric: str, *, of_others: bool = False) -> Column:
    """Return the column of a score: the mean, ``± sd (n)`` for n > 1 seeds, and the interval of an estimate.

    It ranks the groups; one ``of_others`` is of groups that are not ranked.
    """
    form = ".2f" if "psnr" in metric else ".5f"

    def text(group: Group) -> str:
        mean, sd = group.mean(metric), group.sd(metric)
        if mean is None or (of_others and group.rank):
            return EMPTY_CELL
        spread = "" if sd is None else f" ± {sd:{form}} ({len(group.numbers(metric))})"
        low, high = group.mean(f"{metric}_low"), group.mean(f"{metric}_high")
        interval = "" if low is None or high is None else f" [{low:.1f}, {high:.1f}]"
        return f"{mean:{form}}{spread}{interval}"

    return Column(metric, metric_title(metric), text, lambda group: group.mean(metric))


def _noisy_column(metric: str) -> Column:
    """Return the column of the noisy input's score, estimated as that of groups that are not ranked is."""
    key = noisy_key(metric)

    def value(group: Group) -> float | None:
        return None if group.rank else group.mean(key)

    estimate = METRIC_TITLES[metric].removesuffix(" (dB)").removeprefix("PSNR ")
    return _number_column(key, f"noisy, {estimate} (dB)", ".2f", value)


def _epoch_text(group: Group) -> str:
    """Return the best epoch; of several seeds, the first and the last best epoch."""
    epochs = [int(epoch) for epoch in group.numbers("best_epoch")]
    if not epochs:
        return EMPTY_CELL
    return str(epochs[0]) if min(epochs) == max(epochs) else f"{min(epochs)} to {max(epochs)}"


def _filter_text(group: Group) -> str:
    """Return ``29.76, non-local means``: the mean over the seeds, and the best filter of the first."""
    scores, mean = group.runs[0].filter_scores, group.best_filter_db
    return EMPTY_CELL if scores is None or mean is None else f"{mean:.2f}, {scores.best[0]}"


def _integer(value: float | None) -> float | None:
    """Return 991203 and not 991203.0; a mean that is no integer stays a float."""
    return int(value) if value is not None and value.is_integer() else value


def report_psnr_db(group: Group) -> float | None:
    """Return the course report's PSNR of this model on its data, if the model has its own optimizer here too."""
    own = group.model in STUDY_MODELS and group.own_optimizer and group.runs[0].monitor == PSNR
    return STUDY_MODELS[group.model].psnr_db if own else None


def targets_text(group: Group) -> str:
    """Return ``noisy, fixed``: the kind of targets, and whether noise was drawn once or anew in every epoch."""
    data = group.runs[0].part("data")
    return f"{data.get('targets', 'noisy')}, {data.get('draws', 'fixed')}"


def status_text(group: Group) -> str:
    """Return ``done``, ``interrupted (epoch 7/20: signal 15)``, ``dead (black image)``."""
    why = why_unranked(group)
    return f"{group.status} ({why})" if why else group.status


def why_unranked(group: Group) -> str:
    """Return how far a run came and why it is not ranked; empty for a ranked group."""
    run = group.runs[0]
    if group.rank:
        return ""
    if run.status == "done":
        score, lack = run.number(run.monitor), "clean images" if group.metric == PSNR else "pairs of noisy images"
        return "not measured" if score is None else f"no {lack}: {run.monitor} {score_text(run.monitor, score)}"
    words = [f"epoch {run.epochs_text}"] if run.status == "interrupted" else []
    return ": ".join([*words, *filter(None, [run.reason])])


def score_text(metric: str, value: float) -> str:
    """Return ``25.60 dB``; a loss has no unit."""
    return f"{value:.2f} dB" if "psnr" in metric else f"{value:.4g}"


def format_signed(value: float | None) -> str:
    """Return +1.23, with a true minus sign for negative numbers."""
    return EMPTY_CELL if value is None else f"{value:+.2f}".replace("-", "−")


def print_comparison(comparison: Comparison, *, reasons: bool = True) -> None:
    """Print the table, and below it, unless ``reasons`` is false, why some runs are not ranked."""
    terminal_table(comparison).show()
    for group in comparison.others:
        if reasons and why_unranked(group):
            print(f"{group.label}: {status_text(group)}")


def terminal_table(comparison: Comparison) -> TextTable:
    """Return the table for the terminal: the best row is bold, rows that are not ranked are dim."""
    shown = [column for column in columns(comparison) if column.terminal]
    titles = [column.title.replace("best PSNR (dB)", "PSNR dB").replace("(", "").replace(")", "") for column in shown]
    numeric = [column.numeric for column in shown]
    best = "bold" if len(comparison.ranked) > 1 else ""
    styles = [best if group.rank == 1 else "" if group.rank else "dim" for group in comparison.groups]
    return TextTable(titles, row_texts(comparison, shown), numeric, styles, fold=True, unbroken="model")


def row_texts(comparison: Comparison, shown: Sequence[Column]) -> list[list[str]]:
    """Return the texts of all rows, with the bare status: its reason stands below the row or the table."""
    return [
        [group.status if column.key == "status" else column.text(group) for column in shown]
        for group in comparison.groups
    ]


def comparison_markdown(comparison: Comparison) -> str:
    """Return the table in Markdown, with every column."""
    shown = columns(comparison)
    rows = [[column.text(group) for column in shown] for group in comparison.groups]
    table = TextTable([column.title for column in shown], rows, [column.numeric for column in shown]).markdown()
    below = (footnote(shown), filter_line(comparison), filter_warning(comparison))
    return "\n".join([table, *(f"{text}\n" for text in below if text)])


def footnote(shown: Sequence[Column]) -> str:
    """Return what a reader must know about the columns; empty where their titles are enough."""
    texts = {
        "report_psnr": "* Table 2 of the course report, measured on the course's own images: a reference, not the same "
        "test.",
        PAIRS: "In brackets: the estimate's 95 % bootstrap interval; for several seeds, the means of its ends.",
    }
    keys = {column.key for column in shown}
    return " ".join(text for key, text in texts.items() if key in keys)


def filter_line(comparison: Comparison) -> str:
    """Return what each filter reaches on the validation images; empty without filters."""
    scored = [(group, scores) for group in comparison.groups if (scores := group.runs[0].filter_scores)]
    texts = list(dict.fromkeys(scores.text for _, scores in scored))
    if len(texts) <= 1:
        return f"Filters on the same validation images, each with its best strength: {texts[0]}." if texts else ""
    listed = "; ".join(f"{group.label}: {scores.text}" for group, scores in scored)
    return f"Filters on the validation images of each row, each with its best strength. {listed}."


def filter_warning(comparison: Comparison) -> str:
    """Return which nets a filter is better than, and what helps; empty if there is none."""
    scored = [(group, scores) for group in comparison.groups if (scores := group.runs[0].filter_scores)]
    losing = [(group, scores) for group, scores in scored if scores.net_loses]
    if not losing:
        return ""
    which = "; ".join(f"{group.label}: {scores.difference}" for group, scores in losing)
    which = which if len(losing) <= MAX_LISTED_GROUPS else f"{len(losing)} of {len(scored)} rows"
    helps = advice([group.runs[0].record for group, _ in losing])
    return f"A filter that needs no training is better than the net ({which}): {helps}."


def comparison_csv(comparison: Comparison) -> str:
    """Return the table as CSV: numbers are not rounded, and the last column names the folders of the runs."""
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
