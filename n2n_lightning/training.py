"""One training run, from a plain configuration to a folder of results."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch.utils.flop_counter import FlopCounterMode

from n2n_lightning import cli
from n2n_lightning.callbacks import EpochLines, ImageGrid, RunRecord
from n2n_lightning.checkpoint import load_denoiser, read_checkpoint
from n2n_lightning.compose import Config, build_datamodule, build_module, check_config
from n2n_lightning.datamodule import NoisyPairDataModule
from n2n_lightning.module import DenoiserModule

VERSIONED = ("n2n_lightning", "torch", "pytorch-lightning", "hydra-core", "torchmetrics", "numpy")
UNCOMPARED = ("resume", "study", "data.cache_dir", "data.num_workers", "data.val_batch_size")  # change no result


class Interrupted(Exception):
    """A signal ended the run; ``code`` is the exit code for it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"interrupted by signal {code - 128}")
        self.code = code


@dataclass(frozen=True)
class Prepared:
    """What a run needs, checked and loaded, before anything is written."""

    config: Config
    folder: Path
    module: DenoiserModule
    datamodule: NoisyPairDataModule
    resume_from: Path | None


def train(
    config: Config,
    folder: Path,
    names: dict[str, Any],
    on_start: Callable[[], None] = lambda: None,
    callbacks: Sequence[pl.Callback] = (),
) -> None:
    """Train to the end, or go on from ``last.ckpt``; a finished run is left as it is.

    Args:
        config: the resolved configuration.
        folder: the run's.
        names: further entries for ``result.json``: ``model``, ``overrides``.
        on_start: called once the input is known to be right, before anything is written.
        callbacks: run beside our own.

    Raises:
        cli.InputError: the configuration or the data is wrong; nothing was written.
        Interrupted: by SIGINT or SIGTERM; the state of the last epoch is kept.
    """
    quiet_lightning()
    try:
        check_config(config)
        if is_finished(config, folder):
            print(f"{folder.name}: already done, skipped", flush=True)
            return
        run = prepare(config, folder)
    except (ValueError, OSError) as error:
        raise cli.InputError(error) from error
    on_start()
    print(f"{folder.name}: training in {folder}" + (", resumed" if run.resume_from else ""), flush=True)
    grid = ImageGrid()
    record = RunRecord(folder, names | describe(run), run.datamodule.monitor, grid)
    record.write("interrupted")
    trainer = build_trainer(run, names["model"], [grid, record, *callbacks])
    try:
        trainer.fit(run.module, run.datamodule, ckpt_path=run.resume_from, weights_only=True)
    except SystemExit as error:  # Lightning's answer to a signal
        code = cli.SIGTERM if isinstance(error, SIGTERMException) else cli.SIGINT
        record.write("interrupted", f"signal {code - 128}")
        raise Interrupted(code) from error
    except Exception as error:
        (folder / "train.log").write_text("".join(traceback.format_exception(error)))
        record.write("failed", f"{type(error).__name__}: {error}")
        raise
    status, reason = record.verdict()
    more = {"overfit": overfit_verdict(run.datamodule, record)} if run.datamodule.overfit_steps else {}
    record.write(status, reason, **more)
    summary = f"{folder.name}: {status}" + (f" ({reason})" if reason else "")
    if "val/psnr" in record.best:
        summary += f", best val/psnr {record.best['val/psnr']:.2f} dB in epoch {record.best['best_epoch']}"
    print(summary + "".join(f"; {check['verdict']}" for check in more.values()), flush=True)


def prepare(config: Config, folder: Path) -> Prepared:
    """Read the data, the checkpoint to go on from and the weights to start from."""
    last = folder / "checkpoints" / "last.ckpt"
    resume_from = last if config["resume"] and last.exists() else None
    if resume_from:
        read_checkpoint(resume_from)
    datamodule = build_datamodule(config)
    datamodule.setup("fit")
    pl.seed_everything(config["seed"], verbose=False)
    module = build_module(config, datamodule.image_shape[0])
    if config["init_from"] is not None:
        start_from(module, config["init_from"])
    return Prepared(config, folder, module, datamodule, resume_from)


