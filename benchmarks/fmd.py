"""Score a run of ``experiment=fmd``: ``python -m benchmarks.fmd RUN --frames FOLDER --reference FOLDER``.

``--frames`` has a folder of noisy frames for each scene, ``--reference`` an image SCENE.png for each: the mean of 50
frames, the noisy frame itself among them. Whole frames are compared with the reference. On the last fifth of each
scene, which training has not seen, the estimate from noisy frames stands beside the truth; what the noise that is left
in the reference adds to it is taken out. A Gaussian blur, of the strength that its estimate chooses, stands beside the
net.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from benchmarks.tables import show
from n2n_lightning import Denoiser
from n2n_lightning.image_io.listing import list_images
from n2n_lightning.metrics import PairQuality, psnr_db, squared_error, triple_error
from n2n_lightning.system.atomic import write_json

BLURS_PX = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)  # standard deviations that are tried
REFERENCE_FRAMES = 50
HELD_BACK = 0.2  # of the width
TITLES = ("scene", "noisy", "denoised", "blur", "estimate", "truth", "difference", "blur's estimate", "its truth")


class Scores(NamedTuple):
    """PSNR in dB: means over whole frames, and from the pooled MSE of the part that was held back."""

    noisy: float
    denoised: float
    blurred: float
    estimate: float
    truth: float
    blur_estimate: float
    blur_truth: float


def read(path: Path) -> Tensor:
    """Return the image as (1, 1, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.asarray(Image.open(path).convert("L"), np.float32) / 255)[None, None]


def frame_psnr(images: Tensor, reference: Tensor) -> float:
    """Return the mean over frames of the PSNR, dB. (N, 1, H, W), (1, 1, H, W)."""
    return float(psnr_db(squared_error(images, reference)).mean())


def estimate_db(estimates: Tensor, frames: Tensor) -> float:
    """Return the PSNR that the other frames of each estimate give, dB. (N, 1, H, W) twice, N of 3 or more."""
    quality, count = PairQuality(), len(frames)
    for n in range(count):
        second, *others = (frames[(n + k) % count][None] for k in range(1, count))
        third = torch.cat(others).mean(0, keepdim=True)
        noise = ((frames[n] - second) * (frames[n] - third)).flatten(1).mean(1)
        quality.update(triple_error(estimates[n][None], second, third), noise)
    return quality.compute()["psnr_pairs"]


def truth_db(estimates: Tensor, frames: Tensor, reference: Tensor) -> float:
    """Return the PSNR of the pooled MSE, dB, without what the noise of the reference does. (N, 1, H, W), (1, 1, H, W).

    With noise n of a frame and error e of its estimate, the reference has noise r with variance var(n) / 50, and, as it
    averages the frame itself, covariance cov(e, r) = cov(e, n) / 50. So mean((estimate - reference)^2) is
    mean(e^2) + var(n) / 50 - 2 cov(e, n) / 50. Other frames of the scene, whose noise is independent, give cov(e, n).
    """
    products = [
        (estimates[n] - frames[(n + 1) % len(frames)]) * (frames[n] - frames[(n + 2) % len(frames)])
        for n in range(len(frames))
    ]
    covariance, noise = torch.stack(products).mean(), frames.var(0).mean()
    mse = squared_error(estimates, reference).mean() + (2 * covariance - noise) / REFERENCE_FRAMES
    return float(psnr_db(mse))


def blur(frames: Tensor, sigma_px: float) -> Tensor:
    return torch.from_numpy(gaussian_filter(frames.numpy(), (0, 0, sigma_px, sigma_px)))


def score(denoiser: Denoiser, frames: Tensor, reference: Tensor) -> Scores:
    """Score all frames of a scene. (N, 1, H, W), (1, 1, H, W) float32 in [0, 1]."""
    denoised = torch.cat([denoiser.denoise(frame[None], range=1.0) for frame in frames])
    start = round(frames.shape[-1] * (1 - HELD_BACK))
    held, held_reference = frames[..., start:], reference[..., start:]
    blurred = max((blur(frames, sigma) for sigma in BLURS_PX), key=lambda x: estimate_db(x[..., start:], held))
    return Scores(
        noisy=frame_psnr(frames, reference),
        denoised=frame_psnr(denoised, reference),
        blurred=frame_psnr(blurred, reference),
        estimate=estimate_db(denoised[..., start:], held),
        truth=truth_db(denoised[..., start:], held, held_reference),
        blur_estimate=estimate_db(blurred[..., start:], held),
        blur_truth=truth_db(blurred[..., start:], held, held_reference),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run's folder, a checkpoint, or the name of weights")
    parser.add_argument("--frames", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--reference", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--json", type=Path, default=Path("outputs/benchmarks/fmd.json"))
    arguments = parser.parse_args()
    denoiser = Denoiser.load(arguments.run)
    denoiser.per_channel = denoiser.channels > 1  # grey frames, as images whose channels are equal
    found, counts = {}, {}
    for folder in sorted(path for path in arguments.frames.iterdir() if path.is_dir()):
        frames = torch.cat([read(path) for path in list_images(folder)])
        found[folder.name] = score(denoiser, frames, read(arguments.reference / f"{folder.name}.png"))
        counts[folder.name] = len(frames)
    weights = np.array(list(counts.values())) / sum(counts.values())
    whole = (weights[:, None] * np.array(list(found.values()))).sum(0)
    gaps = np.array([scores.estimate - scores.truth for scores in found.values()])
    rows = [[name, *(f"{v:.2f}" for v in (*s[:5], s.estimate - s.truth, *s[5:]))] for name, s in found.items()]
    show(TITLES, rows)
    noisy, denoised, blurred = whole[:3].tolist()
    print(f"mean over {sum(counts.values())} frames: noisy {noisy:.2f}, denoised {denoised:.2f}, blur {blurred:.2f} dB")
    print(f"estimate less truth: mean over scenes {gaps.mean():+.2f} dB, {gaps.min():+.2f} to {gaps.max():+.2f}")
    means = {"noisy": noisy, "denoised": denoised, "blurred": blurred}
    scenes = {name: scores._asdict() for name, scores in found.items()}
    write_json(arguments.json, {"run": arguments.run, "means": means, "gap": gaps.mean(), "scenes": scenes})


if __name__ == "__main__":
    main()
