"""``n2n COMMAND`` and ``python -m n2n_lightning COMMAND`` do what ``python -m n2n_lightning.COMMAND`` does."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from conftest import Command
from small_runs import ROOT
from test_every_command import COMMANDS, run
from warm_processes import run_warm

import n2n_lightning
from n2n_lightning.__main__ import main


def test_the_help_lists_every_command_with_what_it_does(command: Command):
    for words in ((), ("--help",)):
        ended = command(*words, main=main)
        listed = dict(re.findall(r"^  (\w+) +(.+)$", ended.out, re.MULTILINE))
        assert ended.code == 0 and sorted(listed) == sorted(COMMANDS), ended.err
        assert listed["predict"] == "Denoise image files"


def test_the_version_is_the_commands_own(command: Command):
    assert command("--version", main=main).out == f"n2n_lightning {n2n_lightning.__version__}\n"


def test_an_unknown_command_is_refused_with_the_nearest(command: Command):
    ended = command("trian", "model=unet", main=main)
    assert ended.code == 2 and "'trian'; did you mean 'train'?" in ended.err


def test_torch_is_not_imported_before_a_command_needs_it():
    code = "import sys; from n2n_lightning.__main__ import main; main(); print('torch' in sys.modules)"
    assert run("-c", code).stdout.endswith("False\n")


@pytest.mark.slow
def test_a_command_ends_as_under_its_own_name(course_data: Path, tmp_path: Path):
    words = ("model=convtrans_relu", "data=ee559", f"data.root={course_data}", "debug=fast", "study=same")
    ended = run_warm(["-m", "n2n_lightning", "train", *words], tmp_path)
    assert ended.returncode == 0, ended.stderr
    again = run_warm(["-m", "n2n_lightning.train", *words], tmp_path)
    assert again.returncode == 0 and "skip" in again.stdout + again.stderr, "both use the same folder"
    refused = run_warm(["-m", "n2n_lightning", "train", "model=unett"], tmp_path)
    assert refused.returncode == 2 and "unet" in refused.stderr


def test_a_command_can_import_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As with ``python -m``, although the folder of a console script comes first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(ROOT)])
    monkeypatch.setattr("sys.argv", ["n2n", "train"])
    found: list[str] = []
    monkeypatch.setattr("runpy.run_module", lambda *_, **__: found.extend(sys.path))
    main()
    assert found == [str(tmp_path), str(ROOT)]
