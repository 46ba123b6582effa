"""Runs from end to end: folders, refusals, seeds, resuming, ends that are not good, signals."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import Command
from tiny import (
    ROOT,
    assert_same_weights,
    compose_config,
    read_json,
    read_table,
    run_python,
    timeless,
    tiny_overrides,
    train_in,
    weights_of,
    write_course_data,
)

from n2n_lightning import cli, training
from n2n_lightning.compose import build_module
from n2n_lightning.ee559 import Ee559Data
from n2n_lightning.metrics import RestorationQuality
from n2n_lightning.module import FORMAT

RESULT_KEYS = {  # the contract's
    *("model", "optimizer", "data", "params", "gmac", "epochs", "monitor", "best_epoch", "noisy_psnr"),
    *("val/psnr", "val/psnr_pooled", "val/ssim", "val/loss"),
    *("images_per_second", "seconds", "device", "seed", "versions", "git_commit", "status"),
}
COLUMNS = {"epoch", "train/loss", "val/loss", "val/psnr", "val/ssim", "lr", "seconds"}
OWN_OPTIMIZER = {"unet": "adam", "nn_relu": "sgd"}


def timeless_table(folder: Path) -> list[dict[str, str]]:
    return [timeless(row) for row in read_table(folder)]


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """When each file below was written last, and its size."""
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path.relative_to(folder).as_posix(): (stat.st_mtime_ns, stat.st_size) for path, stat in found.items()}


# A sweep, and the same command again


def test_a_sweep_trains_every_combination_and_the_same_command_again_none(
    command: Command, course_data: Path, tmp_path: Path
):
    line = ["-m", "model=nn_relu,unet", "optimizer=adam,sgd", "trainer.max_epochs=1", "study=pairs"]
    line += ["trainer.gradient_clip_val=0.1", *tiny_overrides(course_data)]  # else the U-Net diverges with SGD at 0.1
    ended = command(*line)
    assert ended.code == 0, ended.err
    study = tmp_path / "outputs" / "pairs"
    folders = sorted(path.parent for path in study.glob("*/result.json"))
    assert len(folders) == 4

    seen = set()
    for folder in folders:
        result = read_json(folder / "result.json")
        assert result.keys() >= RESULT_KEYS
        assert result["status"] in ("done", "dead")
        model, optimizer = result["model"], result["optimizer"]["name"]
        seen.add((model, optimizer))
        assert folder.name.startswith(f"{model},") and f"optimizer={optimizer}" in folder.name
        assert result["optimizer"]["lr"] == {"adam": 0.001, "sgd": 0.1}[optimizer]
        check_run_folder(folder, epochs=1)
    assert seen == {(model, optimizer) for model in ("nn_relu", "unet") for optimizer in ("adam", "sgd")}
    for model in ("nn_relu", "unet"):
        assert model in ended.out, "the closing table"

    before = stamps(study)
    again = command(*line)
    assert again.code == 0 and again.out.count("already done, skipped") == 4
    after = stamps(study)
    assert after.pop("multirun.yaml") and before.pop("multirun.yaml") and after == before


def check_run_folder(folder: Path, *, epochs: int) -> None:
    """What the contract says of a run's folder."""
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files >= {".hydra/config.yaml", ".hydra/overrides.yaml", "metrics.csv", "result.json"}
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert sum(name.startswith("events.out.tfevents.") for name in files) == 1
    assert not [name for name in files if name.endswith(".part")]
    rows = read_table(folder)
    assert rows[0].keys() == COLUMNS
    assert [int(row["epoch"]) for row in rows] == list(range(1, epochs + 1))
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())


def test_a_sweep_over_models_alone_takes_each_models_own_optimizer(command: Command, course_data: Path, tmp_path: Path):
    limits = ["trainer.max_epochs=1", "trainer.limit_train_batches=1"]
    ended = command("-m", "model=nn_relu,unet", "optimizer.lr=0.03", *limits, *tiny_overrides(course_data))
    assert ended.code == 0, ended.err
    found = {(r := read_json(path))["model"]: r["optimizer"] for path in tmp_path.glob("outputs/runs/*/result.json")}
    assert {model: (spec["name"], spec["lr"]) for model, spec in found.items()} == {
        "nn_relu": ("sgd", 0.03),
        "unet": ("adam", 0.03),
    }


