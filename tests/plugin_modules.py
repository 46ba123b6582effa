"""Plugins for the tests: modules written to disk, and tables that are as before after each test."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

from n2n_lightning.data.choices import DATA
from n2n_lightning.losses import LOSSES, MINIMUM_AT
from n2n_lightning.models.families import FAMILIES
from n2n_lightning.models.module import OPTIMIZERS, SCHEDULERS
from n2n_lightning.noise.choices import NOISES
from n2n_lightning.system import plugin_loading
from n2n_lightning.training.build import compose_known

WriteModule = Callable[[str, str], Path]
NET = """
from torch import nn
from n2n_lightning import plugins

@plugins.net("{name}")
class Plain(nn.Module):
    stride = 1

    def __init__(self, channels=3, *, width: int = 4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, channels, 1))

    def forward(self, noisy):
        return self.layers(noisy)
"""
LOSS = """
from n2n_lightning import plugins

@plugins.loss("{name}")
def function(estimate, target):
    return (estimate - target).abs().mean()
"""


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteModule]:
    """Write modules that can be imported; afterwards they and what they have registered are gone."""
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv(plugin_loading.VARIABLE, raising=False)
    tables = (
        FAMILIES,
        LOSSES,
        MINIMUM_AT,
        NOISES,
        DATA,
        OPTIMIZERS,
        SCHEDULERS,
        plugin_loading.registrations,
        plugin_loading.loaded,
    )
    before, modules = [dict(table) for table in tables], set(sys.modules)

    def write(name: str, text: str) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    yield write
    for group, name in plugin_loading.registrations.keys() - before[-2].keys():
        ConfigStore.instance().repo[group].pop(f"{name}.yaml")
    packages = {name.partition(".")[0] for name in plugin_loading.loaded.keys() - before[-1].keys()}
    for name in set(sys.modules) - modules:
        in_folder = str(getattr(sys.modules[name], "__file__", None)).startswith(str(folder))
        if in_folder or name.partition(".")[0] in packages:
            del sys.modules[name]
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)
    plugin_loading.installed_plugins.cache_clear()
    compose_known.cache_clear()
