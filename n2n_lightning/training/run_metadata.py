"""Metadata of a run: configuration, size of the net, machine, versions."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.frame_data import FrameData
from n2n_lightning.data.pairs import PairData
from n2n_lightning.data.scene_data import SceneData
from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.system.folders import PACKAGE
from n2n_lightning.system.hydra_app import group_choices
from n2n_lightning.system.plugin_loading import plugins_of
from n2n_lightning.training.build import compose_model
from n2n_lightning.training.settings import Config, RunSettings

VERSIONED = ("n2n_lightning", "torch", "pytorch-lightning", "hydra-core", "torchmetrics", "numpy")
RESULT_NEUTRAL = (  # settings that do not change the result
    *("resume", "study", "save_minutes", "save_steps", "plugins", "graph"),
    *("data.cache_dir", "data.num_workers", "data.val_batch_size"),
    *("trainer.devices", "trainer.num_nodes", "trainer.strategy"),
)


def describe_run(
    settings: RunSettings, labels: dict[str, Any], module: DenoiserModule, datamodule: NoisyPairDataModule
) -> dict[str, Any]:
    """Return the entries of ``result.json`` that are known before training, after the ``labels``."""
    data, config = datamodule.data, settings.as_config()
    return labels | {
        "format": 1,
        "family": module.family,
        "optimizer": settings.optimizer.values,
        "own_optimizer": has_own_optimizer(settings.optimizer.values, labels["model"], labels.get("overrides", {})),
        "scheduler": settings.scheduler.chosen,
        "loss": settings.loss.values,
        "data": settings.data.values | describe_data(data),
        "data_warnings": data.warnings if isinstance(data, FrameData) else [],
        "noise": settings.noise.chosen,
        **{f"{part}_pairs": len(source) for part, source in datamodule.sources.items()},
        "image_shape": list(datamodule.image_shape),
        "batch_size": datamodule.batch_size,
        "params": sum(p.numel() for p in module.net.parameters()),
        "gmac": count_gmac(module, datamodule.image_shape),
        "precision": settings.trainer.get("precision"),
        "max_epochs": settings.trainer["max_epochs"],
        "device": device_name(settings.trainer.get("accelerator", "auto")),
        "seed": settings.seed,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONED},
        "git_commit": git_commit(),
        "plugins": plugins_of(config),
        "config": config,
    }


def describe_data(data: PairData) -> dict[str, Any]:
    """Return what was found in the data: fingerprint and range, the span of values below 0, and values far out."""
    found = {"fingerprint": data.fingerprint(), "peak": data.peak}
    if not isinstance(data, SceneData):
        return found
    if data.values.span.low < 0:
        found["span"] = list(data.span)
    if outliers := data.values.span.outliers:
        found |= {"outliers": outliers, "outlier_files": data.values.outlier_files}
    return found | (data.corrections if isinstance(data, FrameData) else {})


def has_own_optimizer(optimizer: Config, model: str, overrides: dict[str, str]) -> bool:
    """Return whether the optimizer equals the one that the configuration gives this model, overridden or not."""
    if model not in group_choices("model"):  # a model of the user's own configuration folder
        return not any(key.partition(".")[0] == "optimizer" for key in overrides)
    return bool(optimizer == compose_model(model)["optimizer"])


def count_gmac(module: DenoiserModule, image_shape: tuple[int, int, int]) -> float:
    """Count the multiply-add operations, in 1e9, that denoise one image of (C, H, W)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.net(torch.zeros(1, *image_shape))
    return float(counter.get_total_flops()) / 2e9


def device_name(accelerator: str = "auto") -> str:
    """Return the name of the accelerator, or of the CPU with the number of threads."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def git_commit() -> str | None:
    """Return the commit of the checkout, with "-dirty" if files differ from it; None if this is no checkout."""
    checkout = PACKAGE.parent
    if not (checkout / "pyproject.toml").exists():  # an installed package, maybe inside somebody else's repository
        return None
    command = ["git", "-C", os.fspath(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def hyper_parameters(settings: RunSettings, model: str, overrides: dict[str, str]) -> dict[str, Any]:
    """Return what TensorBoard's HPARAMS tab compares: the settings that studies sweep most, and the overrides."""
    common: dict[str, Any] = {"model": model, "optimizer": settings.optimizer.name, "loss": settings.loss.name}
    common["scheduler"] = settings.scheduler.name or "none"
    common["lr"] = settings.optimizer.values.get("lr", "default")
    common |= {"batch_size": settings.data.values.get("batch_size", "default"), "seed": settings.seed}
    return common | {key: value for key, value in overrides.items() if key.rpartition(".")[2] not in common}
