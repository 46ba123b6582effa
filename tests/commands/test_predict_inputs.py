"""``predict``: which files it takes, where their outputs go, and what it does when outputs exist already."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command
from numbered_images import write
from predict_runs import WEIGHTS, denoise, files, noise
from small_runs import assert_refused, stamps

IN = Path("given/in")
NAMES = ("a.png", "b.tif", "c.npy", "sub/a.png", "sub/deep/e.webp")


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Make a tree of images and other files."""
    folder = tmp_path / IN
    for number, name in enumerate(NAMES):
        write(folder / name, noise(20, 24, 3, seed=number))
    for name in (".hidden.png", ".hidden/f.png", "sub/.deep/g.png"):
        write(folder / name, noise(20, 24, 3))
    (folder / "notes.txt").write_text("not a picture")
    return folder


# Which files


def test_a_folders_tree_is_kept_and_what_is_hidden_is_left_out(command: Command, given: Path):
    ended = denoise(command, IN)
    assert ended.code == 0 and ended.err == ""
    assert files("out") == set(NAMES)
    assert "5 of 5 files denoised" in ended.out


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["sub/a.png"], {"a.png"}),
        (["sub/deep", "sub"], {"e.webp", "a.png"}),
        (["a.png", "sub"], None),  # two for one place
        (["c.npy", "sub"], {"c.npy", "a.png", "deep/e.webp"}),
        (["*.png"], {"a.png"}),
        (["*"], {"a.png", "b.tif", "c.npy"}),
        (["**/*.png"], {"a.png", "sub/a.png"}),
        (["**"], set(NAMES)),
        (["s*/*.png"], {"sub/a.png"}),
        (["sub/*/*"], {"deep/e.webp"}),
        (["sub/d[a-f]ep/?.webp"], {"deep/e.webp"}),
        ([".hidden"], {"f.png"}),
        (["a.png", "../in/a.png", "*.png"], {"a.png"}),  # thrice the same
        (["", "sub/deep/*", "sub"], set(NAMES)),  # where it comes first
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_files_folders_and_patterns(command: Command, given: Path, inputs: list[str], expected: set[str] | None):
    ended = denoise(command, *(f"{IN}/{text}" for text in inputs))
    if expected is None:
        assert_refused(ended, Path(), "given/in/a.png and ", "sub/a.png would both go to", "out/a.png")
    else:
        assert ended.code == 0 and files("out") == expected
        assert f"{len(expected)} of {len(expected)} files denoised" in ended.out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("given/nowhere", ["given/nowhere does not exist; give a file, a folder, or a pattern"]),
        ("given/empty", ["given/empty holds no images (.bmp"]),
        ("given/in/*.gif", ["given/in/*.gif matches no image (.bmp", "'a/**/*.tif'"]),
        ("given/in/s*", ["given/in/s* matches no image", "a pattern for files"]),
        ("given/in/notes.txt", ["given/in/notes.txt is no image (.bmp", "leave it out, or convert it"]),
        ("", ["an INPUT is empty"]),
    ],
)
def test_inputs_of_no_use_are_refused_before_any_work(command: Command, given: Path, text: str, words: list[str]):
    Path("given/empty").mkdir()
    assert_refused(denoise(command, IN, text), Path(), *words)


# Where they go


def test_two_files_for_one_place_are_refused_before_any_work(command: Command, given: Path):
    write(given / "a.jpg", noise(20, 24, 3))
    words = ["a.png would both go to", "out/a.tif", "each to its own --output, or give their common folder"]
    assert_refused(denoise(command, IN, "--format", "tiff"), Path(), "a.jpg and ", *words)
    assert denoise(command, IN).code == 0, "they differ by their suffixes"


@pytest.mark.parametrize("text", ["given/in", "given/in/a.png", "given/in/*.png", "given/link", "given/in/sub/.."])
@pytest.mark.parametrize("output", ["given/in", "given/link", "given/in/sub/.."])
def test_the_folder_of_the_inputs_is_refused(command: Command, given: Path, text: str, output: str):
    Path("given/link").symlink_to("in")
    before = stamps(given)
    ended = denoise(command, text, "--overwrite", output=output)
    assert_refused(ended, Path(), f"--output {output} is the folder of the input {text}", "never overwritten")
    assert stamps(given) == before


