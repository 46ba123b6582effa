"""Loggers beside TensorBoard: W&B offline and a real server of MLflow where they are installed; failures; resuming."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from conftest import Command
from logger_content import Logged, read_mlflow, read_wandb
from pytorch_lightning.loggers import CSVLogger
from small_runs import compose_config, read_json, read_table, tiny_overrides, train_in
from warm_processes import SECONDS

from n2n_lightning.system import errors
from n2n_lightning.training import loggers
from n2n_lightning.training.run import train

RUN = ("model=convtrans_relu", "trainer.max_epochs=3")


class FakeRun(loggers.OutsideLogger, CSVLogger):
    """Stand in for a logger of the group: keep what is logged in ``rows``, and fail as told."""

    key = "wandb"
    rows: list[tuple[int, set[str]]]
    fails = ""
    closed: int | None = None

    @property
    def version(self) -> Any:
        return self.run_id

    def log_pixels(self, tag: str, pixels: Any, step: int) -> None:
        if self.fails == "log_pixels":
            raise ConnectionError("the server\nis gone")
        self.rows.append((step, {tag}))

    def close(self, code: int) -> None:
        self.closed = code
        if self.fails == "close":
            raise ConnectionError("the server is gone")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """Let ``logger=wandb`` open a fake; return those that were opened."""
    found: list[FakeRun] = []

    def open_fake(folder: Path, run_id: str | None, *, project: str, mode: str | None = None, **_: Any) -> FakeRun:
        if mode == "online":
            raise ConnectionError("no network")
        run = FakeRun(folder / "fake", name=None, version="0")
        run.run_id, run.rows, run.fails = run_id or f"id{len(found)}", [], project
        found.append(run)
        return run

    monkeypatch.setitem(loggers.LOGGERS, "wandb", open_fake)
    monkeypatch.setattr(loggers, "is_installed", lambda _: True)
    return found


class BreakOff(pl.Callback):
    """End the run when its second epoch is logged and not saved."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("broken off")


def break_off(folder: Path, root: Path, *options: str) -> None:
    config = compose_config(*tiny_overrides(root), *options)
    with pytest.raises(RuntimeError, match="broken off"):
        train(config, folder, {"model": "convtrans_relu"}, callbacks=[BreakOff()])


def test_a_resumed_run_goes_on_in_the_same_run_and_logs_no_epoch_twice(
    tmp_path: Path, course_data: Path, opened: list[FakeRun]
):
    break_off(tmp_path / "run", course_data, *RUN, "logger=wandb")
    train_in(tmp_path / "run", course_data, *RUN, "logger=wandb")
    assert [run.run_id for run in opened] == ["id0", "id0"]
    assert [run.closed for run in opened] == [errors.FAILED, errors.DONE]
    pictures = [step for run in opened for step, tags in run.rows if tags == {"val/images"}]
    assert pictures == [12, 24, 36]
    assert read_json(tmp_path / "run/loggers.json") == {"wandb": {"id": "id0", "step": 36}}


def test_starting_over_starts_a_new_run_there_too(tmp_path: Path, course_data: Path, opened: list[FakeRun]):
    short = ("model=convtrans_relu", "trainer.max_epochs=1")
    for options in (["logger=wandb"], ["logger=wandb", "resume=false"], ["resume=false"]):
        train_in(tmp_path / "run", course_data, *short, *options)
    assert [run.run_id for run in opened] == ["id0", "id1"]
    assert not (tmp_path / "run/loggers.json").exists()


def test_a_logger_can_be_added_to_an_unfinished_run(tmp_path: Path, course_data: Path, opened: list[FakeRun]):
    break_off(tmp_path / "run", course_data, *RUN)
    train_in(tmp_path / "run", course_data, *RUN, "logger=wandb", "logger.wandb.project=other")
    assert [step for step, tags in opened[0].rows if tags == {"val/images"}] == [24, 36]


@pytest.mark.parametrize("fails", ["log_pixels", "close"])
def test_a_logger_that_fails_does_not_end_the_run(
    tmp_path: Path, course_data: Path, opened: list[FakeRun], capsys: pytest.CaptureFixture[str], fails: str
):
    folder = train_in(tmp_path / "run", course_data, *RUN, "logger=wandb", f"logger.wandb.project={fails}")
    assert len(read_table(folder)) == 3 and read_json(folder / "result.json")["status"] == "done"
    warned = "warning: logger=wandb failed (the server; is gone)" in capsys.readouterr().err
    assert warned == (fails == "log_pixels") and opened[0].closed == errors.DONE


def test_a_logger_that_cannot_be_opened_is_refused_before_anything_is_written(
    command: Command, course_data: Path, opened: list[FakeRun]
):
    line = (*RUN, *tiny_overrides(course_data), "logger=wandb", "logger.wandb.mode=online")
    code, _, err = command(*line)
    assert code == 2 and "logger=wandb cannot be opened (no network)" in err and "logger.wandb.mode=offline" in err
    assert not list(Path().iterdir())


