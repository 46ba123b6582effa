"""``trainer.precision=auto``: bfloat16 for one's own images where it is faster, and the same when a run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from noisy_files import ALL, source
from small_runs import compose_settings, read_json, small, train_with

from n2n_lightning.training import precision_choice
from n2n_lightning.training.precision_choice import choose_precision, measure_speed_up

OWN = ("data=burst", "data.root=there")


def precision_of(*overrides: str) -> str:
    return str(choose_precision(compose_settings(*overrides))[0].trainer["precision"])


@pytest.mark.parametrize(("speed_up", "precision"), [(2.0, "bf16-mixed"), (1.1, "32-true"), (0.7, "32-true")])
def test_the_faster_precision_is_taken(monkeypatch: pytest.MonkeyPatch, speed_up: float, precision: str):
    monkeypatch.setattr(precision_choice, "measure_speed_up", lambda _: speed_up)
    settings, line = choose_precision(compose_settings(*OWN))
    assert settings.trainer["precision"] == precision
    assert line == ("trainer.precision=bf16-mixed: 2.0 times as fast here as 32-true" if speed_up == 2 else None)


@pytest.mark.parametrize(
    ("overrides", "precision"),
    [
        (["data=photos", "data.root=there"], "32-true"),
        (["data=ee559", "data.root=there"], "32-true"),
        ([*OWN, "model=drunet"], "32-true"),
        ([*OWN, "model=nn_relu"], "32-true"),
        ([*OWN, "trainer.precision=32-true"], "32-true"),
        (["data=photos", "data.root=there", "trainer.precision=bf16-mixed"], "bf16-mixed"),
        ([*OWN, "model=unet"], "bf16-mixed"),
        ([*OWN, "trainer=cpu"], "bf16-mixed"),
    ],
    ids=str,
)
def test_only_own_images_and_nets_that_lose_nothing_get_it(
    monkeypatch: pytest.MonkeyPatch, overrides: list[str], precision: str
):
    monkeypatch.setattr(precision_choice, "measure_speed_up", lambda _: 2.0)
    assert precision_of(*overrides) == precision


def test_an_accelerator_trains_in_float32(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precision_choice, "measure_speed_up", lambda _: 2.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert precision_of(*OWN) == "32-true"


def test_a_run_keeps_its_precision(noisy_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = (*source("burst", noisy_images), *ALL, *small("nafnet32"))
    monkeypatch.setattr(precision_choice, "measure_speed_up", lambda _: 2.0)
    run = train_with(tmp_path / "run", *options)
    before = read_json(run / "result.json")
    assert before["config"]["trainer"]["precision"] == "bf16-mixed"
    monkeypatch.setattr(precision_choice, "measure_speed_up", lambda _: 0.7)
    train_with(run, *options)
    assert read_json(run / "result.json") == before, "skipped as finished, although bfloat16 is slow here"


def test_a_precision_that_was_asked_for_is_not_taken_for_a_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precision_choice, "measure_speed_up", lambda _: 1.0)
    settings, recorded = compose_settings(*OWN), {"config": {"trainer": {"precision": "bf16-mixed"}}}
    for overrides, precision in (({}, "bf16-mixed"), ({"trainer.precision": "bf16-mixed"}, "32-true")):
        (tmp_path / "result.json").write_text(json.dumps(recorded | {"overrides": overrides}))
        assert choose_precision(settings, tmp_path)[0].trainer["precision"] == precision


@pytest.mark.parametrize("overrides", [(), ("data.crop_px=null",), ("data.batch_size=1",), ("model=nafnet8",)], ids=str)
def test_a_trial_leaves_threads_as_they_were(overrides: tuple[str, ...]):
    before = torch.get_num_threads()
    assert measure_speed_up(compose_settings(*OWN, *overrides)) > 0
    assert torch.get_num_threads() == before


def test_sure_holds_in_16_bits(noisy_images: Path, tmp_path: Path):
    options = (*source("single", noisy_images), *ALL, "model=nafnet32", "trainer.max_epochs=1", "data.crop_px=32")
    exact, rounded = (
        read_json(train_with(tmp_path / precision, *options, f"trainer.precision={precision}") / "result.json")
        for precision in ("32-true", "bf16-mixed")
    )
    assert rounded["monitor"] == "val/psnr_sure"
    assert rounded["start_score"] == pytest.approx(exact["start_score"], abs=0.1)
