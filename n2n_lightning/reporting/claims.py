"""Judge the report's claims by the runs: each claim has a few checks, and each check has its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from n2n_lightning.reporting.comparison import PSNR, Comparison, Group
from n2n_lightning.reporting.study import FLAT_SHARE, STUDY_CLAIMS, STUDY_MODELS, FlatLossClaim, PsnrClaim, model_title
from n2n_lightning.reporting.table import format_signed, status_text


class Verdict(StrEnum):
    """Whether a claim holds."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNKNOWN = "cannot be judged yet"


@dataclass(frozen=True)
class Check:
    """One comparison: what is compared, its numbers, and whether they agree with the claim (None: not known)."""

    subject: str
    numbers: str
    holds: bool | None


@dataclass(frozen=True)
class JudgedClaim:
    """A claim of the report and its checks."""

    claim: PsnrClaim | FlatLossClaim
    checks: list[Check]

    @property
    def verdict(self) -> Verdict:
        """One failed check is enough to refute the claim. Otherwise all checks must hold."""
        results = [check.holds for check in self.checks]
        return Verdict.FAILS if False in results else Verdict.UNKNOWN if None in results else Verdict.HOLDS


@dataclass(frozen=True)
class Judgement:
    """The judged claims, and a sentence about the runs that they were judged by."""

    claims: list[JudgedClaim]
    basis: str

    @property
    def settled(self) -> bool:
        """Whether at least one claim could be judged."""
        return any(claim.verdict != Verdict.UNKNOWN for claim in self.claims)

    @property
    def tally(self) -> str:
        """``3 hold, 1 does not hold, 1 cannot be judged yet``."""
        counts = Counter(claim.verdict for claim in self.claims)
        plural = {Verdict.HOLDS: "hold", Verdict.FAILS: "do not hold", Verdict.UNKNOWN: str(Verdict.UNKNOWN)}
        return ", ".join(
            f"{counts[verdict]} {verdict if counts[verdict] == 1 else words}"
            for verdict, words in plural.items()
            if counts[verdict]
        )


Settings = tuple[tuple[str, str], ...]  # key and value of what was swept


@dataclass(frozen=True)
class _Study:
    """The group that stands for each of the report's models, and for a model without one the reason."""

    groups: dict[str, Group]
    missing: dict[str, str]


def judge_study_claims(comparison: Comparison) -> Judgement | None:
    """Judge the report's claims; None where none of its models was run with clean validation images."""
    if comparison.metric != PSNR or not any(r.model in STUDY_MODELS and r.monitor == PSNR for r in comparison.runs):
        return None
    groups, basis = _choose_groups(comparison)
    missing = {model: _why_missing(comparison, model) for model in STUDY_MODELS if model not in groups}
    study = _Study(groups, missing)
    return Judgement([JudgedClaim(claim, _check_claim(claim, study)) for claim in STUDY_CLAIMS], basis)


def _choose_groups(comparison: Comparison) -> tuple[dict[str, Group], str]:
    """Choose one group of finished runs for each model, and say how.

    The groups share their settings, those that most models were run with. Only the optimizer may differ: where a
    model was run with its own, that group is chosen.
    """
    by_settings: dict[Settings, list[Group]] = {}
    for group in comparison.ranked:
        if group.model in STUDY_MODELS:
            by_settings.setdefault(_settings_without_optimizer(group), []).append(group)
    if not by_settings:
        return {}, "No run of the report's models is done."

    def preference(settings: Settings) -> tuple[int, int, str]:
        members = by_settings[settings]
        fewest_overrides = min(len(group.runs[0].overrides) for group in members)
        return -len({group.model for group in members}), fewest_overrides, str(settings)

    settings = min(by_settings, key=preference)
    members = sorted(by_settings[settings], key=lambda group: not group.own_optimizer)  # stable: keeps the ranking
    chosen: dict[str, Group] = {}
    for group in members:
        chosen.setdefault(group.model, group)
    return chosen, _basis(settings, members, chosen)


def _basis(settings: Settings, members: Sequence[Group], chosen: dict[str, Group]) -> str:
    """Say which runs were chosen."""
    words = []
    if len(members) > len(chosen) or any(not group.own_optimizer for group in chosen.values()):
        by_optimizer: dict[str, list[str]] = {}
        for group in chosen.values():
            by_optimizer.setdefault(_optimizer_name(group), []).append(group.title)
        names = [f"{optimizer} for {', '.join(titles)}" for optimizer, titles in by_optimizer.items()]
        words.append(f"the model's own optimizer where there is such a run: {'; '.join(names)}")
    if settings:
        words.append(", ".join(f"{key} {value}" for key, value in settings))
    seeds = {len(group.runs) for group in chosen.values()}
    if seeds != {1}:
        words.append(f"the mean of {' to '.join(map(str, sorted({min(seeds), max(seeds)})))} seeds")
    return f"Judged by the finished runs{' with ' + '; '.join(words) if words else ', one for each model'}."


