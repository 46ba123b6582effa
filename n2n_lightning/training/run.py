"""One training run, from a plain configuration to a folder of results."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.profilers import PassThroughProfiler
from torch import Tensor

from n2n_lightning.data.datamodule import NoisyPairDataModule, scale_pair
from n2n_lightning.data.pairs import STAGES, NoisyPair
from n2n_lightning.data.single import SingleData
from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.system import errors
from n2n_lightning.system.folders import write_fault
from n2n_lightning.system.processes import OUTCOME
from n2n_lightning.system.ranks import launched_count
from n2n_lightning.training.budget import has_length, recall_length, set_length
from n2n_lightning.training.build import build_datamodule, build_module
from n2n_lightning.training.callback_choices import build_callbacks
from n2n_lightning.training.callbacks import EpochLines, ProgressBar, RunRecord
from n2n_lightning.training.check import check_config, loss_advice
from n2n_lightning.training.checkpointing import BEST, AtomicCheckpointIO, FiniteLoss, RunCheckpoints
from n2n_lightning.training.filter_comparison import compare_filters
from n2n_lightning.training.filter_scores import RANDOM_START, FilterScores, advice
from n2n_lightning.training.graph_choice import graph_recorder, reason_for_eager
from n2n_lightning.training.graph_step import Recorder, use_graphs
from n2n_lightning.training.image_grid import ImageGrid
from n2n_lightning.training.initial_weights import find_initial, start_from, starts_trained
from n2n_lightning.training.loggers import open_loggers
from n2n_lightning.training.precision_choice import choose_precision
from n2n_lightning.training.pruning import Pruning
from n2n_lightning.training.ranks import LEADER, LOST, RankPlan, RankStrategy, lost_rank, port_fault
from n2n_lightning.training.resuming import (
    check_data_unchanged,
    check_fingerprint,
    find_resume_checkpoint,
    is_finished,
    recall_defaults,
    remove_stale_results,
    wait_for_next_second,
)
from n2n_lightning.training.run_metadata import describe_run, hyper_parameters
from n2n_lightning.training.settings import Config, RunSettings
from n2n_lightning.training.single_noise import MeasuredNoise, measure_single_noise, without_rotation
from n2n_lightning.training.trainer_settings import DDP, trainer_arguments
from n2n_lightning.training.value_checks import check_initial_scale, range_line, value_warnings


@dataclass(frozen=True)
class PreparedRun:
    """What a run needs, checked and loaded, before anything is written.

    Ranks other than 0 have no metadata, as they write nothing.
    """

    settings: RunSettings
    folder: Path
    module: DenoiserModule
    datamodule: NoisyPairDataModule
    resume_from: Path | None
    resume_step: int  # global step of resume_from; 0 without one
    callbacks: list[pl.Callback]  # that the configuration chooses
    recorder: Recorder | None  # of the training step, as a CUDA graph
    metadata: dict[str, Any]  # for result.json
    warnings: list[str]
    noise: MeasuredNoise | None = None  # of single images
    validates_start: bool = False  # the weights that it starts from count as epoch 0


def train(
    config: Config,
    folder: Path,
    labels: dict[str, Any],
    on_start: Callable[[Config], None] = lambda config: None,
    callbacks: Sequence[pl.Callback] = (),
    pruning: Pruning | None = None,
) -> bool:
    """Train to the end, or resume from ``last.ckpt``; return False for a finished run, which is skipped.

    Args:
        config: the resolved configuration.
        folder: the run's folder.
        labels: entries for ``result.json`` that the configuration does not tell: ``model``, ``overrides``.
        on_start: called with the configuration, in which the run's length is set, when the input has been checked and
            before anything is written.
        callbacks: run in addition to our own.
        pruning: of a search's trial. A run that was pruned then counts as finished.

    Raises:
        errors.InputError: the configuration or the data is wrong; nothing was written.
        errors.Interrupted: by a signal; the state is saved.
    """
    quiet_lightning()
    try:
        run = prepare_leading(check_config(config), folder, labels, in_search=pruning is not None)
    except (ValueError, OSError) as error:
        raise errors.InputError(error) from error
    if run is None:
        return False
    with open_loggers(run.settings, folder) as loggers:
        on_start(run.settings.as_config())
        announce(run)
        if pruning is not None:
            pruning.monitor = run.datamodule.monitor
        record = fit(run, callbacks if pruning is None else [*callbacks, pruning], loggers)
    if pruning is not None and pruning.reason:
        record.write("pruned", pruning.reason)
        print(f"{folder.name}: pruned ({pruning.reason})", flush=True)
    else:
        conclude(run, record)
    return True


def find_monitor(config: Config) -> str:
    """Return the metric that would decide which epoch of a run is best. Reads the run's data.

    Raises:
        errors.InputError: the configuration or the data is wrong.
    """
    quiet_lightning()
    try:
        settings = check_config(config)
        datamodule = build_datamodule(settings)
        datamodule.setup("fit")
        if isinstance(datamodule.data, SingleData):
            noise = without_rotation(datamodule, measure_single_noise(settings, datamodule, None))
            datamodule.data.variance_is_trusted = noise.is_trusted
    except (ValueError, OSError) as error:
        raise errors.InputError(error) from error
    return datamodule.monitor


def prepare_leading(
    settings: RunSettings, folder: Path, labels: dict[str, Any], *, in_search: bool
) -> PreparedRun | None:
    """Prepare a run that may go on from what is in the folder; None if it is finished."""
    settings = recall_length(recall_defaults(settings, folder, labels), folder)
    settings, precision = choose_precision(settings, folder)
    if is_finished(settings, folder, in_search=in_search):
        check_data_unchanged(settings, folder)
        print(f"{folder.name}: already done, skipped", flush=True)
        return None
    if fault := write_fault(folder / "result.json"):
        fix = "set hydra.run.dir=FOLDER (with -m hydra.sweep.dir), or start in another folder"
        raise ValueError(f"{folder} cannot be written ({fault}); {fix}")
    if settings.trainer.get("strategy") == DDP and launched_count() is None and (fault := port_fault()):
        raise ValueError(fault)
    if precision:
        print(precision, flush=True)
    return prepare_run(settings, folder, labels, in_search=in_search)


def prepare_run(
    settings: RunSettings,
    folder: Path,
    labels: dict[str, Any],
    plan: RankPlan | None = None,
    *,
    in_search: bool = False,
) -> PreparedRun:
    """Load the data, and the checkpoints to resume from and to start from; build the model.

    With a budget of time, the length is set. A ``plan`` of rank 0 says where to resume, and what noise there is.
    """
    began = time.monotonic()
    if plan is not None:
        resume_from, resume_step = plan.resume_from, plan.resume_step
    else:
        resume_from, resume_step = find_resume_checkpoint(folder) if settings.resume else (None, 0)
    initial = find_initial(settings)  # before data takes minutes
    datamodule = build_datamodule(settings)
    datamodule.setup("fit")
    check_limits(settings.trainer, datamodule)
    asked, noise = settings.loss, None
    if isinstance(datamodule.data, SingleData):
        measured = plan.noise if plan else None
        noise = without_rotation(datamodule, measured or measure_single_noise(settings, datamodule, resume_from))
        print(noise.text, flush=True)
        settings = replace(settings, loss=noise.of_loss(asked))
        datamodule.data.variance, datamodule.data.variance_is_trusted = noise.variance, noise.is_trusted
    if settings.minutes and plan is None and not has_length(settings, folder):
        trained = starts_trained(settings, initial, datamodule.image_shape[0])
        settings, length = set_length(settings, datamodule, time.monotonic() - began, starts_trained=trained)
        print(length, flush=True)
    pl.seed_everything(settings.seed, verbose=False)
    module = build_module(settings, datamodule.image_shape[0])
    settings = replace(settings, loss=asked)
    start = None if initial is None else start_from(initial, module, str(settings.init_from))
    if initial is not None and start:
        check_initial_scale(initial, datamodule)
    warnings = value_warnings(module, datamodule)
    metadata = {} if plan else describe_run(settings, labels, module, datamodule)
    metadata |= {"start": start or RANDOM_START}
    if noise is not None:
        metadata["noise_measured"] = noise.record
    if settings.compile:
        mode = settings.compile if isinstance(settings.compile, str) else None
        module.net.compile(mode=mode)  # in place, so that the weights keep their names
    if resume_from and plan is None:
        check_fingerprint(metadata["data"]["fingerprint"], folder, settings.study)
    callbacks, recorder = build_callbacks(settings, datamodule.monitor), graph_recorder(settings)
    if plan is None and (reason := reason_for_eager(settings)):
        print(f"graph=auto: no graph, as {reason}", flush=True)
    # a search compares what training gives; one batch is learnt by heart
    validates_start = bool(start) and "psnr" in datamodule.monitor and not in_search and not datamodule.overfit_steps
    given = (callbacks, recorder, metadata, warnings, noise, validates_start)
    return PreparedRun(settings, folder, module, datamodule, resume_from, resume_step, *given)


def check_limits(trainer: Config, datamodule: NoisyPairDataModule) -> None:
    """Refuse limits that leave no batch of a stage; a float is the part of the batches to use."""
    for stage in STAGES:
        key, batches = f"limit_{stage}_batches", len(datamodule.loader(stage))
        limit = trainer.get(key)
        if isinstance(limit, float) and int(limit * batches) < 1:
            raise ValueError(
                f"trainer.{key} must leave a batch or more, got {limit} of {batches}; set trainer.{key}=1 for one batch"
            )


def announce(run: PreparedRun) -> None:
    """Print what is trained, and advice on the loss and the value range."""
    resumed = ", resumed" if run.resume_from else ""
    start = resumed or f", {run.metadata['start']}"
    print(f"{run.folder.name}: training in {run.folder}{start}", flush=True)
    advice = loss_advice(run.settings)
    for warning in [*([advice] if advice else []), *run.metadata["data_warnings"], *run.warnings]:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    if run.datamodule.data.sample_type != "uint8":
        print(f"{range_line(run.datamodule.data)}; data.range=... sets another", flush=True)


def fit(run: PreparedRun, callbacks: Sequence[pl.Callback], loggers: Sequence[Logger]) -> RunRecord:
    """Train, and return the record of the epochs. The callbacks and the loggers are run in addition to our own."""
    image_grid, finite_loss = ImageGrid(), FiniteLoss()
    resumed, leads = run.resume_from is not None, bool(run.metadata.get("format"))
    record = RunRecord(run.folder, run.metadata, run.datamodule.monitor, image_grid, resumed=resumed, writes=leads)
    minutes, steps = run.settings.save_minutes, run.settings.save_steps
    checkpoints = RunCheckpoints(run.folder / "checkpoints", record, finite_loss, minutes=minutes, steps=steps)
    if leads:
        (run.folder / "train.log").unlink(missing_ok=True)  # an earlier failure's
    ours = [*([image_grid] if leads else []), finite_loss, record, *callbacks]
    trainer: pl.Trainer | None = None
    try:
        trainer = build_trainer(run, ours, checkpoints, loggers, leads=leads)
        if isinstance(trainer.strategy, RankStrategy):
            if leads:
                os.environ[LEADER] = str(os.getpid())  # before Lightning starts the others
            trainer.strategy.plan = RankPlan(run.settings, run.folder, run.resume_from, run.resume_step, run.noise)
            trainer.strategy.on_wait = checkpoints.exit_if_signalled  # type: ignore[method-assign]  # for this run
            run.datamodule.limit_val_batches = run.settings.trainer.get("limit_val_batches")
        with checkpoints.handling_signals():
            trainer.fit(run.module, run.datamodule, ckpt_path=run.resume_from, weights_only=True)
    except SystemExit as error:  # raised by the handlers of signals, Lightning's or ours
        code = errors.signal_exit_code(error)
        record.write_failure("interrupted", f"signal {code - 128}")
        raise errors.Interrupted(code) from error
    except Exception as error:
        if lost_rank(error):
            record.write_failure("interrupted", LOST)
            raise RuntimeError(LOST) from error
        record.write_failure("failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        if trainer is not None and isinstance(trainer.strategy, RankStrategy):
            trainer.strategy.leave()
    return record


def build_trainer(
    run: PreparedRun,
    callbacks: list[pl.Callback],
    checkpoints: pl.Callback,
    loggers: Sequence[Logger],
    *,
    leads: bool = True,
) -> pl.Trainer:
    """Build the Trainer with TensorBoard, our callbacks, and a progress bar, or lines where nobody watches."""
    parallel = multiprocessing.parent_process() is not None or OUTCOME in os.environ  # others print to the same output
    wanted = run.settings.trainer.get("enable_progress_bar")  # null: where somebody watches
    watched = not parallel and sys.stdout.isatty() if wanted is None else wanted
    progress = ProgressBar(leave=True) if watched else EpochLines(run.folder.name if parallel else "")
    ours: dict[str, Any] = {
        "logger": [start_logger(run, loggers) if leads else silent_logger(run), *loggers],
        "callbacks": [*callbacks, *run.callbacks, progress, checkpoints],
        "enable_progress_bar": watched,
        "profiler": run.settings.trainer.get("profiler") or NoProfiler(),
    }
    if run.validates_start:
        ours["num_sanity_val_steps"] = -1  # before training, unless the run is resumed
    arguments = trainer_arguments(run.settings.trainer)
    ours["plugins"] = [AtomicCheckpointIO(), *arguments.get("plugins", ())]
    if run.settings.trainer.get("devices", 1) * run.settings.trainer.get("num_nodes", 1) > 1:
        ours["limit_val_batches"] = None  # the data module applies it, as the ranks share the images
    return use_graphs(pl.Trainer(**arguments | ours), run.recorder)


def silent_logger(run: PreparedRun) -> TensorBoardLogger:
    """Return a logger that writes nothing on ranks other than 0, for callbacks that refuse to run without one."""
    return TensorBoardLogger(run.folder.parent, run.folder.name, version="", default_hp_metric=False)


def start_logger(run: PreparedRun, others: Sequence[Logger]) -> TensorBoardLogger:
    """Delete stale results unless the run is resumed, open TensorBoard's log, and log the hyper-parameters to all."""
    if run.resume_from is None:
        remove_stale_results(run.folder)
    wait_for_next_second(run.folder)
    purge_step = run.resume_step + 1 if run.resume_from else None
    logger = TensorBoardLogger(
        run.folder.parent, run.folder.name, version="", default_hp_metric=False, purge_step=purge_step
    )
    parameters = hyper_parameters(run.settings, run.metadata["model"], run.metadata.get("overrides", {}))
    if run.resume_from is None:
        logger.log_hyperparams(parameters, {f"{run.datamodule.monitor}_best": float("nan")})
    else:
        logger.hparams.update(parameters)  # TensorBoard has them already; the logger writes hparams.yaml at its end
    for other in others:
        other.log_hyperparams(parameters)
    return logger


