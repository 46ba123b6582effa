"""The stress tests' quick parts on runs and sweeps: every figure is met."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import read_json

from stress.__main__ import main
from stress.parts import PARTS


@pytest.mark.slow
@pytest.mark.parametrize("part", [part for part in PARTS if part not in ("inputs", "pickles")])
def test_every_figure_is_met(part: str, tmp_path: Path):
    output = tmp_path / "figures.json"
    assert main([part, "--quick", "--output", str(output)]) == 0
    figures = read_json(output)
    assert figures and all(figure["met"] for figure in figures)
