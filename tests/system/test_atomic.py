"""Atomic writes replace a file only when they are complete, and a second name keeps the old content."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from n2n_lightning.system.atomic import atomic_write, link_or_copy


def test_a_file_that_is_not_finished_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "new" / "file"
    with atomic_write(path) as file:
        file.write(b"first")
    with pytest.raises(OSError, match="full"), atomic_write(path) as file:
        file.write(b"sec")
        raise OSError(errno.ENOSPC, "full")
    assert path.read_bytes() == b"first" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name_stays_when_the_first_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"one")
    second.write_bytes(b"zero")
    if not links:

        def no_link(*_: Any) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", no_link)
    link_or_copy(first, second)
    with atomic_write(first) as file:
        file.write(b"two")
    assert (first.read_bytes(), second.read_bytes()) == (b"two", b"one")
    assert len(list(tmp_path.iterdir())) == 2
