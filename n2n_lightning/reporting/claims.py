"""Judge the course report's claims by the runs: each claim has a few checks, and each check has its numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from n2n_lightning.reporting.comparison import PSNR, Comparison, Group
from n2n_lightning.reporting.study import FLAT_SHARE, STUDY_CLAIMS, STUDY_MODELS, FlatLossClaim, PsnrClaim, model_title
from n2n_lightning.reporting.table import format_signed, status_text

VERDICTS = {  # whether a claim holds -> for one claim, for several
    True: ("holds", "hold"),
    False: ("does not hold", "do not hold"),
    None: ("cannot be judged yet", "cannot be judged yet"),
}


class Check(NamedTuple):
    """One comparison: what is compared, its numbers, and whether they agree with the claim (None: not known)."""

    subject: str
    numbers: str
    holds: bool | None


class JudgedClaim(NamedTuple):
    """A claim of the course report and its checks."""

    claim: PsnrClaim | FlatLossClaim
    checks: list[Check]

    @property
    def holds(self) -> bool | None:
        """False if one check fails, True if all hold, else None."""
        results = [check.holds for check in self.checks]
        return False if False in results else None if None in results else True

    @property
    def verdict(self) -> str:
        return VERDICTS[self.holds][0]


class Judgement(NamedTuple):
    """The judged claims, and a sentence about the runs that they were judged by."""

    claims: list[JudgedClaim]
    basis: str

    @property
    def settled(self) -> bool:
        """Whether at least one claim could be judged."""
        return any(claim.holds is not None for claim in self.claims)

    @property
    def tally(self) -> str:
        """``3 hold, 1 does not hold, 1 cannot be judged yet``."""
        results = [claim.holds for claim in self.claims]
        counts = {holds: results.count(holds) for holds in VERDICTS}
        return ", ".join(f"{count} {VERDICTS[holds][count > 1]}" for holds, count in counts.items() if count)


Settings = tuple[tuple[str, str], ...]  # swept key and value


def judge_study_claims(comparison: Comparison) -> Judgement | None:
    """Judge the course report's claims; None where none of its models was run with clean validation images."""
    if comparison.metric != PSNR or not any(r.model in STUDY_MODELS and r.monitor == PSNR for r in comparison.runs):
        return None
    groups, basis = _choose_groups(comparison)
    missing = {model: _why_missing(comparison, model) for model in STUDY_MODELS if model not in groups}
    return Judgement([JudgedClaim(claim, _check(claim, groups, missing)) for claim in STUDY_CLAIMS], basis)


def _choose_groups(comparison: Comparison) -> tuple[dict[str, Group], str]:
    """Choose one group of finished runs for each model, and say how.

    The groups share the settings that most models were run with, and of such settings those with fewest overrides.
    Only the optimizer may differ: where a model was run with its own, that group is chosen.
    """
    by_settings: dict[Settings, list[Group]] = defaultdict(list)
    for group in comparison.ranked:
        if group.model in STUDY_MODELS:
            shared = ((key, value) for key, value in group.settings.items() if key.split(".")[0] != "optimizer")
            by_settings[tuple(shared)].append(group)
    if not by_settings:
        return {}, "No run of the course report's models is done."

    def preference(item: tuple[Settings, list[Group]]) -> tuple[int, int]:
        return -len({group.model for group in item[1]}), min(len(group.runs[0].overrides) for group in item[1])

    settings, members = min(sorted(by_settings.items()), key=preference)
    chosen: dict[str, Group] = {}
    for group in sorted(members, key=lambda group: not group.own_optimizer):  # stable: keeps the ranking
        chosen.setdefault(group.model, group)
    return chosen, _basis(settings, list(chosen.values()), several=len(members) > len(chosen))


def _basis(settings: Settings, chosen: Sequence[Group], *, several: bool) -> str:
    """Say which runs were chosen; ``several``: there were more than one for some model."""
    words = []
    if several or not all(group.own_optimizer for group in chosen):
        by_optimizer: dict[str, list[str]] = defaultdict(list)
        for group in chosen:
            name = group.runs[0].part("optimizer").get("name") or group.settings.get("optimizer") or "its own"
            by_optimizer[str(name).lower()].append(group.title)
        names = [f"{optimizer} for {', '.join(titles)}" for optimizer, titles in by_optimizer.items()]
        words.append(f"the model's own optimizer where there is such a run: {'; '.join(names)}")
    if settings:
        words.append(", ".join(f"{key} {value}" for key, value in settings))
    seeds = {len(group.runs) for group in chosen}
    if seeds != {1}:
        words.append(f"the mean of {' to '.join(map(str, sorted({min(seeds), max(seeds)})))} seeds")
    return f"Judged by the finished runs{' with ' + '; '.join(words) if words else ', one for each model'}."


def _why_missing(comparison: Comparison, model: str) -> str:
    """Say why no group was chosen for a model."""
    for group in comparison.others:
        if group.model == model:
            return f"its run is {status_text(group)}"
    if any(group.model == model for group in comparison.ranked):
        return "it was not run with these settings"
    return "no run of it"


def _check(claim: PsnrClaim | FlatLossClaim, groups: dict[str, Group], missing: dict[str, str]) -> list[Check]:
    checks = []
    if isinstance(claim, FlatLossClaim):
        for model, entry in STUDY_MODELS.items():
            found = (missing[model], None) if model in missing else _flatness(claim, groups[model])
            checks.append(Check(entry.title, *found))
        return checks
    compare = _compare_every_epoch if claim.every_epoch else _compare_best
    for subject, *models in claim.pairs:
        reasons = [f"{model_title(model)}: {missing[model]}" for model in models if model in missing]
        found = ("; ".join(reasons), None) if reasons else compare(*(groups[model] for model in models))
        checks.append(Check(subject, *found))
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


def _compare_best(upper: Group, lower: Group) -> tuple[str, bool | None]:
    """Compare two models' best validation PSNR: the numbers, and whether the first is above the second."""
    lead = upper.best - lower.best
    text = f"{upper.best:.2f} against {lower.best:.2f} dB: {format_signed(lead)} dB"
    deviations = [sd for sd in (upper.sd(PSNR), lower.sd(PSNR)) if sd is not None]
    if deviations:
        chance = ", so it may be chance" if abs(lead) <= 2 * max(deviations) else ""
        text += f", standard deviation over seeds {max(deviations):.2f} dB{chance}"
    return text, lead > 0


def _flatness(claim: FlatLossClaim, group: Group) -> tuple[str, bool | None]:
    """Say how much of the loss's fall is left after the claim's epoch, and whether that is at most ``FLAT_SHARE``."""
    curve, epoch = group.curve(claim.column), claim.epoch
    if not curve or max(curve) < 2 * epoch or min(curve) > epoch:
        return f"{max(curve, default=0)} epochs are too few", None
    first, last = curve[min(curve)], curve[max(curve)]
    at_epoch = curve[max(one for one in curve if one <= epoch)]
    if last >= first:
        return f"it did not fall: {first:#.3g} at first, {last:#.3g} at last", None
    share = (at_epoch - last) / (first - last)
    path = f"{first:#.3g} → {at_epoch:#.3g} → {last:#.3g} at epochs {min(curve)}, {epoch}, {max(curve)}"
    left = f"{share:.1%} of the fall is left" if share >= 0 else f"it rises again by {-share:.1%} of the fall"
    return f"{left} ({path})", abs(share) <= FLAT_SHARE
