"""Count planted defects that the doctor finds by name, and false alarms: ``python -m benchmarks.doctor [SEED]``."""

from __future__ import annotations

import sys
from collections import Counter

from benchmarks.doctor_sets import CLEAN, DEFECTIVE, SEED_REPORT, ImageSet, make
from n2n_lightning.diagnosis import examine, judge, scene_of_array

SAME = {"hot_pixels": "outliers"}  # kinds of findings that answer to the same kind of set


def found(image_set: ImageSet) -> set[str]:
    """Return the kinds of findings in one set."""
    scenes = [scene_of_array(f"scene {k}", frames) for k, frames in enumerate(image_set.scenes)]
    return {SAME.get(f.kind, f.kind) for f in judge(examine(scenes))}


def main() -> None:
    """Make each set, examine it and print the counts."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else SEED_REPORT
    hits: Counter[str] = Counter()
    alarms = 0
    for s in (make(spec, seed) for spec in DEFECTIVE + CLEAN):
        kinds, spec = found(s), s.spec
        named = spec.kind in kinds
        hits[str(spec.kind)] += named
        alarms += spec.kind is None and bool(kinds)
        verdict = ("found" if named else "MISSED") if spec.kind else ("FALSE ALARM" if kinds else "clean")
        what = f"{spec.kind} {spec.variant}, strength {s.strength:.4f}, {s.effect_db:.2f} dB" if spec.kind else "clean"
        print(f"{verdict:11} {what}: {spec.scene} {spec.size} {spec.depth} {spec.noise} x{spec.frames}", sorted(kinds))
    print({kind: f"{hits[kind]} of 5" for kind in dict.fromkeys(str(s.kind) for s in DEFECTIVE)})
    print(f"seed {seed}: {sum(hits.values()) - hits['None']} of {len(DEFECTIVE)} found, {alarms} false alarms")


if __name__ == "__main__":
    main()
