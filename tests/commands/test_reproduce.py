"""The command that runs or collects the paper's experiments: which runs, what it says of them, and one for real."""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from small_runs import smooth_images
from warm_processes import run_warm

from n2n_lightning import reproduce
from n2n_lightning.paper.experiments import EXPERIMENTS, TEST_NOISES, paper_claims
from n2n_lightning.paper.jobs import PAPER_SIZES, PaperRun, call, make_jobs, quoted
from n2n_lightning.paper.pictures import PICTURED, draw_pictures
from n2n_lightning.paper.table import BenchmarkRow, judge_paper_claims, make_rows
from n2n_lightning.system import errors


def jobs_of(*words: str) -> list[PaperRun]:
    return make_jobs(reproduce.parse(["--root", "there", "--collect", *words]))


def finish(job: PaperRun, scores: dict[str, float], status: str = "done") -> None:
    """Leave behind what a run does."""
    job.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    job.checkpoint.write_bytes(b"weights")
    result: dict[str, Any] = {"status": status, "epochs": 3, "max_epochs": 12, "train_pairs": 20000}
    (job.folder / "result.json").write_text(json.dumps(result | {"image_shape": [3, 64, 64], "seconds": 90.0}))
    for benchmark, psnr in scores.items():
        job.score_file(benchmark).write_text(json.dumps({"val/psnr": psnr}))


def only_row(rows: list[BenchmarkRow], benchmark: str) -> BenchmarkRow:
    (row,) = [row for row in rows if row.benchmark == benchmark]
    return row


def test_every_noise_has_runs_and_every_claim_is_about_runs_that_there_are():
    keys = {experiment.key for experiment in EXPERIMENTS}
    assert len(keys) == len(EXPERIMENTS) and {key[0] for key in keys} == set(TEST_NOISES)
    for claim in paper_claims():
        assert {claim.run, claim.other} <= keys and claim.benchmark in reproduce.BENCHMARKS
    for experiment in EXPERIMENTS:
        assert len(experiment.paper) in (0, len(experiment.benchmarks))


def test_every_run_has_a_folder_of_its_own():
    folders = [job.folder for job in jobs_of("--seeds", "0,1,2", "trainer.max_epochs=2")]
    assert len(folders) == 3 * len(EXPERIMENTS) == len(set(folders))


@pytest.mark.parametrize(("size", "study", "net"), [("small", "paper", "nafnet32"), ("full", "paper_full", "unet")])
def test_a_runs_folder_is_the_one_of_earlier_versions(size: str, study: str, net: str):
    job = jobs_of("--size", size, "--only", "text")[0]
    name = f"{net},data.draws=fresh,data.root=there,data.targets=clean,loss=l1,seed=0"
    assert job.folder == Path("outputs") / study / "text" / name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "gaussian,salt"], "got salt"),
        (["--seeds", "0,x"], "got 0,x"),
        (["seed=1"], "seed=1 is set by this command"),
        (["size=full"], "size=full is set by this command"),
        (["noise.sigma=3"], "noise.sigma=3 is set by this command"),
        (["+data.root=x"], "is set by this command"),
        (["--kodak", "x", "nonsense"], "nonsense is neither"),
    ],
)
def test_what_would_make_another_run_of_it_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        jobs_of(*words)
    assert stop.value.code == errors.BAD_INPUT and said in capsys.readouterr().err


def test_a_missing_folder_is_named_before_anything_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        reproduce.parse(["--root", str(tmp_path), "--set14", "nowhere"])
    assert stop.value.code == errors.BAD_INPUT and "--set14 must be a folder, got nowhere" in capsys.readouterr().err


def test_rows_say_how_far_a_run_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    jobs = jobs_of("--only", "poisson", "--seeds", "0,1")
    clean = [job for job in jobs if job.experiment.targets == "clean"]
    assert {row.verdict for row in make_rows(jobs)} == {"not started"}
    finish(clean[0], {"bsds300": 30.30, "kodak24": 31.70})
    finish(clean[1], {}, status="interrupted")
    row = only_row(make_rows(clean), "bsds300")
    assert row.verdict == "interrupted, 3 of 12 epochs" and row.cells["budget"].startswith("60,000 of 64x64")
    finish(clean[1], {"bsds300": 30.20})
    row = only_row(make_rows(clean), "bsds300")
    assert (
        row.verdict == "as the paper" and row.cells["ours (dB)"] == f"30.25 ± {statistics.stdev([30.3, 30.2]):.2f} (2)"
    )
    assert row.cells["difference"] == "-0.02"
    assert only_row(make_rows(clean), "kodak24").verdict == "1 of 2 seeds scored"
    finish(clean[1], {"kodak24": 31.2})
    finish(clean[0], {"kodak24": 31.2})
    assert only_row(make_rows(clean), "kodak24").verdict == "below the paper"


def test_a_score_of_earlier_weights_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    job = jobs_of("--only", "text")[0]
    finish(job, {"kodak24": 35.0})
    assert job.psnr("kodak24") == 35.0
    later = job.score_file("kodak24").stat().st_mtime + 10
    os.utime(job.checkpoint, (later, later))
    assert job.psnr("kodak24") is None