def conclude(run: PreparedRun, record: RunRecord) -> None:
    """Record and print the status of a run that reached its end."""
    overfit = overfit_verdict(run, record) if run.datamodule.overfit_steps else None
    status, reason = ("done", None) if overfit else record.verdict()  # one batch says nothing about the others
    more: dict[str, Any] = {"overfit": overfit} if overfit else {}
    if record.best and not overfit and (found := filter_entries(run)):
        more["filters"] = found
    record.write(status, reason, **more)
    summary = f"{run.folder.name}: {status}" + (f" ({reason})" if reason else "")
    if "psnr" in record.monitor and record.best:
        epoch = record.best["best_epoch"]
        summary += f", best {record.monitor} {record.best[record.monitor]:.2f} dB "
        summary += f"in epoch {epoch}" if epoch else "before training"
        summary += f", {record.start_score:.2f} before training" if epoch and record.start_score is not None else ""
    scores = FilterScores.read(record.best | more | {"monitor": record.monitor})
    print(
        summary + (f" ({scores.text})" if scores else "") + (f"; {overfit['verdict']}" if overfit else ""), flush=True
    )
    if scores and scores.net_loses:
        done = run.metadata | {"best_epoch": record.best["best_epoch"]}
        print(f"{run.folder.name}: {scores.difference} than the net; {advice([done])}", flush=True)


