"""The group ``trainer``: which arguments of Lightning's Trainer a run takes from it, which not, and why."""

from __future__ import annotations

import json
import os
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

from n2n_lightning.system.ranks import find_starter, launched_count
from n2n_lightning.training.ranks import RankStrategy
from n2n_lightning.training.settings import Config
from n2n_lightning.training.signatures import argument_faults, construction_faults

EVERY_EPOCH = "each epoch ends with a validation, which is its row of metrics.csv"
FIXED: dict[str, tuple[tuple[Any, ...], str]] = {  # argument -> the only values; why, and what does the same
    "barebones": ((False,), "a run needs its log and checkpoints; leave it out"),
    "callbacks": ((None,), "set callbacks=[{name: NAME}], without trainer."),
    "check_val_every_n_epoch": ((1,), f"{EVERY_EPOCH}; trainer.limit_val_batches=10 makes it shorter"),
    "default_root_dir": ((None,), "set hydra.run.dir=FOLDER for the run's folder"),
    "enable_checkpointing": ((True, None), "best.ckpt and last.ckpt are always written; save_minutes=5 says how often"),
    "enable_autolog_hparams": ((False,), "the hyper-parameters come from the configuration; leave it out"),
    "fast_dev_run": ((False,), "set debug=fast, which tries everything on a few batches"),
    "logger": ((True, None), "TensorBoard is always written; logger=wandb or logger=mlflow adds others"),
    "max_steps": ((-1,), "set trainer.max_epochs=E trainer.limit_train_batches=N, which train on E times N batches"),
    "num_sanity_val_steps": ((0, None), "what a run starts from is validated as a whole; debug=fast tries all"),
    "overfit_batches": ((0,), "set debug=overfit, which trains on one batch"),
    "plugins": ((None,), "it takes objects; trainer.precision=bf16-mixed sets the precision"),
    "reload_dataloaders_every_n_epochs": ((0,), "the data are the same in every epoch; leave it out"),
    "strategy": (("auto", "ddp"), "set trainer.strategy=auto, or trainer=ddp for several devices"),
    "val_check_interval": ((1, None), f"{EVERY_EPOCH}; trainer.limit_train_batches=N makes epochs shorter"),
}
DDP = "ddp"  # strategy: one process a device
MOST_PER_CORE = 4  # processes of a run on the CPU: more only take memory
ONE_DEVICE: Config = {"strategy": "auto", "devices": 1, "num_nodes": 1}
AUTO = "auto"  # precision: see ``precision_choice``
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", AUTO)  # the weights stay float32, as the images are
FP16 = ("16-mixed", "16", 16)
SAME_PRECISIONS = (32, "32", 16, "16", "bf16", None)  # Lightning's other names for these


def trains_on_cpu(trainer: Config) -> bool:
    """Return whether a run with this group ``trainer`` trains on a CPU here."""
    accelerator = trainer.get("accelerator", "auto")
    return accelerator == "cpu" or (
        accelerator == "auto" and not (torch.cuda.is_available() or torch.mps.is_available())
    )


def trainer_arguments(trainer: Config) -> Config:
    """Return the Trainer's arguments: those of the group ``trainer``, and those that every run needs."""
    chosen = {key: value for key, value in trainer.items() if key not in FIXED}
    if chosen.get("precision") == AUTO:  # not chosen yet, by a Trainer that trains nothing
        chosen["precision"] = PRECISIONS[0]
    needed: Config = dict.fromkeys(("logger", "enable_checkpointing", "enable_autolog_hparams"), False)
    needed |= {"num_sanity_val_steps": 0, "use_distributed_sampler": False}  # our loaders give each rank its share
    if trainer.get("strategy") == DDP:
        needed |= {"strategy": RankStrategy(), "plugins": environment_plugins()}
        needed["sync_batchnorm"] = trainer.get("accelerator") != "cpu" and torch.cuda.is_available()
    needed["max_time"] = None  # ``build_callbacks`` makes a callback of it
    return {"enable_progress_bar": False, "enable_model_summary": False} | chosen | needed


def environment_plugins() -> list[Any]:
    """Return what tells Lightning how the ranks were started, where it would take SLURM's word or requeue the job."""
    if find_starter() == "slurm":
        return [SLURMEnvironment(auto_requeue=False)]
    return [LightningEnvironment()] if find_starter() is None and SLURMEnvironment.detect() else []


