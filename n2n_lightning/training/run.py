"""One training run, from a plain configuration to a folder of results."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    EarlyStopping,
    RichProgressBar,
    WeightAveraging,
)
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.profilers import PassThroughProfiler
from torch.optim.swa_utils import get_ema_multi_avg_fn

from n2n_lightning.data.datamodule import NoisyPairDataModule, scale_pair
from n2n_lightning.data.neighbors import subsample
from n2n_lightning.data.pairs import NoisyPair
from n2n_lightning.losses import ANNEALED
from n2n_lightning.models.checkpoint import load_denoiser, read_checkpoint
from n2n_lightning.models.module import STEP_SCHEDULERS, DenoiserModule
from n2n_lightning.system import errors
from n2n_lightning.system.atomic import read_json
from n2n_lightning.training.build import Config, build_datamodule, build_module
from n2n_lightning.training.callbacks import EpochLines, ImageGrid, RunRecord
from n2n_lightning.training.check import check_config, loss_advice
from n2n_lightning.training.checkpointing import LAST, PREVIOUS, AtomicCheckpointIO, FiniteLoss, RunCheckpoints
from n2n_lightning.training.run_metadata import RESULT_NEUTRAL, describe_run, flatten, hyper_parameters

LATER_SETTINGS = {  # settings that earlier versions did not record, as they then were
    **{"compile": False, "save_minutes": None, "save_steps": None},
    "data.targets": "noisy",
    "data.resident": None,
}


class Unprofiled(PassThroughProfiler):
    """Lightning asks its profiler fifty times a step; the context that it makes each time for nothing costs 0.1 ms."""

    nothing: AbstractContextManager[None] = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]  # it yields nothing
        return self.nothing


class Interrupted(Exception):
    """A signal ended the run; ``code`` is the exit code for it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"interrupted by signal {code - 128}")
        self.code = code


