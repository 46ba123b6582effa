"""What was logged to Weights & Biases, read from its offline files, and to MLflow, read from its server."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Logged(NamedTuple):
    """What one or more logged runs hold."""

    ids: list[str]  # one for each start
    metrics: dict[str, list[tuple[int, float]]]  # name -> (step, value), as they came
    pictures: dict[str, list[int]]  # name -> steps
    parameters: dict[str, str]


def read_wandb(folder: Path) -> Logged:
    """Read all offline runs in the folder of a run."""
    from wandb.proto.wandb_internal_pb2 import Record

    logged = Logged([], {}, {}, {})
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for data in read_leveldb_log(path.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                logged.ids.append(record.run.run_id)
                add_parameters(logged.parameters, record.run.config.update)
            elif kind == "config":
                add_parameters(logged.parameters, record.config.update)
            elif kind == "history":
                add_row(logged, {name(item): json.loads(item.value_json) for item in record.history.item})
    return logged


def read_leveldb_log(content: bytes, block: int = 32768) -> Iterator[bytes]:
    """Yield the records of a file in LevelDB's log format, which has a header of 7 bytes here."""
    place, parts = 7, b""
    while place + 7 <= len(content):
        if block - place % block < 7:  # the rest of a block is filled with zeros
            place += block - place % block
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield parts
            parts = b""


def name(item: Any) -> str:
    return ".".join(item.nested_key) or item.key


def add_parameters(parameters: dict[str, str], items: Any) -> None:
    found = {name(item): json.loads(item.value_json) for item in items}
    parameters.update({key: str(value) for key, value in found.items() if not key.startswith("_")})


def add_row(logged: Logged, row: dict[str, Any]) -> None:
    step = row["trainer/global_step"]
    for key, value in row.items():
        if key.endswith("._type"):
            logged.pictures.setdefault(key.removesuffix("._type"), []).append(step)
        elif "." not in key and not key.startswith(("_", "trainer/")):
            logged.metrics.setdefault(key, []).append((step, value))


def read_mlflow(uri: str, run_id: str) -> Logged:
    """Read a run from a server of MLflow."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    run = client.get_run(run_id)
    histories = {key: client.get_metric_history(run_id, key) for key in run.data.metrics}
    metrics = {key: [(m.step, m.value) for m in history] for key, history in histories.items()}
    pictures: dict[str, list[int]] = {}
    for file in client.list_artifacts(run_id, "images"):
        if found := re.match(r"(.+?)[+%]step[+%](\d+).*png$", Path(file.path).name):
            pictures.setdefault(re.sub("[#~]", "/", found[1]), []).append(int(found[2]))
    return Logged([run_id], metrics, pictures, dict(run.data.params))
