"""The precision of a run where ``trainer.precision=auto``: bfloat16 where that trains faster and costs no quality."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch

from n2n_lightning.system.atomic import read_json
from n2n_lightning.training.build import build_module
from n2n_lightning.training.initial_weights import OWN_IMAGES
from n2n_lightning.training.settings import RunSettings
from n2n_lightning.training.trainer_settings import AUTO, trains_on_cpu

FAMILIES = ("nafnet", "unet")  # of nets that lose less than 0.02 dB by it: ``python -m benchmarks.bf16``
FLOAT32, BFLOAT16 = "32-true", "bf16-mixed"
TRIAL_PX, TRIAL_BATCH = 64, 4  # of the images of a trial, at most
TRIAL_STEPS = 3  # that are timed in each precision, after a first one
LEAST_SPEED_UP = 1.25


def choose_precision(settings: RunSettings, folder: Path | None = None) -> tuple[RunSettings, str | None]:
    """Return the settings with a precision for "auto", and a line about it where it is no matter of course.

    A run that goes on in ``folder`` keeps its precision. The study and other data than one's own images train in
    float32, as do accelerators, where small nets wait for launches rather than for arithmetic.
    """
    if settings.trainer.get("precision") != AUTO:
        return settings, None
    earlier = read_json(folder / "result.json") if folder and settings.resume else {}
    precision, line = (earlier.get("config") or {}).get("trainer", {}).get("precision"), None
    if precision not in (FLOAT32, BFLOAT16) or "trainer.precision" in earlier.get("overrides", {}):
        speed_up = measure_speed_up(settings) if may_use_bf16(settings) else 1.0
        precision = BFLOAT16 if speed_up >= LEAST_SPEED_UP else FLOAT32
        if precision == BFLOAT16:
            line = f"trainer.precision={BFLOAT16}: {speed_up:.1f} times as fast here as {FLOAT32}"
    return replace(settings, trainer=settings.trainer | {"precision": precision}), line


def may_use_bf16(settings: RunSettings) -> bool:
    """Return whether a run trains one's own images on a CPU, with a net that loses next to nothing by bfloat16."""
    own_images = settings.data.name in OWN_IMAGES
    return own_images and settings.model.name in FAMILIES and trains_on_cpu(settings.trainer)


def measure_speed_up(settings: RunSettings) -> float:
    """Return how many times as fast a step of the net is in bfloat16 as in float32, on random images.

    One thread computes, and its own time counts, so that other work on the machine does not.
    """
    net = build_module(settings, channels=3).net
    values = settings.data.values
    side, batch = min(values.get("crop_px") or TRIAL_PX, TRIAL_PX), min(values["batch_size"], TRIAL_BATCH)
    images = torch.rand(batch, 3, side, side).contiguous(memory_format=torch.channels_last)

    def seconds(*, is_bf16: bool) -> float:
        began = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            loss = net(images).square().mean()
        loss.backward()
        return time.process_time() - began

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        taken = [(seconds(is_bf16=False), seconds(is_bf16=True)) for _ in range(1 + TRIAL_STEPS)][1:]
    finally:
        torch.set_num_threads(threads)
    return min(in_float32 for in_float32, _ in taken) / min(in_bf16 for _, in_bf16 in taken)
