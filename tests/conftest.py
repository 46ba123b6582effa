"""Fixtures: tiny data sets on disk, and the commands run in this process."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest
import torch
from noisy_files import ALL, source, write_noisy_images
from plugin_modules import write_module  # noqa: F401  # a fixture
from small_runs import train_in, train_with, write_course_data, write_photograph

from n2n_lightning import train


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run slow tests first, so that all workers end at the same time; skip what needs a device that is not there."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_collection_finish() -> None:
    """Keep what is loaded out of garbage collections: ``train`` makes one after every job, which took 0.2 s."""
    gc.freeze()


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Command(Protocol):
    def __call__(self, *arguments: str, main: Callable[[], int] = train.main) -> Ended: ...


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Call an entry point as its command line does, in an empty folder; ``train`` is the default."""
    monkeypatch.chdir(tmp_path)
    for name in ("HYDRA_FULL_ERROR", "N2N_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def call(*arguments: str, main: Callable[[], int] = train.main) -> Ended:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)  # the entry point sets it for its process
        train.outcomes.clear()  # they are global in the process
        capfd.readouterr()
        try:
            code = main()
        except SystemExit as error:  # argparse
            code = int(error.code or 0)
        return Ended(code, *capfd.readouterr())

    yield call
    train.outcomes.clear()
    root.handlers[:], root.level = handlers, level  # Hydra's write to a captured stream that is now closed


@pytest.fixture(scope="session")
def course_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write ``train_data.pkl`` with 96 pairs and ``val_data.pkl`` with 24, 3x16x16."""
    return write_course_data(tmp_path_factory.mktemp("course"))


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder of six textured photographs, some of them in a sub-folder."""
    folder = tmp_path_factory.mktemp("photographs")
    for number, name in enumerate(("a.png", "b.jpg", "c.bmp", "sub/d.png", "sub/e.JPEG", "sub/deep/f.webp")):
        write_photograph(folder / name, seed=number)
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="session")
def four_epochs(course_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the uninterrupted run that other runs are compared with."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    return train_in(folder, course_data, "model=convtrans_relu", "trainer.max_epochs=4")


@pytest.fixture(scope="session")
def noisy_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write folders for every source of image files."""
    return write_noisy_images(tmp_path_factory.mktemp("noisy"))


Trained = Callable[[str], Path]


@pytest.fixture(scope="session")
def trained_on(noisy_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train two epochs on a source of image files, once for all tests."""
    runs: dict[str, Path] = {}

    def train(kind: str) -> Path:
        if kind not in runs:
            runs[kind] = train_with(tmp_path_factory.mktemp(kind) / "run", *source(kind, noisy_images), *ALL)
        return runs[kind]

    return train
