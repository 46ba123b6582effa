"""Sentences about a comparison: the headline, the warnings, and the settings of the runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from n2n_lightning.reporting.comparison import PAIRS, PSNR, Comparison, Group, noisy_key
from n2n_lightning.reporting.runs import Run
from n2n_lightning.reporting.study import model_title
from n2n_lightning.reporting.table import MAX_LISTED_GROUPS, METRIC_TITLES, filter_warning, format_signed, score_text
from n2n_lightning.training.filter_scores import SURE

SAME_NOISE_DB = 0.01  # noisy inputs whose PSNR differs by more are not the same images
# settings of a run's data that do not change its images
NEUTRAL_DATA = {"seed", "batch_size", "val_batch_size", "num_workers", "cache_dir", "overfit_steps", "augment"} | {
    *("matched", "aligned")  # what match_levels and align found
}


class Headline(NamedTuple):
    """The main result, the sentences below it, and a few key numbers, each with a text that says what it is."""

    title: str
    lede: str
    key_numbers: list[tuple[str, str]]


def headline(comparison: Comparison) -> Headline:
    """Return the main result of the runs."""
    statuses = Counter(run.status for run in comparison.runs)
    done, total = statuses["done"], len(comparison.runs)
    if not comparison.ranked:
        states = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
        title = "No run has finished yet" if statuses["interrupted"] else "No run has succeeded"
        return Headline(title, f"Of {total} {'run' if total == 1 else 'runs'}: {states}.", [])
    best, rival = comparison.ranked[0], _rival(comparison)
    sentences = [_gain_sentence(best), _filter_sentence(best), _chance_sentence(best, rival)]
    if comparison.metric == PAIRS:
        sentences.append("There are no clean images: PSNR is estimated from pairs of noisy images.")
    elif comparison.metric == SURE:
        sentences.append("There is one noisy image of each scene: PSNR is estimated by SURE, from the measured noise.")
    elif comparison.metric != PSNR:
        sentences.append("There are no clean images and no pairs of noisy images, so PSNR cannot be computed.")
    if comparison.others:
        ranked = total - len(comparison.others)
        sentences.append(f"{ranked} of {total} runs are ranked; the others are listed below them.")
    metric = METRIC_TITLES.get(comparison.metric, comparison.metric).removesuffix(" (dB)")
    numbers = [(score_text(best.metric, best.best), f"{metric}, {best.label}")]
    if best.gain_db is not None:
        relation = "above" if best.gain_db > 0 else "compared with"
        numbers.append((f"{format_signed(best.gain_db)} dB", f"{relation} the noisy input"))
    numbers.append((str(done) if done == total else f"{done} of {total}", "run done" if total == 1 else "runs done"))
    seconds = sum(run.number("seconds") or 0.0 for run in comparison.runs)
    if seconds:
        numbers.append((format_duration(seconds), "of training in total"))
    return Headline(_title(comparison, best, rival), " ".join(filter(None, sentences)), numbers)


def _rival(comparison: Comparison) -> Group | None:
    """Return the best group of another model; if there is only one model, the second group."""
    rest = comparison.ranked[1:]
    return next((group for group in rest if group.model != comparison.ranked[0].model), rest[0] if rest else None)


def _title(comparison: Comparison, best: Group, rival: Group | None) -> str:
    value = score_text(best.metric, best.best)
    known_as = {PSNR: "", PAIRS: "an estimated ", SURE: "an estimated "}.get(best.metric, f"a {best.metric} of ")
    gains = [group.gain_db for group in comparison.ranked if group.gain_db is not None]
    if best.gain_db is not None and max(gains) <= 0:
        return f"No run beats its noisy input: the best, {best.title}, is {-best.gain_db:.2f} dB below it"
    if rival is None:
        above = "" if best.gain_db is None else f", {best.gain_db:.2f} dB above its noisy input"
        return f"{best.title} reaches {known_as}{value}{above}"
    if "psnr" not in best.metric:
        return f"{best.title} has the best {best.metric}: {value}"
    other = rival.title
    if rival.model == best.model:
        other = f"its run with {rival.settings_text}" if rival.settings else "its other run"
    so_far = "So far, " if any(run.status == "interrupted" for run in comparison.runs) else ""
    return f"{so_far}{best.title} is best: {known_as}{value}, {best.best - rival.best:.2f} dB above {other}"


def _gain_sentence(best: Group) -> str:
    run, noisy = best.runs[0], best.mean(noisy_key(best.metric))
    where = ""
    if len(best.runs) > 1:
        where = f", as the mean of {len(best.runs)} seeds"
    elif run.number("best_epoch") is not None:
        epoch = f", at epoch {run.number('best_epoch'):.0f} of {run.number('epochs') or 0:.0f}"
        where = epoch if run.number("best_epoch") else ", before training"
    if noisy is None or best.gain_db is None:
        return f"Reached by {best.label}{where}."
    result = f"after {best.label} they have {score_text(best.metric, best.best)}{where}"
    return f"The noisy validation images have {noisy:.2f} dB; {result}."


def _filter_sentence(best: Group) -> str:
    """Return what the best filter reaches on the same images; empty if the record has none."""
    scores, mean = best.runs[0].filter_scores, best.best_filter_db
    if scores is None or mean is None:
        return ""
    return f"The best filter there, {scores.best[0]}, has {score_text(best.metric, mean)}."


def _chance_sentence(best: Group, rival: Group | None) -> str:
    """Return a warning if the lead is small compared with the standard deviation over the seeds."""
    deviations = [sd for group in (best, rival) if group and (sd := group.sd(group.metric)) is not None]
    if rival is None or not deviations or abs(best.best - rival.best) > 2 * max(deviations):
        return ""
    return f"The lead is at most twice the standard deviation over seeds ({max(deviations):.2g}), so it may be chance."


def notes(comparison: Comparison) -> list[str]:
    """Return what a reader must know before comparing rows of the table."""
    found = [text] if (text := filter_warning(comparison)) else []
    metric, runs = comparison.metric, comparison.runs
    noisy = [value for run in runs if (value := run.number(noisy_key(metric))) is not None]
    if noisy and max(noisy) - min(noisy) > SAME_NOISE_DB:
        found.append(
            f"The noisy input is not the same in all runs: {min(noisy):.2f} to {max(noisy):.2f} dB. Their PSNR values "
            "were measured on different images; compare the gain instead."
        )
    data = [run.part("data") for run in runs if run.part("data")]
    keys = sorted({key for part in data for key in part} - NEUTRAL_DATA)
    differing = [key for key in keys if len(_distinct(part.get(key) for part in data)) > 1]
    for key in [key for key in differing if key != "fingerprint"] or differing:
        found.append(f"The runs differ in their data: {key} is {' or '.join(_distinct(d.get(key) for d in data))}.")
    other_monitors = {run.monitor for run in runs if run.number(run.monitor) is not None} - {metric}
    if other_monitors:
        found.append(
            f"Runs measured by {' or '.join(sorted(other_monitors))} are not ranked, and their losses cannot be "
            "compared with those of the other runs."
        )
    losses = _distinct(run.part("loss") for group in comparison.ranked for run in group.runs)
    if "loss" in metric and len(losses) > 1:
        found.append(
            f"Runs are ranked by {metric}, but values of different losses cannot be compared: {', '.join(losses)}."
        )
    for warning in _distinct(text for run in runs for text in run.record.get("data_warnings") or ()):
        concerned = [run.name for run in runs if warning in (run.record.get("data_warnings") or ())]
        which = ", ".join(concerned) if len(concerned) <= MAX_LISTED_GROUPS else f"{len(concerned)} runs"
        found.append(f"The data of {which}: {warning}.")
    devices = sorted({str(run.record["device"]) for run in runs if run.record.get("device")})
    if len(devices) > 1:
        found.append(f"Images per second were measured on different devices: {', '.join(devices)}.")
    single = [group.label for group in comparison.ranked if len(group.runs) == 1]
    if single and len(single) < len(comparison.ranked):
        few = len(single) <= MAX_LISTED_GROUPS
        which = ", ".join(single) if few else f"{len(single)} of the {len(comparison.ranked)} rows"
        found.append(f"Only one seed is done for {which}.")
    return found


def _distinct(values: Iterable[Any]) -> list[str]:
    """Return each value once, as text."""
    return list(dict.fromkeys(setting_text(value) for value in values))


SETTINGS = (
    *("optimizer", "scheduler", "loss", "batch_size", "max_epochs", "data", "train_pairs", "val_pairs", "image_shape"),
    *("monitor", "precision", "device", "versions", "git_commit"),
)
OTHER_LINES = {*NEUTRAL_DATA, "train_pairs", "val_pairs"} - {"augment"}  # settings that are not listed with the data
SETTING_TITLES = {"max_epochs": "epochs", "git_commit": "commit", "image_shape": "image (channels, height, width)"}


def settings_list(comparison: Comparison) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return (setting, [(model, value), ...]); where all models agree, there is one value and the model is empty."""
    settings = []
    for key in SETTINGS:
        by_model = {model: _model_setting(comparison.runs, key, model) for model in comparison.models}
        if not any(by_model.values()):
            continue
        if len(set(by_model.values())) == 1:
            values = [("", next(iter(by_model.values())))]
        else:
            values = [(model_title(model), text or "unknown") for model, text in by_model.items()]
        settings.append((SETTING_TITLES.get(key, key.replace("_", " ")), values))
    return settings


