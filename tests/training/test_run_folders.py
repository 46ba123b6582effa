"""Runs that differ in a folder or a checkpoint have folders of their own; those of earlier versions are found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import Command
from small_runs import evaluate_main, read_json, write_checkpoint, write_course_data

from n2n_lightning import report
from n2n_lightning.system.run_names import earlier_run_name

TINY = ("data=ee559", "model=convtrans_relu", "data.batch_size=8", "trainer.accelerator=cpu", "debug=fast")


def runs(folder: Path) -> dict[str, str]:
    """Return the value of ``data.root`` or ``init_from`` of each run below ``outputs``, by the name of its folder."""
    found = {path.parent.name: read_json(path)["overrides"] for path in folder.glob("outputs/*/*/result.json")}
    return {name: overrides.get("init_from") or overrides["data.root"] for name, overrides in found.items()}


@pytest.mark.slow
def test_a_sweep_over_equal_last_names_and_any_script_has_a_run_for_each(command: Command, tmp_path: Path):
    roots = ["monday/liver", "tuesday/liver", "肝臓", "腎臓", "a=b", "2024", "it's", "a b"]
    for number, root in enumerate(roots):
        write_course_data(tmp_path / root, train=16, val=4, sigma_255=20.0 + number)
    line = ("-m", *TINY, f"data.root={','.join(roots)}")
    ended = command(*line)
    assert ended.code == 0, ended.err
    found = runs(tmp_path)
    assert sorted(found.values()) == sorted(roots)
    assert "convtrans_relu,data.batch_size=8,data.root=肝臓,data=ee559,trainer.accelerator=cpu" in found
    assert command(*line).out.count("already done, skipped") == len(roots)
    assert command(*TINY, "data.root=腎臓").out.count("already done, skipped") == 1
    assert command("outputs", main=report.main).code == 0
    assert all(root in (tmp_path / "outputs/report/table.md").read_text() for root in roots)


@pytest.mark.slow
def test_two_checkpoints_of_one_name_start_two_runs_and_have_two_scores(command: Command, tmp_path: Path):
    write_course_data(tmp_path / "course", train=16, val=4)
    paths = [f"outputs/old/convtrans_relu,seed={seed}/checkpoints/best.ckpt" for seed in (1, 2)]
    for path in paths:
        write_checkpoint(tmp_path / path, "convtrans_relu")
    tiny = (*TINY, "data.root=course")
    for path in paths:
        assert command(*tiny, f"init_from={path}").code == 0
    assert sorted(runs(tmp_path).values()) == paths

    scored = ("data=ee559", "data.root=course")
    for folder in (path.removesuffix("/checkpoints/best.ckpt") for path in [*paths, paths[0]]):
        ended = command(f"checkpoint={folder}", *scored, main=evaluate_main)
        assert ended.code == 0, ended.err
    files = list((tmp_path / "outputs/evaluate").iterdir())
    assert sorted(read_json(file)["checkpoint"] for file in files) == [
        path.partition("/checkpoints")[0] for path in paths
    ]


@pytest.mark.slow
def test_a_run_that_an_earlier_version_began_is_found(command: Command, tmp_path: Path):
    write_course_data(tmp_path / "a/course", train=16, val=4)
    line = (*TINY, "data.root='a/course'")
    assert command(*line).code == 0
    assert "already done, skipped" in command(*TINY, "data.root=./a/course/").out  # as the shell completes it
    (now,) = (path.parent for path in tmp_path.glob("outputs/*/*/result.json"))
    earlier = now.with_name(earlier_run_name("convtrans_relu", line))
    shutil.move(now, earlier)
    record = read_json(earlier / "result.json")
    record["overrides"]["data.root"] = "'a/course'"  # as versions up to 0.2.0 recorded it
    (earlier / "result.json").write_text(json.dumps(record))
    assert "already done, skipped" in command(*line).out
    record["status"] = "interrupted"
    (earlier / "result.json").write_text(json.dumps(record))
    assert command(*line).code == 0
    assert read_json(earlier / "result.json")["status"] == "done"
    assert [path.name for path in earlier.parent.iterdir()] == [earlier.name]
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert command(*TINY, "data.root=b/course").code == 0
    assert len(runs(tmp_path)) == 2