def filter_entries(run: PreparedRun) -> dict[str, Any]:
    """Return the entry ``filters`` of ``result.json``."""
    limit = run.settings.trainer.get("limit_val_batches")  # a number of batches, or as a float a share of them
    part = isinstance(limit, int) or (limit is not None and limit < 1)
    try:
        best, noise = run.folder / "checkpoints" / BEST, run.module.noise
        return compare_filters(run.datamodule, run.module.limits, best, part=part, noise=noise)
    except (MemoryError, RuntimeError, ValueError) as error:  # the net is trained; filters only stand beside it
        print(f"warning: filters could not be compared: {error}", file=sys.stderr, flush=True)
        return {}


def overfit_verdict(run: PreparedRun, record: RunRecord) -> dict[str, Any]:
    """Judge whether the net has learnt its one batch: its loss is at most half that of the batch's mean colour."""
    batch = next(iter(run.datamodule.loader("train")))
    pair = scale_pair(NoisyPair(*batch), run.datamodule.data.peak)

    def mean_colour(images: Tensor) -> Tensor:
        return images.mean((0, 2, 3), keepdim=True).expand_as(images)

    target, module = pair.target, run.module.eval()  # without regulariser
    loss_of_constant = (
        module.single_loss(mean_colour, pair) if target is None else module.pair_loss(mean_colour(target), target, pair)
    )
    constant = loss_of_constant.item()
    loss = float(record.rows[-1]["train/loss"])
    learns = loss < constant / 2
    how = "overfits" if learns else "does not overfit"
    verdict = f"{how} one batch: loss {loss:.5f}, a constant image's {constant:.5f}"
    return {"loss": loss, "constant_loss": constant, "learns": learns, "verdict": verdict}


class NoProfiler(PassThroughProfiler):
    """Save 0.1 ms per step: Lightning profiles fifty times a step, and makes a new context each time."""

    empty_context: AbstractContextManager[None] = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]  # it yields nothing
        """Return the same empty context every time."""
        return self.empty_context


def show_thread_error(error: threading.ExceptHookArgs) -> None:
    """Print a thread's error as Python does, except for TensorBoard's writer, which raises it in the training too."""
    if type(error.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(error)


def quiet_lightning() -> None:
    """Drop Lightning's remarks on hardware and on choices that are deliberate here."""
    threading.excepthook = show_thread_error
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "does not have many workers",  # whole batches from memory need none
        "LeafSpec",  # Lightning's own use of torch
        "is supported for historical reasons",  # precision=16 and the like, which are right
        "exists and is not empty",  # the folder of a resumed run
        "The number of training batches",  # we log once per epoch
        "your dataloader is not resumable",  # the data module is
        "sync_dist=True",  # what is logged is the same on all ranks
        "was called before the ``update`` method",  # a rank may have no image
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")
