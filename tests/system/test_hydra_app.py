"""Hydra applications with our exit codes and messages."""

from __future__ import annotations

import sys

import pytest

from n2n_lightning.system import hydra_app
from n2n_lightning.system.errors import BAD_INPUT, InputError


@pytest.mark.parametrize("of_user", ["0", "1"])
def test_a_rank_shows_tracebacks_only_if_the_user_wants_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], of_user: str
):
    """A rank inherits the environment of rank 0, in which HYDRA_FULL_ERROR is 1 for Hydra's sake."""

    def fail() -> None:
        raise InputError("wrong")

    monkeypatch.setattr(sys, "argv", ["train"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setenv("N2N_FULL_ERROR", of_user)
    assert hydra_app.run_hydra(fail, "train") == BAD_INPUT
    message = capsys.readouterr().err
    assert message.endswith("error: wrong\n") and ("Traceback" in message) == (of_user == "1")
