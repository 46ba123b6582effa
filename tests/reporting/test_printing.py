"""The printer of tables: nothing is cut in the terminal, and Markdown keeps its columns."""

from __future__ import annotations

import pytest

from n2n_lightning.reporting.printing import TextTable

PATH = "/a/long/path/" + "of many folders/" * 20 + "best.ckpt"


def test_a_path_is_printed_whole_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for fold in (False, True):  # standard output is no terminal here, so that there is no width to fold to
        TextTable(("file", "size"), [(PATH, "1"), ("b", "20")], (False, True), fold=fold).show()
        assert PATH in capsys.readouterr().out


def test_a_folded_table_loses_no_character() -> None:
    lines = TextTable(("file", "size"), [("x" * 100 + "y" * 30, "[red]1")], ("", "bold")).text(40).splitlines()
    assert max(map(len, lines)) <= 40
    text = "".join(lines)
    assert text.count("x") == 100 and text.count("y") == 30 and "[red]1" in text


def test_numbers_are_aligned_to_the_right() -> None:
    lines = TextTable(("name", "dB"), [("a", "1.00"), ("b", "25.00")], (False, True)).text().splitlines()
    assert [line.split() for line in lines if "." in line] == [["a", "1.00"], ["b", "25.00"]]
    assert len({len(line) for line in lines if "." in line or "dB" in line}) == 1


def test_without_titles_there_are_only_the_rows() -> None:
    assert TextTable((), [("done", "a", "x"), ("failed", "b", "")]).text() == "done    a  x\nfailed  b"
    assert TextTable((), []).text() == ""


def test_markdown_escapes_what_would_end_a_cell() -> None:
    text = TextTable(("a|b", "n"), [("x | y\nz", "1")], (False, True)).markdown()
    assert text == "| a\\|b | n |\n| --- | ---: |\n| x \\| y z | 1 |\n"
