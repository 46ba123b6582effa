"""The report's own claims, held against the runs: each is a few checks, and each check has its numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from n2n_lightning.reporting.comparison import MODEL_TITLES, PSNR, Comparison, Group
from n2n_lightning.reporting.table import signed, status_text

HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot be judged yet"
SEQUENTIAL = [model for model in MODEL_TITLES if model != "unet"]
FLAT_SHARE = 0.10  # a curve is flat when at most this share of its fall is left


@dataclass(frozen=True)
class Check:
    """One comparison: of what, the numbers, and whether it comes out as claimed (None: it cannot be told)."""

    subject: str
    numbers: str
    holds: bool | None


@dataclass(frozen=True)
class StudyClaim:
    """A sentence of the report, the rule it is judged by, and the checks."""

    statement: str
    rule: str
    checks: list[Check]

    @property
    def verdict(self) -> str:
        """One failed check settles it; without one, a missing check leaves it open."""
        results = [check.holds for check in self.checks]
        return FAILS if False in results else UNKNOWN if None in results else HOLDS


@dataclass(frozen=True)
class Judgement:
    """The claims, and which runs they were judged on."""

    claims: list[StudyClaim]
    basis: str

    @property
    def settled(self) -> bool:
        """Whether any of them can be judged."""
        return any(claim.verdict != UNKNOWN for claim in self.claims)

    @property
    def tally(self) -> str:
        """``3 hold, 1 does not, 1 cannot be judged yet``."""
        counts = Counter(claim.verdict for claim in self.claims)
        one = {HOLDS: "1 holds", FAILS: "1 does not hold", UNKNOWN: f"1 {UNKNOWN}"}
        many = {HOLDS: "hold", FAILS: "do not hold", UNKNOWN: UNKNOWN}
        return ", ".join(one[v] if counts[v] == 1 else f"{counts[v]} {many[v]}" for v in many if counts[v])


@dataclass(frozen=True)
class _Study:
    """One group for each of the report's models, and for those without one the reason."""

    groups: dict[str, Group]
    missing: dict[str, str]


def judge_study_claims(comparison: Comparison) -> Judgement | None:
    """The five claims; None where not one of the report's models was run with clean validation images."""
    theirs = any(run.model in MODEL_TITLES and run.monitor == PSNR for run in comparison.runs)
    if comparison.metric != PSNR or not theirs:
        return None
    groups, basis = _reference(comparison)
    study = _Study(groups, {model: _missing(comparison, model) for model in MODEL_TITLES if model not in groups})
    claims = [
        _unet_first(study),
        _flat(study, "train/loss", "training", mark=8),
        _flat(study, "val/loss", "validation", mark=5),
        _relu_above_sigmoid(study),
        _best_sequential(study),
    ]
    return Judgement(claims, basis)


def _reference(comparison: Comparison) -> tuple[dict[str, Group], str]:
    """One done group per model: the settings that most models share, and the model's own optimizer."""
    done = [group for group in comparison.ranked if group.model in MODEL_TITLES]
    by_setting: dict[tuple[tuple[str, str], ...], list[Group]] = {}
    for group in done:
        by_setting.setdefault(_without_optimizer(group), []).append(group)
    if not by_setting:
        return {}, "No run of the report's models is done."

    def preference(item: tuple[tuple[tuple[str, str], ...], list[Group]]) -> tuple[int, int, str]:
        setting, members = item
        return (
            -len({group.model for group in members}),
            min(len(group.runs[0].overrides) for group in members),
            str(setting),
        )

    setting, members = min(by_setting.items(), key=preference)
    members = sorted(members, key=lambda group: not group.own_optimizer)  # stable: the best of equals stays first
    chosen: dict[str, Group] = {}
    for group in members:
        chosen.setdefault(group.model, group)
    return chosen, _basis(setting, members, chosen)


def _basis(setting: tuple[tuple[str, str], ...], members: list[Group], chosen: dict[str, Group]) -> str:
    words = []
    if len(members) > len(chosen) or any(not group.own_optimizer for group in chosen.values()):
        by_optimizer: dict[str, list[str]] = {}
        for group in chosen.values():
            by_optimizer.setdefault(_optimizer(group), []).append(group.title)
        names = [f"{optimizer} for {', '.join(titles)}" for optimizer, titles in by_optimizer.items()]
        words.append(f"the model's own optimizer where it was run: {'; '.join(names)}")
    if setting:
        words.append(", ".join(f"{key} {value}" for key, value in setting))
    counts = Counter(len(group.runs) for group in chosen.values())
    if set(counts) != {1}:
        low, high = min(counts), max(counts)
        words.append(f"the mean of {low if low == high else f'{low} to {high}'} seeds")
    return (
        f"Judged on the done runs with {'; '.join(words)}." if words else "Judged on the done runs, one for each model."
    )


def _optimizer(group: Group) -> str:
    return str(group.runs[0].part("optimizer").get("name") or group.settings.get("optimizer") or "its own").lower()


def _without_optimizer(group: Group) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in group.settings.items() if key.split(".")[0] != "optimizer")


