"""Measure what each fault of the frames does to ``val/psnr_pairs``: ``python -m benchmarks.estimate``.

Frames of scikit-image's photographs are simulated with one fault each (``benchmarks.estimate_faults``), two and six of
each scene. The estimate of PSNR is compared with the truth on the same pixels, against the clean image at the source
frame's level and place. There are two denoisers: a filter, which keeps the level and the place of its input, and a
small net that was trained on the same kind of pairs. The last columns say what the doctor and training find. The
second table shows how much the estimate varies where pixels are few or the result is very clean.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from benchmarks.estimate_denoisers import Denoise, blur, train
from benchmarks.estimate_faults import FAULTS, PHOTOS, SIGMA, VAL_PX, Fault, Recording, control, photo, shared
from benchmarks.measuring import save
from benchmarks.tables import show
from n2n_lightning.data.arrays import array_stack
from n2n_lightning.data.defects import scene_defects
from n2n_lightning.data.frame_data import compare_frames
from n2n_lightning.data.frame_warnings import level_warning, shift_warning
from n2n_lightning.data.scenes import Scene, StackImage
from n2n_lightning.diagnosis import examine, judge, scene_of_array
from n2n_lightning.metrics import PairQuality, pair_error, psnr_db, squared_error, triple_error

FRAMES = (2, 6)
CHECKS = ("doctor", "train")
TILE_PX = 64


class Effort(NamedTuple):
    """How much is simulated."""

    photos: Sequence[str] = PHOTOS
    seeds: int = 1  # of noise and nets; each scene has noise of its own
    steps: int = 400  # of a training
    draws: int = 20  # of noise, for each row of the second table


TINY = Effort(PHOTOS[:2], steps=20, draws=5)


class Score(NamedTuple):
    """PSNR of one scene, dB."""

    true: float
    estimated: float
    noisy: float  # true, of the noisy images

    @property
    def error(self) -> float:
        return self.estimated - self.true


def tiles(frames: np.ndarray) -> Tensor:
    """Cut (n, H, W) into tiles, at most of 64x64 px -> (n, N, 1, h, w) float32."""
    n, height, width = frames.shape
    side = min(TILE_PX, height)
    cut = frames.reshape(n, height // side, side, width // side, side).swapaxes(2, 3)
    return torch.from_numpy(cut.reshape(n, -1, 1, side, side).astype(np.float32))


@torch.no_grad()
def score(denoise: Denoise, recording: Recording) -> Score:
    """Score a recording as validation does, with each frame as source in turn."""
    noisy, clean, limits = tiles(recording.noisy), tiles(recording.clean), recording.limits
    estimates = [denoise(frame) for frame in noisy]
    n = len(noisy)
    pair = n == 2  # one estimate for both directions
    errors, noisy_errors = [], []
    for k in range(1 if pair else n):
        source, second = noisy[k], noisy[(k + 1) % n]
        if pair:
            errors.append(pair_error(estimates[0], estimates[1], source, second, limits))
            noisy_errors.append(0.5 * (source - second).square().flatten(1).mean(1))
        else:
            third = torch.stack([noisy[(k + j) % n] for j in range(2, n)]).mean(0)
            errors.append(triple_error(estimates[k], second, third, limits))
            noisy_errors.append(((source - second) * (source - third)).flatten(1).mean(1))
    quality = PairQuality()
    quality.update(torch.stack(errors).mean(0), torch.stack(noisy_errors).mean(0))
    true = torch.stack([squared_error(e, c, limits).mean() for e, c in zip(estimates, clean, strict=True)]).mean()
    noise = (noisy - clean).square().mean()
    return Score(psnr_db(true).item(), quality.compute()["psnr_pairs"], psnr_db(noise).item())


def measure(fault: Fault, n: int, effort: Effort, number: int = 0) -> dict[str, Any]:
    """Return the scores of the filter and of the net, all scenes and seeds, and what the doctor finds."""
    found: dict[str, list[Score]] = {"filter": [], "net": []}
    said: dict[str, list[str]] = {}
    for seed in range(effort.seeds):
        rng = np.random.default_rng([seed, number, n])
        recordings = [fault(photo(name), n, rng) for name in effort.photos]
        net = train([r.cut(slice(None), slice(None, -VAL_PX)) for r in recordings], effort.steps, seed)
        held_back = [r.cut(slice(VAL_PX), slice(-VAL_PX, None)) for r in recordings]
        found["filter"] += [score(blur(1.0), r) for r in held_back]
        found["net"] += [score(net, r) for r in held_back]
        if seed == 0:
            said = {"doctor": doctor_finds(recordings), "train": training_finds(recordings)}
    return {name: summary(scores) for name, scores in found.items()} | said


def doctor_finds(recordings: Sequence[Recording]) -> list[str]:
    """Return the kinds of findings of the doctor, apart from its notes."""
    scenes = [scene_of_array(str(k), r.noisy[..., None].astype(np.float32)) for k, r in enumerate(recordings)]
    return sorted({finding.kind for finding in judge(examine(scenes)) if finding.severity != "note"})


def training_finds(recordings: Sequence[Recording]) -> list[str]:
    """Return what the checks at the start of training find."""
    found = set()
    for recording in recordings:
        stacks = [array_stack(frame.astype(np.float32), f"frame {k}") for k, frame in enumerate(recording.noisy)]
        scene = Scene(tuple(StackImage(stack, 0) for stack in stacks))
        if scene_defects(scene):
            found.add("refused")
            continue
        compared = compare_frames(scene.noisy, whole=False, match_levels=False)
        assert compared is not None
        looked_at = [(scene, list(range(len(stacks))), compared)]
        said = {
            "refused": bool(compared.odd),
            "levels": level_warning(looked_at, "") is not None,
            "shift": shift_warning(looked_at, "") is not None,
            "outliers": any(stack.outliers for stack in stacks),
        }
        found |= {name for name, what in said.items() if what}
    return sorted(found)


def summary(scores: Sequence[Score]) -> dict[str, float]:
    """Return means, and the spread of the estimate's error, all in dB."""
    true, estimated, noisy = np.mean(scores, axis=0).tolist()
    errors = [s.error for s in scores]
    parts = {"true": true, "estimated": estimated, "noisy": noisy}
    return parts | {"error": float(np.mean(errors)), "spread": float(np.std(errors))}