def test_another_configuration_in_a_runs_folder_is_refused_and_the_run_untouched(
    command: Command, course_data: Path, tmp_path: Path
):
    short = ["model=convtrans_relu", "trainer.max_epochs=1", *tiny_overrides(course_data)]
    assert command(*short, "hydra.run.dir=here").code == 0
    before = stamps(tmp_path / "here")
    refused = command(*short, "optimizer.lr=0.05", "hydra.run.dir=here")
    assert refused.code == 2
    assert "optimizer.lr (0.1 there, 0.05 here)" in refused.err and "study=NAME" in refused.err
    assert stamps(tmp_path / "here") == before


def test_what_changes_no_result_is_no_other_configuration(command: Command, course_data: Path):
    short = ["model=convtrans_relu", "trainer.max_epochs=1", *tiny_overrides(course_data), "hydra.run.dir=here"]
    assert command(*short).code == 0
    assert "skipped" in command(*short, "data.val_batch_size=7", "data.num_workers=0").out


# The result


@pytest.fixture(scope="module")
def four_epochs(course_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run that others are compared with."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    return train_in(folder, course_data, "model=convtrans_relu", "trainer.max_epochs=4")


def test_the_result_agrees_with_the_table(four_epochs: Path):
    result, rows = read_json(four_epochs / "result.json"), read_table(four_epochs)
    assert result["epochs"] == len(rows) == 4 and result["monitor"] == "val/psnr"
    psnrs = [float(row["val/psnr"]) for row in rows]
    assert result["val/psnr"] == max(psnrs) and result["best_epoch"] == 1 + psnrs.index(max(psnrs))
    best = rows[result["best_epoch"] - 1]
    assert (result["val/loss"], result["val/ssim"]) == (float(best["val/loss"]), float(best["val/ssim"]))
    assert (result["train_pairs"], result["val_pairs"], result["image_shape"]) == (96, 24, [3, 16, 16])
    assert result["data"]["name"] == "ee559" and result["data"]["fingerprint"]
    assert result["params"] == 38_211
    assert result["images_per_second"] > 0 and result["seconds"] >= sum(float(row["seconds"]) for row in rows)
    assert result["versions"]["torch"] == torch.__version__
    assert not any(isinstance(v, str) and str(ROOT) in v for v in result.values())


def test_gmac_by_hand(four_epochs: Path):
    # 16x16 RGB: conv1 8*8*48*(3*2*2), conv2 4*4*96*(48*2*2), two transposed layers 8*8*48*96 and 16*16*3*48
    by_hand = 8 * 8 * 48 * 12 + 4 * 4 * 96 * 192 + 8 * 8 * 48 * 96 + 16 * 16 * 3 * 48
    assert read_json(four_epochs / "result.json")["gmac"] == pytest.approx(by_hand / 1e9)


def test_best_and_last_hold_the_epochs_they_should(four_epochs: Path):
    result = read_json(four_epochs / "result.json")
    best, last = (
        torch.load(four_epochs / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last")
    )
    assert best["epoch"] + 1 == result["best_epoch"] and last["epoch"] + 1 == 4


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_checkpoint_holds_tensors_and_plain_types_and_no_folder(four_epochs: Path, name: str):
    content = torch.load(four_epochs / "checkpoints" / f"{name}.ckpt", weights_only=True)
    assert content["n2n_lightning"] == {"format": FORMAT, "family": "sequential", "peak": 255.0}
    described = content["hyper_parameters"]
    assert described["optimizer"] == {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0, "nesterov": False}
    assert described["loss"] == {"name": "l2"} and described["scheduler"] is None
    assert (described["channels"], described["upsampling"], described["activation"]) == (3, "convtrans", "relu")
    assert not [text for text in texts_in(described) if os.sep in text]


def texts_in(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [text for pair in node.items() for item in pair for text in texts_in(item)]
    if isinstance(node, (list, tuple)):
        return [text for item in node for text in texts_in(item)]
    return [node] if isinstance(node, str) else []


# Seeds and sizes that must, or must not, change the result


def test_the_same_seed_gives_the_same_run(four_epochs: Path, course_data: Path, tmp_path: Path):
    torch.rand(5)  # the global generator's state has no say
    again = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "trainer.max_epochs=4")
    assert timeless_table(again) == timeless_table(four_epochs)
    assert_same_weights(again / "checkpoints/last.ckpt", four_epochs / "checkpoints/last.ckpt")
    first, second = (read_json(folder / "result.json") for folder in (four_epochs, again))
    assert timeless(first) == timeless(second)


def test_another_seed_gives_another_run(four_epochs: Path, course_data: Path, tmp_path: Path):
    other = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "trainer.max_epochs=1", "seed=1")
    assert timeless_table(other)[0] != timeless_table(four_epochs)[0]


@pytest.mark.parametrize("val_batch_size", [1, 5])
def test_validation_does_not_depend_on_its_batch_size(
    four_epochs: Path, course_data: Path, tmp_path: Path, val_batch_size: int
):
    other = train_in(
        tmp_path / "run",
        course_data,
        "model=convtrans_relu",
        "trainer.max_epochs=4",
        f"data.val_batch_size={val_batch_size}",
    )
    assert_same_weights(other / "checkpoints/last.ckpt", four_epochs / "checkpoints/last.ckpt")
    for ours, theirs in zip(read_table(other), read_table(four_epochs), strict=True):
        for column in ("val/loss", "val/psnr", "val/ssim"):
            assert float(ours[column]) == pytest.approx(float(theirs[column]), rel=1e-5), column


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
    """Adam's state comes from the checkpoint, the rest follows from seed and epoch."""
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


def test_other_data_under_the_same_name_is_refused(course_data: Path, tmp_path: Path):
    data = tmp_path / "data"
    folder = train_in(tmp_path / "run", write_course_data(data), "model=convtrans_relu", "trainer.max_epochs=1")
    write_course_data(data, sigma_255=20)
    before = stamps(folder)
    with pytest.raises(cli.InputError, match="the data is not what"):
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
    with pytest.raises(cli.InputError, match=r"last\.ckpt.*damaged"):
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
    with pytest.raises(cli.InputError, match="sequential net that does not fit"):
        train_in(tmp_path / "run", course_data, "model=unet", "trainer.max_epochs=1", f"init_from={start}")
    assert not (tmp_path / "run").exists()


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
    """A cause that has gone, such as a full disk, must not leave a folder for ever failed."""
    step = training.DenoiserModule.training_step

    def break_once(self: Any, pair: Any, batch_idx: int) -> Any:
        if self.current_epoch == 2 and batch_idx == 3:
            raise OSError("no space left")
        return step(self, pair, batch_idx)

    options = ["model=convtrans_relu", "trainer.max_epochs=4"]
    with monkeypatch.context() as patch:
        patch.setattr(training.DenoiserModule, "training_step", break_once)
        with pytest.raises(OSError, match="no space left"):
            train_in(tmp_path / "run", course_data, *options)
    result = read_json(tmp_path / "run" / "result.json")
    assert (result["status"], result["epochs"]) == ("failed", 2) and "no space left" in result["reason"]
    train_in(tmp_path / "run", course_data, *options)
    assert timeless(read_json(tmp_path / "run" / "result.json")) == timeless(read_json(four_epochs / "result.json"))
    assert timeless_table(tmp_path / "run") == timeless_table(four_epochs)


def test_a_black_output_is_called_dead(course_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """An output ReLU whose bias is far below zero never opens again."""
    module = build_module(compose_config("model=convtrans_relu"), 3)
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


# Options


@pytest.mark.parametrize(("lr", "learns"), [("0.1", True), ("1e-9", False)])
def test_overfitting_one_batch_gives_a_verdict(tmp_path: Path, lr: str, learns: bool):
    data = write_course_data(tmp_path / "data", sigma_255=5)
    options = ["model=convtrans_relu", "debug=overfit", "data.overfit_steps=40", f"optimizer.lr={lr}"]
    folder = train_in(tmp_path / "run", data, *options)
    verdict = read_json(folder / "result.json")["overfit"]
    assert verdict["learns"] is learns
    assert (verdict["loss"] < verdict["constant_loss"] / 2) is learns
    assert verdict["verdict"].startswith("overfits one batch" if learns else "does not overfit one batch")


def test_debug_fast_is_one_short_epoch(course_data: Path, tmp_path: Path):
    folder = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "debug=fast")
    assert len(read_table(folder)) == 1
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 4


def test_cosine_ends_near_zero(course_data: Path, tmp_path: Path):
    folder = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "scheduler=cosine", "trainer.max_epochs=2")
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert last["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-6)
    # the rate of an epoch is that of its first step; 12 of 24 are behind then: 0.1 (1 + cos(pi / 2)) / 2
    assert [float(row["lr"]) for row in read_table(folder)] == pytest.approx([0.1, 0.05])


def test_step_lowers_the_rate_at_its_epoch(course_data: Path, tmp_path: Path):
    options = ["model=convtrans_relu", "scheduler=step", "scheduler.step_size=1", "trainer.limit_train_batches=1"]
    folder = train_in(tmp_path / "run", course_data, *options, "trainer.max_epochs=3")
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert last["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.1 * 0.1**3)
    assert [float(row["lr"]) for row in read_table(folder)] == pytest.approx([0.1, 0.01, 0.001])


@pytest.mark.parametrize(
    "option",
    [
        "loss=l1",
        "scheduler=plateau",
        "optimizer=adamw",
        "data.augment=[flip,rotate,swap]",
        "trainer.gradient_clip_val=0.001",
    ],
)
def test_an_option_changes_the_run(four_epochs: Path, course_data: Path, tmp_path: Path, option: str):
    folder = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "trainer.max_epochs=2", option)
    rows = read_table(folder)
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())
    if option != "scheduler=plateau":  # which waits for three epochs
        assert timeless_table(folder)[0] != timeless_table(four_epochs)[0]


