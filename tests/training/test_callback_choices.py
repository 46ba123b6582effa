"""``callbacks=[...]``: what can be chosen, what is refused, and that a resumed run does not differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import user_callbacks  # noqa: F401  # adds its callbacks to those that can be chosen
from conftest import Command
from small_runs import (
    assert_same_weights,
    compose_config,
    read_json,
    read_table,
    timeless_table,
    tiny_overrides,
    train_in,
)

from n2n_lightning.system import errors
from n2n_lightning.training.callback_choices import CALLBACKS, LIGHTNINGS, REFUSED, callback_faults
from n2n_lightning.training.run import train

SHORT = ("model=convtrans_relu", "trainer.max_epochs=3")
STOPPING = "{name:EarlyStopping,monitor:val/psnr,mode:max,patience:1}"


@pytest.mark.parametrize(
    ("callbacks", "words"),
    [
        ("[{name:EarlyStoping,monitor:x}]", ["callbacks[0].name", "did you mean 'EarlyStopping'?"]),
        ("[{name:EarlyStopping,monitr:x}]", ["callbacks[0].monitr", "did you mean 'monitor'?", "monitor is needed"]),
        ("[{name:EarlyStopping,monitor:x,patience:many}]", ["callbacks[0].patience must be an integer, got 'many'"]),
        ("[{name:EarlyStopping,monitor:x,mode:up}]", ["callbacks[0]", "got up"]),
        ("[{name:Timer},{name:ModelCheckpoint},{name:OwnBar}]", ["callbacks[1]", "save_minutes", "callbacks[2]"]),
        ("[{name:EMAWeightAveraging}]", ["ema=0.999"]),
        ("[{name:StochasticWeightAveraging,swa_lrs:1}]", ["ema=0.999"]),
        ("[{name:NumpyState}]", ["NumpyState", "['seen'][0] is numpy.float64"]),
        ("[{name:Forgetful}]", ["state_dict and no load_state_dict"]),
        ("[{name:RateFromHistory},{name:RateFromHistory,factor:0.5}]", ["RateFromHistory is there 2 times"]),
        ("[Timer]", ["callbacks[0] must be a name and arguments, got 'Timer'"]),
    ],
)
def test_a_wrong_callback_is_refused(callbacks: str, words: list[str]):
    text = "\n".join(callback_faults(compose_config(f"callbacks={callbacks}")["callbacks"]))
    for word in words:
        assert word in text


@pytest.mark.parametrize("name", sorted(LIGHTNINGS))
def test_each_of_lightnings_callbacks_can_be_chosen_or_is_refused_with_a_reason(name: str):
    kinds = [kind.__name__ for kind in getattr(pl.callbacks, name).__mro__]
    assert (name in CALLBACKS) != any(kind in REFUSED for kind in kinds)
    (fault,) = [""] if name in CALLBACKS else callback_faults([{"name": name}])
    assert name in CALLBACKS or f"{name} is refused: " in fault


@pytest.mark.slow
def test_lightnings_callbacks_run(tmp_path: Path, course_data: Path):
    chosen = "[{name:LearningRateMonitor,logging_interval:step},{name:ModelSummary},{name:Timer,duration:{minutes:9}}]"
    folder = train_in(tmp_path / "run", course_data, *SHORT, f"callbacks={chosen}")
    assert read_json(folder / "result.json")["status"] == "done" and len(read_table(folder)) == 3


def test_early_stopping_ends_the_run(tmp_path: Path, course_data: Path):
    still = ("model=convtrans_relu", "trainer.max_epochs=9", "optimizer.lr=1e-30")
    folder = train_in(tmp_path / "run", course_data, *still, f"callbacks=[{STOPPING}]")
    assert len(read_table(folder)) == 2


def test_a_second_early_stopping_beside_patience_is_refused_where_their_states_would_be_mixed_up(
    tmp_path: Path, course_data: Path
):
    with pytest.raises(errors.InputError, match=r"EarlyStopping.* is there 2 times"):
        train_in(tmp_path / "run", course_data, *SHORT, f"callbacks=[{STOPPING}]", "patience=2")
    assert not (tmp_path / "run").exists()


def test_a_state_that_no_checkpoint_can_hold_ends_the_run_before_one_is_written(command: Command, course_data: Path):
    line = (*SHORT, *tiny_overrides(course_data), "hydra.run.dir=here", "callbacks=[{name:NumpyState,late:true}]")
    code, _, err = command(*line)
    assert code == 2 and "numpy.float64" in err and "NumpyState" in err
    assert not list(Path("here").rglob("*.ckpt"))
    assert read_json(Path("here/result.json"))["status"] == "failed"


class BreakOff(pl.Callback):
    """End the run in a hook of the second epoch, in the batch with this number."""

    def __init__(self, hook: str, batch: int) -> None:
        def end(trainer: pl.Trainer, *_: Any) -> None:
            if trainer.current_epoch == 1 and trainer.fit_loop.epoch_loop.batch_idx == batch:
                raise RuntimeError("broken off")

        setattr(self, hook, end)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "batch"), [("on_train_batch_end", 6), ("on_validation_end", 11), ("on_train_epoch_end", 11)]
)
def test_a_resumed_run_with_a_stateful_callback_ends_as_an_uninterrupted_one(
    tmp_path: Path, course_data: Path, hook: str, batch: int
):
    options = (*SHORT, "callbacks=[{name:RateFromHistory}]", "save_steps=5")
    whole = train_in(tmp_path / "whole", course_data, *options)
    config = compose_config(*tiny_overrides(course_data), *options)
    with pytest.raises(RuntimeError, match="broken off"):
        train(config, tmp_path / "cut", {"model": "convtrans_relu"}, callbacks=[BreakOff(hook, batch)])
    cut = train_in(tmp_path / "cut", course_data, *options)
    assert timeless_table(cut) == timeless_table(whole)
    assert_same_weights(cut / "checkpoints/last.ckpt", whole / "checkpoints/last.ckpt")
    states = [
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["callbacks"]["RateFromHistory"]["calls"]
        for folder in (whole, cut)
    ]
    assert states[0] == states[1]
