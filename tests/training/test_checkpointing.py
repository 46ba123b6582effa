"""When checkpoints are saved, damaged ones, early stops, NaN and infinite losses, and signals."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import assert_same_weights, read_json, read_table, timeless, timeless_table, train_in

from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.system import errors
from n2n_lightning.training.callbacks import RunRecord
from n2n_lightning.training.checkpointing import FiniteLoss
from n2n_lightning.training.resuming import wait_for_next_second

pytestmark = pytest.mark.slow  # nearly all train runs

RUN = ("model=convtrans_relu", "trainer.max_epochs=4")  # the run of the fixture four_epochs: 12 steps an epoch


def state(folder: Path, name: str = "last") -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)
    return content


def breaking_at(epoch: int, batch: int, error: Exception) -> Any:
    """Return a training step that raises the error in this epoch and batch."""
    step = DenoiserModule.training_step

    def broken(self: Any, pair: Any, batch_idx: int) -> Any:
        if (self.current_epoch, batch_idx) == (epoch, batch):
            raise error
        return step(self, pair, batch_idx)

    return broken


@pytest.mark.parametrize(
    ("option", "kept"), [("save_steps=4", 16), ("save_minutes=1e-9", 17), ("save_minutes=null", 12)]
)
def test_checkpoints_within_an_epoch(
    course_data: Path, four_epochs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, kept: int
):
    """A run that is cut off in its 18th step resumes from the last checkpoint and ends with the same result."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(DenoiserModule, "training_step", breaking_at(1, 5, RuntimeError("the power is gone")))
        with pytest.raises(RuntimeError, match="the power is gone"):
            train_in(folder, course_data, *RUN, option)
    assert state(folder)["global_step"] == kept
    train_in(folder, course_data, *RUN, option)
    assert timeless_table(folder) == timeless_table(four_epochs)
    for name in ("best", "last"):
        assert_same_weights(folder / f"checkpoints/{name}.ckpt", four_epochs / f"checkpoints/{name}.ckpt")
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_finished_run_is_skipped_though_it_would_save_more_often(four_epochs: Path, course_data: Path, capsys: Any):
    train_in(four_epochs, course_data, *RUN, "save_steps=1", "save_minutes=1")
    assert "already done" in capsys.readouterr().out


