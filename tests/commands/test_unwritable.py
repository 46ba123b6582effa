"""Folders that cannot be written: each command says so before it computes, and what to set; nothing is left behind.

The tests also run as root, who may write everywhere, so a file stands where a folder is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command
from fake_runs import write_run
from noisy_files import ALL, source
from small_runs import evaluate_main, read_json, tiny_overrides, train_in, write_checkpoint, write_photograph

from n2n_lightning import evaluate, export, predict, repeat, report, reproduce, standin
from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.system.folders import write_fault

RUN = ("model=convtrans_relu", "trainer.max_epochs=1")


def main_of(module: object) -> Callable[[], int]:
    """Return the entry point of an argparse command."""
    return lambda: module.main(sys.argv[1:])  # type: ignore[attr-defined]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a file where the commands need the folder ``outputs``, beside what they read."""
    (tmp_path / "outputs").write_text("a file")
    write_checkpoint(tmp_path / "given/net/best.ckpt", "convtrans_relu")
    write_photograph(tmp_path / "given/photo.png")
    return tmp_path


def assert_named(ended: tuple[int, str, str], folder: Path, *words: str) -> None:
    """Assert exit code 2, one message with these words and no word of a traceback, and that no file was added."""
    code, _, err = ended
    assert code == 2 and err.startswith("error: ") and err.count("error: ") == 1
    assert "Traceback" not in err and "HYDRA_FULL_ERROR" not in err
    for word in words:
        assert word in err
    assert {path.name for path in folder.iterdir()} == {"given", "outputs"}
    assert (folder / "outputs").read_text() == "a file"


@pytest.mark.parametrize("sweep", [False, True])
def test_train_names_the_runs_folder(command: Command, course_data: Path, folder: Path, sweep: bool):
    ended = command(*["-m"] * sweep, *RUN, *tiny_overrides(course_data))
    assert_named(ended, folder, "outputs", "cannot be created", "hydra.sweep.dir=" if sweep else "hydra.run.dir=")