def _optimizer_name(group: Group) -> str:
    return str(group.runs[0].part("optimizer").get("name") or group.settings.get("optimizer") or "its own").lower()


def _settings_without_optimizer(group: Group) -> Settings:
    return tuple((key, value) for key, value in group.settings.items() if key.split(".")[0] != "optimizer")


def _why_missing(comparison: Comparison, model: str) -> str:
    """Say why no group stands for a model."""
    for group in comparison.others:
        if group.model == model:
            return f"its run is {status_text(group)}"
    if any(group.model == model for group in comparison.ranked):
        return "it was not run with these settings"
    return "no run of it"


def _check_claim(claim: PsnrClaim | FlatLossClaim, study: _Study) -> list[Check]:
    if isinstance(claim, FlatLossClaim):
        return [
            Check(model_title(model), study.missing[model], None)
            if model in study.missing
            else _check_flat_loss(study.groups[model], claim)
            for model in STUDY_MODELS
        ]
    compare = _compare_every_epoch if claim.every_epoch else _compare_best
    checks = []
    for subject, *models in claim.pairs:
        reasons = [f"{model_title(model)}: {study.missing[model]}" for model in models if model in study.missing]
        if reasons:
            checks.append(Check(subject, "; ".join(reasons), None))
        else:
            checks.append(Check(subject, *compare(*(study.groups[model] for model in models))))
    return checks


def _compare_every_epoch(upper: Group, lower: Group) -> tuple[str, bool | None]:
    """Compare two models' validation PSNR by epoch: the numbers, and whether the first is ahead at each epoch."""
    above, below = upper.curve(PSNR), lower.curve(PSNR)
    leads = {epoch: above[epoch] - below[epoch] for epoch in sorted(above.keys() & below.keys())}
    if not leads:
        return "no validation PSNR by epoch in metrics.csv", None
    epoch, least = min(leads.items(), key=lambda item: item[1])
    behind = sum(lead <= 0 for lead in leads.values())
    first = f"{format_signed(leads[min(leads)])} dB after epoch {min(leads)}"
    if not behind:
        return f"{first}; least lead {format_signed(least)} dB, at epoch {epoch} of {max(leads)}", True
    return (
        f"{first}; not ahead at {behind} of {len(leads)} epochs, worst {format_signed(least)} dB at epoch {epoch}",
        False,
    )


def _compare_best(upper: Group, lower: Group) -> tuple[str, bool]:
    """Compare two models' best validation PSNR: the numbers, and whether the first is above the second."""
    high, low = (group.mean(PSNR) or 0.0 for group in (upper, lower))
    text = f"{high:.2f} against {low:.2f} dB: {format_signed(high - low)} dB"
    deviations = [sd for sd in (upper.sd(PSNR), lower.sd(PSNR)) if sd is not None]
    if deviations:
        chance = ", so it may be chance" if abs(high - low) <= 2 * max(deviations) else ""
        text += f", standard deviation over seeds {max(deviations):.2f} dB{chance}"
    return text, high > low


def _check_flat_loss(group: Group, claim: FlatLossClaim) -> Check:
    """Check that at most ``FLAT_SHARE`` of the loss's fall is left after the claim's epoch."""
    curve, epoch = group.curve(claim.column), claim.epoch
    if not curve or max(curve) < 2 * epoch or min(curve) > epoch:
        return Check(group.title, f"{max(curve, default=0)} epochs are too few", None)
    first, last = curve[min(curve)], curve[max(curve)]
    at_epoch = curve[max(one for one in curve if one <= epoch)]
    if last >= first:
        return Check(group.title, f"it did not fall: {first:#.3g} at first, {last:#.3g} at last", None)
    share = (at_epoch - last) / (first - last)
    path = f"{first:#.3g} → {at_epoch:#.3g} → {last:#.3g} at epochs {min(curve)}, {epoch}, {max(curve)}"
    left = f"{share:.1%} of the fall is left" if share >= 0 else f"it rises again by {-share:.1%} of the fall"
    return Check(group.title, f"{left} ({path})", abs(share) <= FLAT_SHARE)