def text(found: dict[str, float]) -> str:
    return f"{found['error']:+.2f} ± {found['spread']:.2f}"


def fault_table(effort: Effort, faults: dict[str, Fault]) -> list[dict[str, Any]]:
    """Measure and print the first table."""
    rows: list[dict[str, Any]] = []
    for number, (name, fault) in enumerate(faults.items()):
        rows.append({"fault": name} | {str(n): measure(fault, n, effort, number) for n in FRAMES})
    titles = [f"{denoiser}, {n} frames" for denoiser in ("filter", "net") for n in FRAMES]
    print("Estimate minus truth, dB: mean and standard deviation over scenes and seeds")
    show(
        ["fault", *titles, *(f"{check}, 2 / 6 frames" for check in CHECKS)],
        [
            [
                row["fault"],
                *(text(row[str(n)][denoiser]) for denoiser in ("filter", "net") for n in FRAMES),
                *(" / ".join(", ".join(row[str(n)][check]) or "-" for n in FRAMES) for check in CHECKS),
            ]
            for row in rows
        ],
    )
    return rows


def spread_table(effort: Effort) -> list[dict[str, Any]]:
    """Measure and print the second table: few pixels, and results much cleaner than the noise."""
    rows: list[dict[str, Any]] = []
    sharp, smooth = photo("camera"), ndimage.gaussian_filter(photo("camera"), 12)
    cases = [("photograph", sharp, 1.0), ("smooth scene", smooth, 6.0)]
    for name, scene, sigma_px in cases:
        for side, share in ((32, 0.0), (64, 0.0), (256, 0.0), (256, 0.005)):
            for n in FRAMES:
                rng = np.random.default_rng([side, n])
                area = scene[VAL_PX // 2 :, VAL_PX // 2 :][:side, :side]
                scores = []
                for _ in range(effort.draws):
                    recording = shared(area, n, rng, share=share) if share else control(area, n, rng)
                    scores.append(score(blur(sigma_px), recording))
                rows.append({"scene": name, "px": side, "frames": n, "share": share, **summary(scores)})
    print("\nA filter's estimate minus truth, dB: mean and standard deviation over draws of the noise")
    show(
        ["scene", "side, px", "frames", "shared variance", "true gain", "estimate minus truth"],
        [
            [r["scene"], str(r["px"]), str(r["frames"]), f"{r['share']:g}", f"{r['true'] - r['noisy']:.1f}", text(r)]
            for r in rows
        ],
    )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables and write ``outputs/benchmarks/estimate.json``."""
    parser = argparse.ArgumentParser(description="Measure what each fault does to val/psnr_pairs.")
    parser.add_argument("--tiny", action="store_true", help="simulate little, to see that it runs")
    effort = TINY if parser.parse_args(arguments).tiny else Effort()
    torch.set_num_threads(1)
    about = {"effort": effort._asdict(), "noise_sd": SIGMA, "val_px": VAL_PX}
    save("estimate", {**about, "faults": fault_table(effort, FAULTS), "spread": spread_table(effort)})


if __name__ == "__main__":
    main()
