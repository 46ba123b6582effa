"""Every configuration file: it composes, passes the check, and is short."""

from __future__ import annotations

import pytest
import torch
from small_runs import ROOT, compose_config, compose_settings

from n2n_lightning.self_supervised.choices import SINGLE_LOSSES
from n2n_lightning.system.hydra_app import ONE_FILE_GROUPS, group_choices
from n2n_lightning.training import loggers
from n2n_lightning.training.build import build_datamodule, build_module
from n2n_lightning.training.check import check_config, check_data

FOLDERS = [path for path in (ROOT / "conf").iterdir() if path.is_dir()]
PARTS = {  # files that others are made of, and that are no choices by themselves
    path for folder in FOLDERS for path in folder.rglob("*.yaml") if "/_" in path.relative_to(ROOT).as_posix()
}
GROUPS = {
    folder.name: sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in {*folder.rglob("*.yaml")} - PARTS
    )
    for folder in FOLDERS
} | {group: group_choices(group) for group in ONE_FILE_GROUPS}
CHOICES = [
    f"{group}={choice}" if group != "hydra" else f"hydra/{choice.replace('/', '=')}"  # hydra/sweeper=optuna
    for group, choices in GROUPS.items()
    for choice in choices
]
STUDY = ("best_ee559", "demo", "five_models")  # experiments that find their photographs, or are told to check them
NEEDED = {  # further overrides that a choice needs
    **{f"data={name}": ["data.root=there"] for name in GROUPS["data"] if name not in ("pairs", "photos")},
    "data=pairs": ["data.source=there", "data.target=there"],
    **{f"noise={name}": ["data=clean", "data.root=there"] for name in GROUPS["noise"] if name != "none"},
    **{f"experiment={name}": ["data.root=there"] for name in GROUPS["experiment"] if name not in STUDY},
    **{f"size={name}": ["experiment=paper/text", "data.root=there"] for name in GROUPS["size"]},
    **{f"loss={name}": ["data=single", "data.root=there"] for name in SINGLE_LOSSES},
}

BENCHMARKS = dict.fromkeys(("bsds300", "kodak24", "set14"), "clean")  # data=clean with the settings of a benchmark


def test_every_group_is_there():
    assert {"model", "optimizer", "scheduler", "loss", "data", "noise", "trainer", "debug", "experiment"} <= set(GROUPS)
    assert all(GROUPS.values())


def test_every_file_is_an_application_a_choice_a_group_or_part_of_a_choice():
    top = {path.stem for path in (ROOT / "conf").glob("*.yaml")}
    assert top == {"train", "evaluate", "doctor", *ONE_FILE_GROUPS}
    choices = {ROOT / "conf" / group / f"{name}.yaml" for group, names in GROUPS.items() for name in names}
    assert {path for folder in FOLDERS for path in folder.rglob("*.yaml")} <= choices | PARTS
    texts = {path: path.read_text() for path in (ROOT / "conf").rglob("*.yaml")}
    for part in PARTS:
        name = next(word for word in part.with_suffix("").parts if word.startswith("_"))
        assert any(name in text for path, text in texts.items() if path != part), f"no file uses {part}"


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES)
def test_every_configuration_file_composes_and_passes_the_check(choice: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loggers, "is_installed", lambda package: True)  # of extras
    config = compose_config(choice, *NEEDED.get(choice, []))
    if choice == "trainer=gpu" and not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"no GPU .* trainer=cpu"):
            check_config(config)
        return
    check_config(config)
    group, _, name = choice.partition("=")
    if group in ("optimizer", "scheduler", "loss", "data", "noise"):
        assert config[group]["name"] == {"none": None, "adamw_fast": "adamw", **BENCHMARKS}.get(name, name)


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


@pytest.mark.slow
@pytest.mark.parametrize("data", GROUPS["data"])
def test_evaluates_configuration_composes_with_every_data_source(data: str):
    choice = f"data={data}"
    config = compose_config("checkpoint=x.ckpt", choice, *NEEDED.get(choice, []), name="evaluate")
    assert build_datamodule(check_data(config)).seed == 0


def test_size_small_changes_the_papers_experiments_and_size_full_nothing():
    full, small = (
        compose_config("experiment=paper/impulse", f"size={size}", "data.root=there") for size in ("full", "small")
    )
    assert full == compose_config("experiment=paper/impulse", "data.root=there")
    assert (full["study"], small["study"]) == ("paper_full/impulse", "paper/impulse")
    assert (full["trainer"]["gradient_clip_val"], small["trainer"]["gradient_clip_val"]) == (None, 1)
    assert (full["data"]["crop_px"], small["data"]["crop_px"]) == (256, 64)
    text = compose_config("experiment=paper/text", "size=small", "model=unet", "data.root=there")
    assert text["trainer"]["gradient_clip_val"] is None and text["model"] == {"family": "unet"}


@pytest.mark.parametrize("model", GROUPS["model"])
def test_a_models_file_is_short_and_names_what_differs(model: str):
    lines = (ROOT / "conf" / "model" / f"{model}.yaml").read_text().strip().splitlines()
    assert len(lines) < 10
    module = build_module(compose_settings(f"model={model}"), 3)
    assert module.hparams["channels"] == 3
    assert build_module(compose_settings(f"model={model}"), 2).hparams["channels"] == 2


def test_compile_takes_torchs_modes_too():
    for choice in ("true", "reduce-overhead", "max-autotune"):
        check_config(compose_config(f"compile={choice}"))
    with pytest.raises(
        ValueError, match="compile must be true or false or 'reduce-overhead' or 'max-autotune', got 'x'"
    ):
        check_config(compose_config("compile=x"))