@dataclass(frozen=True)
class PreparedRun:
    """What a run needs, checked and loaded, before anything is written."""

    config: Config
    folder: Path
    module: DenoiserModule
    datamodule: NoisyPairDataModule
    resume_from: Path | None
    resume_step: int  # the global step that resume_from was saved at; 0 without one
    facts: dict[str, Any]  # for result.json


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
        errors.InputError: the configuration or the data is wrong; nothing was written.
        Interrupted: by a signal; the state is kept.
    """
    quiet_lightning()
    try:
        check_config(config)
        if is_finished(config, folder):
            print(f"{folder.name}: already done, skipped", flush=True)
            return
        run = prepare_run(config, folder)
    except (ValueError, OSError) as error:
        raise errors.InputError(error) from error
    on_start()
    print(f"{folder.name}: training in {folder}" + (", resumed" if run.resume_from else ""), flush=True)
    if hint := loss_advice(config):
        print(f"warning: {hint}", file=sys.stderr, flush=True)
    if run.datamodule.data.sample_type != "uint8":
        print(f"range 0 to {run.datamodule.data.peak:g}; data.range=... sets another", flush=True)
    (folder / "train.log").unlink(missing_ok=True)
    grid = ImageGrid()
    record, loss = RunRecord(folder, names | run.facts, run.datamodule.monitor, grid), FiniteLoss()
    kept = {"minutes": config["save_minutes"], "steps": config["save_steps"]}
    saving = RunCheckpoints(folder / "checkpoints", record, loss, **kept)

    def write_end(status: str, reason: str) -> None:
        try:
            if record.begun or run.resume_from is None:
                record.write(status, reason)
        except OSError as unwritten:  # on a full disk the record stays as it was, and the run can be resumed
            print(f"warning: {folder} could not be told of it: {unwritten}", file=sys.stderr, flush=True)

    try:
        trainer = build_trainer(run, names, [grid, loss, record, *callbacks], saving)
        with saving.listening():
            trainer.fit(run.module, run.datamodule, ckpt_path=run.resume_from, weights_only=True)
    except SystemExit as error:  # the answer to a signal, Lightning's or ours
        code = errors.signal_exit_code(error)
        write_end("interrupted", f"signal {code - 128}")
        raise Interrupted(code) from error
    except Exception as error:
        write_end("failed", f"{type(error).__name__}: {error}")
        raise
    overfits = overfit_verdict(run, record) if run.datamodule.overfit_steps else None
    status, reason = ("done", None) if overfits else record.verdict()  # one batch says nothing about the others
    record.write(status, reason, **({"overfit": overfits} if overfits else {}))
    summary = f"{folder.name}: {status}" + (f" ({reason})" if reason else "")
    if "psnr" in record.monitor and record.best:
        summary += f", best {record.monitor} {record.best[record.monitor]:.2f} dB in epoch {record.best['best_epoch']}"
    print(summary + (f"; {overfits['verdict']}" if overfits else ""), flush=True)


def prepare_run(config: Config, folder: Path) -> PreparedRun:
    """Read the data, the checkpoint to go on from and the weights to start from."""
    resume_from, resume_step = find_state(folder) if config["resume"] else (None, 0)
    trained = None if config["init_from"] is None else load_denoiser(config["init_from"])  # before data takes minutes
    datamodule = build_datamodule(config)
    datamodule.setup("fit")
    pl.seed_everything(config["seed"], verbose=False)
    module = build_module(config, datamodule.image_shape[0])
    if trained is not None:
        start_from(module, trained, config["init_from"])
    facts = describe_run(config, module, datamodule)
    if config["compile"]:
        mode = config["compile"] if isinstance(config["compile"], str) else None
        module.net.compile(mode=mode)  # in place: weights keep their names
    earlier = read_json(folder / "result.json").get("data", {}).get("fingerprint") if resume_from else None
    if earlier not in (None, facts["data"]["fingerprint"]):
        raise ValueError(f"the data is not what {folder} was trained on; set another study=NAME, or resume=false")
    return PreparedRun(config, folder, module, datamodule, resume_from, resume_step, facts)


def find_state(folder: Path) -> tuple[Path | None, int]:
    """The checkpoint to go on from and its global step: the last one, or the one before where it is damaged.

    Raises:
        ValueError: there are checkpoints, and none can be read.
    """
    found = [path for name in (LAST, PREVIOUS) if (path := folder / "checkpoints" / name).exists()]
    faults = []
    for path in found:
        try:
            step = read_checkpoint(path).get("global_step")
            if not isinstance(step, int):
                raise ValueError(f"{path} holds no state of training; it was stripped, or is of another kind")
        except ValueError as error:
            faults.append(str(error))
            continue
        if faults:
            print(f"warning: {faults[0]}; going on from {path.name}, step {step}", file=sys.stderr, flush=True)
        return path, step
    if faults:
        raise ValueError(f"{'; '.join(faults)}; set resume=false to start over")
    return None, 0


def remove_stale_results(folder: Path) -> None:
    """Remove what an earlier run left, which this one would otherwise be taken for once it is interrupted."""
    for pattern in ("result.json", "checkpoints/*.ckpt", "events.out.tfevents.*"):
        for stale in folder.glob(pattern):
            stale.unlink()


def wait_for_a_later_second(folder: Path) -> None:
    """TensorBoard reads event files in the order of their names, which tell the second and then no more of time."""
    seconds = [int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")]
    while time.time() < max(seconds, default=0) + 1 < time.time() + 2:  # a clock that was set back is left alone
        time.sleep(0.05)


def build_trainer(
    run: PreparedRun, names: dict[str, Any], callbacks: list[pl.Callback], saving: pl.Callback
) -> pl.Trainer:
    """The Trainer with TensorBoard, our callbacks and a bar, or lines where no person watches."""
    monitor, alone = run.datamodule.monitor, multiprocessing.parent_process() is None  # or others run beside it
    watched = alone and sys.stdout.isatty()
    mode = "min" if monitor == "val/loss" else "max"
    purge_step = run.resume_step + 1 if run.resume_from else None
    if run.resume_from is None:
        remove_stale_results(run.folder)
    wait_for_a_later_second(run.folder)
    logger = TensorBoardLogger(
        run.folder.parent, run.folder.name, version="", default_hp_metric=False, purge_step=purge_step
    )
    parameters = hyper_parameters(run.config, names["model"], names.get("overrides", {}))
    if run.resume_from is None:
        logger.log_hyperparams(parameters, {f"{monitor}_best": float("nan")})
    else:
        logger.hparams.update(parameters)  # TensorBoard has them; the logger writes hparams.yaml when it ends
    bar = RichProgressBar(leave=True) if watched else EpochLines("" if alone else run.folder.name)
    patience = run.config["patience"]
    early = {"mode": mode, "patience": patience, "check_on_train_epoch_end": False}  # before the checkpoint, not after
    stopping = [EarlyStopping(monitor, **early)] if patience else []
    decay = run.config["ema"]
    on_gpu = run.config["trainer"]["accelerator"] != "cpu" and torch.cuda.is_available()
    averaging = (
        [WeightAveraging("cuda" if on_gpu else "cpu", multi_avg_fn=get_ema_multi_avg_fn(decay))] if decay else []
    )
    return pl.Trainer(
        **{"profiler": Unprofiled()} | run.config["trainer"],
        logger=logger,
        plugins=[AtomicCheckpointIO()],
        callbacks=[*callbacks, *averaging, bar, *stopping, saving],
        enable_progress_bar=watched,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
    )


def is_finished(config: Config, folder: Path) -> bool:
    """Whether the folder holds this very run, finished; a different configuration in it is refused."""
    earlier = read_json(folder / "result.json")
    if not earlier or not config["resume"]:
        return False
    before, now = flatten(earlier.get("config") or {}), flatten(config)
    before |= {key: value for key, value in LATER_SETTINGS.items() if key in now and key not in before}
    different = [key for key in sorted(before | now) if key not in RESULT_NEUTRAL and before.get(key) != now.get(key)]
    longer = different == ["trainer.max_epochs"] and now[different[0]] > before[different[0]]
    ends_with_the_run = config["scheduler"]["name"] in STEP_SCHEDULERS or config["loss"]["name"] in ANNEALED
    if longer and not ends_with_the_run:  # what falls or rises over the run has come to its end already
        return False  # goes on from where the shorter run ended
    if different:
        changes = ", ".join(f"{key} ({before.get(key)} there, {now.get(key)} here)" for key in different)
        raise ValueError(f"{folder} holds a run of another configuration: {changes}; set another study=NAME")
    return earlier.get("status") in ("done", "dead")


def start_from(module: DenoiserModule, trained: DenoiserModule, path: str) -> None:
    """Take over the trained weights of another run, which were read from ``path``."""
    channels, theirs = (m.hparams["channels"] for m in (module, trained))
    if channels != theirs:
        raise ValueError(
            f"init_from={path} is for images of {theirs} channels, the data has {channels}; choose other data"
        )
    try:
        module.net.load_state_dict(trained.net.state_dict())
    except RuntimeError as error:
        raise ValueError(
            f"init_from={path} holds a {trained.family} net that does not fit this model; choose the model it is of"
        ) from error


def overfit_verdict(run: PreparedRun, record: RunRecord) -> dict[str, Any]:
    """Whether the net learnt its one batch: its loss is at most half of that of the batch's mean colour."""
    batch = next(iter(run.datamodule.train_dataloader()))
    pair = scale_pair(NoisyPair(*batch), run.datamodule.data.peak)
    target = pair.target
    if target is None:
        assert pair.choice is not None
        _, target = subsample(pair.source, pair.choice)
    constant = run.module.pair_loss(target.mean((0, 2, 3), keepdim=True).expand_as(target), target, pair).item()
    loss = float(record.rows[-1]["train/loss"])
    learns = loss < constant / 2
    how = "overfits" if learns else "does not overfit"
    verdict = f"{how} one batch: loss {loss:.5f}, a constant image's {constant:.5f}"
    return {"loss": loss, "constant_loss": constant, "learns": learns, "verdict": verdict}


def show_thread_error(error: threading.ExceptHookArgs) -> None:
    """As Python does, but for TensorBoard's writer, which hands its own on to the training."""
    if type(error.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(error)


def quiet_lightning() -> None:
    """Drop Lightning's remarks on hardware and on choices that are deliberate here."""
    threading.excepthook = show_thread_error
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")  # whole batches from memory need none
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning's own use of torch
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")  # a resumed run's folder is
    warnings.filterwarnings("ignore", ".*The number of training batches.*")  # logged once an epoch only
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")  # the data module is
