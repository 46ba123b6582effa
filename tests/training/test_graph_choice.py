"""``graph=auto|true|false``: what stands against a graph is said, and without CUDA nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from conftest import Command
from small_runs import compose_config, compose_settings, tiny_overrides

from n2n_lightning.training.callback_choices import CALLBACKS
from n2n_lightning.training.check import check_config
from n2n_lightning.training.graph_choice import graph_recorder, obstacles, reason_for_eager


class Peeks(pl.Callback):
    def on_after_backward(self, *_: Any) -> None: ...


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["compile=true"], "compile"),
        (["data=single", "data.root=there"], "data=single draws"),
        (["loss=l0"], "loss=l0 changes"),
        (["+trainer.accumulate_grad_batches=2"], "accumulate_grad_batches"),
        (["trainer=ddp"], "ddp"),
        (["trainer.precision=16-mixed"], "16-mixed"),
        (["+trainer.detect_anomaly=true"], "detect_anomaly"),
        (["+optimizer.differentiable=true"], "optimizer=adam"),
        (["callbacks=[{name:Peeks}]"], "Peeks runs within the step (on_after_backward)"),
    ],
    ids=str,
)
def test_what_stands_against_a_graph_is_named(monkeypatch: pytest.MonkeyPatch, overrides: list[str], reason: str):
    monkeypatch.setitem(CALLBACKS, "Peeks", Peeks)
    (found,) = obstacles(compose_settings(*overrides))
    assert reason in found
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    settings = compose_settings(*overrides, "graph=auto")
    assert reason_for_eager(settings) == found and graph_recorder(settings) is None


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["ema=0.9", "trainer.gradient_clip_val=1", "trainer.precision=bf16-mixed", "scheduler=plateau"],
        ["optimizer=sgd", "callbacks=[{name:LearningRateMonitor}]", "data.num_workers=2"],
        ["experiment=paper/gaussian", "data.root=there", "minutes=1"],
    ],
    ids=str,
)
def test_nothing_stands_against_these(overrides: list[str]):
    assert obstacles(compose_settings(*overrides)) == []


def test_a_net_of_a_plugin_is_captured_only_if_that_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    from n2n_lightning.system.plugin_loading import Registration, registrations

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(registrations, ("model", "unet"), Registration("mine", dict))
    assert reason_for_eager(compose_settings("graph=auto")) == "model=unet is a plugin's"
    assert reason_for_eager(compose_settings("graph=true")) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_true_is_refused_without_a_device_and_auto_says_nothing(course_data: Path, command: Command, tmp_path: Path):
    fast = (*tiny_overrides(course_data), "trainer.limit_train_batches=2", "trainer.max_epochs=1")
    ended = command(*fast, "graph=true", "compile=true")
    assert ended.code == 2 and not list(tmp_path.iterdir())
    message = "graph=true is not possible: compile=... makes graphs of its own; there is no CUDA device to train on"
    assert message in ended.err and "set graph=false" in ended.err
    ended = command(*fast, "graph=auto")
    assert ended.code == 0 and "no graph" not in ended.err + ended.out


def test_the_default_is_no_graph_and_other_words_are_refused():
    assert compose_settings().graph is False
    with pytest.raises(ValueError, match="graph must be true or false or 'auto', got 'on'"):
        check_config(compose_config("graph='on'"))
