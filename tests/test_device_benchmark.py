"""``benchmarks.device``: parts in processes of their own, of which some fail, and all of them in tiny."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from graph_recorder import ImitatedGraphs
from small_runs import ROOT, compose_settings
from warm_processes import is_running

from benchmarks import device
from benchmarks.device import PARTS, Part, link_photographs, main, run_part
from benchmarks.device_predict import png_files
from benchmarks.device_results import graph_scores
from benchmarks.device_steps import NO_GRAPH, BareStep, capture, graph_difference
from n2n_lightning.data.pairs import TensorPairs
from n2n_lightning.training.build import build_module
from n2n_lightning.training.graph_step import Step

SECONDS = 400  # for all parts in tiny, on a busy machine


def code(name: str, text: str, seconds: float = 60) -> Part:
    """Return a part that runs this code as the module ``name``."""
    Path(f"{name}.py").write_text(text)
    return Part(name, seconds, name, (), (), (), lambda folder: [path.name for path in folder.glob("*.found")])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_part_that_fails_leaves_the_others_their_turn(
    folder: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PYTHONPATH", str(folder))
    parts = (
        code("breaks", "raise SystemExit('no | luck')"),
        code("works", "open('a.found', 'w').close()"),
    )
    monkeypatch.setattr(device, "PARTS", parts)
    monkeypatch.setattr(sys, "argv", ["device", "--images", str(photographs), "--output", "out"])
    assert main() == 1
    found = json.loads((folder / "out/device.json").read_text())["parts"]
    assert [(part["status"], part["found"]) for part in found.values()] == [("failed", []), ("done", ["a.found"])]
    out = capsys.readouterr().out
    lines = [line.split(" | ", 2) for line in out.splitlines() if line.startswith("| ")]
    assert {line[0]: line[2] for line in lines[2:]} == {"| breaks": r"failed: no \| luck |", "| works": "a.found |"}
    assert all(float(seconds) < 60 for _, seconds, _ in lines[2:])


def test_a_part_that_takes_too_long_is_ended_with_all_it_started_and_keeps_what_it_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", str(folder))
    text = "import subprocess, time\nchild = subprocess.Popen(['sleep', '1000'])\n"
    text += "open('child', 'w').write(str(child.pid)); open('a.found', 'w').close(); time.sleep(1000)"
    result = run_part(code("sleeps", text), folder, 3, tiny=True)
    assert result["status"] == "failed" and result["reason"] == "ended after its 3 s"
    assert result["found"] == ["a.found"]
    assert not is_running(int((folder / "child").read_text()))


def test_a_second_time_has_its_own_photographs_and_results(
    folder: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", str(folder))
    few = shutil.copytree(photographs / "sub", folder / "few")
    for text, images, status in (("open('a.found', 'w').close()", photographs, 0), ("raise SystemExit(1)", few, 1)):
        monkeypatch.setattr(sys, "argv", ["device", "--images", str(images), "--output", "out", "--parts", "works"])
        monkeypatch.setattr(device, "PARTS", (code("works", text),))
        assert main() == status
    assert json.loads((folder / "out/device.json").read_text())["parts"]["works"]["found"] == []
    linked = {path.resolve() for path in (folder / "out").rglob("0*") if path.is_symlink()}
    assert linked == {path.resolve() for path in few.rglob("*.*")}


def test_an_unknown_part_is_refused(folder: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["device", "--images", str(photographs), "--parts", "steps, walks"])
    with pytest.raises(SystemExit):
        main()
    assert not (folder / "outputs").exists()


def test_photographs_are_divided(folder: Path, photographs: Path):
    link_photographs(photographs, folder)
    train, val = ({path.resolve() for path in (folder / name).iterdir()} for name in (device.TRAIN, device.VAL))
    assert len(train) == 4 and len(val) == 2 and not train & val


def test_images_become_png_files_of_their_pixels(folder: Path, photographs: Path):
    paths, megapixels = png_files(photographs, 2, folder)
    assert [path.name for path in paths] == ["00.png", "01.png"]
    assert megapixels == [0.036, 0.036]


@pytest.mark.slow
def test_every_part_runs_in_tiny(folder: Path, photographs: Path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "benchmarks.device", "--images", str(photographs), "--output", "out", "--tiny"]
    subprocess.run(line, cwd=folder, env=environment, check=False, capture_output=True, timeout=SECONDS)
    found = json.loads((folder / "out/device.json").read_text())["parts"]
    assert list(found) == [part.name for part in PARTS]
    assert not {name: part["reason"] for name, part in found.items() if part["reason"]}
    assert all(part["found"] for part in found.values())
    for name in ("steps", "side by side", "graph scores"):
        assert (NO_GRAPH in found[name]["found"][0]) == (not torch.cuda.is_available())


def test_scores_with_a_graph_and_without_are_means_of_the_same_seeds(tmp_path: Path):
    ended = {("auto", 0): 24.0, ("auto", 1): 25.0, ("auto", 2): 9.0, ("False", 0): 24.1, ("False", 1): 24.95}
    for (graph, seed), psnr in ended.items():
        folder = tmp_path / f"graph/{graph},{seed}"
        folder.mkdir(parents=True)
        result = {"model": "convtrans_relu", "seed": seed, "val/psnr": psnr, "overrides": {"graph": graph}}
        (folder / "result.json").write_text(json.dumps(result))
    (line,) = graph_scores(tmp_path)
    assert "convtrans_relu, mean of 2 seeds: graph=auto 24.500 dB, graph=false 24.525 dB, difference -0.025 dB" in line


def test_weights_with_a_graph_and_without_are_compared(folder: Path, course_data: Path):
    class Idle(ImitatedGraphs):
        def capture(self, step: Step) -> Step:
            return lambda: torch.zeros(())

    data = ["data=ee559", f"data.root={course_data}", "data.batch_size=8", "trainer.accelerator=cpu"]
    assert graph_difference("convtrans_relu", data, ImitatedGraphs()) == 0
    assert graph_difference("convtrans_relu", data, Idle()) > 1e-3


def bare_step() -> BareStep:
    """Return the bare step of a small net on eight pairs, the same every time."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 8, 3, 8, 8), dtype=torch.uint8, generator=rng)
    torch.manual_seed(0)
    module = build_module(compose_settings("model=convtrans_relu", "init_from=null"), 3)
    return BareStep(module, TensorPairs(images[0], images[1]), 4, is_bf16=False)


def test_a_bare_step_is_the_plain_training_step():
    bare = bare_step()
    net = copy.deepcopy(bare.net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        bare()
        source, target = (images[bare.chosen].float() / 255 for images in bare.images)
        optimizer.zero_grad()
        (net(source) - target).square().mean().backward()
        optimizer.step()
    for ours, plain in zip(bare.net.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.cuda
def test_a_graph_of_the_bare_step_is_the_bare_step():
    eager, graphed = bare_step(), bare_step()
    replay = capture(graphed)  # which makes three steps to warm up; to capture makes none
    for _ in range(3):
        eager()
    for _ in range(5):
        eager()
        replay()
    for one, other in zip(eager.net.parameters(), graphed.net.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
