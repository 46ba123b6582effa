"""Launchers that run the jobs of a sweep as command lines: which lines, where, and what becomes of how they end."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command
from small_runs import read_json, run_python, states, tiny_overrides
from warm_processes import SECONDS

from n2n_lightning.launching import launchers, sweep_job
from n2n_lightning.launching.launchers import device_slots
from n2n_lightning.launching.sweep_job import RANK_ENVIRONMENT, SweepJob, without_outcome
from n2n_lightning.system import errors

DEVICES = ("hydra/launcher=devices", "hydra.launcher.n_jobs=2")
REPORTING = """printf '%s\\n' "$@" > words; env > environment
case "$*" in
*seed=0*) echo '[null, "'$PWD'/outputs/runs/a", "failed", 1, "for a reason"]' > "$N2N_OUTCOME"; exit 1;;
*seed=1*) kill -9 $$;;
*) exit 2;;
esac"""
DYING = """
import os, signal
from pathlib import Path
import pytorch_lightning as pl
from n2n_lightning import plugins

@plugins.callback("Dying")
class Dying(pl.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        seed, mark = os.environ["PL_GLOBAL_SEED"], Path("killed")
        if seed == "1" and trainer.current_epoch == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[str]]:
    """Let a shell script stand for each job; return a function that reads the words of the last job."""
    monkeypatch.setattr(sweep_job, "command_line", lambda job: ["sh", "-c", REPORTING, "sh", *job.words])
    return lambda: (tmp_path / "words").read_text().splitlines()


def environment(folder: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in (folder / "environment").read_text().splitlines())
    return {key: value for key, _, value in pairs}


def test_jobs_that_tell_nothing_have_their_line_too(command: Command, stub: Callable[[], list[str]], tmp_path: Path):
    ended = command("-m", "model=convtrans_relu", "seed=0,1,2", *DEVICES)
    assert ended.code == 1, ended.err
    assert list(states(ended.out).values()) == ["failed", "failed", "refused"]
    assert "for a reason" in ended.out and "SIGKILL" in ended.out and "3 jobs of the sweep" in ended.out


def test_a_job_is_the_command_line_of_a_single_run(
    command: Command, stub: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (tmp_path / "more").mkdir()
    ended = command(
        *("-m", "--config-dir", "more", "model=convtrans_relu", "seed=3", "hydra.sweep.dir=a=b"),
        *("++hydra.job.env_set.A=b", "hydra/launcher=devices", "hydra.launcher.n_jobs=1"),
    )
    assert "3 jobs" not in ended.out and ended.code == errors.BAD_INPUT, ended.err  # as the stub says
    words, given = stub(), environment(tmp_path)
    assert words[:2] == ["--config-dir", str(tmp_path / "more")]
    assert words[2:5] == ["model=convtrans_relu", "seed=3", "++hydra.job.env_set.A=b"]
    assert words[5:] == [f'hydra.run.dir="{tmp_path}/a=b/convtrans_relu,seed=3"']
    assert given["HYDRA_FULL_ERROR"] == "0" and int(given["OMP_NUM_THREADS"]) >= 1


@pytest.mark.parametrize("setting", ["trainer.devices=2", "trainer.devices=auto", "+trainer.num_nodes=2"])
def test_a_job_on_several_devices_has_its_own_processes_in_any_sweep(
    command: Command, stub: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
):
    for name in set(RANK_ENVIRONMENT) - {"TORCHELASTIC_RUN_ID"}:
        monkeypatch.setenv(name, "7")
    ended = command("-m", "model=convtrans_relu", "seed=0,1", setting)
    assert ended.code == 1 and list(states(ended.out).values()) == ["failed", "failed"]
    words = stub()
    assert "-m" not in words and setting in words and "seed=1" in words
    assert not set(RANK_ENVIRONMENT) & set(environment(tmp_path))


def test_a_sweep_in_each_process_of_torchrun_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    ended = command("-m", "model=convtrans_relu", "seed=0,1")
    assert ended.code == 2 and "torchrun must start one run, got a sweep (-m)" in ended.err
    assert not list(Path().glob("outputs/*/*"))


def test_each_job_has_its_devices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    slots = device_slots(None, ["3", "5", "6"])
    assert list(slots.names) == ["3", "5", "6"]
    assert slots.environment(["3", "6"], 2)["CUDA_VISIBLE_DEVICES"] == "3,6"
    assert list(device_slots(2, ["3", "5", "6"]).names) == ["3", "5"]
    on_cpu = device_slots(4, [])
    assert len(on_cpu.names) == 4 and "CUDA_VISIBLE_DEVICES" not in on_cpu.environment([""], 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    assert device_slots(4, []).environment([""], 1)["OMP_NUM_THREADS"] == "9"


@pytest.mark.parametrize(
    ("n_jobs", "taken", "asked", "threads"),
    [(1, 1, 1, 8), (4, 1, 1, 2), (16, 1, 1, 1), (1, 1, 2, 4), (4, 2, 2, 2), (2, 2, 8, 1), (None, 2, 2, 1)],
)
def test_the_processes_of_a_job_divide_its_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, n_jobs: int | None, taken: int, asked: int, threads: int
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    assert device_slots(n_jobs, []).environment([""] * taken, asked) == {"OMP_NUM_THREADS": str(threads)}


@pytest.mark.parametrize(
    ("code", "state", "exit_code"),
    [(2, "refused", 2), (1, "failed", 1), (-11, "failed", 1), (143, "interrupted", 143), (-15, "interrupted", 143)],
)
def test_a_return_code_tells_how_a_job_ended(code: int, state: str, exit_code: int, tmp_path: Path):
    outcome = without_outcome(SweepJob(0, tmp_path, (), tmp_path), code)
    assert (outcome.state, outcome.code) == (state, exit_code)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("devices", "hydra.launcher.n_jobs=0"), "hydra.launcher.n_jobs must be 1 or more, got 0"),
        (("submitit_local",), "pip install 'n2n_lightning[cluster]'"),
        (("submitit_slurm", "hydra.launcher.partition=gpu"), "pip install 'n2n_lightning[cluster]'"),
        (("slurm_gpu",), "pip install 'n2n_lightning[cluster]'"),
        (("ray",), "pip install 'n2n_lightning[ray]'"),
    ],
)
def test_a_launcher_that_cannot_start_is_one_message(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
):
    find = importlib.util.find_spec
    missing = ("submitit", "ray")
    monkeypatch.setattr(launchers.importlib.util, "find_spec", lambda name: None if name in missing else find(name))
    ended = command("-m", "model=convtrans_relu", "seed=0,1", f"hydra/launcher={words[0]}", *words[1:])
    assert ended.code == errors.BAD_INPUT and message in ended.err
    assert ended.err.count("error: ") == 1 and ended.err.startswith("error: ") and not list(tmp_path.iterdir())