def test_train_looks_before_it_reads_the_data(
    command: Command, course_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Hydra creates the folder, but on a file system that is full or read-only no file can be made in it."""
    monkeypatch.setattr("n2n_lightning.training.run.write_fault", lambda path: "Read-only file system")
    monkeypatch.setattr("n2n_lightning.training.run.prepare_run", None)
    ended = command(*RUN, *tiny_overrides(course_data))
    assert ended.code == 2 and "cannot be written (Read-only file system); set hydra.run.dir=FOLDER" in ended.err
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["burst", "photos"])
def test_an_unwritable_cache_is_named(command: Command, noisy_images: Path, folder: Path, kind: str):
    photos = ("data=photos", "data.train_pairs=8", "data.val_pairs=8", *RUN)
    words = photos if kind == "photos" else (*source(kind, noisy_images), *ALL)
    ended = command(*words, "data.cache_dir=outputs/cache", "hydra.run.dir=run")
    message = "".join(line for line in ended.err.splitlines(True) if not line.startswith(("building ", "reading ")))
    assert_named(ended._replace(err=message), folder, "outputs/cache cannot be written", "set data.cache_dir=FOLDER")


def test_evaluate_looks_before_it_computes(
    command: Command, course_data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(DenoiserModule, "forward", None)
    line = ("checkpoint=given/net", "data=ee559", f"data.root={course_data}")
    assert_named(command(*line, main=evaluate_main), folder, "outputs/evaluate/", "cannot be written", "output=FILE")
    ended = command(*line, "output=outputs/x.json", main=evaluate_main)
    assert_named(ended, folder, "outputs/x.json cannot be written", "output=FILE")
    ended = command(*line, "output=given", main=evaluate_main)
    assert_named(ended, folder, "given cannot be written (it is a folder)", "output=FILE")


def test_evaluate_prints_its_scores_even_if_the_file_then_fails(
    command: Command, course_data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("n2n_lightning.system.atomic.write_json", full)
    line = ("checkpoint=given/net", "data=ee559", f"data.root={course_data}", "output=given/scores.json")
    ended = command(*line, main=evaluate_main)
    assert ended.code == 1 and "val/psnr " in ended.out and "gain, dB" in ended.out
    assert ended.err == (
        "error: the scores could not be written to given/scores.json (No space left on device); set output=FILE\n"
    )


@pytest.mark.parametrize("output", ["outputs/net.pt2", "outputs/deep/net.pt2"])
def test_export_asks_for_another_output(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, output: str):
    monkeypatch.setattr(export, "export", None)
    ended = command("given/net", "--format", "torch", "--output", output, main=main_of(export))
    assert_named(ended, folder, f"{output} cannot be written", "another --output")


def test_predict_asks_for_another_output(command: Command, folder: Path):
    ended = command("given/net", "given/photo.png", "--output", "outputs/denoised", main=main_of(predict))
    assert_named(ended, folder, "outputs/denoised cannot be written", "give another")


def test_standin_asks_for_another_output(command: Command, folder: Path):
    ended = command("--output", "outputs/course", main=standin.main)
    assert_named(ended, folder, "outputs/course cannot be written", "choose another")


def test_reproduce_looks_before_it_trains(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reproduce, "run_and_score", None)
    ended = command("--root", "given", main=main_of(reproduce))
    assert_named(ended, folder, "outputs", "cannot be written", "another folder")


def test_repeat_says_where_it_could_be_written(command: Command, course_data: Path, folder: Path):
    train_in(folder / "given/run", course_data, *RUN)
    ended = command("given/run", main=main_of(repeat))
    assert_named(ended, folder, "outputs/repeats/run cannot be written", "start in another folder")


def test_report_prints_its_table_before_it_fails(command: Command, folder: Path):
    write_run(folder / "given/runs/a", images=False)
    ended = command("given/runs", "--output", "outputs/report", main=main_of(report))
    assert ended.code == 1 and "a" in ended.out and "dB" in ended.out
    assert "could not be written to outputs/report" in ended.err and "give another --output" in ended.err


def test_what_can_be_written_is_told_from_what_cannot(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for path in ("new", "deep/er/new", "file"):
        assert write_fault(tmp_path / path) is None
    assert write_fault(tmp_path) == "it is a folder"
    assert write_fault(tmp_path / "file/new") == "Not a directory"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# Where evaluate writes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"data": "day1/frames"}, {"data": "day2/frames"}),
        ({"checkpoint": "runA/net"}, {"checkpoint": "runB/net"}),
        ({"checkpoint": "runA/net/best.ckpt"}, {"checkpoint": "runA/net/last.ckpt"}),
        ({"quantize": False}, {"quantize": True}),
        ({"noise": {"name": "gaussian", "sigma": 25}}, {"noise": {"name": "gaussian", "sigma": 50}}),
    ],
)
def test_other_scores_get_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: dict[str, object], other: dict[str, object]
):
    monkeypatch.chdir(tmp_path)
    for run in ("runA", "runB"):
        for name in ("best", "last"):
            write_checkpoint(tmp_path / run / f"net/{name}.ckpt", "convtrans_relu")

    def output(checkpoint: str = "runA/net", data: str = "day1/frames", quantize: bool = False, **more: object) -> Path:
        settings = {"name": "burst", "root": data, "cache_dir": more.pop("cache_dir", "outputs/cache")}
        config = {"checkpoint": checkpoint, "data": settings, "noise": {"name": None}, "quantize": quantize} | more
        return evaluate.default_output(config, "burst,data.root=frames")

    first, second = output(**one), output(**other)  # type: ignore[arg-type]
    assert first != second and first.parent == second.parent == Path("outputs/evaluate")
    assert first == output(**one) == output(**one, cache_dir="elsewhere"), "the same command has another file"  # type: ignore[arg-type]


def test_a_name_of_any_length_and_script_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "ノイズ" / ("写真" * 30) / "checkpoints/best.ckpt", "convtrans_relu")
    config = {"checkpoint": str(next(tmp_path.glob("*/*"))), "data": {}, "noise": {}, "quantize": False}
    path = evaluate.default_output(config, "burst,data.root=" + "x" * 150)
    assert len(path.name.encode()) <= 255 and write_fault(path) is None and path.name.startswith("ノイズ-写真")


def test_two_folders_of_one_name_are_both_kept(command: Command, course_data: Path, tmp_path: Path):
    for day in ("day1", "day2"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "frames").symlink_to(course_data)
    write_checkpoint(tmp_path / "net/best.ckpt", "convtrans_relu")
    for day in ("day1", "day2", "day1"):
        ended = command("checkpoint=net", "data=ee559", f"data.root={day}/frames", main=evaluate_main)
        assert ended.code == 0, ended.err
    written = [read_json(path)["data"]["root"] for path in (tmp_path / "outputs/evaluate").iterdir()]
    assert sorted(written) == ["day1/frames", "day2/frames"]