def test_the_logger_is_no_part_of_a_runs_name_and_a_sweep_over_loggers_trains_once(
    command: Command, course_data: Path, opened: list[FakeRun]
):
    short = ("model=convtrans_relu", "trainer.max_epochs=1", *tiny_overrides(course_data))
    code, out, _ = command("-m", "logger=wandb,tensorboard", "logger.wandb.project=x", *short)
    assert code == 2  # logger=tensorboard has no setting logger.wandb.project
    code, out, _ = command("-m", "logger=wandb,tensorboard", *short)
    assert code == 0 and "2 jobs of the sweep: 1 done, 1 skipped" in out
    (folder,) = (path for path in Path("outputs/runs").iterdir() if path.is_dir())
    assert "logger" not in folder.name and len(opened) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["logger=wandb", "logger.wandb.mode=of"], ["logger.wandb.mode must be", "'offline'", "got 'of'"]),
        (
            ["logger=mlflow", "+logger.mlflow.tracking_url=x"],
            ["mlflow.tracking_url is", "did you mean 'tracking_uri'?"],
        ),
        (["+logger.wandd.project=x"], ["logger.wandd", "did you mean 'wandb'?"]),
        (["+logger.wandb=x"], ["logger.wandb must be a group of settings, got 'x'"]),
    ],
)
def test_wrong_settings_are_refused(options: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loggers, "is_installed", lambda _: True)
    (fault,) = loggers.logger_faults(compose_config(*options)["logger"])
    for word in words:
        assert word in fault


def test_a_missing_package_is_named_with_the_line_that_installs_it(
    command: Command, monkeypatch: pytest.MonkeyPatch, course_data: Path
):
    monkeypatch.setattr(loggers, "is_installed", lambda name: name != "wandb")
    code, _, err = command(*RUN, *tiny_overrides(course_data), "logger=[wandb,mlflow]")
    assert code == 2 and 'pip install "n2n_lightning[wandb]"' in err and "[mlflow]" not in err


def test_a_folder_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "plain_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not loggers.is_installed("plain_folder") and loggers.is_installed("torch")


# the real libraries


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server of MLflow; return its address."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", str(folder / "files")]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    log = (folder / "log.txt").open("wb")
    alone = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # eight processes that no test needs
    process = subprocess.Popen([*command, *store], env=alone, stdout=log, stderr=log, start_new_session=True)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine, whatever the proxy
    deadline = time.monotonic() + SECONDS
    try:
        while True:
            try:
                opener.open(f"http://127.0.0.1:{port}/health", timeout=SECONDS).close()
                break
            except urllib.error.URLError:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log.txt").read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(SECONDS)


@pytest.mark.slow
@pytest.mark.skipif(
    not (importlib.util.find_spec("wandb") and importlib.util.find_spec("mlflow")),
    reason="wandb and mlflow are extras, which make setup does not install",
)
def test_a_sweep_and_a_resumed_run_are_logged_as_in_metrics_csv(
    tmp_path: Path, course_data: Path, server: str, monkeypatch: pytest.MonkeyPatch
):
    import mlflow

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    both = ("logger=[wandb,mlflow]", "logger.wandb.mode=offline", f"logger.mlflow.tracking_uri={server}")
    break_off(tmp_path / "convtrans_relu", course_data, *RUN, *both)
    for model in ("convtrans_relu", "nn_relu"):
        folder = train_in(tmp_path / model, course_data, f"model={model}", "trainer.max_epochs=3", *both)
        ids = read_json(folder / "loggers.json")
        starts = 2 if model == "convtrans_relu" else 1
        in_wandb, in_mlflow = read_wandb(folder), read_mlflow(server, ids["mlflow"]["id"])
        assert in_wandb.ids == starts * [ids["wandb"]["id"]]
        check_logged(in_wandb, folder, model)
        check_logged(in_mlflow, folder, model)
    client = mlflow.MlflowClient(server)
    experiment = client.get_experiment_by_name("n2n_lightning/runs")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["convtrans_relu", "nn_relu"]
    assert {run.info.status for run in runs} == {"FINISHED"}


def check_logged(logged: Logged, folder: Path, model: str) -> None:
    """Assert that each epoch is logged once, with the numbers of the table, its pictures and the parameters."""
    for key in ("train/loss", "val/loss", "val/psnr", "val/ssim"):
        assert logged.metrics[key] == [(12 * int(row["epoch"]), float(row[key])) for row in read_table(folder)]
    assert logged.pictures["val/images"] == logged.pictures["val/residual"] == [12, 24, 36]
    wanted = {"model": model, "optimizer": "sgd", "lr": "0.1", "loss": "l2", "batch_size": "8", "seed": "0"}
    assert logged.parameters.items() >= wanted.items()
