"""Turn measures into findings: what is wrong, how much it harms, and what to do."""

from __future__ import annotations

import numpy as np

from n2n_lightning.diagnosis.examine import Findings
from n2n_lightning.diagnosis.finding import Finding
from n2n_lightning.diagnosis.frame_rules import across, copies, dead, levels, shifts
from n2n_lightning.diagnosis.noise_rules import between, lines, neighbours, neighbours_single, outliers, piles


def judge(findings: Findings, source: str = "burst") -> list[Finding]:
    """Return the findings, the worst first; source: the choice of `data=` that they are judged for (burst, pairs,
    single).
    """
    found: list[Finding] = []
    for scene in findings.scenes:
        found += (
            copies(scene)
            + dead(scene)
            + levels(scene)
            + shifts(scene)
            + outliers(scene)
            + piles(scene)
            + between(scene)
        )
    found += across(findings) + neighbours(findings, source) + neighbours_single(findings, source) + lines(findings)
    order = {"fatal": 0, "harmful": 1, "note": 2}
    return sorted(found, key=lambda f: (order[f.severity], -np.nan_to_num(f.effect_db)))
