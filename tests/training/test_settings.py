"""What a run is made of: the settings that a configuration becomes, and their plain form."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from small_runs import compose_config, compose_settings

from n2n_lightning.models.families import FAMILIES
from n2n_lightning.noise.kinds import Gaussian
from n2n_lightning.training.check import check_config, check_data
from n2n_lightning.training.settings import NoiseChoice, RunSettings

CLEAN = ("data=clean", "data.root=there", "noise=chain", "noise.steps=[{name:poisson},{name:gaussian,sigma:5}]")


@pytest.mark.parametrize("overrides", [(), (*CLEAN, "scheduler=cosine", "callbacks=[{name:ModelSummary}]")])
def test_a_record_holds_what_was_composed_in_the_same_order(overrides: tuple[str, ...]):
    config = compose_config(*overrides)
    recorded = check_config(config).as_config()
    assert recorded == config and list(recorded) == list(config)
    assert list(recorded["data"]) == list(config["data"])


def test_settings_have_the_values_of_the_command_line():
    settings = compose_settings(*CLEAN, "scheduler=none", "seed=3", "model=dncnn", "optimizer.lr=0.5")
    assert (settings.seed, settings.model.name, settings.scheduler.chosen) == (3, "dncnn", None)
    assert settings.optimizer.arguments["lr"] == 0.5 and settings.data.loader["batch_size"] == 8
    assert not settings.data.arguments.keys() & {"name", *settings.data.loader}
    assert len(settings.noise.build().steps) == 2  # type: ignore[attr-defined]  # a chain has them


def test_settings_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        compose_settings().seed = 1  # type: ignore[misc]  # that is what is tested


def test_what_is_checked_is_what_is_built():
    wrong = NoiseChoice("noise", {"name": "gaussian", "sigma": "strong"})
    (fault,) = wrong.faults()
    assert "noise.sigma must be" in fault and "got 'strong'" in fault
    right = wrong.with_values(sigma=5)
    assert right.faults() == [] and right.build() == Gaussian(5) and wrong.values["sigma"] == "strong"


def test_a_name_that_is_registered_later_is_known(monkeypatch: pytest.MonkeyPatch):
    config = compose_config("++model.family=late_net")
    with pytest.raises(ValueError, match=r"model.family must be one of .*, got 'late_net'"):
        check_config(config)
    monkeypatch.setitem(FAMILIES, "late_net", FAMILIES["unet"])
    assert check_config(config).model.name == "late_net"


def test_the_faults_of_all_groups_are_listed_at_once():
    wrong = ("seed=-1", "patience=x", "loss.name=l3", "optimizer.lr=a", "scheduler=step", "scheduler.step_size=0")
    config = compose_config(*wrong, *CLEAN, "noise.steps=[{name:fog}]", "trainer.max_epochs=0", "+logger.x.y=1")
    with pytest.raises(ValueError, match="seed must") as caught:
        check_config(config | {"sed": 1, "callbacks": [1]})
    faults = str(caught.value).splitlines()
    for word in ("sed is no setting", "patience", "loss.name", "optimizer.lr", "step_size", "noise.steps[0].name"):
        assert any(word in fault for fault in faults), word
    assert len(faults) == 10


def test_a_missing_setting_is_listed_with_the_others():
    config = compose_config("seed=x")
    del config["study"]
    with pytest.raises(ValueError, match=r"(?s)seed must be an integer.*study must be text"):
        check_config(config)


def test_evaluate_needs_only_the_data():
    settings = check_data(compose_config("checkpoint=x", "data=clean", "data.root=there", name="evaluate"))
    assert settings.seed == 0 and not isinstance(settings, RunSettings)
    assert list(settings.as_config()) == ["seed", "noise", "data"]
