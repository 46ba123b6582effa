"""Names of run folders: short, distinct, and safe as a single folder; folders of earlier versions are found."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n_lightning.system.run_names import (
    MAX_NAME_BYTES,
    MAX_VALUE_BYTES,
    earlier_run_name,
    find_run_folder,
    plain_value,
    run_name,
)

HASHED = r"-[0-9a-f]{8}"
UNCHANGED = [  # names that were unambiguous before values carried a hash
    ([], "unet"),
    (["model=unet"], "unet"),
    (["model=unet", "study=x", "resume=false", "experiment=demo", "debug=fast"], "unet"),
    (["seed=1", "optimizer=sgd", "model=unet"], "unet,optimizer=sgd,seed=1"),
    (["optimizer=sgd", "seed=1"], "unet,optimizer=sgd,seed=1"),
    (["+model.depth=3", "~scheduler"], "unet,model.depth=3,scheduler="),
    (["data.root=photos/"], "unet,data.root=photos"),
    (["data.root=./photos"], "unet,data.root=photos"),
    (["data.root='a=b'"], "unet,data.root=a=b"),
    (["data.augment=[flip,swap]"], "unet,data.augment=flip,swap"),
    (["data.augment=[flip, swap]"], "unet,data.augment=flip,swap"),
    (["model.encoder=[1,1,1]", "data.augment=[]"], "unet,data.augment=,model.encoder=1,1,1"),
    (["hydra.verbose=true", "seed=1"], "unet,seed=1"),
    (["optimizer.lr=1e-3"], "unet,optimizer.lr=1e-3"),
]


@pytest.mark.parametrize(("overrides", "name"), UNCHANGED)
def test_a_run_is_named_after_its_model_and_its_overrides_sorted(overrides: list[str], name: str):
    assert run_name("unet", overrides) == earlier_run_name("unet", overrides) == name


@pytest.mark.parametrize(
    ("override", "pattern"),
    [
        ("data.root=/somewhere/else/photos/", f"data.root=photos{HASHED}"),
        ("data.root='../with space/my photos'", f"data.root=myphotos{HASHED}"),
        ("data.root='my photos'", f"data.root=myphotos{HASHED}"),
        ("init_from=outputs/a/b/best.ckpt", f"init_from=best.ckpt{HASHED}"),
        ("data.root='肝臓'", "data.root=肝臓"),
        ("data.root='Ä'", "data.root=Ä"),
        ("data.root='A\u0308'", f"data.root=Ä{HASHED}"),  # the other form of the letter is another folder on Linux
        ("data.root='हिन्दी'", "data.root=हिन्दी"),
        ("data.root='🔬'", f"data.root={HASHED[1:]}"),
        ("data.root='a,seed=1'", f"data.root=a,seed=1{HASHED}"),
        ("data.val_noise={sigma:25}", f"data.val_noise=sigma25{HASHED}"),
        ("+data/sub=x", "data.sub=x"),
    ],
)
def test_a_value_that_is_not_told_whole_carries_a_hash(override: str, pattern: str):
    assert re.fullmatch(f"unet,{pattern}", run_name("unet", [override]))


def test_a_sweep_and_a_single_run_have_one_name():
    """Hydra passes the values of a sweep on with backslashes."""
    for single, swept in (("my photos", r"my\ photos"), ("a:b", r"a\:b"), ("'a,b'", r"a\,b"), ('"肝臓"', "'肝臓'")):
        assert run_name("unet", [f"data.root={single}"]) == run_name("unet", [f"data.root={swept}"])


DISTINCT = [
    *([], ["seed=1"], ["seed=11"], ["optimizer=sgd"]),
    *([f"optimizer.lr={value}"] for value in ("0.1", "-0.1", "1e1", "1e-1")),
    *([f"data.augment={value}"] for value in ("[flip]", "[flip,swap]", "[]")),
    *([f"trainer.precision={value}"] for value in ("16-mixed", "bf16-mixed")),
    *([f"init_from={value}"] for value in ("best.ckpt", "a/best.ckpt", "b/best.ckpt", "../best.ckpt", "/best.ckpt")),
    *(
        [f"data.root={value}"]
        for value in ("x/day1", "y/day1", "day1", "'day 1'", "'da y1'", "'day1]'", "'[day1]'", "C:\\day1")
    ),
    *([f"data.root='{value}'"] for value in ("肝臓", "腎臓", "肝", "🔬", "🧪", "é", "e\u0301", "x/肝臓")),
    *([f"data.root={'x' * count}"] for count in (60, 61, 62, 200, 300)),
    *([f"model.encoder={value}"] for value in ("[1,1,1]", "[[1],[1,1]]", "[[1,1],[1]]", "[11,1]")),
    *(["data.root='a,seed=1'"], ["data.root=a", "seed=1"]),
]


def test_distinct_overrides_have_distinct_names():
    assert len({run_name("unet", case) for case in DISTINCT}) == len(DISTINCT)


@given(st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=2, unique=True))
def test_any_two_values_have_distinct_names(values: list[str]):
    plain = {value.rstrip("/") if value.count("/") == 1 else value for value in map(plain_value, values)}
    comparable = len(plain) == 2 and not any(set("[]/") & set(value) for value in plain)  # others may be one value
    names = {run_name("unet", [f"data.root={value}"]) for value in values}
    assert len(names) == 2 or not comparable
    for name in names:
        assert not re.search(r"[\s'\"\\/:*?<>|$&;()`~#!{}\[\]%^]", name)


def test_a_long_name_is_cut_in_bytes_and_stays_distinct():
    for letter in ("x", "肝"):
        one = [run_name("unet", [f"data.root='{letter * 300}{end}'"]) for end in "ab"]
        many = [run_name("unet", [f"+data.key{i}={letter * 9}{end}" for i in range(30)]) for end in "ab"]
        assert len({*one, *many}) == 4
        assert all(len(name.encode()) <= MAX_VALUE_BYTES + 30 and f"root={letter * 20}" in name for name in one)
        assert all(len(name.encode()) <= MAX_NAME_BYTES + 9 < 255 for name in many)


def test_a_name_is_a_single_folder():
    name = run_name("unet", ["data.root=../a/b", "init_from=C:\\x\\..", "key=/", "other=.."])
    assert "/" not in name and "\\" not in name and name not in (".", "..")


@pytest.mark.parametrize("recorded", ["/a/photos", "'/a/photos'"])
def test_the_folder_of_an_earlier_version_is_found_only_by_its_own_command(tmp_path: Path, recorded: str):
    overrides = ["data=burst", "data.root=/a/photos", "study=x"]
    earlier = tmp_path / "nafnet32,data.root=photos,data=burst"
    earlier.mkdir()
    new = tmp_path / run_name("nafnet32", overrides)
    assert find_run_folder(tmp_path, "nafnet32", overrides) == new  # the earlier one holds no run
    record = {"overrides": {"data": "burst", "data.root": recorded}}
    (earlier / "result.json").write_text(json.dumps(record))
    assert find_run_folder(tmp_path, "nafnet32", overrides) == earlier
    for other in (["data=burst", "data.root=/b/photos"], ["data=burst", "data.root=photos", "seed=1"]):
        assert find_run_folder(tmp_path, "nafnet32", other) == tmp_path / run_name("nafnet32", other)
    new.mkdir()
    (new / "result.json").write_text("{}")
    assert find_run_folder(tmp_path, "nafnet32", overrides) == new
