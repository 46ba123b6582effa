"""What a comparison says in words: the headline, the caveats, and the settings the runs were made with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from n2n_lightning.reporting.comparison import PAIRS, PSNR, Comparison, Group, noisy_key
from n2n_lightning.reporting.runs import Run
from n2n_lightning.reporting.table import METRIC_TITLES, score_text, signed

SAME_NOISE_DB = 0.01  # noisy inputs further apart than this are not the same images
MANY = 4  # more names than this make a list that nobody reads
# entries of a run's data that do not change its images
NO_DATA = {"seed", "batch_size", "val_batch_size", "num_workers", "cache_dir", "overfit_steps", "augment"}


@dataclass(frozen=True)
class Headline:
    """The main finding, the sentence below it, and a few figures: (figure, what it is)."""

    title: str
    lede: str
    figures: list[tuple[str, str]]


def headline(comparison: Comparison) -> Headline:
    """The main finding, from the runs alone."""
    statuses = Counter(run.status for run in comparison.runs)
    done, total = statuses["done"], len(comparison.runs)
    if not comparison.ranked:
        states = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
        title = "No run has finished yet" if statuses["interrupted"] else "No run came to a good end"
        return Headline(title, f"Of {total} {'run' if total == 1 else 'runs'}: {states}.", [])
    best, rival = comparison.ranked[0], _rival(comparison)
    title = _title(comparison, best, rival)
    sentences = [_gain_sentence(comparison, best), _chance_sentence(comparison, best, rival)]
    if comparison.metric == PAIRS:
        sentences.append("There are no clean images: PSNR is estimated from pairs of noisy ones.")
    elif comparison.metric != PSNR:
        sentences.append("There are neither clean images nor pairs of noisy ones, so nobody can tell the PSNR.")
    if comparison.others:
        ranked = total - len(comparison.others)
        sentences.append(f"{ranked} of {total} runs are in the ranking; the rest is listed below it.")
    metric = METRIC_TITLES.get(comparison.metric, comparison.metric).removesuffix(" (dB)")
    figures = [(_value(comparison, best), f"{metric}, {best.label}")]
    if best.gain_db is not None:
        figures.append((f"{signed(best.gain_db)} dB", f"{'above' if best.gain_db > 0 else 'against'} the noisy input"))
    figures.append((str(done) if done == total else f"{done} of {total}", "run done" if total == 1 else "runs done"))
    seconds = sum(run.number("seconds") or 0.0 for run in comparison.runs)
    if seconds:
        figures.append((duration(seconds), "of training in all"))
    return Headline(title, " ".join(filter(None, sentences)), figures)


def _title(comparison: Comparison, best: Group, rival: Group | None) -> str:
    known_as = {PSNR: "", PAIRS: "an estimated "}.get(comparison.metric, f"a {comparison.metric} of ")
    value = known_as + _value(comparison, best)
    gains = [group.gain_db for group in comparison.ranked if group.gain_db is not None]
    if best.gain_db is not None and max(gains) <= 0:
        return f"No run beats its noisy input: the best, {best.title}, ends {-best.gain_db:.2f} dB below it"
    if rival is None:
        above = "" if best.gain_db is None else f", {best.gain_db:.2f} dB above its noisy input"
        return f"{best.title} reaches {value}{above}"
    if "psnr" not in comparison.metric:
        return f"{best.title} has the best {comparison.metric}: {_value(comparison, best)}"
    lead = (best.mean(comparison.metric) or 0.0) - (rival.mean(comparison.metric) or 0.0)
    whose = rival.title
    if rival.model == best.model:
        whose = f"its run with {rival.settings_text}" if rival.settings else "its other run"
    so_far = "So far, " if any(run.status == "interrupted" for run in comparison.runs) else ""
    return f"{so_far}{best.title} comes out ahead: {value}, {lead:.2f} dB above {whose}"


def _gain_sentence(comparison: Comparison, best: Group) -> str:
    run, noisy = best.runs[0], best.mean(noisy_key(comparison.metric))
    where = ""
    if len(best.runs) > 1:
        where = f", as the mean of {len(best.runs)} seeds"
    elif run.number("best_epoch") is not None:
        where = f", at epoch {run.number('best_epoch'):.0f} of {run.number('epochs') or 0:.0f}"
    if noisy is None or best.gain_db is None:
        return f"Reached by {best.label}{where}."
    brings = f"{best.label} brings them to {_value(comparison, best)}{where}"
    return f"The noisy validation images have {noisy:.2f} dB; {brings}."


def _chance_sentence(comparison: Comparison, best: Group, rival: Group | None) -> str:
    """A warning where the lead is within the seeds' spread."""
    if rival is None:
        return ""
    spreads = [sd for sd in (best.sd(comparison.metric), rival.sd(comparison.metric)) if sd is not None]
    lead = abs((best.mean(comparison.metric) or 0.0) - (rival.mean(comparison.metric) or 0.0))
    if not spreads or lead > 2 * max(spreads):
        return ""
    return f"The lead is within twice the seeds' standard deviation ({max(spreads):.2g}), so it may be chance."


