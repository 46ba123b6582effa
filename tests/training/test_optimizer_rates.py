"""The learning rate of an optimizer that the model did not bring."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import MODELS, compose_config, compose_settings

from n2n_lightning.models.module import OPTIMIZERS
from n2n_lightning.training.build import Config, build_module
from n2n_lightning.training.resuming import is_finished, recall_defaults

SGD_RATES = {"unet": 0.01, "dncnn": 0.03}
STEPS = 12


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_an_optimizer_has_a_rate_that_suits_the_model(model: str, optimizer: str):
    expected = SGD_RATES.get(model, 0.1) if optimizer == "sgd" else 0.001
    assert compose_config(f"model={model}", f"optimizer={optimizer}")["optimizer"]["lr"] == expected
    assert compose_config(f"model={model}", f"optimizer={optimizer}", "optimizer.lr=0.5")["optimizer"]["lr"] == 0.5


def losses(*overrides: str) -> list[float]:
    """Train on noisy pairs of four smooth images, and return the loss of each step."""
    torch.manual_seed(0)
    module = build_module(compose_settings(*overrides), 3)
    optimizer = module.configure_optimizers()
    rng = torch.Generator().manual_seed(0)
    clean = torch.nn.functional.interpolate(torch.rand(4, 3, 4, 4, generator=rng), size=16, mode="bicubic")
    found = []
    for _ in range(STEPS):
        source, target = (clean + 0.1 * torch.randn(clean.shape, generator=rng) for _ in range(2))
        loss = (module(source) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@pytest.mark.parametrize("model", MODELS)
def test_no_net_diverges_under_an_optimizer_that_it_did_not_bring(model: str, optimizer: str):
    found = losses(f"model={model}", f"optimizer={optimizer}")
    assert all(map(math.isfinite, found)) and found[-1] < 2 * found[0]


def test_the_unet_diverges_at_the_rate_of_the_others():
    assert not math.isfinite(losses("model=unet", "optimizer=sgd", "optimizer.lr=0.1")[-1])


def record(folder: Path, config: Config, overrides: dict[str, str], status: str = "done") -> None:
    recorded = {key: value for key, value in config.items() if key != "minutes"}  # as up to version 0.2.0
    (folder / "result.json").write_text(
        json.dumps({"config": recorded, "overrides": overrides, "model": "unet", "status": status})
    )


def test_a_run_of_before_with_the_same_rate_is_recognised(tmp_path: Path):
    settings = compose_settings("model=nn_relu", "optimizer=sgd")
    record(tmp_path, compose_config("model=nn_relu", "optimizer=sgd", "optimizer.lr=0.1"), {"optimizer": "sgd"})
    assert is_finished(settings, tmp_path)


def test_a_run_of_before_with_another_rate_is_recognised(tmp_path: Path):
    settings = compose_settings("model=unet", "optimizer=sgd")
    record(tmp_path, compose_config("model=unet", "optimizer=sgd", "optimizer.lr=0.1"), {"optimizer": "sgd"})
    settings = recall_defaults(settings, tmp_path, {"overrides": {"optimizer": "sgd"}})
    assert settings.optimizer.values["lr"] == 0.1 and is_finished(settings, tmp_path)


def test_a_burst_of_before_goes_on_with_its_own_model_and_schedule(tmp_path: Path):
    burst = ("data=burst", "data.root=there")
    old = compose_config(*burst, "model=unet", "scheduler=none", "init_from=null", "data.batch_size=64")
    labels: dict[str, Any] = {"model": "nafnet32", "overrides": {"data": "burst", "data.root": "there"}}
    record(tmp_path, old, labels["overrides"])
    settings = recall_defaults(compose_settings(*burst), tmp_path, labels)
    assert is_finished(settings, tmp_path) and labels["model"] == "unet" and settings.data.values["batch_size"] == 64


def test_a_failed_run_of_before_starts_over_with_todays_rate(tmp_path: Path):
    settings = compose_settings("model=unet", "optimizer=sgd")
    record(tmp_path, compose_config("model=unet", "optimizer=sgd", "optimizer.lr=0.1"), {"optimizer": "sgd"}, "failed")
    settings = recall_defaults(settings, tmp_path, {"overrides": {"optimizer": "sgd"}})
    assert settings.optimizer.values["lr"] == 0.01
