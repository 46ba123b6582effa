"""The stress tests' quick parts on inputs: every figure is met, and damage is the same for the same seed."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from stress import inputs, pickles
from stress.mutations import mutated
from stress.originals import originals


@pytest.mark.slow
@pytest.mark.parametrize("part", [inputs, pickles])
def test_every_figure_is_met(tmp_path: Path, part: type[inputs]):
    figures = part.run(tmp_path, quick=True)
    missed = [figure for figure in figures if not figure.met]
    assert figures and not missed


def test_a_seed_gives_the_same_damage():
    good = list(originals().items())

    def damage(seed: int) -> list[tuple[str, bytes]]:
        rng = Random(seed)
        return [mutated(content, Path(name).suffix, rng.choice(good)[1], rng) for name, content in good]

    assert damage(1) == damage(1) != damage(2)


class Misbehaving(inputs.Worker):
    """Reads nothing, and does what its file's name says instead."""

    def ask(self, path: Path) -> dict[str, object]:
        match path.name.partition("-")[2]:
            case "grey.png":
                self.process.kill()
            case "colour.jpg":
                return self.kill("hang")
        return super().ask(path)


@pytest.mark.slow
def test_a_crash_and_a_hang_are_named_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inputs, "Worker", Misbehaving)
    monkeypatch.setattr(inputs, "QUICK_FILES", 0)
    monkeypatch.setattr(inputs, "bombs", dict)
    keep = ("colour.png", "grey.png", "colour.jpg", "colour.npy")
    monkeypatch.setattr(inputs, "originals", lambda: {name: originals()[name] for name in keep})
    by_measure = {figure.measure: figure for figure in inputs.run(tmp_path, quick=True)}
    crash, hang = by_measure["crashes of the reading process"], by_measure["the slowest file"]
    assert not crash.met and "1 ['1-grey.png']" in crash.measured
    assert not hang.met and "1 stopped for longer ['2-colour.jpg']" in hang.measured