def _missing(comparison: Comparison, model: str) -> str:
    """Why a model cannot be judged: its run died, had no clean images, or is not there."""
    for group in comparison.others:
        if group.model == model:
            return f"its run is {status_text(group)}"
    if any(group.model == model for group in comparison.ranked):
        return "it was not run with these settings"
    return "no run of it"


def _unet_first(study: _Study) -> StudyClaim:
    checks = []
    for model in SEQUENTIAL:
        absent = study.missing.get("unet") or study.missing.get(model)
        checks.append(_absent(model, study) if absent else _ahead(study.groups["unet"], study.groups[model]))
    rule = "At every epoch that both have, the U-Net's validation PSNR is above the sequential model's."
    return StudyClaim("The U-Net is ahead of every sequential model from the first epoch on.", rule, checks)


def _ahead(unet: Group, other: Group) -> Check:
    upper, lower = unet.curve(PSNR), other.curve(PSNR)
    leads = {epoch: upper[epoch] - lower[epoch] for epoch in sorted(upper.keys() & lower.keys())}
    if not leads:
        return Check(other.title, "no validation PSNR by epoch in metrics.csv", None)
    epoch, least = min(leads.items(), key=lambda item: item[1])
    behind = [epoch for epoch, lead in leads.items() if lead <= 0]
    first = f"{signed(leads[min(leads)])} dB after epoch {min(leads)}"
    if not behind:
        return Check(other.title, f"{first}; least lead {signed(least)} dB, at epoch {epoch} of {max(leads)}", True)
    text = f"{first}; not ahead at {len(behind)} of {len(leads)} epochs, worst {signed(least)} dB at epoch {epoch}"
    return Check(other.title, text, False)


def _flat(study: _Study, column: str, name: str, *, mark: int) -> StudyClaim:
    checks = [
        _absent(model, study) if model in study.missing else _flat_after(study.groups[model], column, mark)
        for model in MODEL_TITLES
    ]
    rule = (
        f"What the loss still changes after epoch {mark} is at most {FLAT_SHARE:.0%} of its fall from the first epoch "
        f"to the last; judged on runs of at least {2 * mark} epochs."
    )
    return StudyClaim(f"The {name} loss is flat after about epoch {mark}.", rule, checks)


def _flat_after(group: Group, column: str, mark: int) -> Check:
    curve = group.curve(column)
    if not curve or max(curve) < 2 * mark or min(curve) > mark:
        return Check(group.title, f"{max(curve, default=0)} epochs are too few", None)
    first, last = curve[min(curve)], curve[max(curve)]
    at_mark = curve[max(epoch for epoch in curve if epoch <= mark)]
    if last >= first:
        return Check(group.title, f"it did not fall: {first:#.3g} at first, {last:#.3g} at last", None)
    share = (at_mark - last) / (first - last)
    path = f"{first:#.3g} → {at_mark:#.3g} → {last:#.3g} at epochs {min(curve)}, {mark}, {max(curve)}"
    left = f"{share:.1%} of the fall is left" if share >= 0 else f"it rises again by {-share:.1%} of the fall"
    return Check(group.title, f"{left} ({path})", abs(share) <= FLAT_SHARE)


def _relu_above_sigmoid(study: _Study) -> StudyClaim:
    pairs = [("NN", "nn_relu", "nn_sigmoid"), ("Convtrans", "convtrans_relu", "convtrans_sigmoid")]
    checks = [_above(study, subject, relu, sigmoid) for subject, relu, sigmoid in pairs]
    rule = "With either upsampling, the best validation PSNR with ReLU is above the one with Sigmoid."
    return StudyClaim("An output ReLU does better than a Sigmoid, with either upsampling.", rule, checks)


def _best_sequential(study: _Study) -> StudyClaim:
    best = "convtrans_relu"
    checks = [_above(study, f"over {MODEL_TITLES[model]}", best, model) for model in SEQUENTIAL if model != best]
    rule = "Its best validation PSNR is above that of each of the other three."
    return StudyClaim("Convtrans + ReLU is the best of the sequential models.", rule, checks)


def _above(study: _Study, subject: str, upper: str, lower: str) -> Check:
    absent = [f"{MODEL_TITLES[model]}: {study.missing[model]}" for model in (upper, lower) if model in study.missing]
    if absent:
        return Check(subject, "; ".join(absent), None)
    high, low = study.groups[upper], study.groups[lower]
    lead = (high.mean(PSNR) or 0.0) - (low.mean(PSNR) or 0.0)
    text = f"{high.mean(PSNR):.2f} against {low.mean(PSNR):.2f} dB: {signed(lead)} dB"
    spreads = [sd for sd in (high.sd(PSNR), low.sd(PSNR)) if sd is not None]
    if spreads:
        text += f", seeds' sd {max(spreads):.2f} dB" + (
            ", so it may be chance" if abs(lead) <= 2 * max(spreads) else ""
        )
    return Check(subject, text, lead > 0)


def _absent(model: str, study: _Study) -> Check:
    """The check that a missing model leaves open."""
    who = model if model in study.missing else "unet"
    return Check(
        MODEL_TITLES[model], f"{MODEL_TITLES[who]}: {study.missing[who]}" if who != model else study.missing[who], None
    )
