"""Loggers beside TensorBoard: Weights & Biases, and MLflow. Their packages are imported only where a run uses them."""

from __future__ import annotations

import importlib.util
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch import Tensor

from n2n_lightning.system import errors
from n2n_lightning.system.atomic import read_json, write_json
from n2n_lightning.training.settings import Config, RunSettings
from n2n_lightning.training.signatures import argument_faults

RECORD = "loggers.json"  # in a run's folder: logger -> the run's id there, and the last step logged there
MLFLOW_RETRIES = "3"  # of a request that fails, about 15 s; MLflow's own 7 take minutes
WANDB_FLUSH_S = "0.2"  # after which a logged value is in W&B's file, also if the run is killed; its own 15 lose epochs


class OutsideLogger(Logger):
    """A logger that does not end the run if it fails, and that does not log a step twice if the run is resumed."""

    key: str  # in the group ``logger``
    failed = False
    first_step = 0  # earlier steps were logged before the run was resumed

    def attempt(self, log: Callable[..., Any], *arguments: Any, step: int | None = None) -> None:
        """Call ``log(*arguments)``, unless an earlier part of the run logged the step; give up for good if it fails."""
        if self.failed or (step is not None and step < self.first_step):
            return
        try:
            log(*arguments)
        except Exception as error:  # of a server, or of any kind within the library
            self.failed = True
            text = f"warning: logger={self.key} failed ({errors.one_line(error)}); the run goes on without it"
            print(text, file=sys.stderr, flush=True)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.attempt(super().log_metrics, metrics, step, step=step)  # type: ignore[safe-super]  # the library's

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        self.attempt(super().log_hyperparams, params)  # type: ignore[safe-super]  # the library's

    def finalize(self, status: str = "") -> None:
        """Do nothing: ``close`` knows better how the run ended than Lightning does."""

    def log_pixels(self, tag: str, pixels: npt.NDArray[np.uint8], step: int) -> None:
        """Log a picture. (H, W, 3), or (H, W) if it is grey, uint8."""
        raise NotImplementedError

    def close(self, code: int) -> None:
        """End the run there with the exit code."""
        raise NotImplementedError


class WandbRun(OutsideLogger, WandbLogger):
    """A run at Weights & Biases."""

    key = "wandb"

    def log_pixels(self, tag: str, pixels: npt.NDArray[np.uint8], step: int) -> None:
        self.log_image(tag, [pixels], step)

    def close(self, code: int) -> None:
        self.experiment.finish(exit_code=code)


class MlflowRun(OutsideLogger, MLFlowLogger):
    """A run at a server or in a database of MLflow."""

    key = "mlflow"
    resumed = False

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        if not self.resumed:  # MLflow refuses to change them
            super().log_hyperparams(params)

    def log_pixels(self, tag: str, pixels: npt.NDArray[np.uint8], step: int) -> None:
        self.experiment.log_image(self.run_id, pixels, key=tag, step=step)

    def close(self, code: int) -> None:
        status = {errors.DONE: "FINISHED", errors.FAILED: "FAILED"}.get(code, "KILLED")
        self.experiment.set_terminated(self.run_id, status)


def open_wandb(
    folder: Path,
    run_id: str | None,
    *,
    project: str = "n2n_lightning",
    entity: str | None = None,
    group: str | None = None,
    mode: Literal["online", "offline", "disabled"] | None = None,
    tags: Sequence[str] | None = None,
    notes: str | None = None,
) -> WandbRun:
    """Open a run at Weights & Biases, or go on with the one that has this id.

    Args:
        folder: the run's folder, which gives the run its name. W&B writes into ``wandb/`` in it.
        run_id: of an earlier part of the run.
        project: where the run is shown.
        entity: user or team that owns the project.
        group: runs of one group are shown together.
        mode: None for that of the environment, which is online if it does not say.
        tags: of the run.
        notes: of the run.
    """
    os.environ.setdefault("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", WANDB_FLUSH_S)
    settings: dict[str, Any] = {"entity": entity, "group": group, "mode": mode, "tags": tags, "notes": notes}
    run_id = run_id or secrets.token_hex(4)  # as long as W&B's own
    logger = WandbRun(name=folder.name, save_dir=folder, id=run_id, project=project, **settings)
    logger.experiment  # noqa: B018  # opens the run
    return logger


