"""The package's public names come from its top, and torch is loaded only when one of them is used."""

from __future__ import annotations

import rlcompleter
from pathlib import Path

import pytest
from small_runs import run_python

import n2n_lightning
from n2n_lightning.models.families import FAMILIES


@pytest.mark.parametrize("name", n2n_lightning.__all__)
def test_a_public_name_is_listed_and_resolves(name: str):
    assert name in dir(n2n_lightning)
    assert name == "__version__" or getattr(n2n_lightning, name).__name__ == name


def test_tab_completion_offers_a_class_and_its_methods():
    completer = rlcompleter.Completer({"package": n2n_lightning, "Denoiser": n2n_lightning.Denoiser})
    assert (completer.complete("package.Denoiser", 0) or "").startswith("package.Denoiser")
    for method in ("fit", "save", "load", "denoise", "predict"):
        assert (completer.complete(f"Denoiser.{method}", 0) or "").startswith(f"Denoiser.{method}(")


def test_the_package_says_that_it_has_type_hints():
    assert (Path(n2n_lightning.__file__).parent / "py.typed").is_file()


def test_every_family_is_public():
    assert all(getattr(n2n_lightning, family.__name__) is family for family in FAMILIES.values())


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Denoizer'"):
        n2n_lightning.Denoizer  # noqa: B018  # the attribute is what is tested


@pytest.mark.slow
def test_the_package_alone_loads_no_torch(tmp_path: Path):
    code = (
        "import sys, n2n_lightning; print('torch' in sys.modules); "
        "from n2n_lightning import UNetDenoiser; print('torch' in sys.modules)"
    )
    assert run_python(["-c", code], tmp_path).stdout.split() == ["False", "True"]
