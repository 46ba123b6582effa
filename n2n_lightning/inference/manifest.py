"""The record of finished files of ``predict`` or ``denoise``: a line of JSON for each output."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from n2n_lightning.inference.jobs import FileJob
from n2n_lightning.system.atomic import atomic_path
from n2n_lightning.system.lock import file_lock

LOCK_NAME = ".predict.lock"


class Manifest:
    """The file ``predict.jsonl``, or ``denoise.jsonl``, in the folder of the output.

    Args:
        folder: of the output.
        checkpoint: the net's.
        options: all else that decides what the outputs are.
        command: that makes the outputs; it names the file.
        free: names of options in which finished outputs may differ.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: Path,
        options: dict[str, Any],
        command: str = "predict",
        free: Sequence[str] = (),
    ) -> None:
        self.folder, self.path = folder, folder / f"{command}.jsonl"
        digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        self.made_by = {"checkpoint": str(checkpoint), "sha256": digest, **options}
        self._unseen = dict.fromkeys(("checkpoint", *free))  # not compared
        place = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:8]
        self._part = f".predict.{place}"  # of nobody else: the folder is locked
        self._numbers = itertools.count()  # of the files that are written
        self._writing = threading.Lock()  # of lines
        self._made: dict[str, dict[str, Any]] = {}
        if self.path.is_symlink():  # lines would be added to the file that it leads to
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
        """Return whether the output is finished, and was made in the same way from the input as it is now.

        Args:
            job: the input and the output.
            range: the value that is 1 to the net; None for any.
        """
        entry = self._made.get(self._name(job), {})
        if range is not None and entry.get("range") != range:
            return False
        same = entry.get("made_by", {}) | self._unseen == self.made_by | self._unseen
        return same and entry.get("input") == stamp(job.input) and entry.get("file") == stamp(job.output)

    def took_range(self, job: FileJob) -> bool:
        """Return whether the output was made with a range that the user gave."""
        return bool(self._made.get(self._name(job), {}).get("range_given"))

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes from writing to the folder; an InputError where one does."""
        refusal = (
            f"{self.folder} is being written to by another predict or denoise; wait for it, or give another --output"
        )
        return file_lock(self.folder / LOCK_NAME, refusal)  # its own file: Windows refuses writes to a locked one

    @contextmanager
    def finishing(self, job: FileJob, **facts: Any) -> Iterator[Path]:
        """Give a path to write the output to; it gets its own name, and its line here, once it is complete."""
        # not the output's own name, which may have no room for more
        part = job.output.with_name(f"{self._part}.{next(self._numbers)}.part")
        source = stamp(job.input)

        def add_line() -> None:  # before the rename, which changes neither size nor time
            about = {"output": self._name(job), "source": str(job.input), **facts}
            entry = about | {"input": source, "file": stamp(part), "made_by": self.made_by}
            with self._writing, self.path.open("a") as lines:
                lines.write("\n" * self._torn + json.dumps(entry) + "\n")
                self._torn = False

        with atomic_path(job.output, part, last_step=add_line):
            yield part

    def remove_parts(self, jobs: Iterable[FileJob]) -> None:
        """Remove what a command that was killed left beside the outputs."""
        for folder in {job.output.parent for job in jobs}:
            for part in folder.glob(f"{self._part}.*.part"):
                with suppress(OSError):  # another's
                    part.unlink()

    def _name(self, job: FileJob) -> str:
        return job.output.relative_to(self.folder).as_posix()


def stamp(path: Path) -> list[int] | None:
    """Return bytes and time of the last change, ns, which tell a file from its other versions; None without a file."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return [stat.st_size, stat.st_mtime_ns]
