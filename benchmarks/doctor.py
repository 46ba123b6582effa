"""Test the doctor on generated sets: ``python -m benchmarks.doctor [SEED]``.

It counts planted defects that are found by name, and false alarms, and compares what was measured with what was
planted. ``python -m benchmarks.doctor --large`` measures the time and the peak memory on 200 frames of 2048x2048 px.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.doctor_sets import CLEAN, DEFECTIVE, SEED_REPORT, ImageSet, make, storage
from benchmarks.tables import show
from n2n_lightning.diagnosis import SceneMeasures, examine, judge, scene_of_array

SAME = {"hot_pixels": "outliers"}  # kinds of findings that answer to the same kind of set
BARS = {"gain": 0.01, "shift, px": 0.1, "correlation": 0.05, "noise, sd or gain": 0.05}


def deviations(image_set: ImageSet, found: SceneMeasures) -> dict[str, float]:
    """Return how far measures lie from what was planted, by the names of ``BARS``; NaN where nothing was measured."""
    spec, truth, n = image_set.spec, image_set.truth, image_set.spec.frames
    if spec.kind == "gain":
        gains = truth["gains"]
        measured = None if found.levels is None else found.levels.gain
        if measured is None or len(measured) < n:
            return {"gain": float("nan")}
        return {"gain": float(np.abs(np.array(measured) / measured[0] * gains[0] / gains - 1).max())}
    if spec.kind == "shift":
        if found.shifts is None or found.shifts.place is None or len(found.shifts.place) < n:
            return {"shift, px": float("nan")}
        place, planted = np.array(found.shifts.place), truth["shifts"]
        return {"shift, px": float(np.abs(place - place[0] - planted + planted[0]).max())}
    if spec.kind == "correlated_noise":
        return {"correlation": abs(max(map(abs, found.spatial.rho)) - truth["rho"])}
    if spec.kind in ("lag", "shared_noise"):
        shared = {(i, k): rho for i, k, rho in found.between.pairs} if found.between else {}
        pair = tuple(sorted(truth.get("pair", ())))
        measured = found.between.lag[0] if found.between and spec.kind == "lag" else shared.get(pair, 0.0)
        return {"correlation": abs(measured - truth["rho"])}
    if spec.kind is None and not spec.noise.endswith("x"):
        _, _, gain, read = storage(spec)
        if gain == 0:
            return {"noise, sd or gain": abs(found.noise.sd / read - 1)}
        if found.noise.gain is not None:  # a flat scene does not tell it
            return {"noise, sd or gain": abs(found.noise.gain / gain - 1)}
    return {}


def planted(seed: int) -> None:
    """Make each set, examine it, and print counts and accuracies."""
    hits: Counter[str] = Counter()
    alarms = 0
    apart: dict[str, list[float]] = {name: [] for name in BARS}
    for s in (make(spec, seed) for spec in DEFECTIVE + CLEAN):
        findings = examine([scene_of_array(f"scene {k}", frames) for k, frames in enumerate(s.scenes)])
        kinds, spec = {SAME.get(f.kind, f.kind) for f in judge(findings)}, s.spec
        off = deviations(s, findings.scenes[0])
        for name, value in off.items():
            apart[name].append(value)
        named = spec.kind in kinds
        hits[str(spec.kind)] += named
        alarms += spec.kind is None and bool(kinds)
        verdict = ("found" if named else "MISSED") if spec.kind else ("FALSE ALARM" if kinds else "clean")
        what = f"{spec.kind} {spec.variant}, strength {s.strength:.4f}, {s.effect_db:.2f} dB" if spec.kind else "clean"
        about = f"{spec.scene} {spec.size} {spec.depth} {spec.noise} x{spec.frames}"
        print(
            f"{verdict:11} {what}: {about}", sorted(kinds), *(f"{k} off by {v:.4f}" for k, v in off.items()), flush=True
        )
    print({kind: f"{hits[kind]} of 5" for kind in dict.fromkeys(str(s.kind) for s in DEFECTIVE)})
    print(f"seed {seed}: {sum(hits.values()) - hits['None']} of {len(DEFECTIVE)} found, {alarms} false alarms")
    show(
        ["measure", "bar", "sets", "within", "median", "largest"],
        [
            [name, f"{bar:g}", str(len(a)), str(sum(v <= bar for v in a)), f"{np.median(a):.4f}", f"{max(a):.4f}"]
            for (name, bar), a in zip(BARS.items(), apart.values(), strict=True)
        ],
    )


def large() -> None:
    """Print the time and the peak memory of the command on 200 frames of 2048x2048 px of uint16."""
    with tempfile.TemporaryDirectory() as folder:
        rng, path = np.random.default_rng(0), Path(folder) / "frames.tif"
        rows, columns = np.mgrid[:2048, :2048]
        scene = 1000 + 500 * np.sin(rows / 9) * np.sin(columns / 13)
        noise = rng.normal(0, 60, (2048, 2048))
        with tifffile.TiffWriter(path, bigtiff=True) as file:
            for _ in range(200):
                frame = scene + np.roll(noise, rng.integers(0, 2048, 2), (0, 1))
                file.write(np.rint(frame).astype(np.uint16), contiguous=True, photometric="minisblack")
        data = ["data=burst", "data.axes=TYX", f"data.root={path}", f"data.cache_dir={folder}", f"output={folder}/out"]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "n2n_lightning.doctor", *data], check=True)
        wall, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{wall:.1f} s, CPU {used.ru_utime + used.ru_stime:.1f} s, peak {used.ru_maxrss / 1024:.0f} MB")


def main() -> None:
    """Run the chosen part."""
    arguments = sys.argv[1:]
    if arguments == ["--large"]:
        large()
    else:
        planted(int(arguments[0]) if arguments else SEED_REPORT)


if __name__ == "__main__":
    main()
