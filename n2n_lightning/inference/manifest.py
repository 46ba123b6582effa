"""What ``predict`` has finished: each output beside what it was made from, one line of JSON each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from n2n_lightning.inference.jobs import FileJob
from n2n_lightning.system.lock import file_lock

MANIFEST_NAME, PART, LOCK_NAME = "predict.jsonl", ".predict.part", ".predict.lock"


class Manifest:
    """The file ``predict.jsonl`` in the folder of the output.

    Args:
        folder: of the output.
        checkpoint: the net's.
        options: whatever else decides what is made.
    """

    def __init__(self, folder: Path, checkpoint: Path, options: dict[str, Any]) -> None:
        self.folder, self.path = folder, folder / MANIFEST_NAME
        digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        self.made_by = {"checkpoint": str(checkpoint), "sha256": digest, **options}
        self._made: dict[str, dict[str, Any]] = {}
        if self.path.is_symlink():  # lines would be added to whatever file it leads to
            raise ValueError(f"{self.path} is a link; remove it, or give another --output")
        text = self.path.read_text(errors="replace") if self.path.exists() else ""
        self._torn = not text.endswith("\n") and text != ""
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                if isinstance(entry["made_by"], dict):
                    self._made[entry["output"]] = entry
            except (ValueError, KeyError, TypeError, RecursionError):  # cut off while it was written, or another's
                continue

    def holds(self, job: FileJob, range: float | None = None) -> bool:
        """Whether the output is there, finished, and made from the input as it is now in the same way.

        Args:
            job: the input and the output.
            range: the value that is 1 to the net; None for any.
        """
        entry = self._made.get(self._name(job), {})
        if range is not None and entry.get("range") != range:
            return False
        same = entry.get("made_by", {}) | {"checkpoint": None} == self.made_by | {"checkpoint": None}
        return same and entry.get("input") == stamp(job.input) and entry.get("file") == stamp(job.output)

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes from writing to the folder; an InputError where one does."""
        refusal = f"{self.folder} is being written to by another predict; wait for it, or give another --output"
        return file_lock(self.folder / LOCK_NAME, refusal)  # its own file: Windows refuses writes to a locked one

    @contextmanager
    def finishing(self, job: FileJob, **facts: Any) -> Iterator[Path]:
        """A path to write the output to; it gets its own name, and its line, once it is whole."""
        part, source = job.output.with_name(PART), stamp(job.input)
        part.unlink(missing_ok=True)  # of a killed process; or a link, through which another file would be written
        try:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            about = {"output": self._name(job), "source": str(job.input), **facts}
            entry = about | {"input": source, "file": stamp(part), "made_by": self.made_by}
            with self.path.open("a") as lines:  # before the renaming, which changes neither size nor time
                lines.write("\n" * self._torn + json.dumps(entry) + "\n")
            self._torn = False
            os.replace(part, job.output)
        finally:
            part.unlink(missing_ok=True)

    def _name(self, job: FileJob) -> str:
        return job.output.relative_to(self.folder).as_posix()


def stamp(path: Path) -> list[int] | None:
    """What tells a file from its other versions: bytes, and time of its last change in ns; None where there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return [stat.st_size, stat.st_mtime_ns]