def open_mlflow(
    folder: Path,
    run_id: str | None,
    *,
    tracking_uri: str | None = None,
    experiment_name: str = "n2n_lightning",
    tags: dict[str, str] | None = None,
) -> MlflowRun:
    """Open a run at MLflow, or go on with the one that has this id.

    Args:
        folder: the run's folder, which gives the run its name.
        run_id: of an earlier part of the run.
        tracking_uri: of the server or the database; None for that of the environment, or MLflow's default.
        experiment_name: runs of one experiment are shown together.
        tags: of the run.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", MLFLOW_RETRIES)
    import mlflow

    uri = tracking_uri or mlflow.get_tracking_uri()
    client = mlflow.MlflowClient(uri)
    if client.get_experiment_by_name(experiment_name) is None:
        with suppress(mlflow.MlflowException):  # another job of the sweep was faster; else the next call fails too
            client.create_experiment(experiment_name)
    if run_id:
        try:
            client.update_run(run_id, status="RUNNING")
        except mlflow.MlflowException:  # it was deleted there, or this is another server
            run_id = None
    logger = MlflowRun(experiment_name, folder.name, uri, {**(tags or {})}, run_id=run_id)
    logger.resumed = run_id is not None
    _ = logger.run_id  # opens the run
    return logger


LOGGERS: dict[str, Callable[..., OutsideLogger]] = {"mlflow": open_mlflow, "wandb": open_wandb}
ADVICE = {
    "mlflow": "start the server, or set logger.mlflow.tracking_uri=sqlite:///mlflow.db",
    "wandb": "call `wandb login` once, or set logger.wandb.mode=offline",
}


def logger_faults(chosen: Config) -> list[str]:
    """Return the faults of the group ``logger``."""
    faults = []
    for name, settings in chosen.items():
        if name not in LOGGERS:
            takes = f"logger takes {', '.join(LOGGERS)}"
            faults.append(f"logger.{name} is no setting here{errors.suggest(name, LOGGERS)}; {takes}")
        elif not isinstance(settings, dict):
            faults.append(f"logger.{name} must be a group of settings, got {settings!r}; set logger={name}")
        elif not is_installed(name):
            faults.append(f'logger={name} needs the package {name}; install it: pip install "n2n_lightning[{name}]"')
        else:
            faults += argument_faults(f"logger.{name}", LOGGERS[name], settings, given=("folder", "run_id"))
    return faults


def is_installed(package: str) -> bool:
    """Return whether a package can be imported. A plain folder of that name, such as W&B's own, is no package."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


@contextmanager
def open_loggers(run: RunSettings, folder: Path) -> Iterator[list[OutsideLogger]]:
    """Open the loggers of the group ``logger``, and close them as the block ends; write their ids into the folder.

    Raises:
        errors.InputError: one of them cannot be opened.
    """
    record = read_json(folder / RECORD) if run.resume else {}
    loggers: list[OutsideLogger] = []
    code = errors.FAILED
    try:
        for name, settings in run.logger.items():
            known = record.get(name, {})
            logger = open_logger(name, folder, known.get("id"), settings)
            loggers.append(logger)
            logger.first_step = known.get("step", -1) + 1 if logger.version == known.get("id") else 0
            record[name] = known | {"id": logger.version}
            write_json(folder / RECORD, record)
        if not record:
            (folder / RECORD).unlink(missing_ok=True)  # of a run that starts over
        yield loggers
        code = errors.DONE
    except errors.Interrupted as error:
        code = error.code
        raise
    finally:
        for logger in loggers:
            with suppress(Exception):  # the results are in the folder
                logger.close(code)


def open_logger(name: str, folder: Path, run_id: str | None, settings: Config) -> OutsideLogger:
    """Open one logger; an InputError if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return LOGGERS[name](folder, run_id, **settings)
    except Exception as error:  # of a server, or of any kind within the library
        raise errors.InputError(f"logger={name} cannot be opened ({errors.one_line(error)}); {ADVICE[name]}") from error


def log_epoch(loggers: Sequence[Logger], metrics: Mapping[str, float], step: int, folder: Path) -> None:
    """Log an epoch's metrics to all loggers, and note in the run's folder that they are logged."""
    for logger in loggers:
        logger.log_metrics(dict(metrics), step=step)
    outside = [logger for logger in loggers if isinstance(logger, OutsideLogger) and not logger.failed]
    if outside:
        logged = {logger.key: {"id": logger.version, "step": step} for logger in outside}
        write_json(folder / RECORD, read_json(folder / RECORD) | logged)


def log_picture(loggers: Sequence[Logger], tag: str, picture: Tensor, step: int) -> None:
    """Log a picture to all loggers. (C, H, W) float32 in [0, 1]; C is 1 or 3."""
    pixels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, picture, step)
        elif isinstance(logger, OutsideLogger):
            logger.attempt(logger.log_pixels, tag, pixels if pixels.shape[2] == 3 else pixels[:, :, 0], step, step=step)