def build_trainer(run: Prepared, model: str, callbacks: list[pl.Callback]) -> pl.Trainer:
    """The Trainer with TensorBoard, the two checkpoints and a bar, or lines where no person watches."""
    monitor, watched = run.datamodule.monitor, sys.stdout.isatty()
    purge_step = None
    if run.resume_from is None:
        for stale in run.folder.glob("events.out.tfevents.*"):
            stale.unlink()
    else:
        purge_step = read_checkpoint(run.resume_from)["global_step"] + 1
    logger = TensorBoardLogger(
        run.folder.parent, run.folder.name, version="", default_hp_metric=False, purge_step=purge_step
    )
    logger.log_hyperparams(hyper_parameters(run.config, model), {f"{monitor}_best": float("nan")})
    checkpoints = ModelCheckpoint(
        run.folder / "checkpoints",
        filename="best",
        monitor=monitor,
        mode="min" if monitor == "val/loss" else "max",
        save_last=True,
        enable_version_counter=False,
    )
    bar = RichProgressBar(leave=True) if watched else EpochLines()
    return pl.Trainer(
        **run.config["trainer"],
        logger=logger,
        callbacks=[*callbacks, LearningRateMonitor("epoch"), bar, checkpoints],
        enable_progress_bar=watched,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def is_finished(config: Config, folder: Path) -> bool:
    """Whether the folder holds this very run, finished; a different configuration in it is refused."""
    try:
        earlier = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        return False
    before, now = flatten(earlier.get("config") or {}), flatten(config)
    different = [key for key in sorted(before | now) if key not in UNCOMPARED and before.get(key) != now.get(key)]
    if different == ["trainer.max_epochs"] and config["resume"] and now[different[0]] > before[different[0]]:
        return False  # a longer run goes on from where the shorter one ended
    if different:
        changes = ", ".join(f"{key} ({before.get(key)} there, {now.get(key)} here)" for key in different)
        raise ValueError(f"{folder} holds a run of another configuration: {changes}; set another study=NAME")
    return earlier.get("status") in ("done", "dead")


def flatten(config: Config, prefix: str = "") -> dict[str, Any]:
    """Nested -> dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def start_from(module: DenoiserModule, path: str) -> None:
    """Load the trained weights of another run."""
    trained = load_denoiser(path)
    try:
        module.net.load_state_dict(trained.net.state_dict())
    except RuntimeError as error:
        raise ValueError(f"init_from={path} holds a {trained.family} net that does not fit this model") from error


def describe(run: Prepared) -> dict[str, Any]:
    """What ``result.json`` says of a run before its training."""
    config, module, datamodule = run.config, run.module, run.datamodule
    pairs = {f"{part}_pairs": len(source) for part, source in datamodule.sources.items()}
    return {
        "format": 1,
        "family": module.family,
        "optimizer": config["optimizer"],
        "scheduler": config["scheduler"] if config["scheduler"]["name"] else None,
        "loss": config["loss"],
        "data": config["data"] | {"fingerprint": datamodule.data.fingerprint()},
        **pairs,
        "image_shape": list(datamodule.image_shape),
        "batch_size": datamodule.batch_size,
        "params": sum(p.numel() for p in module.net.parameters()),
        "gmac": count_gmac(module, datamodule.image_shape),
        "max_epochs": config["trainer"]["max_epochs"],
        "device": device_name(),
        "seed": config["seed"],
        "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONED},
        "git_commit": git_commit(),
        "config": config,
    }


def count_gmac(module: DenoiserModule, image_shape: tuple[int, int, int]) -> float:
    """Multiplications and additions, in 1e9 pairs, to denoise one image of (C, H, W)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.net(torch.zeros(1, *image_shape))
    return float(counter.get_total_flops()) / 2e9


def device_name() -> str:
    """The accelerator's name, or the processor's with the number of threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def git_commit() -> str | None:
    """Commit of the checkout that this package runs from, "-dirty" when files differ from it; None without one."""
    command = [
        "git",
        "-C",
        os.fspath(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def hyper_parameters(config: Config, model: str) -> dict[str, Any]:
    """What the HPARAMS tab compares."""
    flat = {
        key: value for key, value in flatten(config).items() if not key.startswith("trainer.") and key not in UNCOMPARED
    }
    return {"model": model, "max_epochs": config["trainer"]["max_epochs"]} | flat


def overfit_verdict(datamodule: NoisyPairDataModule, record: RunRecord) -> dict[str, Any]:
    """Whether the net learnt its one batch: at least half of what the best constant image leaves unexplained."""
    batch = next(iter(datamodule.train_dataloader()))
    target = batch.target.float() / datamodule.data.peak
    constant = target.sub(target.mean((0, 2, 3), keepdim=True)).square().mean().item()
    loss = float(record.rows[-1]["train/loss"])
    learns = loss < constant / 2
    verdict = (
        f"{'overfits' if learns else 'does not overfit'} one batch: loss {loss:.5f}, a constant image {constant:.5f}"
    )
    return {"loss": loss, "constant_loss": constant, "learns": learns, "verdict": verdict}


def quiet_lightning() -> None:
    """Drop Lightning's remarks on hardware and on choices that are deliberate here."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")  # whole batches from memory need none
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning's own use of torch
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")  # a resumed run's folder is
    warnings.filterwarnings("ignore", ".*The number of training batches.*")  # logged once an epoch only
