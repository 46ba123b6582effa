"""Check how well ``val/psnr_pairs`` estimates PSNR: ``python -m benchmarks.psnr_pairs --images FOLDER ...``.

The images are clean, with synthetic noise, so that the truth is known. The first table compares the estimate with the
PSNR pooled over the images, for the same noise and for different noises in source and target. The second shows how
often the 95 % interval of a small validation set covers the true value of the large pool that it was drawn from, with
fresh noise each time. The third, with ``--runs``, shows how many dB are lost when the epoch is selected without clean
images, in finished runs whose data has both.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.data.crops import Region, grid_crops
from n2n_lightning.image_io.listing import list_images
from n2n_lightning.image_io.stack import ImageStack, open_stacks
from n2n_lightning.metrics import PairQuality, pair_error, psnr_db, squared_error, triple_error
from n2n_lightning.models.checkpoint import load_denoiser
from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.noise.kinds import Gaussian, Noise, Poisson
from n2n_lightning.reporting.runs import read_runs
from n2n_lightning.system.atomic import write_json
from n2n_lightning.training.run_metadata import device_name

NOISES: dict[str, tuple[Noise, Noise]] = {
    **{f"Gaussian {sigma}": (Gaussian(sigma), Gaussian(sigma)) for sigma in (10, 25, 50)},
    "Poisson 30": (Poisson(30), Poisson(30)),
    "Gaussian 10 and 50": (Gaussian(10), Gaussian(50)),
    "Gaussian 25 and Poisson 30": (Gaussian(25), Poisson(30)),
}
BATCH = 50


def read_tiles(folder: Path, crop_px: int, most: int) -> Tensor:
    """Read disjoint tiles of the folder's 8-bit RGB images: (N, 3, crop_px, crop_px) float32 in [0, 1]."""
    opened = open_stacks(list_images(folder), Path("outputs/cache"))
    stacks = [stack for stack in opened if isinstance(stack, ImageStack)]
    regions = [Region(number, 0, 0, *stack.shape[1:3]) for number, stack in enumerate(stacks)]
    tiles = grid_crops(regions, (crop_px, crop_px), most, seed=0).regions[:, :3]
    pixels = np.stack([stacks[n].read(0, int(top), int(left), crop_px, crop_px) for n, top, left in tiles])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def denoise(module: DenoiserModule, noisy: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        estimate: Tensor = module(noisy.contiguous(memory_format=torch.channels_last))
    return estimate


def errors(module: DenoiserModule, clean: Tensor, noises: tuple[Noise, Noise], rng: torch.Generator) -> Iterator[Any]:
    """Yield for each batch the MSE of its N images, (5, N) float32.

    The rows: true for both directions, estimated from two frames, true for one direction, estimated from three frames,
    and of the noisy images.
    """
    for batch in clean.split(BATCH):
        first, second = (noise.corrupt(batch, rng) for noise in noises)
        third = noises[1].corrupt(batch, rng)
        one, other = denoise(module, first), denoise(module, second)
        true_one, true_other = squared_error(one, batch), squared_error(other, batch)
        yield torch.stack(
            [
                (true_one + true_other) / 2,
                pair_error(one, other, first, second),
                true_one,
                triple_error(one, second, third),
                (first - second).square().flatten(1).mean(1) / 2,
            ]
        )


def agreement(module: DenoiserModule, clean: Tensor) -> list[dict[str, Any]]:
    """Compute and print the first table."""
    rows = []
    for name, noises in NOISES.items():
        rng = torch.Generator().manual_seed(0)
        mse = torch.cat(list(errors(module, clean, noises, rng)), 1).mean(1)
        true, pairs, true_one, triples, noisy = psnr_db(mse).tolist()
        rows.append(
            {
                "noise": name,
                "noisy": noisy,
                "psnr_pooled": true,
                "psnr_pairs": pairs,
                "psnr_pooled_one_way": true_one,
                "psnr_triples": triples,
            }
        )
        print(
            f"{name:<28} pooled {true:.3f}  pairs {pairs:.3f}  ({pairs - true:+.3f})"
            f"  three frames {triples - true_one:+.3f}",
            flush=True,
        )
    return rows


def coverage(module: DenoiserModule, pool: Tensor, noise: Noise, draws: int, crops: int) -> dict[str, Any]:
    """Count for the second table how many intervals, of ``draws`` sets of ``crops`` images, hold the pool's value."""
    rng = torch.Generator().manual_seed(1)
    both = (noise, noise)
    truth = torch.cat([torch.cat(list(errors(module, pool, both, rng)), 1)[0] for _ in range(4)]).mean().item()
    covered = 0
    for _ in range(draws):
        chosen = pool[torch.randperm(len(pool), generator=rng)[:crops]]
        scores = PairQuality()
        for batch in errors(module, chosen, both, rng):
            scores.update(batch[1], batch[4])
        found = scores.compute()
        covered += found["psnr_pairs_low"] <= psnr_db(truth).item() <= found["psnr_pairs_high"]
    return {"pool": len(pool), "draws": draws, "crops": crops, "psnr_pooled": psnr_db(truth).item(), "covered": covered}


def selection(folder: Path) -> list[dict[str, Any]]:
    """Compute and print the third table: each run's best epoch by ``val/psnr``, and the one by ``val/psnr_pairs``."""
    rows = []
    for run in read_runs(folder).runs:
        clean, pairs = run.history.get("val/psnr", {}), run.history.get("val/psnr_pairs", {})
        if clean and pairs:
            best, chosen = max(clean, key=clean.__getitem__), max(pairs, key=pairs.__getitem__)
            rows.append(
                {
                    "run": run.name,
                    "loss": run.part("loss")["name"],
                    "epochs": len(clean),
                    "best_epoch": best,
                    "chosen_epoch": chosen,
                    "lost_db": clean[best] - clean[chosen],
                }
            )
            print(f"{run.name}: best epoch {best}, chosen {chosen}, {rows[-1]['lost_db']:.3f} dB lost")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare val/psnr_pairs with the PSNR against clean images.")
    parser.add_argument("--checkpoint", default="weights/five_models/unet/best.ckpt")
    parser.add_argument("--images", type=Path, required=True, help="folder of clean RGB images for the first table")
    parser.add_argument("--pool", type=Path, help="folder for the second table; default: the same")
    parser.add_argument("--pool-crops", type=int, default=1000)
    parser.add_argument("--pool-crop-px", type=int, default=64)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--runs", type=Path, help="folder of finished runs of data=clean, for the third table")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/psnr_pairs.json"))
    args = parser.parse_args()
    module = load_denoiser(args.checkpoint)
    print(f"{args.checkpoint} on {args.images.name}, 256x256 crops; PSNR in dB, difference of the estimate in brackets")
    rows = agreement(module, read_tiles(args.images, 256, 10**6))
    pool = read_tiles(args.pool or args.images, args.pool_crop_px, args.pool_crops)
    covers = {name: coverage(module, pool, NOISES[name][0], args.draws, 100) for name in ("Gaussian 25", "Poisson 30")}
    for name, row in covers.items():
        of = f"of {row['draws']} intervals of {row['crops']} crops cover the value of the pool of {row['pool']}"
        print(f"{name}: {row['covered']} {of}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    found = {"checkpoint": args.checkpoint, "agreement": rows, "coverage": covers, "device": device_name()}
    if args.runs:
        found["selection"] = selection(args.runs)
    write_json(args.output, found)
    print(args.output)


if __name__ == "__main__":
    main()
