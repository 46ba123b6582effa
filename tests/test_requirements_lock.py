"""``requirements.lock`` names what was tested, with hashes, and nothing of the machine it was made on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_runs import ROOT, run_python

LOCK = (ROOT / "requirements.lock").read_text()
NAMED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def versions(text: str) -> dict[str, str]:
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in NAMED.findall(text)}


def test_lock_and_constraints_name_the_same_versions():
    assert versions(LOCK) == versions((ROOT / "constraints.txt").read_text())
    assert len(versions(LOCK)) > 70


def test_every_package_has_hashes():
    blocks = re.split(r"\n(?=\w)", LOCK[NAMED.search(LOCK).start() :])  # type: ignore[union-attr]  # there is one
    assert len(blocks) == len(versions(LOCK))
    assert [block for block in blocks if not re.search(r"--hash=sha256:[0-9a-f]{64}", block)] == []


@pytest.mark.parametrize("word", ["://", "file:", "--index-url", "--extra-index", "--trusted", "\n--", "\nnvidia"])
def test_it_names_no_place(word: str):
    assert word not in LOCK


# make audit


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ('echo "no network" >&2; exit 1', 0, "could not be checked: offline"),
        ('echo \'{"dependencies": [{"name": "a", "skip_reason": "not found"}]}\'', 0, "could not be checked: offline"),
        (
            'echo \'{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}\'',
            0,
            "0 known vulnerabilities in 1 packages; 1 could not be checked",
        ),
        (
            'echo \'{"dependencies": [{"name": "a", "version": "1", "vulns": '
            '[{"id": "X-1", "fix_versions": ["2"]}]}]}\'; exit 1',
            1,
            "a 1: X-1, fixed in 2\n1 known vulnerabilities",
        ),
    ],
)
def test_an_audit_tells_what_was_found_and_what_could_not_be_asked(tmp_path: Path, answer: str, code: int, words: str):
    """pip-audit, which needs a network, is a script here."""
    python = tmp_path / "build/audit/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\ncase "$2" in pip) exit 0;; esac\n{answer}\n')
    python.chmod(0o755)
    (tmp_path / "requirements.lock").write_text("# a==0\na==1 \\\n    --hash=x\nb==1 \\\n    --hash=y\n")
    process = run_python([ROOT / "tools/audit.py"], tmp_path)
    assert process.returncode == code and process.stdout.startswith(words), process.stdout + process.stderr
