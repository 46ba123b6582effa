"""Importing plugins: which are imported, and what is said of those that cannot be used."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from plugin_modules import LOSS, NET, WriteModule

from n2n_lightning.models.families import FAMILIES
from n2n_lightning.system import plugin_loading
from n2n_lightning.system.hydra_app import group_choices, load_plugins, plugin_words
from n2n_lightning.training.build import compose_model


def test_the_environment_and_the_named_ones_are_imported_once(
    write_module: WriteModule, monkeypatch: pytest.MonkeyPatch
):
    for name in ("one", "two"):
        write_module(f"plugin_{name}.py", LOSS.format(name=f"loss_{name}"))
    monkeypatch.setenv("N2N_PLUGINS", "plugin_one, plugin_two")
    plugin_loading.load(["plugin_two"])
    plugin_loading.load(["plugin_one"])
    assert list(plugin_loading.loaded) == ["plugin_one", "plugin_two"]
    assert {"loss_one", "loss_two"} <= set(group_choices("loss"))
    assert (
        plugin_loading.plugin_of("loss", "loss_two") == "plugin_two" and plugin_loading.plugin_of("loss", "l2") is None
    )


def test_an_installed_plugin_is_found_by_its_entry_point(write_module: WriteModule):
    write_module("installed_plugin/__init__.py", "")
    write_module("installed_plugin/nets.py", NET.format(name="installed_net"))
    write_module("installed_plugin-1.0.dist-info/METADATA", "Name: installed_plugin\nVersion: 1.0\n")
    entry = "[n2n_lightning.plugins]\nanything = installed_plugin.nets\n"
    write_module("installed_plugin-1.0.dist-info/entry_points.txt", entry)
    plugin_loading.installed_plugins.cache_clear()
    plugin_loading.load()
    assert FAMILIES["installed_net"].family == "installed_net"
    assert plugin_loading.plugin_of("model", "installed_net") == "installed_plugin.nets"


def test_every_plugin_that_cannot_be_used_is_named_at_once(write_module: WriteModule):
    write_module("broken_plugin.py", "1 / 0\n")
    write_module("needy_plugin.py", "import not_installed_library\n")
    write_module("leaving_plugin.py", "raise SystemExit(0)\n")
    write_module("greedy_plugin.py", LOSS.format(name="l2"))
    named = ["broken_plugin", "missing_plugin", "needy_plugin", "leaving_plugin", "greedy_plugin", "a b", "plugin."]
    with pytest.raises(ValueError) as refused:
        plugin_loading.load(named)
    lines = str(refused.value).splitlines()
    assert len(lines) == len(named) and all(name in line for name, line in zip(named, lines, strict=True))
    for line, words in zip(
        lines,
        (
            "ZeroDivisionError: division by zero",
            "not found",
            "No module named 'not_installed_library'",
            "SystemExit",
            "loss=l2 is a choice of n2n_lightning already",
            "name of a module",
            "name of a module",
        ),
        strict=True,
    ):
        assert words in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NET.format(name="unet"), "model=unet is a choice"),
        (NET.format(name="nn_relu"), "model=nn_relu is a choice"),
        (NET.format(name="sequential"), "model=sequential is a choice"),  # a family without a choice of its name
        (NET.format(name="my-net"), "must be letters, digits and _, got model='my-net'"),
        (LOSS.format(name="_loss"), "must be letters, digits and _"),
        (
            LOSS.format(name="mine") + LOSS.format(name="mine").replace("function", "other"),
            "registered already, by bad",
        ),
    ],
)
def test_a_name_that_exists_or_is_no_word_is_refused(write_module: WriteModule, text: str, words: str):
    write_module("bad.py", text)
    before = dict(FAMILIES)
    with pytest.raises(ValueError, match="the plugin bad cannot be imported") as refused:
        plugin_loading.load(["bad"])
    assert words in str(refused.value) and before == FAMILIES


def test_two_plugins_cannot_have_one_name_but_a_plugin_may_be_imported_again(write_module: WriteModule):
    write_module("first_plugin.py", LOSS.format(name="mine"))
    write_module("second_plugin.py", LOSS.format(name="mine"))
    with pytest.raises(ValueError, match=r"plugin second_plugin .* loss=mine is registered already, by first_plugin"):
        plugin_loading.load(["first_plugin", "second_plugin"])
    del sys.modules["first_plugin"], plugin_loading.loaded["first_plugin"]
    plugin_loading.load(["first_plugin"])
    assert plugin_loading.plugin_of("loss", "mine") == "first_plugin"


def test_two_plugins_cannot_register_one_class_of_a_library_under_one_name(write_module: WriteModule):
    text = "import torch\nfrom n2n_lightning import plugins\n"
    for name, rate in (("first", 0.1), ("second", 0.2)):
        line = f'plugins.optimizer("theirs", settings={{{{"lr": {rate}}}}})(torch.optim.RMSprop)\n'
        write_module(f"{name}_plugin.py", text + line.format())
    with pytest.raises(ValueError, match=r"plugin second_plugin .*=theirs is registered already, by first_plugin"):
        plugin_loading.load(["first_plugin", "second_plugin"])
    assert compose_model(None, "optimizer=theirs")["optimizer"]["lr"] == 0.1


def test_a_plugin_may_import_another(write_module: WriteModule):
    write_module("inner_plugin.py", LOSS.format(name="inner_loss"))
    write_module("outer_plugin.py", "import inner_plugin\n")
    plugin_loading.load(["outer_plugin", "inner_plugin"])
    assert plugin_loading.plugin_of("loss", "inner_loss") == "outer_plugin"
    importlib.reload(sys.modules["inner_plugin"])
    assert plugin_loading.plugin_of("loss", "inner_loss") == "inner_plugin"


def test_only_the_name_of_a_module_is_shown_as_a_command():
    assert "N2N_PLUGINS=a.b_1 in" in plugin_loading.how_to_name("a.b_1")
    for text in (None, "__main__", 3, "", "a;b", "a b", "$(a)", "a\n", ".a", "a.", "a-b", "1a"):
        assert plugin_loading.how_to_name(text) == plugin_loading.how_to_name(None)


def test_a_packages_yaml_files_are_choices_and_never_replace_ours(write_module: WriteModule, tmp_path: Path):
    write_module("packed/__init__.py", NET.format(name="packed_net"))
    wide = write_module("packed/conf/model/packed_wide.yaml", "defaults: [packed_net, _self_]\nwidth: 9\n")
    write_module("packed/conf/loss/packed_loss.yaml", "name: l1\n")
    load_plugins(["packed"])
    assert {"packed_net", "packed_wide"} <= set(group_choices("model")) and "packed_loss" in group_choices("loss")
    for taken in ("model/unet", "loss/l1", "data/_files", "train"):
        path = write_module(f"packed/conf/{taken}.yaml", "width: 1\n")
        with pytest.raises(ValueError, match=f"conf/{taken}.yaml of the plugin packed .*of n2n_lightning"):
            load_plugins()
        path.unlink()
    write_module("other/__init__.py", "")
    net = write_module("other/conf/model/packed_net.yaml", "width: 7\n")
    with pytest.raises(ValueError, match=r"packed_net.yaml of the plugin other .* of packed"):
        load_plugins(["other"])
    net.unlink()
    write_module("other/conf/model/packed_wide.yaml", wide.read_text())
    with pytest.raises(ValueError, match=r"packed_wide.yaml of the plugin other .* of packed"):
        load_plugins(["other"])


def test_a_module_outside_of_packages_brings_no_files(write_module: WriteModule):
    write_module("lone.py", "")
    write_module("conf/model/lone_net.yaml", "family: unet\n")
    load_plugins(["lone"])
    assert plugin_loading.config_folders() == {} and "lone_net" not in group_choices("model")


def test_the_command_line_names_plugins_in_one_list():
    assert plugin_words(["model=unet", "plugins=[a.b, c]", "data.plugins=x"]) == ["a.b", "c"]
    assert plugin_words(["+plugins=['a']"]) == ["a"] and plugin_words(["plugins=[]"]) == []
    for word in ("plugins=a", "plugins=a,b", "plugins=[a],[b]", "plugins="):
        with pytest.raises(ValueError, match="plugins must be one list of modules in brackets"):
            plugin_words([word])


def test_what_a_configuration_uses_of_plugins(write_module: WriteModule):
    write_module("used.py", NET.format(name="used_net") + LOSS.format(name="used_loss"))
    plugin_loading.load(["used"])
    config = {
        "model": {"family": "used_net"},
        "loss": {"name": "l2"},
        "noise": {"name": "chain", "steps": [{"name": "clip"}]},
    }
    assert plugin_loading.plugins_of(config) == {"model=used_net": "used"}
    assert plugin_loading.plugins_of({"loss": {"name": "used_loss"}, "scheduler": None}) == {"loss=used_loss": "used"}