def test_a_run_resumes_from_the_previous_checkpoint_if_the_last_is_damaged(
    course_data: Path, four_epochs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(DenoiserModule, "training_step", breaking_at(2, 3, RuntimeError("the power is gone")))
        with pytest.raises(RuntimeError):
            train_in(folder, course_data, *RUN)
    last = folder / "checkpoints/last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    train_in(folder, course_data, *RUN)
    warning = capsys.readouterr().err
    assert "last.ckpt is damaged" in warning and "going on from previous.ckpt, step 12" in warning
    assert timeless(read_json(folder / "result.json")) == timeless(read_json(four_epochs / "result.json"))


def test_starting_over_deletes_the_old_checkpoints(course_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Otherwise a run that is cut off before its first checkpoint would resume from those of the run it replaces."""
    folder = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "trainer.max_epochs=1", "seed=1")
    monkeypatch.setattr(DenoiserModule, "training_step", breaking_at(0, 5, RuntimeError("the power is gone")))
    with pytest.raises(RuntimeError):
        train_in(folder, course_data, "model=convtrans_relu", "trainer.max_epochs=1", "resume=false")
    assert not list(folder.glob("checkpoints/*.ckpt"))


def test_the_plateau_scheduler_steps_before_the_checkpoint_is_saved(course_data: Path, tmp_path: Path):
    """With a patience of 0, each epoch that is not better lowers the rate."""
    extra = ["model=convtrans_relu", "scheduler=plateau", "++scheduler.patience=0", "++scheduler.threshold=0.5"]
    whole = train_in(tmp_path / "whole", course_data, *extra, "trainer.max_epochs=4")
    parts = tmp_path / "parts"
    for epochs in (1, 2, 4):
        train_in(parts, course_data, *extra, f"trainer.max_epochs={epochs}")
    rates = [row["lr"] for row in read_table(whole)]
    assert len(set(rates)) > 1, "the rate never fell"
    assert [row["lr"] for row in read_table(parts)] == rates
    assert_same_weights(parts / "checkpoints/last.ckpt", whole / "checkpoints/last.ckpt")


def test_a_run_that_had_stopped_early_stays_stopped(course_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Cut off between its last checkpoint and its record: early stopping stops only once, so the run must repeat it."""
    options = ["model=convtrans_relu", "optimizer.lr=1e-30", "patience=2", "trainer.max_epochs=9"]
    whole = train_in(tmp_path / "whole", course_data, *options)
    assert len(read_table(whole)) == 3
    write = RunRecord.write

    def cut_off(self: RunRecord, status: str, *args: Any, **more: Any) -> None:
        if status in ("done", "dead"):
            raise RuntimeError("the power is gone")
        write(self, status, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(RunRecord, "write", cut_off)
        with pytest.raises(RuntimeError):
            train_in(tmp_path / "run", course_data, *options)
    train_in(tmp_path / "run", course_data, *options)
    assert timeless_table(tmp_path / "run") == timeless_table(whole)


def test_an_infinite_loss_is_reported_with_its_step_and_the_losses_before(
    course_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    step = DenoiserModule.training_step

    def spoilt(self: Any, pair: Any, batch_idx: int) -> Any:
        loss = step(self, pair, batch_idx)
        return loss * torch.inf if (self.current_epoch, batch_idx) == (1, 3) else loss

    monkeypatch.setattr(DenoiserModule, "training_step", spoilt)
    expected = r"became inf in step 16 \(epoch 2, batch 4\); losses before it: 0\.\d+, 0\.\d+, 0\.\d+, 0\.\d+; lower"
    with pytest.raises(FloatingPointError, match=expected):
        train_in(tmp_path / "run", course_data, *RUN)
    assert state(tmp_path / "run")["global_step"] == 12
    assert read_json(tmp_path / "run/result.json")["status"] == "failed"


def test_of_several_pending_losses_the_first_nan_is_reported():
    watch = FiniteLoss()
    losses = (0.5, 0.25, torch.nan, 0.125)
    watch.pending = [(97 + number, 7 + number, torch.tensor(loss)) for number, loss in enumerate(losses)]
    with pytest.raises(FloatingPointError, match=r"nan in step 99 \(epoch 4, batch 9\); losses before it: 0.5, 0.25;"):
        watch.check(4)


def test_nan_weights_are_not_saved(course_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    step = DenoiserModule.training_step

    def spoilt(self: Any, pair: Any, batch_idx: int) -> Any:
        loss = step(self, pair, batch_idx)
        if (self.current_epoch, batch_idx) == (1, 7):
            loss.register_hook(lambda gradient: gradient * torch.nan)
        return loss

    monkeypatch.setattr(DenoiserModule, "training_step", spoilt)
    with pytest.raises(FloatingPointError, match="weights became NaN or infinite by step 20;"):
        train_in(tmp_path / "run", course_data, *RUN, "save_steps=4")
    assert state(tmp_path / "run")["global_step"] == 16


def test_event_files_sort_in_the_order_of_their_writing(tmp_path: Path):
    second = int(time.time())
    (tmp_path / f"events.out.tfevents.{second}.host.99.0").touch()
    wait_for_next_second(tmp_path)
    assert int(time.time()) > second


def test_a_stripped_checkpoint_cannot_be_resumed_from(course_data: Path, four_epochs: Path, tmp_path: Path):
    folder = tmp_path / "run"
    last = folder / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    kept = {key: value for key, value in state(four_epochs).items() if key != "global_step"}
    torch.save(kept, last)
    with pytest.raises(errors.InputError, match=r"holds no state of training; .*set resume=false to start over"):
        train_in(folder, course_data, *RUN)
    assert list(folder.rglob("*")) == [last.parent, last]


WARNED_TWICE = [signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM]  # by SLURM and by what it has started


@pytest.mark.parametrize(
    ("batch", "signals"),
    [("training_step", [signal.SIGTERM]), ("training_step", WARNED_TWICE), ("validation_step", [signal.SIGTERM])],
)
def test_signals_in_an_epochs_last_batch_or_in_validation_keep_the_whole_epoch(
    course_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: str, signals: list[signal.Signals]
):
    """Lightning by itself would end the run in the middle of validation."""
    original = getattr(DenoiserModule, batch)

    def signalled(self: Any, pair: Any, batch_idx: int) -> Any:
        if self.current_epoch == 1 and batch_idx == (11 if batch == "training_step" else 0):
            for number in signals:
                os.kill(os.getpid(), number)
        return original(self, pair, batch_idx)

    monkeypatch.setattr(DenoiserModule, batch, signalled)
    with pytest.raises(errors.Interrupted) as ended:
        train_in(tmp_path / "run", course_data, *RUN, "data.val_batch_size=8")
    assert ended.value.code == 143
    assert state(tmp_path / "run")["global_step"] == 24
    assert len(read_table(tmp_path / "run")) == 2