def test_a_signal_that_a_job_drops_is_sent_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Submitit's process drops SIGTERM until it has started the job."""
    cluster = pytest.importorskip("n2n_lightning.launching.cluster", reason="needs the extra cluster")
    text = "trap 'trap - TERM' TERM; touch ready; while :; do sleep 0.05; done"
    job = SweepJob(3, tmp_path, (), tmp_path)
    with subprocess.Popen(["sh", "-c", text], cwd=tmp_path) as process:

        class Submitted:
            job_id = str(process.pid)

            def done(self) -> bool:
                if (tmp_path / "ready").exists() and not sent:
                    sent.append(os.kill(os.getpid(), signal.SIGTERM))
                return process.poll() is not None

        sent: list[None] = []
        ended: list[int] = []
        monkeypatch.setattr(cluster, "REPEAT_SECONDS", 0.1)
        monkeypatch.setattr(cluster, "submit", lambda jobs, *_: [Submitted()])
        monkeypatch.setattr(cluster, "outcome_of", lambda *_, interrupted: interrupted)
        limit = threading.Timer(SECONDS, process.kill)
        limit.start()
        options = {"cluster": "local", "folder": "", "max_num_timeout": 0, "parameters": {}}
        assert cluster.submit_jobs([job], lambda number, _: ended.append(number), **options) == signal.SIGTERM
        limit.cancel()
        assert process.returncode == -signal.SIGTERM and ended == [3]


def test_a_ray_cluster_that_does_not_answer_is_refused():
    ray_cluster = pytest.importorskip("n2n_lightning.launching.ray_cluster", reason="needs the extra ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert all(map(ray_cluster.answers, (address, f"ray://{address}", "auto", "local")))
    with pytest.raises(errors.InputError, match=f"no Ray cluster at {address}: nothing listens there"):
        ray_cluster.connect(address)


@pytest.mark.slow
def test_a_killed_job_harms_no_other_and_goes_on(course_data: Path, tmp_path: Path):
    (tmp_path / "dying.py").write_text(DYING)
    line = ["-m", "n2n_lightning.train", "-m", *DEVICES, "model=convtrans_relu", "plugins=[dying]", "seed=0,1"]
    line += ["callbacks=[{name: Dying}]", "trainer.max_epochs=2", *tiny_overrides(course_data)]
    ended = run_python(line, tmp_path)
    assert ended.returncode == 1 and "Traceback" not in ended.stdout + ended.stderr
    first, killed = states(ended.stdout).values()
    assert first in ("done", "dead") and killed == "failed" and "SIGKILL" in ended.stdout
    results = {read_json(path)["seed"]: read_json(path) for path in tmp_path.glob("outputs/runs/*/result.json")}
    assert results[1]["status"] == "interrupted" and results[1]["epochs"] == 1

    again = run_python(line, tmp_path)
    skipped, went_on = states(again.stdout).values()
    assert again.returncode == 0 and skipped == "skipped" and went_on in ("done", "dead")
    assert "resumed" in again.stdout


@pytest.mark.slow
def test_a_signal_ends_the_sweep_with_its_jobs(course_data: Path, tmp_path: Path):
    line = [sys.executable, "-m", "n2n_lightning.train", "-m", *DEVICES, "model=convtrans_relu", "seed=0,1"]
    line += [*tiny_overrides(course_data), "trainer.max_epochs=10000"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            if "epoch 2/10000" in text:
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()  # to the end: of the jobs as well, which write to the same pipe
        assert process.wait(SECONDS) == 143
    assert rest.count("interrupted") >= 2 and "2 jobs of the sweep: 2 interrupted" in rest


@pytest.mark.slow
def test_jobs_on_two_devices_in_a_sweep_fail_and_finish_by_themselves(command: Command, course_data: Path):
    rates = "optimizer.lr=0.05,1e30"  # the second becomes infinite
    on_two = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "init_from=null")
    ended = command("-m", *tiny_overrides(course_data), *on_two, rates)
    assert ended.code == 1, ended.err
    assert list(states(ended.out).values()) == ["dead", "failed"]  # dead: so short a run is no better than its input
    assert len(list(Path("outputs/runs").glob("*/result.json"))) == 2
