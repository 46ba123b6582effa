"""The record of finished files: what counts as done, and files that are half written."""

from __future__ import annotations

from pathlib import Path

import pytest

from n2n_lightning.inference.jobs import FileJob
from n2n_lightning.inference.manifest import Manifest


@pytest.fixture
def job(tmp_path: Path) -> FileJob:
    for name in ("net.ckpt", "in.png"):
        (tmp_path / name).write_text(name)
    (tmp_path / "out" / "sub").mkdir(parents=True)
    return FileJob(tmp_path / "in.png", tmp_path / "out" / "sub" / "in.png")


def finish(manifest: Manifest, job: FileJob) -> None:
    with manifest.finishing(job) as part:
        part.write_text("denoised")


def test_an_option_that_is_free_may_differ_in_what_is_done(tmp_path: Path, job: FileJob):
    finish(Manifest(tmp_path / "out", tmp_path / "net.ckpt", {"bf16": True}), job)
    assert Manifest(tmp_path / "out", tmp_path / "net.ckpt", {"bf16": False}, free=["bf16"]).holds(job)
    assert not Manifest(tmp_path / "out", tmp_path / "net.ckpt", {"bf16": False}).holds(job)


def test_a_command_leaves_the_parts_of_another_alone(tmp_path: Path, job: FileJob):
    """Each locks its own folder of outputs, and one of them may lie in the other."""
    outer, inner = (Manifest(tmp_path / name, tmp_path / "net.ckpt", {}) for name in ("out", "out/sub"))
    with outer.finishing(job) as part:
        part.write_text("half")
        inner.remove_parts([job])
        assert part.exists()
        Manifest(tmp_path / "out", tmp_path / "net.ckpt", {}).remove_parts([job])  # after a kill, say
        assert not part.exists()
        part.write_text("whole")
    assert job.output.read_text() == "whole"
