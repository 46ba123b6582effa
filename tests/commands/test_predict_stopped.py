"""``predict`` stopped by a signal or by a full disk: no file is damaged, and the same command goes on."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from conftest import Command
from numbered_images import write
from predict_runs import MODEL, denoise, files, noise
from small_runs import stamps
from warm_processes import SECONDS, warm_context

from n2n_lightning import predict
from n2n_lightning.inference.manifest import LOCK_NAME


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Make five images."""
    for number in range(5):
        write(tmp_path / "in" / f"{number}.png", noise(20, 24, 3, seed=number))
    return tmp_path / "in"


@pytest.mark.parametrize("left", [0, 1, 40])
def test_a_line_of_the_record_that_was_cut_off_costs_one_file(command: Command, given: Path, left: int):
    denoise(command, given)
    lines = Path("out/predict.jsonl").read_text().splitlines(keepends=True)
    name = json.loads(lines[-1])["output"]
    Path("out/predict.jsonl").write_text("".join(lines[:-1]) + lines[-1][:left])
    Path("out", name).unlink()  # lines are written before their files get their names
    assert "1 of 5 files denoised, 4 done before" in denoise(command, given).out
    assert "0 of 5 files denoised, 5 done before" in denoise(command, given).out


PLACES: dict[str, tuple[Any, str, Callable[..., object]]] = {  # a function, and how far it gets
    "writing": (
        Path,
        "write_bytes",
        lambda write_bytes, path, content: write_bytes(path, content[: len(content) // 2]),
    ),
    "renaming": (os, "replace", lambda *_: None),
    "renamed": (os, "replace", lambda replace, part, path: replace(part, path)),
}


def stopped(line: list[str], number: int, place: str, messages: Path) -> None:
    """Run ``predict`` in a process of its own, on two cores; it gets a signal at ``place`` of the third PNG file."""
    torch.set_num_threads(2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which processes in a shell's background ignore
    sys.stdout = sys.stderr = messages.open("w")
    owner, name, go_so_far = PLACES[place]
    function, calls = getattr(owner, name), 0

    def stop_at_third(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            go_so_far(function, *arguments)
            os.kill(os.getpid(), number)
            time.sleep(0.2)  # for the main thread, which takes the signal
        function(*arguments)

    setattr(owner, name, stop_at_third)
    sys.exit(predict.main(line))


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_same_command_goes_on_after_a_signal(
    command: Command, given: Path, tmp_path: Path, kind: signal.Signals, place: str
):
    denoise(command, given, output="whole")
    line = [MODEL, str(given), "--output", str(tmp_path / "out")]
    process = warm_context().Process(target=stopped, args=(line, kind, place, tmp_path / "messages"), daemon=True)
    process.start()
    process.join(SECONDS)
    assert process.exitcode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[kind]
    done = {path.name for path in Path("out").glob("*.png")}
    parts = {path.name for path in Path("out").glob(".predict.*.part")}
    assert 1 <= len(done) < 5, "one thread has come back for the third file"
    assert files("out") - done - parts == ({LOCK_NAME} if kind == signal.SIGKILL else set())
    assert (kind == signal.SIGKILL and place != "renamed") <= bool(parts) <= (kind == signal.SIGKILL)
    if kind != signal.SIGKILL:
        assert Path("messages").read_text().splitlines()[-1] == "interrupted; the same command goes on"
    made = stamps(Path("out"))

    ended = denoise(command, given)
    assert ended.code == 0 and ended.err == ""
    assert f"{5 - len(done)} of 5 files denoised, {len(done)} done before" in ended.out
    after = stamps(Path("out"))
    assert all(after[name] == made[name] for name in done)
    assert files("out") == files("whole")
    for name in files("whole"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def copy_half(source: Path, target: Path) -> None:
    content = Path(source).read_bytes()
    Path(target).write_bytes(content[: len(content) // 2])
    full()


@pytest.mark.parametrize(
    ("where", "name", "fault"),
    [
        (shutil, "copyfile", copy_half),  # TIFF and NPY
        (tifffile.FileHandle, "write", full),
        (os, "fsync", full),
        (os, "replace", full),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_full_disk_leaves_whole_files_and_the_same_command_goes_on(
    command: Command, where: Any, name: str, fault: Any
):
    Path("in").mkdir()
    for number in range(3):
        tifffile.imwrite(f"in/{number}.tif", noise(20, 24, 3, seed=number), photometric="rgb", compression="zlib")
    Path("in/bad.png").write_bytes(b"bad")
    denoise(command, "in", output="whole")
    denoise(command, "in/0.tif")
    made = stamps(Path("out"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, fault)
        ended = denoise(command, "in")
    assert ended.code == 1
    full_disk, bad = sorted(ended.err.splitlines(), key=lambda line: "bad.png" in line)
    assert full_disk == "error: the disk is full, out/1.tif was not written; make room, then the same command goes on"
    assert bad.startswith("error: in/bad.png cannot be read")
    assert files("out") == {"0.tif"} and stamps(Path("out"))["0.tif"] == made["0.tif"]
    ended = denoise(command, "in")
    assert ended.code == 2 and "2 of 4 files denoised, 1 done before, 1 failed" in ended.out
    for number in range(3):
        np.testing.assert_array_equal(tifffile.imread(f"out/{number}.tif"), tifffile.imread(f"whole/{number}.tif"))


def test_a_second_command_in_the_same_folder_is_refused(command: Command, given: Path):
    Path("out").mkdir()
    with Path("out", LOCK_NAME).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = denoise(command, given)
        assert ended.code == 2 and "being written to by another predict" in ended.err
        assert files("out") == {LOCK_NAME}
    assert denoise(command, given).code == 0
