"""``examples/plugin``: the commands with a net, a loss and a source from outside, named on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plugin_modules import WriteModule
from small_runs import ROOT, read_json
from warm_processes import run_warm

from n2n_lightning.plugins import check_net
from n2n_lightning.system.hydra_app import load_plugins

FOLDER, MODULE = ROOT / "examples" / "plugin", "n2n_example.denoisers"
SMALL = ("data=my_source", "data.pairs=16", "data.batch_size=8", "trainer.max_epochs=1", "trainer.accelerator=cpu")


def use_example() -> None:
    """Let a new process import the example."""
    sys.path.insert(0, str(FOLDER))


def run(tmp_path: Path, command: str, *words: str) -> tuple[int, str, str]:
    ended = run_warm(["-m", f"n2n_lightning.{command}", *words], tmp_path, use_example)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.slow
def test_a_sweep_of_the_example_and_what_all_commands_make_of_it(tmp_path: Path):
    words = ("model=unet,my_net_wide", "loss=l2,my_loss", *SMALL, f"plugins=[{MODULE}]", "seed=1")
    code, out, err = run(tmp_path, "train", "-m", *words)
    assert code == 0 and "4 jobs of the sweep: 4 done" in out, err
    results = {path.parent: read_json(path) for path in tmp_path.glob("outputs/runs/*/result.json")}
    assert {(r["model"], r["loss"]["name"]) for r in results.values()} == {
        (model, loss) for model in ("unet", "my_net_wide") for loss in ("l2", "my_loss")
    }
    assert not [folder for folder in results if "plugins" in folder.name]
    assert all(result["own_optimizer"] for result in results.values())
    folder = next(f for f, r in results.items() if (r["model"], r["loss"]["name"]) == ("my_net_wide", "my_loss"))
    assert results[folder]["config"]["model"] == {"family": "my_net", "width": 32, "blocks": 2}
    assert results[folder]["optimizer"]["name"] == "adamw"

    assert run(tmp_path, "report", "outputs")[0] == 0
    assert "my_net_wide" in (tmp_path / "outputs/report/index.html").read_text()

    code, _, err = run(tmp_path, "evaluate", f"checkpoint='{folder}'", "data=my_source", f"plugins=[{MODULE}]")
    assert code == 0, err

    Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(tmp_path / "a.png")
    predict = ("predict", str(folder), "a.png", "--output", "out")
    code, _, err = run(tmp_path, *predict)
    assert code == 2 and f"--plugins {MODULE}" in err and err.count("error: ") == 1
    assert run(tmp_path, *predict, "--plugins", MODULE)[0] == 0
    assert Image.open(tmp_path / "out/a.png").size == (7, 9)

    code, _, err = run(tmp_path, "repeat", str(folder))
    assert code == 2 and f"N2N_PLUGINS={MODULE}" in err
    code, out, err = run(tmp_path, "repeat", str(folder), "--plugins", MODULE)
    assert code == 0 and "the repeat is the original, bit for bit" in out, err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=my_net"], ["model must be one of", "got 'my_net'", "plugins=[MODULE]"]),
        (["model=my_net", "plugins=[n2n_exampel]"], ["the plugin n2n_exampel was not found"]),
        (["model=my_net", "plugins=[my_net.py]"], ["the plugin my_net.py was not found", "write my_net"]),
        (["-m", "model=my_net", "plugins=a,b"], ["plugins must be one list", "got 'a,b'"]),
        (["model=my_nett", f"plugins=[{MODULE}]"], ["did you mean 'my_net'?"]),
        (["model=my_net", f"plugins=[{MODULE}]", "model.widht=2"], ["did you mean 'model.width'?"]),
        (["model=my_net", f"plugins=[{MODULE}]", "data=my_source", "data.pairs=1"], ["data: pairs must be 4 or more"]),
    ],
)
def test_one_message_for_each_mistake(tmp_path: Path, words: list[str], said: list[str]):
    code, out, err = run(tmp_path, "train", *words)
    assert code == 2 and err.count("error: ") == 1 and "Traceback" not in out + err
    assert all(word in err for word in said), err
    assert not list(tmp_path.iterdir())


def test_help_lists_the_names_of_plugins(tmp_path: Path):
    code, out, _ = run(tmp_path, "train", "--help", f"plugins=[{MODULE}]")
    assert code == 0 and all(name in out for name in ("my_net, my_net_wide", "my_loss", "my_source"))


def test_the_examples_nets_pass_the_check(write_module: WriteModule, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    load_plugins([MODULE])
    for model in ("my_net", "my_net_wide"):
        check_net(model)
