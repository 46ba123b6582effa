"""Resuming a run exactly, or refusing to; failures; signals."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from conftest import Command
from small_runs import (
    assert_same_weights,
    check_run_folder,
    compose_config,
    compose_settings,
    read_json,
    read_table,
    run_python,
    skip_where_ignored,
    stamps,
    timeless,
    timeless_table,
    tiny_overrides,
    train_in,
    weights_of,
    write_course_data,
)
from warm_processes import run_warm

from n2n_lightning.data.ee559 import Ee559Data
from n2n_lightning.metrics import RestorationQuality
from n2n_lightning.models.module import FORMAT, DenoiserModule
from n2n_lightning.system import errors
from n2n_lightning.training.build import build_module
from n2n_lightning.training.run import train

pytestmark = pytest.mark.slow  # nearly all train runs

# Resuming


def test_two_epochs_and_two_more_equal_four_at_once(four_epochs: Path, course_data: Path, tmp_path: Path):
    folder = tmp_path / "run"
    train_in(folder, course_data, "model=convtrans_relu", "trainer.max_epochs=2")
    assert len(read_table(folder)) == 2
    train_in(folder, course_data, "model=convtrans_relu", "trainer.max_epochs=4")
    assert timeless_table(folder) == timeless_table(four_epochs)
    for name in ("best", "last"):
        assert_same_weights(folder / f"checkpoints/{name}.ckpt", four_epochs / f"checkpoints/{name}.ckpt")
    assert timeless(read_json(folder / "result.json")) == timeless(read_json(four_epochs / "result.json"))


def test_moments_orders_and_augmentations_resume_too(course_data: Path, tmp_path: Path):
    """The checkpoint has Adam's state; orders and augmentations depend on seed and epoch only."""
    extra = ["model=unet", "data.augment=[flip,rotate,swap]", "trainer.limit_train_batches=3", "scheduler=step"]
    whole = train_in(tmp_path / "whole", course_data, *extra, "trainer.max_epochs=2")
    parts = train_in(tmp_path / "parts", course_data, *extra, "trainer.max_epochs=1")
    train_in(tmp_path / "parts", course_data, *extra, "trainer.max_epochs=2")
    assert timeless_table(parts) == timeless_table(whole)
    assert_same_weights(parts / "checkpoints/last.ckpt", whole / "checkpoints/last.ckpt")


@pytest.mark.parametrize("finished", [True, False])
def test_resume_false_starts_over(four_epochs: Path, course_data: Path, tmp_path: Path, finished: bool):
    folder = tmp_path / "run"
    train_in(folder, course_data, "model=convtrans_relu", "trainer.max_epochs=2", "seed=1")
    if not finished:
        make_unfinished(folder)
    train_in(folder, course_data, "model=convtrans_relu", "trainer.max_epochs=4", "resume=false")
    assert timeless_table(folder) == timeless_table(four_epochs)
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1


def test_a_moved_run_goes_on_and_keeps_its_best(four_epochs: Path, course_data: Path, tmp_path: Path):
    train_in(tmp_path / "here", course_data, "model=convtrans_relu", "trainer.max_epochs=2")
    (tmp_path / "here").rename(tmp_path / "there")
    train_in(tmp_path / "there", course_data, "model=convtrans_relu", "trainer.max_epochs=4")
    assert timeless_table(tmp_path / "there") == timeless_table(four_epochs)
    for name in ("best", "last"):
        assert_same_weights(tmp_path / f"there/checkpoints/{name}.ckpt", four_epochs / f"checkpoints/{name}.ckpt")
    assert not (tmp_path / "here").exists()