def test_an_output_inside_the_input_is_never_taken_for_one(command: Command, given: Path):
    assert denoise(command, IN, output=IN / "out").code == 0
    made = stamps(given / "out")
    assert files(given / "out") == set(NAMES)
    ended = denoise(command, IN, f"{IN}/**/*.png", output=IN / "out")
    assert ended.code == 0 and "0 of 5 files denoised, 5 done before" in ended.out
    assert stamps(given / "out") == made
    ended = denoise(command, f"{IN}/out/**/*.png", output=IN / "out/again")
    assert ended.code == 0 and files(given / "out/again") == {"a.png", "sub/a.png"}, "asked for by name"


def test_nothing_but_the_output_is_refused(command: Command):
    write(IN / "out/a.png", noise(20, 24, 3))
    ended = denoise(command, IN, output=IN / "out")
    assert_refused(ended, Path(), "given/in holds no images but those in --output given/in/out")


def test_an_input_may_lie_inside_the_output(command: Command, given: Path, tmp_path: Path):
    assert denoise(command, IN / "sub", output=".").code == 0
    assert (tmp_path / "a.png").exists() and (tmp_path / "deep/e.webp").exists()
    assert "2 done before" in denoise(command, IN / "sub", output=".").out


@pytest.mark.parametrize("reverse", [False, True])
def test_no_link_leads_to_an_input_being_overwritten(command: Command, given: Path, reverse: bool):
    Path("out").mkdir()
    if reverse:  # the input is a link to where its output would go
        shutil.move(given / "a.png", "out/a.png")
        (given / "a.png").symlink_to(Path("out/a.png").absolute())
    else:
        Path("out/a.png").symlink_to(given / "a.png")
    before = (given / "a.png").read_bytes()
    ended = denoise(command, IN, "--overwrite")
    assert ended.code == 2 and "out/a.png is an input, and inputs are never overwritten" in ended.err
    assert (given / "a.png").read_bytes() == before and files("out") == {"a.png"}


@pytest.mark.parametrize("output", ["given/in/a.png", "given/in/a.png/deeper"])
def test_an_output_that_cannot_be_a_folder_is_refused(command: Command, given: Path, output: str):
    before = stamps(given)
    words = (f" {output} ", "give another")
    assert_refused(denoise(command, IN / "sub", output=output), Path(), *words)
    assert stamps(given) == before


# What is there already


def test_the_same_command_again_does_nothing(command: Command, given: Path):
    denoise(command, IN)
    made = stamps(Path("out"))
    ended = denoise(command, IN)
    assert ended.code == 0 and ended.err == ""
    assert ended.out == "0 of 5 files denoised, 5 done before\n"
    assert stamps(Path("out")) == made


def test_only_what_is_missing_is_done(command: Command, given: Path):
    denoise(command, IN)
    made = stamps(Path("out"))
    Path("out/sub/a.png").unlink()
    write(given / "new.png", noise(20, 24, 3))
    ended = denoise(command, IN)
    assert ended.code == 0 and "2 of 6 files denoised, 4 done before" in ended.out
    assert files("out") == {*NAMES, "new.png"}
    kept = {name: stamp for name, stamp in stamps(Path("out")).items() if made.get(name) == stamp}
    assert kept.keys() == set(NAMES) - {"sub/a.png"}


def test_files_of_others_are_replaced_only_on_request(command: Command, given: Path):
    for name in ("a.png", "sub/a.png", "sub/mine.png"):
        write(Path("out") / name, noise(8, 8, 3))
    before = stamps(Path("out"))
    ended = denoise(command, IN)
    assert ended.code == 2 and ended.out == ""
    words = ("out/a.png and 1 other outputs are there already", "give another --output, or --overwrite to replace")
    assert all(word in ended.err for word in words) and ended.err.count("\n") == 1
    assert stamps(Path("out")) == before
    ended = denoise(command, IN, "--overwrite")
    assert ended.code == 0 and "5 of 5 files denoised" in ended.out
    after = stamps(Path("out"))
    assert [name for name in before if after[name] == before[name]] == ["sub/mine.png"]
    assert "5 done before" in denoise(command, IN).out, "--overwrite is not needed for what it made"


