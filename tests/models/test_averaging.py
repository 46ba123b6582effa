"""``ema=``: averaged weights are validated and saved, and a resumed run has both kinds of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from small_runs import (
    assert_same_weights,
    compose_config,
    read_json,
    small,
    timeless,
    timeless_table,
    tiny_overrides,
    train_in,
    weights_of,
)
from torch import Tensor

from n2n_lightning.models.checkpoint import load_denoiser, strip_checkpoint
from n2n_lightning.training import run

DECAY = 0.3  # reached after three steps
OPTIONS = (*small("dncnn"), f"ema={DECAY}", "trainer.limit_train_batches=3")  # a net with buffers besides weights
Weights = dict[str, Tensor]


class Steps(pl.Callback):
    """Collect the weights, and the running statistics of the normalisations, after each step."""

    def __init__(self) -> None:
        self.seen: list[Weights] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.seen.append({f"net.{name}": value.double() for name, value in pl_module.net.state_dict().items()})


def train_with_callback(folder: Path, root: Path, *overrides: str, callback: pl.Callback) -> Path:
    config = compose_config(*tiny_overrides(root), *OPTIONS, *overrides)
    labels = {"model": "dncnn", "overrides": {}}
    run.train(config, folder, labels, lambda _: folder.mkdir(parents=True, exist_ok=True), [callback])
    return folder


def floats(weights: Weights) -> Weights:
    """Leave out the counters, which are integers."""
    return {name: value for name, value in weights.items() if value.is_floating_point()}


def current_of(checkpoint: Path) -> Weights:
    state = torch.load(checkpoint, weights_only=True)["current_model_state"]
    return {name: value for name, value in state.items() if name.startswith("net.")}


@pytest.fixture(scope="module")
def averaged(course_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Steps]:
    """Train two epochs of three steps."""
    steps = Steps()
    folder = tmp_path_factory.mktemp("averaged") / "run"
    return train_with_callback(folder, course_data, "trainer.max_epochs=2", callback=steps), steps


def average(steps: list[Weights]) -> Weights:
    """Average by hand: start with the first step's weights, then the decay of the average and the rest of the new."""
    mean = steps[0]
    for count, weights in enumerate(steps[1:], start=1):
        decay = min(DECAY, (1 + count) / (10 + count))
        mean = {name: decay * mean[name] + (1 - decay) * value for name, value in weights.items()}
    return mean


def test_a_checkpoint_has_the_average_of_the_weights_after_each_step(averaged: tuple[Path, Steps]):
    folder, steps = averaged
    assert len(steps.seen) == 6
    last = folder / "checkpoints/last.ckpt"
    expected, kept = average(steps.seen), floats(weights_of(last))
    assert len(kept) > 10 and any("running_var" in name for name in kept)
    for name, value in kept.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-6, msg=name)
    assert any(not torch.allclose(value.double(), steps.seen[-1][name], rtol=1e-3) for name, value in kept.items())
    for name, value in floats(current_of(last)).items():
        assert torch.equal(value.double(), steps.seen[-1][name]), "those to go on with"


def test_the_best_checkpoint_has_the_averages_that_were_validated(averaged: tuple[Path, Steps], course_data: Path):
    folder, steps = averaged
    result = read_json(folder / "result.json")
    best = folder / "checkpoints/best.ckpt"
    expected = average(steps.seen[: 3 * result["best_epoch"]])
    for name, value in floats(weights_of(best)).items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-6, msg=name)
    noisy, clean = (t.float() / 255 for t in torch.load(course_data / "val_data.pkl", weights_only=True))
    off = load_denoiser(best).denoise(noisy).double() - clean
    assert result["val/loss"] == pytest.approx(off.square().mean().item(), rel=1e-5)


def test_training_itself_does_not_see_the_averages(averaged: tuple[Path, Steps], course_data: Path, tmp_path: Path):
    folder, steps = averaged
    plain = Steps()
    other = train_with_callback(tmp_path / "run", course_data, "trainer.max_epochs=2", "ema=null", callback=plain)
    for ours, theirs in zip(steps.seen, plain.seen, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    content = torch.load(other / "checkpoints/last.ckpt", weights_only=True)
    assert "current_model_state" not in content and "averaging_state" not in content
    losses = [[row["train/loss"] for row in timeless_table(run)] for run in (folder, other)]
    assert losses[0] == losses[1]
    assert timeless_table(folder)[0]["val/loss"] != timeless_table(other)[0]["val/loss"]


def assert_same_run(one: Path, other: Path) -> None:
    assert timeless_table(one) == timeless_table(other)
    for name in ("best", "last"):
        first, second = (run / f"checkpoints/{name}.ckpt" for run in (one, other))
        assert_same_weights(first, second)
        ours, theirs = current_of(first), current_of(second)
        assert ours and all(torch.equal(ours[key], theirs[key]) for key in ours | theirs)


@pytest.mark.slow
def test_a_longer_run_goes_on_from_both(averaged: tuple[Path, Steps], course_data: Path, tmp_path: Path):
    folder, _ = averaged
    parts = train_with_callback(tmp_path / "run", course_data, "trainer.max_epochs=1", callback=Steps())
    train_with_callback(parts, course_data, "trainer.max_epochs=2", callback=Steps())
    assert_same_run(parts, folder)
    assert timeless(read_json(parts / "result.json")) == timeless(read_json(folder / "result.json"))


def test_a_run_that_was_interrupted_goes_on_from_its_last_epoch(
    averaged: tuple[Path, Steps], course_data: Path, tmp_path: Path
):
    class Killed(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
            if trainer.current_epoch == 1 and trainer.global_step == 5:
                raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train_with_callback(tmp_path / "run", course_data, "trainer.max_epochs=2", callback=Killed())
    assert read_json(tmp_path / "run/result.json")["epochs"] == 1
    train_with_callback(tmp_path / "run", course_data, "trainer.max_epochs=2", callback=Steps())
    assert_same_run(tmp_path / "run", averaged[0])


def test_a_stripped_checkpoint_holds_only_the_averages(averaged: tuple[Path, Steps], tmp_path: Path):
    best, stripped = averaged[0] / "checkpoints/best.ckpt", tmp_path / "weights.ckpt"
    strip_checkpoint(best, stripped)
    assert_same_weights(stripped, best)
    content = torch.load(stripped, weights_only=True)
    assert not {"current_model_state", "averaging_state"} & content.keys()
    assert torch.equal(
        load_denoiser(stripped).denoise(torch.ones(1, 3, 8, 8)), load_denoiser(best).denoise(torch.ones(1, 3, 8, 8))
    )


def test_another_run_starts_from_the_averages(averaged: tuple[Path, Steps], course_data: Path, tmp_path: Path):
    best = averaged[0] / "checkpoints/best.ckpt"
    options = [*small("dncnn"), "trainer.max_epochs=1", "trainer.limit_train_batches=1", "optimizer.lr=1e-30"]
    run = train_in(tmp_path / "run", course_data, *options, f"init_from={best}")
    start = weights_of(best)
    for name, value in weights_of(run / "checkpoints/last.ckpt").items():
        assert "running" in name or "batches" in name or torch.equal(value, start[name])