def test_a_resumed_run_keeps_an_earlier_best(course_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The score falls after the first part; the best checkpoint must not be overwritten by a worse one."""
    falling = iter([30.0, 20.0, 25.0])
    compute = RestorationQuality.compute
    monkeypatch.setattr(RestorationQuality, "compute", lambda self: compute(self) | {"psnr": next(falling)})
    folder = tmp_path / "run"
    train_in(folder, course_data, "model=convtrans_relu", "trainer.max_epochs=1")
    first = weights_of(folder / "checkpoints/best.ckpt")
    train_in(folder, course_data, "model=convtrans_relu", "trainer.max_epochs=3")
    result = read_json(folder / "result.json")
    assert (result["best_epoch"], result["val/psnr"]) == (1, 30.0)
    best = weights_of(folder / "checkpoints/best.ckpt")
    assert all(torch.equal(best[name], first[name]) for name in first)


def test_the_last_checkpoint_is_of_the_last_epoch_though_another_was_better(
    course_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Otherwise a run that is interrupted long after its best epoch would repeat all epochs since."""
    falling = iter([30.0, 20.0, 10.0])
    compute = RestorationQuality.compute
    monkeypatch.setattr(RestorationQuality, "compute", lambda self: compute(self) | {"psnr": next(falling)})
    folder = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "trainer.max_epochs=3")
    best, last = (torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert (best["epoch"], last["epoch"]) == (0, 2)


def test_other_data_under_the_same_name_is_refused(course_data: Path, tmp_path: Path):
    data = tmp_path / "data"
    folder = train_in(tmp_path / "run", write_course_data(data), "model=convtrans_relu", "trainer.max_epochs=1")
    write_course_data(data, sigma_255=20)
    before = stamps(folder)
    with pytest.raises(errors.InputError, match="the data is not what"):
        train_in(folder, data, "model=convtrans_relu", "trainer.max_epochs=2")
    assert stamps(folder) == before


def make_unfinished(folder: Path) -> None:
    result = read_json(folder / "result.json")
    (folder / "result.json").write_text(json.dumps(result | {"status": "interrupted"}))


def test_a_damaged_last_checkpoint_is_refused_and_kept(course_data: Path, tmp_path: Path):
    folder = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "trainer.max_epochs=1")
    make_unfinished(folder)
    last = folder / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    before = stamps(folder)
    with pytest.raises(errors.InputError, match=r"last\.ckpt.*damaged"):
        train_in(folder, course_data, "model=convtrans_relu", "trainer.max_epochs=1")
    assert stamps(folder) == before


def test_training_can_start_from_another_runs_weights(four_epochs: Path, course_data: Path, tmp_path: Path):
    start = four_epochs / "checkpoints/best.ckpt"
    options = ["model=convtrans_relu", "trainer.max_epochs=1", f"init_from={start}", "optimizer.lr=1e-30"]
    folder = train_in(tmp_path / "run", course_data, *options)
    assert_same_weights(folder / "checkpoints/last.ckpt", start)
    assert read_json(folder / "result.json")["val/psnr"] == read_json(four_epochs / "result.json")["val/psnr"]


def test_weights_of_another_net_are_refused(four_epochs: Path, course_data: Path, tmp_path: Path):
    start = four_epochs / "checkpoints/best.ckpt"
    with pytest.raises(errors.InputError, match="sequential net that does not fit"):
        train_in(tmp_path / "run", course_data, "model=unet", "trainer.max_epochs=1", f"init_from={start}")
    assert not (tmp_path / "run").exists()


def test_a_longer_run_is_refused_once_cosine_has_fallen(course_data: Path, tmp_path: Path):
    folder = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "scheduler=cosine", "trainer.max_epochs=1")
    with pytest.raises(errors.InputError, match=r"another configuration: trainer\.max_epochs"):
        train_in(folder, course_data, "model=convtrans_relu", "scheduler=cosine", "trainer.max_epochs=2")


