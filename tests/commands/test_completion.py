"""What the shells offer for the last word of ``n2n ...``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Command
from small_runs import ROOT
from test_every_command import COMMANDS

from n2n_lightning.completion import SCRIPTS, main, offers
from n2n_lightning.system.hydra_app import group_choices


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tra", ["train"]),
        ("completion ", ["bash", "fish", "zsh"]),
        ("predict gen", ["general"]),
        ("predict general ", []),  # files
        ("report ", []),
        ("train opt", ["optimizer.", "optimizer="]),
        ("train optimizer.l", ["optimizer.lr="]),
        ("train model=nn", ["model=nn_relu", "model=nn_sigmoid"]),
        ("train -m model=unet,nafnet3", ["model=unet,nafnet32"]),
        ("train experiment=pa", ["experiment=paper/"]),
        ("train experiment=paper/ga", ["experiment=paper/gaussian"]),
        ("train hydra/la", ["hydra/launcher="]),
        ("train hydra/launcher=b", ["hydra/launcher=basic"]),
        ("train data=clean data.targ", ["data.targets="]),
        ("train data=burst data.targ", []),  # another choice has other keys
        ("train data=bursts data.ro", ["data.root="]),  # the command will refuse the choice
        ("train resume=", ["resume=true", "resume=false"]),
        ("train trainer.max_epochs=", ["trainer.max_epochs=20"]),
        ("train data=burst data.root=", []),  # files
        ("train plugins=[no_such_module] model=", []),
        ("evaluate check", ["checkpoint="]),
        ("doctor data.al", ["data.align="]),
    ],
)
def test_the_last_word_is_completed(line: str, expected: list[str]):
    assert offers(line.split(" ")) == expected


def test_every_command_and_every_model_is_offered():
    assert offers([""]) == sorted(COMMANDS)
    assert offers(["train", "model="]) == [f"model={name}" for name in group_choices("model")]


@pytest.mark.parametrize("words", [(), ("ksh",)])
def test_an_unknown_shell_is_refused_and_the_known_ones_are_named(command: Command, words: tuple[str, ...]):
    ended = command(*words, main=main)
    assert ended.code == 2 and all(shell in ended.err for shell in SCRIPTS)


@pytest.fixture
def n2n(tmp_path: Path) -> Path:
    """Write what pip would install as ``n2n``."""
    script = tmp_path / "bin" / "n2n"
    script.parent.mkdir()
    code = "import sys\nfrom n2n_lightning.__main__ import main\nsys.exit(main())\n"
    script.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}")
    script.chmod(0o755)
    return script


SETUP = {"zsh": "compdef() { }\n"}  # compinit defines it, which needs a terminal


def in_shell(shell: str, script: str, n2n: Path) -> list[str]:
    """Run a script in a real shell that has our completion; return the lines that it prints."""
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"{shell} is not installed")
    path = f"{n2n.parent}:/usr/bin:/bin"
    text = f"{SETUP.get(shell, '')}{SCRIPTS[shell]}\n{script}"
    environment = {"PATH": path, "HOME": str(n2n.parent)}
    ended = subprocess.run([program, "-c", text], env=environment, stdout=subprocess.PIPE, text=True, check=False)
    return ended.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("n2n tra", ["train"]),
        ("n2n train model=nn", ["nn_relu", "nn_sigmoid"]),  # bash replaces what follows "="
        ("n2n train data=burst data.root=", []),
    ],
)
def test_bash_gets_what_it_may_insert(n2n: Path, line: str, expected: list[str]):
    call = f'COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; _n2n; printf "%s\\n" "${{COMPREPLY[@]}}"'
    assert [word for word in in_shell("bash", call, n2n) if word] == expected


def test_fish_offers_choices_and_files(n2n: Path):
    (n2n.parent / "frame.png").touch()
    assert in_shell("fish", 'complete -C "n2n train model=nn"', n2n) == ["model=nn_relu", "model=nn_sigmoid"]
    assert in_shell("fish", f'complete -C "n2n predict unet {n2n.parent}/fr"', n2n) == [f"{n2n.parent}/frame.png"]


def test_zsh_can_parse_the_script(n2n: Path):
    assert in_shell("zsh", "whence -w _n2n", n2n) == ["_n2n: function"]