def other_weights(folder: Path) -> Path:
    """Write a checkpoint of the same net with slightly other weights."""
    content = torch.load(WEIGHTS, weights_only=True)
    for weight in content["state_dict"].values():
        weight.add_(1e-3)
    torch.save(content, folder / "other.ckpt")
    return folder / "other.ckpt"


@pytest.mark.parametrize("change", ["input", "output", "checkpoint", "--per-channel", "--precision=bf16"])
def test_what_was_made_otherwise_is_replaced_only_on_request(command: Command, given: Path, change: str):
    denoise(command, IN)
    if change == "output":
        write(Path("out/b.tif"), noise(20, 24, 3))
    made = stamps(Path("out"))
    options: dict[str, Any] = {"model": other_weights(given.parent)} if change == "checkpoint" else {}
    line = [IN, *([change] if change.startswith("--") else [])]
    if change == "input":
        write(given / "b.tif", noise(20, 24, 3, seed=77))
    ended = denoise(command, *line, **options)
    assert ended.code == 2 and "not made by this command from the input as it is now" in ended.err
    assert stamps(Path("out")) == made
    ended = denoise(command, *line, "--overwrite", **options)
    count = 1 if change in ("input", "output") else 5
    assert ended.code == 0 and f"{count} of 5 files denoised" in ended.out
    assert denoise(command, *line, **options).out == "0 of 5 files denoised, 5 done before\n"


def test_a_moved_checkpoint_is_the_same(command: Command, given: Path):
    denoise(command, IN)
    shutil.copyfile(WEIGHTS, "given/moved.ckpt")
    assert "5 done before" in denoise(command, IN, model="given/moved.ckpt").out


def test_another_format_goes_beside(command: Command, given: Path):
    denoise(command, IN)
    made = stamps(Path("out"))
    assert denoise(command, IN, "--format", "bmp").code == 0
    assert files("out") == {*NAMES, "a.bmp", "b.bmp", "c.bmp", "sub/a.bmp", "sub/deep/e.bmp"}
    assert made.items() - {("predict.jsonl", made["predict.jsonl"])} <= stamps(Path("out")).items()
    assert "5 done before" in denoise(command, IN).out


def test_every_name_of_a_linked_file_gets_an_output(command: Command):
    write(Path("given/in/one.png"), noise(20, 24, 3))
    Path("given/in/d").mkdir()
    Path("given/in/two.png").symlink_to("one.png")
    Path("given/in/d/three.png").symlink_to("../one.png")
    assert denoise(command, "given/in").code == 0
    assert files("out") - {"predict.jsonl"} == {"one.png", "two.png", "d/three.png"}


@pytest.mark.parametrize("text", ["given/in", "given/in/**/*.png", "given/**/*.png", "given/in/*/*.png"])
def test_folders_behind_links_are_entered_once_each(command: Command, text: str):
    write(Path("store/one/a.png"), noise(20, 24, 3))
    Path("given/in").mkdir(parents=True)
    for name in ("x", "y"):
        Path(f"given/in/{name}").symlink_to("../../store/one")
    for place in ("given/in/back", "store/one/up"):
        Path(place).symlink_to("..")
    ended = denoise(command, text)
    below = "in/" if text == "given/**/*.png" else ""
    assert ended.code == 0 and files("out") == {f"{below}x/a.png", f"{below}y/a.png"}


@pytest.mark.parametrize("text", ["given/in", "given/in/*", "given/in/**", "given/in/b.png"])
@pytest.mark.parametrize("target", ["nothing.png", "b.png"])
def test_a_broken_link_is_named(command: Command, text: str, target: str):
    write(Path("given/in/a.png"), noise(20, 24, 3))
    Path("given/in/b.png").symlink_to(target)
    ended = denoise(command, text)
    assert ended.code == 2 and "error: given/in/b.png cannot be read" in ended.err
    assert files("out") == (set() if text.endswith("b.png") else {"a.png"})
