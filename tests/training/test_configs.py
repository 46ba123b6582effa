"""Every configuration file: it composes, passes the check, and is short."""

from __future__ import annotations

import pytest
from small_runs import MODELS, ROOT, compose_config

from n2n_lightning.training.build import build_datamodule, build_module
from n2n_lightning.training.check import check_config, check_data

NO_CHOICES = {"experiment/paper/small"}  # other files of the group include it; it is no choice itself
GROUPS = {
    path.name: sorted(
        file.relative_to(path).with_suffix("").as_posix()
        for file in path.rglob("*.yaml")
        if file.relative_to(path.parent).with_suffix("").as_posix() not in NO_CHOICES
    )
    for path in (ROOT / "conf").iterdir()
    if path.is_dir()
}
CHOICES = [f"{group}={choice}" for group, choices in GROUPS.items() for choice in choices]
NEEDED = {  # further overrides that a choice needs
    **{f"data={name}": ["data.root=there"] for name in GROUPS["data"] if name not in ("pairs", "photos")},
    "data=pairs": ["data.source=there", "data.target=there"],
    **{f"noise={name}": ["data=clean", "data.root=there"] for name in GROUPS["noise"] if name != "none"},
    **{f"experiment={name}": ["data.root=there"] for name in GROUPS["experiment"] if name.startswith("paper/")},
    "loss=neighbor2neighbor": ["data=single", "data.root=there"],
}

BENCHMARKS = dict.fromkeys(("bsds300", "kodak24", "set14"), "clean")  # data=clean with the settings of a benchmark


def test_every_group_is_there():
    assert {"model", "optimizer", "scheduler", "loss", "data", "noise", "trainer", "debug", "experiment"} <= set(GROUPS)
    assert all(GROUPS.values())


@pytest.mark.parametrize("choice", CHOICES)
def test_every_configuration_file_composes_and_passes_the_check(choice: str):
    config = compose_config(choice, *NEEDED.get(choice, []))
    check_config(config)
    group, _, name = choice.partition("=")
    if group in ("optimizer", "scheduler", "loss", "data", "noise"):
        assert config[group]["name"] == {"none": None, **BENCHMARKS}.get(name, name)


def test_data_chooses_its_noise_and_loss_and_the_command_line_overrides_them():
    clean, single = (compose_config(choice, *NEEDED[choice]) for choice in ("data=clean", "data=single"))
    assert (clean["noise"], clean["loss"]["name"]) == ({"name": "gaussian", "sigma": 25}, "l2")
    assert single["noise"] == {"name": None} and single["loss"] == {"name": "neighbor2neighbor", "gamma": 2}
    assert compose_config("noise=poisson", "data=clean", "data.root=there")["noise"] == {"name": "poisson", "lam": 30}
    for config in (
        compose_config("loss=l1", "data=single", "data.root=there"),
        compose_config("data=single", "data.root=there", "loss=l1"),
    ):
        check_config(config)
        assert config["loss"] == {"name": "l1"}


@pytest.mark.parametrize("data", GROUPS["data"])
def test_evaluates_configuration_composes_with_every_data_source(data: str):
    choice = f"data={data}"
    config = compose_config("checkpoint=x.ckpt", choice, *NEEDED.get(choice, []), name="evaluate")
    check_data(config)
    assert build_datamodule(config).seed == 0


@pytest.mark.parametrize("model", MODELS)
def test_a_models_file_is_short_and_names_what_differs(model: str):
    lines = (ROOT / "conf" / "model" / f"{model}.yaml").read_text().strip().splitlines()
    assert len(lines) < 10
    module = build_module(compose_config(f"model={model}"), 3)
    assert module.hparams["channels"] == 3
    assert build_module(compose_config(f"model={model}"), 2).hparams["channels"] == 2


def test_compile_takes_torchs_modes_too():
    for choice in ("true", "reduce-overhead", "max-autotune"):
        check_config(compose_config(f"compile={choice}"))
    with pytest.raises(
        ValueError, match="compile must be true or false or 'reduce-overhead' or 'max-autotune', got 'x'"
    ):
        check_config(compose_config("compile=x"))