def _rival(comparison: Comparison) -> Group | None:
    """The best group of another model; where there is but one model, the second group."""
    rest = comparison.ranked[1:]
    return next((group for group in rest if group.model != comparison.ranked[0].model), rest[0] if rest else None)


def _value(comparison: Comparison, group: Group) -> str:
    return score_text(comparison.metric, group.mean(comparison.metric) or 0.0)


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know before comparing rows of the table."""
    found = []
    metric = comparison.metric
    noisy = [value for run in comparison.runs if (value := run.number(noisy_key(metric))) is not None]
    if noisy and max(noisy) - min(noisy) > SAME_NOISE_DB:
        found.append(
            f"The noisy input is not the same in all runs: {min(noisy):.2f} to {max(noisy):.2f} dB. Their PSNR values "
            "come from different tests; compare the gain instead."
        )
    data = [run.part("data") for run in comparison.runs if run.part("data")]
    differing = [key for key in sorted({key for part in data for key in part} - NO_DATA) if len(_values(data, key)) > 1]
    for key in [key for key in differing if key != "fingerprint"] or differing:
        found.append(f"The runs differ in their data: {key} is {' or '.join(_values(data, key))}.")
    apart = {run.monitor for run in comparison.runs if run.number(run.monitor) is not None} - {metric}
    if apart:
        found.append(
            f"Runs measured by {' or '.join(sorted(apart))} are out of the ranking, and their losses do not compare "
            "with the others'."
        )
    losses = list(
        dict.fromkeys(setting_in_words(run.part("loss")) for group in comparison.ranked for run in group.runs)
    )
    if "loss" in metric and len(losses) > 1:
        found.append(
            f"The ranking is by {metric}, which does not compare across different losses: {', '.join(losses)}."
        )
    devices = sorted({str(run.record["device"]) for run in comparison.runs if run.record.get("device")})
    if len(devices) > 1:
        found.append(f"Images per second were measured on different devices: {', '.join(devices)}.")
    lonely = [group.label for group in comparison.ranked if len(group.runs) == 1]
    if lonely and len(lonely) < len(comparison.ranked):
        which = ", ".join(lonely) if len(lonely) <= MANY else f"{len(lonely)} of the {len(comparison.ranked)} rows"
        found.append(f"Only one seed is done for {which}.")
    return found


def _values(parts: Iterable[dict[str, Any]], key: str) -> list[str]:
    """The distinct values of a key, in words."""
    return list(dict.fromkeys(setting_in_words(part.get(key)) for part in parts))


SETTINGS = (
    *("optimizer", "scheduler", "loss", "batch_size", "max_epochs", "data", "train_pairs", "val_pairs", "image_shape"),
    *("monitor", "device", "versions", "git_commit"),
)
OWN_LINE = {*NO_DATA, "train_pairs", "val_pairs"} - {"augment"}  # of the data's entries, what is not said with them
SETTING_TITLES = {"max_epochs": "epochs", "git_commit": "commit", "image_shape": "image (channels, height, width)"}


def settings(comparison: Comparison) -> list[tuple[str, list[tuple[str, str]]]]:
    """(setting, [(whose, value), ...]) with one value for all models where they agree, else one per model."""
    table = []
    for key in SETTINGS:
        by_model = {model: _settings_of(comparison.runs, key, model) for model in comparison.models}
        if not any(by_model.values()):
            continue
        if len(set(by_model.values())) == 1:
            values = [("", next(iter(by_model.values())))]
        else:
            titles = {group.model: group.title for group in comparison.groups}
            values = [(titles[model], text or "unknown") for model, text in by_model.items()]
        table.append((SETTING_TITLES.get(key, key.replace("_", " ")), values))
    return table


def _settings_of(runs: list[Run], key: str, model: str) -> str:
    """The distinct values among a model's runs."""
    values = [run.record[key] for run in runs if run.model == model and key in run.record and not _unknown(run, key)]
    return " or ".join(dict.fromkeys(_setting_text(key, value) for value in values))


def _setting_text(key: str, value: Any) -> str:
    match key, value:
        case "image_shape", [*sides]:
            return "×".join(str(side) for side in sides)
        case "git_commit", str(commit):
            return commit[:10] + ("-dirty" if commit.endswith("-dirty") else "")
        case "data", {**data}:
            return setting_in_words({key: item for key, item in data.items() if key not in OWN_LINE})
    return setting_in_words(value)


def _unknown(run: Run, key: str) -> bool:
    """A null is a choice for the scheduler of a run that got going, and for nothing else."""
    return run.record[key] is None and not (key == "scheduler" and run.part("optimizer"))


def setting_in_words(value: object) -> str:
    """A setting in a few words: ``adam, lr 0.001, betas (0.9, 0.99)``; what is off or empty is left out."""
    if isinstance(value, dict):
        name = value.get("name")
        rest = {key: item for key, item in value.items() if key != "name"}
        parts = [
            f"{key} {setting_in_words(item)}"
            for key, item in rest.items()
            if item not in (None, [], "") and item is not False
        ]
        return ", ".join([str(name), *parts] if name else parts)
    if isinstance(value, (list, tuple)):
        return f"({', '.join(setting_in_words(item) for item in value)})"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)


def duration(seconds: float) -> str:
    """A length of time as one says it: ``42 s``, ``17 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
