"""``repeat``: train a run again from its record, bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import Command
from plugin_modules import LOSS, WriteModule
from small_runs import assert_same_weights, read_json, stamps, tiny_overrides, write_course_data
from warm_processes import run_warm

from n2n_lightning import repeat

LINE = ("model=convtrans_relu", "trainer.max_epochs=2", "seed=3", "data.augment=[flip,swap]")

pytestmark = pytest.mark.slow  # a process trains the original


def repeat_main() -> int:
    import sys

    return repeat.main(sys.argv[1:])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with data and a run that a command has trained there."""
    folder = tmp_path_factory.mktemp("trained")
    write_course_data(folder / "given")
    process = run_warm(["-m", "n2n_lightning.train", *LINE, *tiny_overrides(Path("given"))], folder)
    assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Copy the run into the folder that ``command`` works in."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (result,) = Path(tmp_path).glob("outputs/runs/*/result.json")
    return result.parent.relative_to(tmp_path)


def change(run: Path, **entries: object) -> None:
    (run / "result.json").write_text(json.dumps(read_json(run / "result.json") | entries))


def test_a_run_is_repeated_bit_for_bit_with_one_command(trained: Path, tmp_path: Path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (run,) = (path.parent for path in tmp_path.glob("outputs/runs/*/result.json"))
    before = stamps(run)
    process = run_warm(["-m", "n2n_lightning.repeat", run], tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr
    lines = process.stdout.splitlines()
    for line in ("data: the same", "metrics.csv: equal", "best values: equal", "best.ckpt: equal", "last.ckpt: equal"):
        assert line in lines
    assert lines[-1] == "the repeat is the original, bit for bit"
    again = tmp_path / "outputs/repeats" / run.name
    assert_same_weights(again / "checkpoints/last.ckpt", run / "checkpoints/last.ckpt")
    assert (again / ".hydra/overrides.yaml").exists() and stamps(run) == before
    assert read_json(run / "result.json")["own_optimizer"] is read_json(again / "result.json")["own_optimizer"] is True


def test_differences_are_reported_and_decide_the_exit_code(command: Command, run: Path):
    psnr = read_json(run / "result.json")["val/psnr"]
    change(run, **{"val/psnr": psnr + 1e-4})
    ended = command(str(run / "result.json"), "--study", "again", main=repeat_main)
    assert ended.code == 1 and "best values: differ, most by 0.0001: val/psnr" in ended.out
    assert "metrics.csv: equal" in ended.out and "though versions and device are the same" in ended.out

    versions = read_json(run / "result.json")["versions"]
    change(run, versions=versions | {"torch": "1.0"})
    ended = command(str(run), "--study", "again", main=repeat_main)
    assert "already done, skipped" in ended.out
    assert ended.code == 0 and "torch 1.0 there, " in ended.out and "best values are within 1%" in ended.out

    change(run, **{"val/psnr": psnr * 1.02})
    assert command(str(run), "--study", "again", main=repeat_main).code == 1


def test_other_data_is_reported(command: Command, run: Path):
    write_course_data(Path("given"), sigma_255=79)
    ended = command(str(run), main=repeat_main)
    assert ended.code == 1 and "data: not what the original was trained on" in ended.out


def test_without_its_checkpoints_a_run_is_compared_by_its_numbers(command: Command, run: Path):
    shutil.rmtree(run / "checkpoints")
    ended = command(str(run), main=repeat_main)
    assert ended.code == 0 and "ckpt" not in ended.out and "metrics.csv: equal" in ended.out


def test_the_plugins_of_a_run_are_needed_by_what_they_register(command: Command, run: Path, write_module: WriteModule):
    change(run, plugins={"loss=my_loss": "first_home", "callback=mine": "a; b"})
    ended = command(str(run), main=repeat_main)
    assert ended.code == 2 and "loss=my_loss; install the plugin first_home" in ended.err
    assert "--plugins first_home" in ended.err and "plugins=[" not in ended.err and "callback" not in ended.err
    write_module("second_home.py", LOSS.format(name="my_loss"))  # the same name from a module of another name
    ended = command(str(run), "--plugins", "second_home", main=repeat_main)
    assert ended.code == 2 and "callback=mine; install its plugin, or name it: --plugins MODULE" in ended.err
    change(run, plugins={"loss=my_loss": "first_home"})
    ended = command(str(run), "--study", "runs", "--plugins", "second_home", main=repeat_main)
    assert ended.code == 2 and "is the original itself" in ended.err


def test_what_cannot_be_repeated_is_refused(command: Command, run: Path):
    for arguments, words in (
        (["nowhere"], "RUN must be a run's folder or its result.json, got nowhere, which does not"),
        ([str(run), "--study", "runs"], "is the original itself; give another --study"),
    ):
        ended = command(*arguments, main=repeat_main)
        assert ended.code == 2 and words in ended.err and "Traceback" not in ended.err
    change(run, status="interrupted")
    ended = command(str(run), main=repeat_main)
    assert ended.code == 2 and "is interrupted; give one that is done" in ended.err
    assert not Path("outputs/repeats").exists()