def rank_faults(trainer: Config) -> list[str]:
    """Return the faults of what says how many processes train."""
    faults = []
    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    for key, value in (("devices", devices), ("num_nodes", nodes)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            faults.append(f"trainer: {key} must be an integer of 1 or more, got {as_typed(value)}; set trainer.{key}=1")
    if faults:
        return faults
    started = launched_count() or 1
    if trainer.get("strategy") != DDP:
        for key, value in (("devices", devices), ("num_nodes", nodes)):
            if value > 1:
                return [f"trainer: {key} must be 1 without trainer=ddp, got {value}; add trainer=ddp"]
        if find_starter() == "torchrun" and started > 1:
            return [f"trainer: torchrun has started {started} processes for one device; add trainer=ddp"]
        return []
    accelerator = trainer.get("accelerator", "auto")
    if accelerator == "mps":
        return ["trainer: accelerator must be cpu or gpu with trainer=ddp, got mps; set trainer.accelerator=cpu"]
    found, most = torch.cuda.device_count(), MOST_PER_CORE * (os.cpu_count() or 1)
    on_gpu = accelerator != "cpu" and found
    if on_gpu and devices > found:
        rule = f"devices must be at most {found}, the number of GPUs here, got {devices}"
        return [f"trainer: {rule}; set trainer.devices={found}, or trainer.accelerator=cpu"]
    if not on_gpu and devices > most:
        rule = f"devices must be at most {most}, {MOST_PER_CORE} processes for each core here, got {devices}"
        return [f"trainer: {rule}; set trainer.devices={most // MOST_PER_CORE}, one for each core"]
    if launched_count() not in (None, devices * nodes):
        rule = (
            f"devices x num_nodes must be the number of processes that were started, {started}, got {devices} x {nodes}"
        )
        return [f"trainer: {rule}; set trainer.devices={max(started // nodes, 1)}"]
    return []


def trainer_faults(trainer: Config) -> list[str]:
    """Return the faults of the group ``trainer``."""
    faults = [
        f"trainer: {key} must be {as_typed(values[0])}, got {as_typed(trainer[key])}; {fix}"
        for key, (values, fix) in FIXED.items()
        if key in trainer and trainer[key] not in values
    ]
    lightnings = trainer | ({"precision": PRECISIONS[0]} if trainer.get("precision") == AUTO else {})
    others = {key: value for key, value in lightnings.items() if key not in FIXED}
    faults += argument_faults("trainer", pl.Trainer, others, given=tuple(FIXED)) or value_faults(trainer)
    faults += rank_faults(trainer)
    return faults or construction_faults("trainer", lambda: pl.Trainer(**trainer_arguments(trainer)))


def as_typed(value: Any) -> str:
    """Return a value as it is typed on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def value_faults(trainer: Config) -> list[str]:
    """Return the faults of values that the Trainer would accept, but a run cannot use."""
    faults = []
    epochs, precision = trainer.get("max_epochs"), trainer.get("precision")
    if trainer.get("accelerator") in ("gpu", "cuda") and not (torch.cuda.is_available() or torch.mps.is_available()):
        with_ddp = trainer.get("strategy") == DDP
        fix = "trainer.accelerator=cpu" if with_ddp else "trainer=cpu, or trainer=default for what there is"
        faults.append(f"trainer: there is no GPU that torch can use; set {fix}")
    steps, clip = trainer.get("accumulate_grad_batches", 1), trainer.get("gradient_clip_val") or 0
    if not isinstance(epochs, int) or epochs < 1:
        faults.append(f"trainer: max_epochs must be 1 or more, got {epochs}; set trainer.max_epochs=20")
    for key in ("limit_train_batches", "limit_val_batches"):
        limit = trainer.get(key)
        if limit is not None and not limit > 0:
            faults.append(f"trainer: {key} must be above 0, got {limit}; set trainer.{key}=null")
    if precision not in (*PRECISIONS, *SAME_PRECISIONS):
        rule = f"precision must be one of {', '.join(PRECISIONS)}, got {precision}"
        faults.append(f"trainer: {rule}; the weights stay in 32 bits: set trainer.precision=bf16-mixed")
    elif precision in FP16 and trains_on_cpu(trainer):  # Lightning would take bf16-mixed, and the record would be wrong
        rule = f"precision={precision} needs a GPU to train on"
        faults.append(f"trainer: {rule}; set trainer.precision=bf16-mixed, or 32-true")
    if steps < 1:
        rule = f"accumulate_grad_batches must be 1 or more, got {steps}"
        faults.append(f"trainer: {rule}; set trainer.accumulate_grad_batches=1")
    if clip < 0:
        rule = f"gradient_clip_val must be 0 or more, got {clip}"
        faults.append(f"trainer: {rule}; set trainer.gradient_clip_val=1, or null for no clipping")
    return faults