def test_a_resumed_run_keeps_its_record_from_the_start(course_data: Path, tmp_path: Path):
    """A run that is killed in its first resumed epoch must not lose the record of the epochs before."""
    folder = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "trainer.max_epochs=2")
    before = read_table(folder)

    class Killed(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            assert read_table(folder) == before
            assert read_json(folder / "result.json")["epochs"] == 2
            raise RuntimeError("killed")

    config = compose_config(*tiny_overrides(course_data), "model=convtrans_relu", "trainer.max_epochs=3")
    with pytest.raises(RuntimeError, match="killed"):
        train(config, folder, {"model": "convtrans_relu", "overrides": {}}, callbacks=[Killed()])
    assert read_json(folder / "result.json")["status"] == "failed"
    assert read_table(folder) == before


def test_a_debug_run_stays_out_of_an_experiments_folder():
    assert compose_config("experiment=demo", "debug=fast")["study"] == "debug_fast"


def test_workers_and_resuming_change_no_result(course_data: Path, tmp_path: Path):
    options = ["model=convtrans_relu", "data.augment=[flip,swap]"]
    once = train_in(tmp_path / "once", course_data, *options, "trainer.max_epochs=2")
    twice = train_in(tmp_path / "twice", course_data, *options, "data.num_workers=1", "trainer.max_epochs=1")
    train_in(twice, course_data, *options, "data.num_workers=1", "trainer.max_epochs=2")
    assert_same_weights(once / "checkpoints/last.ckpt", twice / "checkpoints/last.ckpt")


# Ends that are not good


def test_a_run_that_diverges_fails_and_the_sweep_goes_on(command: Command, course_data: Path, tmp_path: Path):
    line = ["model=convtrans_relu", "optimizer.lr=1e30,0.1", "trainer.max_epochs=1", *tiny_overrides(course_data)]
    ended = command("-m", *line)
    assert ended.code == 1
    assert "Traceback" not in ended.err and "training loss became" in ended.err and "train.log" in ended.err
    results = {r["optimizer"]["lr"]: r for r in map(read_json, tmp_path.glob("outputs/runs/*/result.json"))}
    assert results[1e30]["status"] == "failed" and "lower optimizer.lr" in results[1e30]["reason"]
    assert results[0.1]["status"] in ("done", "dead")
    (log,) = tmp_path.glob("outputs/runs/*/train.log")
    assert "lr=1e+30" in log.parent.name and "Traceback" in log.read_text()


def test_a_failed_run_can_be_run_again(
    course_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, four_epochs: Path
):
    """When the cause is gone, such as a full disk, the run can continue."""
    step = DenoiserModule.training_step

    def break_once(self: Any, pair: Any, batch_idx: int) -> Any:
        if self.current_epoch == 2 and batch_idx == 3:
            raise OSError("no space left")
        return step(self, pair, batch_idx)

    options = ["model=convtrans_relu", "trainer.max_epochs=4"]
    with monkeypatch.context() as patch:
        patch.setattr(DenoiserModule, "training_step", break_once)
        with pytest.raises(OSError, match="no space left"):
            train_in(tmp_path / "run", course_data, *options)
    result = read_json(tmp_path / "run" / "result.json")
    assert (result["status"], result["epochs"]) == ("failed", 2) and "no space left" in result["reason"]
    train_in(tmp_path / "run", course_data, *options)
    assert timeless(read_json(tmp_path / "run" / "result.json")) == timeless(read_json(four_epochs / "result.json"))
    assert timeless_table(tmp_path / "run") == timeless_table(four_epochs)


def test_a_black_output_is_called_dead(course_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The output ReLU, with a bias far below zero, gives 0 for every input."""
    module = build_module(compose_settings("model=convtrans_relu"), 3)
    with torch.no_grad():
        module.net.upsampling4.bias.fill_(-10)
    about = {"format": FORMAT, "family": "sequential", "peak": 255.0}
    start = tmp_path / "shut.ckpt"
    content = {"n2n_lightning": about, "hyper_parameters": dict(module.hparams), "state_dict": module.state_dict()}
    torch.save(content, start)
    folder = train_in(
        tmp_path / "run", course_data, "model=convtrans_relu", "trainer.max_epochs=1", f"init_from={start}"
    )
    result = read_json(folder / "result.json")
    assert result["status"] == "dead" and "output channel 0, 1, 2 is constant" in result["reason"]
    assert "dead" in capsys.readouterr().out


# Signals, in a process of their own


def signal_in_third_epoch(number: int) -> None:
    """Let training send this process a signal before a step of its third epoch."""
    step = DenoiserModule.training_step

    def signalled(self: Any, pair: Any, batch_idx: int) -> Any:
        if self.current_epoch == 2 and batch_idx == 5:
            os.kill(os.getpid(), number)
        return step(self, pair, batch_idx)

    DenoiserModule.training_step = signalled  # type: ignore[method-assign]


@pytest.mark.parametrize(("number", "code"), [(15, 143), (2, 130), (10, 143)])
def test_a_signal_ends_the_sweep_and_the_same_command_finishes_it(
    command: Command,
    course_data: Path,
    four_epochs: Path,
    tmp_path: Path,
    number: int,
    code: int,
):
    line = ["-m", "model=convtrans_relu,nn_sigmoid", "trainer.max_epochs=4", *tiny_overrides(course_data)]
    trap = functools.partial(signal_in_third_epoch, number)
    process = run_warm(["-m", "n2n_lightning.train", *line], tmp_path, trap)
    assert process.returncode == code, process.stderr
    assert "interrupted; the same command goes on" in process.stderr and "Traceback" not in process.stderr
    (stopped,) = (path.parent for path in tmp_path.glob("outputs/runs/*/result.json"))
    assert stopped.name.startswith("convtrans_relu"), "the next run of the sweep must not start"
    result = read_json(stopped / "result.json")
    assert (result["status"], result["epochs"]) == ("interrupted", 2) and str(code - 128) in result["reason"]
    state = torch.load(stopped / "checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 2 * 12 + 6, "the step at hand is finished, and kept"

    assert command(*line).code == 0
    assert timeless_table(stopped) == timeless_table(four_epochs)
    assert_same_weights(stopped / "checkpoints/last.ckpt", four_epochs / "checkpoints/last.ckpt")
    result = read_json(stopped / "result.json")
    assert result["status"] in ("done", "dead") and "signal" not in (result["reason"] or "")
    assert len(list(tmp_path.glob("outputs/runs/nn_sigmoid*/result.json"))) == 1


@pytest.mark.parametrize(("number", "code"), [(15, 143), (2, 130)])
def test_a_signal_before_training_leaves_nothing(
    command: Command, course_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
):
    skip_where_ignored(number)
    monkeypatch.setattr(Ee559Data, "load", lambda *_: os.kill(os.getpid(), number))
    ended = command("model=convtrans_relu", *tiny_overrides(course_data))
    assert ended.code == code and "Traceback" not in ended.err
    assert not any(tmp_path.iterdir())


def test_the_command_line_as_users_type_it(course_data: Path, tmp_path: Path):
    """Run the module in a real process: exit code, output, folder."""
    line = ["model=convtrans_relu", "trainer.max_epochs=1", *tiny_overrides(course_data)]
    process = run_python(["-m", "n2n_lightning.train", *line], tmp_path)
    assert process.returncode == 0, process.stderr
    assert "epoch 1/1" in process.stdout and "best val/psnr" in process.stdout
    (folder,) = (path.parent for path in tmp_path.glob("outputs/runs/*/result.json"))
    check_run_folder(folder, epochs=1)


def test_a_program_that_cannot_start_exits_with_two(tmp_path: Path):
    process = run_python(["-m", "n2n_lightning.train", "model=unett"], tmp_path)
    assert process.returncode == 2
    assert process.stderr.strip().startswith("error: model must be one of") and "Traceback" not in process.stderr
    assert not any(tmp_path.iterdir())
