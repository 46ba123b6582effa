"""Compare what training should cost with what it costs: ``python -m benchmarks.cost``.

For each model it counts the numbers of the cost model in ``docs/cost.md`` on the net itself: multiplications, values
that convolutions read and write, and bytes that autograd keeps, each per pixel. Then it compares the memory that the
cost model gives for a training step with the growth of a new process's resident memory in that step.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import configuration, forget_peak, machine, resident_mb, save
from benchmarks.tables import show
from benchmarks.turns import Convolutions
from n2n_lightning.training.build import build_module
from n2n_lightning.training.run_metadata import count_gmac
from n2n_lightning.training.settings import RunSettings

SIDE = 64  # px: side of the image that a net is counted on
STEP = """
import sys
from benchmarks.cost import train_step
print(train_step(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


def module_of(model: str) -> Any:
    return build_module(RunSettings.unchecked(configuration(f"model={model}")), 3)


def count(model: str) -> dict[str, Any]:
    """Count a net's multiplications, convolution values and kept bytes per pixel, in float32."""
    module = module_of(model)
    images = torch.rand(1, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in module.net.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held = module.net(images)
    del held  # only now, so that no memory was reused while it was counted
    values = sum(into.numel() + out.numel() for _, into, out in Convolutions(module.net, images).calls)
    pixels = SIDE**2
    return {
        "model": model,
        "params": sum(p.numel() for p in module.net.parameters()),
        "kmac_per_px": 1e6 * count_gmac(module, (3, SIDE, SIDE)) / pixels,
        "conv_values_per_px": values / pixels,
        "kept_bytes_per_px": sum(size for place, size in kept.items() if place not in weights) / pixels,
    }


def memory_mb(row: dict[str, Any], pixels: int) -> float:
    """Return the memory of a float32 training step: weights, gradients, Adam's two moments, and what autograd keeps."""
    return float(4 * 4 * row["params"] + row["kept_bytes_per_px"] * pixels) / 2**20


def train_step(model: str, side: int, batch: int) -> float:
    """Return by how many MB a step, images included, raises the peak of this process, which must be new."""
    module = module_of(model)
    optimizer = torch.optim.Adam(module.net.parameters(), fused=True)
    forget_peak()
    before = resident_mb("VmRSS")
    images = torch.rand(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    loss = (module.net(images) - images).square().mean()
    loss.backward()
    optimizer.step()
    return resident_mb("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(description="Count operations and bytes per pixel, and measure memory.")
    parser.add_argument("--models", default="unet,convtrans_relu,nafnet")
    parser.add_argument("--steps", nargs="+", default=["32x64", "64x16", "256x4"], help="side of the crops x batch")
    args = parser.parse_args()
    rows = [count(model) for model in args.models.split(",")]
    print(machine())
    figures = ("params", "kmac_per_px", "conv_values_per_px", "kept_bytes_per_px")
    titles = ["model", "parameters", "kMAC/px", "values of convolutions/px", "bytes kept/px"]
    show(titles, ((row["model"], *(f"{row[name]:,.0f}" for name in figures)) for row in rows))
    steps = []
    for row in rows:
        for step in args.steps:
            side, batch = map(int, step.split("x"))
            line = [sys.executable, "-c", STEP, row["model"], str(side), str(batch)]
            done = subprocess.run(line, check=True, capture_output=True, text=True)
            predicted, measured = memory_mb(row, batch * side**2), float(done.stdout)
            steps.append({"model": row["model"], "step": step, "predicted_mb": predicted, "measured_mb": measured})
    cells = ((s["model"], s["step"], f"{s['predicted_mb']:.0f}", f"{s['measured_mb']:.0f}") for s in steps)
    show(["model", "crops x batch", "memory by the cost model, MB", "measured, MB"], cells)
    save("cost", {"rows": rows, "steps": steps})


if __name__ == "__main__":
    main()
