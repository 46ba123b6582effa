"""``minutes``: the length of a run follows from the measured speed, is recorded, and stays when the run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from noisy_files import ALL, source
from small_runs import compose_config, compose_settings, read_json, small, tiny_overrides, train_with

from n2n_lightning.training import budget
from n2n_lightning.training.budget import StepTimes, set_length
from n2n_lightning.training.build import build_datamodule
from n2n_lightning.training.check import check_config
from n2n_lightning.training.resuming import is_finished


def fixed_times(step_s: float, validation_s: float) -> StepTimes:
    times = StepTimes(most_s=1.0)
    times.seconds, times.validation_s = [step_s], validation_s
    return times


def measured_steps(monkeypatch: pytest.MonkeyPatch, seconds: Iterable[float], most_s: float) -> StepTimes:
    """Return what is known after steps that last so long, when the measurement ends itself or ``seconds`` do."""
    times, trainer, now = StepTimes(most_s), pl.Trainer(accelerator="cpu", logger=False), 0.0
    times.began = now
    for number, step_s in enumerate(seconds):
        now += step_s
        monkeypatch.setattr(budget.time, "monotonic", lambda now=now: now)
        times.on_train_batch_end(trainer, pl.LightningModule(), {"loss": torch.zeros(())}, None, number)
        if trainer.should_stop:
            break
    return times


def test_other_work_that_ends_meanwhile_does_not_count(monkeypatch: pytest.MonkeyPatch):
    steps = [9.0, 4.0, 3.0, *[2.5] * 3, *[0.14] * 300]
    times = measured_steps(monkeypatch, steps, most_s=12)
    assert times.step_s == pytest.approx(0.14) and len(times.seconds) < 40


def test_steps_that_last_as_long_are_measured_for_seconds(monkeypatch: pytest.MonkeyPatch):
    assert sum(measured_steps(monkeypatch, [0.14] * 300, most_s=12).measured) == pytest.approx(4, abs=0.3)
    assert len(measured_steps(monkeypatch, [1.0] * 300, most_s=12).measured) == 8
    assert sum(measured_steps(monkeypatch, [1.0] * 300, most_s=2).measured) == 3, "most_s has passed"


def test_work_that_goes_on_is_measured_until_the_time_is_over(monkeypatch: pytest.MonkeyPatch):
    times = measured_steps(monkeypatch, [0.9, 0.9, 0.9, *[0.2, 0.9, 0.9] * 50], most_s=12)
    assert sum(times.measured) > 12 and times.step_s == pytest.approx(2 / 3, rel=0.1)


def test_a_short_time_makes_fewer_epochs_not_epochs_of_one_step(
    noisy_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(budget, "measure", lambda *_: fixed_times(0.02, 0.01))
    options = (*source("burst", noisy_images), *ALL, *small("nafnet32"), "data.batch_size=4", "minutes=0.02")
    record = read_json(train_with(tmp_path / "run", *options) / "result.json")["config"]
    epochs, steps = record["trainer"]["max_epochs"], record["data"]["train_pairs"] // 4
    assert 1 <= epochs < 6 and steps >= 10


@pytest.mark.slow
def test_crops_fill_the_time_and_validation_takes_a_small_part(
    noisy_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(budget, "measure", lambda *_: fixed_times(0.1, 0.25))
    options = (*source("burst", noisy_images), *ALL, *small("nafnet32"), "data.batch_size=4", "minutes=0.2")
    record = read_json(train_with(tmp_path / "run", *options, "trainer.max_epochs=20") / "result.json")["config"]
    epochs, steps = record["trainer"]["max_epochs"], record["data"]["train_pairs"] / 4
    assert 1 < epochs < 20 and epochs * 0.25 <= 0.2 * 60 * 0.15
    assert 0.75 * 12 < epochs * (steps * 0.1 + 0.25) <= 12


@pytest.mark.parametrize("passes", [100, 5])
@pytest.mark.parametrize(("kind", "sources"), [("burst", 3), ("pairs", 1)])
def test_frames_are_not_learnt_by_heart(
    noisy_images: Path, monkeypatch: pytest.MonkeyPatch, kind: str, sources: int, passes: int
):
    """A net that starts trained passes so many times over the frames; one from random weights takes all its time."""
    monkeypatch.setattr(budget, "MOST_PASSES", passes)
    monkeypatch.setattr(budget, "measure", lambda *_: fixed_times(1e-4, 1e-5))
    settings = compose_settings(*source(kind, noisy_images), *ALL, *small("nafnet32"), "minutes=5")
    datamodule = build_datamodule(settings)
    datamodule.setup("fit")

    def taken_px(*, starts_trained: bool) -> tuple[int, int]:
        """Return the pixels of all crops, and those of one step in each epoch."""
        found, line = set_length(settings, datamodule, 0.0, starts_trained=starts_trained)
        assert ("by heart" in line) == starts_trained
        epochs, data = found.trainer["max_epochs"], found.data.values
        return epochs * data["train_pairs"] * 16**2, epochs * data["batch_size"] * 16**2

    enough = passes * 3 * sources * 48**2  # of five scenes, two are held back
    taken, more = taken_px(starts_trained=True)
    assert enough <= taken <= enough + more
    assert taken_px(starts_trained=False)[0] > 10 * enough


def test_single_images_are_not_counted_as_frames(noisy_images: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(budget, "measure", lambda *_: fixed_times(1e-4, 1e-5))
    settings = compose_settings(*source("single", noisy_images), *ALL, *small("nafnet32"), "minutes=5")
    datamodule = build_datamodule(settings)
    datamodule.setup("fit")
    assert "by heart" not in set_length(settings, datamodule, 0.0, starts_trained=True)[1]


def test_the_length_stays_when_the_run_goes_on(noisy_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = (*source("burst", noisy_images), *ALL, *small("nafnet32"), "minutes=0.02")
    monkeypatch.setattr(budget, "measure", lambda *_: fixed_times(0.1, 0.01))
    run = train_with(tmp_path / "run", *options)
    before = read_json(run / "result.json")
    monkeypatch.setattr(budget, "measure", lambda *_: fixed_times(0.001, 0.01))
    (run / "checkpoints/last.ckpt").touch()
    train_with(run, *options)
    assert read_json(run / "result.json") == before, "skipped as finished, although the machine is faster now"


def test_data_without_crops_get_epochs(course_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(budget, "measure", lambda *_: fixed_times(0.05, 0.2))
    options = (*tiny_overrides(course_data), "model=convtrans_relu", "minutes=0.05")
    record = read_json(train_with(tmp_path / "run", *options) / "result.json")
    steps = record["train_pairs"] / 8
    assert record["max_epochs"] == max(int(0.05 * 60 * 0.96 / (steps * 0.05 + 0.2)), 1)


@pytest.mark.slow
def test_speed_is_measured_in_a_short_training(noisy_images: Path, tmp_path: Path):
    options = (*source("burst", noisy_images), *ALL, *small("nafnet32"), "minutes=0.01")
    record = read_json(train_with(tmp_path / "run", *options) / "result.json")
    assert record["status"] in ("done", "dead") and record["config"]["data"]["train_pairs"] % 8 == 0


@pytest.mark.parametrize("minutes", [0, -1])
def test_no_time_is_refused(minutes: int):
    with pytest.raises(ValueError, match=f"minutes must be above 0, got {minutes}"):
        check_config(compose_config(f"minutes={minutes}"))


@pytest.mark.parametrize("other", ["trainer.limit_train_batches=4", "data.overfit_steps=10"])
def test_two_lengths_are_refused(other: str):
    with pytest.raises(ValueError, match=f"minutes=5 sets the length, and so does {other}"):
        check_config(compose_config("minutes=5", other))


@pytest.mark.parametrize(
    ("place", "fix", "other"),
    [("cat", "hydra.run.dir=", "study="), ("outputs/runs/cat", "study=NAME", "hydra.run.dir")],
)
def test_another_budget_is_refused_by_what_was_set(tmp_path: Path, place: str, fix: str, other: str):
    (tmp_path / place).mkdir(parents=True)
    options = ("data=burst", "data.root=there")
    recorded = compose_config(*options, "minutes=2", "data.train_pairs=8", "trainer.max_epochs=20")
    (tmp_path / place / "result.json").write_text(json.dumps({"config": recorded, "status": "done"}))
    with pytest.raises(ValueError, match="holds a run of another configuration") as refusal:
        is_finished(compose_settings(*options, "minutes=4", "trainer.max_epochs=3"), tmp_path / place)
    text = str(refusal.value)
    assert "configuration: minutes (2 there, 4 here);" in text and "resume=false" in text
    assert fix in text and other not in text


def test_a_folder_of_data_without_crops_is_no_length(tmp_path: Path):
    settings = compose_settings("minutes=5", "data=burst", "data.root=there")
    recorded = {"minutes": 5.0, "data": {"name": "ee559"}, "trainer": {"max_epochs": 3}}
    (tmp_path / "result.json").write_text(json.dumps({"config": recorded}))
    settings = budget.recall_length(settings, tmp_path)
    assert settings.trainer["max_epochs"] == 3 and settings.data.values["train_pairs"] == 640