def _model_setting(runs: list[Run], key: str, model: str) -> str:
    """Return the distinct values of a setting among a model's runs."""
    values = [run.record[key] for run in runs if run.model == model and key in run.record and not _unknown(run, key)]
    return " or ".join(dict.fromkeys(_record_text(key, value) for value in values))


def _record_text(key: str, value: Any) -> str:
    match key, value:
        case "image_shape", [*sides]:
            return "×".join(str(side) for side in sides)
        case "git_commit", str(commit):
            return commit[:10] + ("-dirty" if commit.endswith("-dirty") else "")
        case "data", {**data}:
            return setting_text({key: item for key, item in data.items() if key not in OTHER_LINES})
    return setting_text(value)


def _unknown(run: Run, key: str) -> bool:
    """Return whether a null means "not recorded". It means "none" for the scheduler of a run that was started."""
    return run.record[key] is None and not (key == "scheduler" and run.part("optimizer"))


def setting_text(value: object) -> str:
    """Return a setting as text: ``adam, lr 0.001, betas (0.9, 0.99)``. Entries that are off or empty are left out."""
    if isinstance(value, dict):
        name = value.get("name")
        parts = [
            f"{key} {setting_text(item)}"
            for key, item in value.items()
            if key != "name" and item not in (None, [], "") and item is not False
        ]
        return ", ".join([str(name), *parts] if name else parts)
    if isinstance(value, (list, tuple)):
        return f"({', '.join(setting_text(item) for item in value)})"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)


def format_duration(seconds: float) -> str:
    """Return ``42 s``, ``17 min`` or ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
