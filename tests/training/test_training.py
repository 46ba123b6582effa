"""Runs from end to end: folders, refusals, results, seeds, options."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command
from small_runs import (
    RESULT_KEYS,
    ROOT,
    assert_same_weights,
    check_run_folder,
    compose_config,
    compose_settings,
    read_json,
    read_table,
    stamps,
    timeless,
    timeless_table,
    tiny_overrides,
    train_in,
    weights_of,
    write_course_data,
)

from n2n_lightning.models.module import FORMAT
from n2n_lightning.training.build import build_module
from n2n_lightning.training.run import overfit_verdict, prepare_run
from n2n_lightning.training.run_metadata import has_own_optimizer

# A sweep, and the same command again


@pytest.mark.slow
def test_a_sweep_trains_every_combination_and_the_same_command_again_none(
    command: Command, course_data: Path, tmp_path: Path
):
    line = ["-m", "model=nn_relu,unet", "optimizer=adam,sgd", "trainer.max_epochs=1", "study=pairs"]
    line += tiny_overrides(course_data)
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
        assert result["own_optimizer"] is ((model, optimizer) in (("unet", "adam"), ("nn_relu", "sgd")))
        seen.add((model, optimizer))
        assert folder.name.startswith(f"{model},") and f"optimizer={optimizer}" in folder.name
        assert result["optimizer"]["lr"] == {"adam": 0.001, "sgd": {"unet": 0.01, "nn_relu": 0.1}[model]}[optimizer]
        check_run_folder(folder, epochs=1)
    assert seen == {(model, optimizer) for model in ("nn_relu", "unet") for optimizer in ("adam", "sgd")}
    for model in ("nn_relu", "unet"):
        assert model in ended.out, "the closing table"

    before = stamps(study)
    again = command(*line)
    assert again.code == 0 and again.out.count("already done, skipped") == 4
    after = stamps(study)
    assert after.pop("multirun.yaml") and before.pop("multirun.yaml") and after == before


@pytest.mark.slow
def test_a_sweep_over_models_alone_takes_each_models_own_optimizer(command: Command, course_data: Path, tmp_path: Path):
    limits = ["trainer.max_epochs=1", "trainer.limit_train_batches=1"]
    ended = command("-m", "model=nn_relu,unet", "optimizer.lr=0.03", *limits, *tiny_overrides(course_data))
    assert ended.code == 0, ended.err
    found = {(r := read_json(path))["model"]: r["optimizer"] for path in tmp_path.glob("outputs/runs/*/result.json")}
    assert {model: (spec["name"], spec["lr"]) for model, spec in found.items()} == {
        "nn_relu": ("sgd", 0.03),
        "unet": ("adam", 0.03),
    }


@pytest.mark.slow
def test_another_configuration_in_a_runs_folder_is_refused_and_the_run_untouched(
    command: Command, course_data: Path, tmp_path: Path
):
    short = ["model=convtrans_relu", "trainer.max_epochs=1", *tiny_overrides(course_data)]
    assert command(*short, "hydra.run.dir=here").code == 0
    before = stamps(tmp_path / "here")
    refused = command(*short, "optimizer.lr=0.05", "hydra.run.dir=here")
    assert refused.code == 2
    assert "optimizer.lr (0.1 there, 0.05 here)" in refused.err and "hydra.run.dir=" in refused.err
    assert stamps(tmp_path / "here") == before


@pytest.mark.slow
def test_settings_that_do_not_change_the_result_may_change(command: Command, course_data: Path):
    short = ["model=convtrans_relu", "trainer.max_epochs=1", *tiny_overrides(course_data), "hydra.run.dir=here"]
    assert command(*short).code == 0
    assert "skipped" in command(*short, "data.val_batch_size=7", "data.num_workers=0").out


# The result


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "own"),
    [
        (["model=unet"], True),
        (["model=unet", "optimizer=adam"], True),
        (["model=unet", "optimizer.lr=0.001"], True),
        (["model=unet", "optimizer.lr=0.01"], False),
        (["model=unet", "optimizer=sgd"], False),
        (["model=nn_relu"], True),
        (["model=nn_relu", "optimizer=adam"], False),
        (["model=nn_relu", "optimizer.momentum=0.9", "seed=1"], True),
    ],
)
def test_the_result_tells_whether_the_optimizer_is_the_models_own(
    course_data: Path, tmp_path: Path, overrides: list[str], own: bool
):
    settings = compose_settings(*tiny_overrides(course_data), *overrides)
    labels = {"model": overrides[0].removeprefix("model="), "overrides": {}}
    assert prepare_run(settings, tmp_path / "run", labels).metadata["own_optimizer"] is own


@pytest.mark.parametrize(("overrides", "own"), [({"seed": "1"}, True), ({"optimizer.lr": "0.1"}, False)])
def test_an_unknown_models_optimizer_is_its_own_unless_overridden(overrides: dict[str, str], own: bool):
    assert has_own_optimizer(compose_config("model=unet")["optimizer"], "my_model", overrides) is own


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
    about = {"format": FORMAT, "family": "sequential", "peak": 255.0, "sample_type": "uint8", "span": [0.0, 255.0]}
    assert content["n2n_lightning"] == about
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
    torch.rand(5)  # the state of the global generator must not matter
    again = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "trainer.max_epochs=4")
    assert timeless_table(again) == timeless_table(four_epochs)
    assert_same_weights(again / "checkpoints/last.ckpt", four_epochs / "checkpoints/last.ckpt")
    first, second = (read_json(folder / "result.json") for folder in (four_epochs, again))
    assert timeless(first) == timeless(second)


def test_another_seed_gives_another_run(four_epochs: Path, course_data: Path, tmp_path: Path):
    other = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "trainer.max_epochs=1", "seed=1")
    assert timeless_table(other)[0] != timeless_table(four_epochs)[0]


@pytest.mark.slow
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


# Options


@pytest.mark.slow
@pytest.mark.parametrize(("lr", "learns"), [("0.1", True), ("1e-9", False)])
def test_overfitting_one_batch_gives_a_verdict(tmp_path: Path, lr: str, learns: bool):
    data = write_course_data(tmp_path / "data", sigma_255=5)
    options = ["model=convtrans_relu", "debug=overfit", "data.overfit_steps=40", f"optimizer.lr={lr}"]
    folder = train_in(tmp_path / "run", data, *options)
    verdict = read_json(folder / "result.json")["overfit"]
    assert verdict["learns"] is learns
    assert (verdict["loss"] < verdict["constant_loss"] / 2) is learns
    assert verdict["verdict"].startswith("overfits one batch" if learns else "does not overfit one batch")


def test_the_verdict_draws_its_line_at_half_of_a_constant_images_loss(course_data: Path, tmp_path: Path):
    """The MSE of the best constant image is the variance of each channel."""
    options = ["model=convtrans_relu", "debug=overfit", "data.batch_size=96"]
    settings = compose_settings(*tiny_overrides(course_data), *options)
    run = prepare_run(settings, tmp_path / "run", {"model": "convtrans_relu", "overrides": {}})
    target = torch.load(course_data / "train_data.pkl", weights_only=True)[1].double() / 255
    constant = target.var((0, 2, 3), correction=0).mean().item()
    for share, learns in ((0.49, True), (0.51, False)):
        verdict = overfit_verdict(run, SimpleNamespace(rows=[{"train/loss": share * constant}]))
        assert verdict["learns"] is learns and verdict["constant_loss"] == pytest.approx(constant, rel=1e-5)


def test_debug_fast_is_one_short_epoch(course_data: Path, tmp_path: Path):
    folder = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "debug=fast")
    assert len(read_table(folder)) == 1
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 4


def test_patience_ends_a_run_that_gets_no_better(course_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    settings = ("model=convtrans_relu", "optimizer.lr=1e-30", "trainer.max_epochs=9", "patience=2")
    folder = train_in(tmp_path / "run", course_data, *settings)
    assert len(read_table(folder)) == 3  # the first is the best, two are not better
    assert read_json(folder / "result.json")["best_epoch"] == 1
    before = stamps(folder)
    train_in(folder, course_data, *settings)
    assert "skipped" in capsys.readouterr().out and stamps(folder) == before


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "option",
    [
        "loss=l1",
        "scheduler=plateau",
        "optimizer=adamw",
        "data.augment=[flip,rotate,swap]",
        "trainer.gradient_clip_val=0.001",
        ["trainer.gradient_clip_val=0.001", "trainer.precision=bf16-mixed"],
        "+optimizer.foreach=true",
    ],
    ids=str,
)
def test_an_option_changes_the_run(four_epochs: Path, course_data: Path, tmp_path: Path, option: str | list[str]):
    options = [option] if isinstance(option, str) else option
    folder = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "trainer.max_epochs=2", *options)
    rows = read_table(folder)
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())
    if option not in ("scheduler=plateau", "+optimizer.foreach=true"):  # it waits for three epochs; the same sums
        assert timeless_table(folder)[0] != timeless_table(four_epochs)[0]


def test_the_training_loss_is_weighted_by_images(course_data: Path, tmp_path: Path):
    """96 images in batches of 36, 36 and 24; the weights hardly change."""
    options = ["model=convtrans_relu", "trainer.max_epochs=2", "data.batch_size=36", "optimizer.lr=1e-30"]
    folder = train_in(tmp_path / "run", course_data, *options)
    noisy, target = (t.float() / 255 for t in torch.load(course_data / "train_data.pkl", weights_only=True))
    net = build_module(compose_settings("model=convtrans_relu"), 3).net
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
    net = build_module(compose_settings("model=convtrans_relu"), 3).net
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