def test_the_training_loss_is_weighted_by_images(course_data: Path, tmp_path: Path):
    """96 images in batches of 36, 36 and 24, by weights that do not move."""
    options = ["model=convtrans_relu", "trainer.max_epochs=2", "data.batch_size=36", "optimizer.lr=1e-30"]
    folder = train_in(tmp_path / "run", course_data, *options)
    noisy, target = (t.float() / 255 for t in torch.load(course_data / "train_data.pkl", weights_only=True))
    net = build_module(compose_config("model=convtrans_relu"), 3).net
    net.load_state_dict({k.removeprefix("net."): v for k, v in weights_of(folder / "checkpoints/last.ckpt").items()})
    expected = (net(noisy).detach().double() - target).square().mean().item()
    assert [float(row["train/loss"]) for row in read_table(folder)] == pytest.approx([expected] * 2, rel=1e-5)


def test_the_first_epoch_is_left_out_of_the_speed(four_epochs: Path):
    record = torch.load(four_epochs / "checkpoints/last.ckpt", weights_only=True)["callbacks"]["RunRecord"]
    assert record["trained"]["images"] == 3 * 96
    speed = 3 * 96 / record["trained"]["seconds"]
    assert read_json(four_epochs / "result.json")["images_per_second"] == pytest.approx(speed)


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_the_validation_loss_is_the_training_loss_weighted_by_images(course_data: Path, tmp_path: Path, loss: str):
    """24 images in batches of 7, 7, 7 and 3; by hand from the best weights of a single epoch."""
    options = ["model=convtrans_relu", "trainer.max_epochs=1", f"loss={loss}", "data.val_batch_size=7"]
    folder = train_in(tmp_path / "run", course_data, *options)
    noisy, clean = (t.float() / 255 for t in torch.load(course_data / "val_data.pkl", weights_only=True))
    net = build_module(compose_config("model=convtrans_relu"), 3).net
    net.load_state_dict({k.removeprefix("net."): v for k, v in weights_of(folder / "checkpoints/best.ckpt").items()})
    off = net(noisy).detach().double() - clean
    expected = off.abs().mean() if loss == "l1" else off.square().mean()
    assert float(read_table(folder)[0]["val/loss"]) == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("val_batch_size", [3, 100])