def test_claims_compare_the_seeds_that_both_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    jobs = jobs_of("--only", "impulse,text", "--seeds", "0,1")
    assert judge_paper_claims(make_rows(jobs)) == []
    scores = {("impulse", "l0"): 24.0, ("impulse", "l1"): 18.5, ("impulse", "l2"): 19.0, ("text", "l1"): 33.0}
    for job in jobs:
        key = (job.experiment.noise, job.experiment.loss)
        if key in scores and job.experiment.targets == "noisy":
            finish(job, {"kodak24": scores[key] + job.seed * (key[1] == "l0")})
        if key == ("text", "l2") and job.seed == 1:
            finish(job, {"kodak24": 28.0})
    lines = judge_paper_claims(make_rows(jobs))
    assert [line.rpartition(": ")[2] for line in lines] == ["holds", "does not hold", "holds"]
    assert "+6.00 dB (+5.50 to +6.50 over 2 seeds)" in lines[0] and "-0.50 dB" in lines[1] and "+5.00 dB," in lines[2]


def test_pictures_are_of_the_first_seeds_runs_that_have_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from PIL import Image

    from n2n_lightning.noise.kinds import Gaussian, Text
    from n2n_lightning.paper import pictures

    drawn: list[tuple[Any, Any]] = []
    monkeypatch.setattr(pictures, "draw_restored", lambda *given: drawn.append(given) or b"picture")
    monkeypatch.chdir(tmp_path)
    photographs = smooth_images(8, 20, seed=3).transpose(0, 2, 3, 1).astype("uint8")
    for number, image in enumerate(photographs):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    jobs = jobs_of("--only", "gaussian,text", "--seeds", "1,2")
    path = tmp_path / "pictures.png"
    assert not draw_pictures(jobs, tmp_path, path) and not path.exists()

    ended = {
        ("gaussian", "noisy", "fresh", "l2"),
        ("gaussian", "clean", "fixed", "l2"),
        ("text", "noisy", "fresh", "l1"),
    }
    for job in jobs:
        experiment = job.experiment
        if (experiment.noise, experiment.targets, experiment.draws, experiment.loss) in ended or job.seed == 2:
            finish(job, {})
        elif experiment.loss == "l1":
            finish(job, {}, status="interrupted")
        elif experiment.noise == "gaussian":
            finish(job, {})
            job.checkpoint.unlink()
    assert draw_pictures(jobs, tmp_path, path) and path.read_bytes() == b"picture"
    ((clean, rows),) = drawn
    assert (clean == photographs[PICTURED - 1]).all()
    assert {title: (noise, list(nets)) for title, (noise, nets) in rows.items()} == {
        "gaussian 25": (Gaussian(25.0), ["l2, noisy targets", "l2, clean targets, fixed"]),
        "text 0.25": (Text(0.25), ["l1, noisy targets"]),
    }
    assert all("seed=1" in str(checkpoint) for _, nets in rows.values() for checkpoint in nets.values())


def test_the_net_for_two_cores_is_that_of_the_experiments():
    from small_runs import compose_config

    for name, size in PAPER_SIZES.items():
        (own, named) = (
            compose_config("experiment=paper/gaussian", f"size={name}", *words, "data.root=there")
            for words in ((), (f"model={size.net}",))
        )
        assert own["model"] == named["model"]


@pytest.mark.parametrize("path", ["plain", "it's, (1) = a b", "Übung/x"])
def test_any_path_reaches_hydra_as_it_is(path: str):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(f"data.root={quoted(path)}")
    assert override.value() == path or str(override.value()) == path


def test_a_child_that_fails_is_no_success():
    assert call("no_such_command") != errors.DONE
    assert call("train", "model=unett") == errors.BAD_INPUT


def call_warm(command: str, *arguments: str) -> int:
    """Do what ``call`` does, without the seconds that the command would take to start."""
    ended = run_warm(["-m", f"n2n_lightning.{command}", *arguments], Path.cwd())
    print(ended.stdout, ended.stderr, sep="")
    return ended.returncode


@pytest.mark.slow
def test_two_runs_for_real_then_nothing_left_to_do(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from PIL import Image

    (tmp_path / "set (14)").mkdir()
    for number, image in enumerate(smooth_images(14, 48, seed=3)):
        size = (48 - number, 40)
        picture = Image.fromarray(image.transpose(1, 2, 0).round().astype("uint8")).crop((0, 0, *size))
        picture.save(tmp_path / "set (14)" / f"{number}.png")
    words = [
        *("--root", "set (14)", "--set14", "set (14)", "--only", "bernoulli", "--model", "nn_relu", "optimizer=adam"),
        *(
            "optimizer.lr=0.01",
            "trainer.max_epochs=1",
            "data.train_pairs=64",
            "data.crop_px=16",
            "trainer.accelerator=cpu",
        ),
        *("data.val_fraction=0.2", "trainer.precision=32-true"),
    ]
    monkeypatch.setattr("n2n_lightning.paper.jobs.call", call_warm)
    first = command(*words, main=reproduce.main)
    assert first.code == errors.DONE, first.out + first.err
    table = first.out[first.out.index("verdict") :]
    assert table.count("set14") == 2 and table.count("0 of 1 seeds scored") == 4
    assert "bernoulli, fresh draws" not in first.out  # that claim is about BSD300
    again = command(*words, main=reproduce.main)
    assert again.code == errors.DONE and again.out.count("already done, skipped") == 2
    assert again.out[again.out.index("verdict") :] == table