def test_the_best_pictures_are_kept(course_data: Path, tmp_path: Path, val_batch_size: int):
    options = ["model=convtrans_relu", "trainer.max_epochs=1", f"data.val_batch_size={val_batch_size}"]
    folder = train_in(tmp_path / "run", course_data, *options)
    with np.load(folder / "images.npz") as kept:
        noisy, clean = torch.load(course_data / "val_data.pkl", weights_only=True)
        assert kept["denoised"].shape == (8, 16, 16, 3)
        np.testing.assert_array_equal(kept["noisy"], noisy[:8].permute(0, 2, 3, 1))
        np.testing.assert_array_equal(kept["target"], clean[:8].permute(0, 2, 3, 1))


# Signals, in a process of their own

SIGNALLED = """
import os, sys
from n2n_lightning import train
from n2n_lightning.module import DenoiserModule

step = DenoiserModule.training_step

def signalled(self, pair, batch_idx):
    if self.current_epoch == 2 and batch_idx == 5:
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))
    return step(self, pair, batch_idx)

DenoiserModule.training_step = signalled
sys.exit(train.main())
"""


@pytest.mark.parametrize(("number", "code"), [(15, 143), (2, 130)])
def test_a_signal_ends_the_sweep_and_the_same_command_finishes_it(
    command: Command,
    course_data: Path,
    four_epochs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
):
    line = ["-m", "model=convtrans_relu,nn_sigmoid", "trainer.max_epochs=4", *tiny_overrides(course_data)]
    monkeypatch.setenv("SIGNAL", str(number))
    process = run_python(["-c", SIGNALLED, *line], tmp_path)
    assert process.returncode == code, process.stderr
    assert "interrupted; the same command goes on" in process.stderr and "Traceback" not in process.stderr
    (stopped,) = (path.parent for path in tmp_path.glob("outputs/runs/*/result.json"))
    assert stopped.name.startswith("convtrans_relu"), "the next run of the sweep must not start"
    result = read_json(stopped / "result.json")
    assert (result["status"], result["epochs"]) == ("interrupted", 2) and str(number) in result["reason"]

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
    monkeypatch.setattr(Ee559Data, "load", lambda *_: os.kill(os.getpid(), number))
    ended = command("model=convtrans_relu", *tiny_overrides(course_data))
    assert ended.code == code and "Traceback" not in ended.err
    assert not any(tmp_path.iterdir())


def test_the_command_line_as_users_type_it(course_data: Path, tmp_path: Path):
    """One real process for the module as a program: exit code, output, folder."""
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


# What a review found


def test_a_longer_run_is_refused_once_cosine_has_fallen(course_data: Path, tmp_path: Path):
    folder = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "scheduler=cosine", "trainer.max_epochs=1")
    with pytest.raises(cli.InputError, match=r"another configuration: trainer\.max_epochs"):
        train_in(folder, course_data, "model=convtrans_relu", "scheduler=cosine", "trainer.max_epochs=2")


def test_a_resumed_run_keeps_its_record_from_the_start(course_data: Path, tmp_path: Path):
    """A run that is killed in its first resumed epoch must not have lost the epochs before."""
    folder = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "trainer.max_epochs=2")
    before = read_table(folder)

    class Killed(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            assert read_table(folder) == before
            assert read_json(folder / "result.json")["epochs"] == 2
            raise RuntimeError("killed")

    config = compose_config(*tiny_overrides(course_data), "model=convtrans_relu", "trainer.max_epochs=3")
    with pytest.raises(RuntimeError, match="killed"):
        training.train(config, folder, {"model": "convtrans_relu", "overrides": {}}, callbacks=[Killed()])
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
