"""The device's record of everything it ever released: an append-only, hash-chained file. Intent is written before training.

A crash after `debit` therefore over-counts and never under-counts. The file spans rounds, runs and restarts; the device alone
reads it. A second small file, written after each line, holds the last line's digest, so that lines cut off the end are missed.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from common.canonical import encode, sha256
from common.errors import IntegrityError, PrivacyError
from common.files import fsync_folder, locked, write_atomic
from common.privacy.accountant import Accountant, Release, spent_epsilon

GENESIS = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One debit.

    Attributes:
        sequence: 0, 1, 2, ...
        time: ISO 8601, UTC.
        run, round: for whom.
        private: False for training without noise; from then on no epsilon holds for this data.
        release: what was released, None when not private.
        previous: digest of the line before.
    """

    sequence: int
    time: str
    run: str
    round: int
    private: bool
    release: Release | None
    previous: str

    @property
    def digest(self) -> str:
        """SHA-256 of the entry's canonical JSON; it closes the entry's line and opens the next one's."""
        return sha256(encode(asdict(self)))

    def line(self) -> bytes:
        """The canonical JSON line of this entry with its digest."""
        return encode(asdict(self) | {"digest": self.digest})


class Ledger:
    """The debits in one file.

    Args:
        path: the file; it is made, readable by its owner alone, at the first debit.

    Raises:
        IntegrityError: the chain is broken: a line was altered, removed, or half-written by something else than a crash.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = self._read()

    def _read(self) -> list[Entry]:
        head = self._head.read_text().strip() if self._head.exists() else None  # before the lines: a writer may be at work
        content = self.path.read_bytes() if self.path.exists() else b""
        entries: list[Entry] = []
        previous = GENESIS
        self._length = content.rfind(b"\n") + 1  # a crash in the middle of a write leaves a line without an end: it never counted
        for number, line in enumerate(content[: self._length].splitlines(keepends=True)):
            entry = self._parse(line, number)
            if entry.line() != line or entry.previous != previous or entry.sequence != number:
                raise self._broken(number)
            entries.append(entry)
            previous = entry.digest
        if head is not None and head not in {entry.digest for entry in entries}:
            raise self._broken(len(entries))
        return entries

    @property
    def _head(self) -> Path:
        return self.path.with_suffix(".head")

    def _parse(self, line: bytes, number: int) -> Entry:
        try:
            values: dict[str, Any] = json.loads(line)
            release = values.pop("release")
            del values["digest"]
            return Entry(release=None if release is None else Release(**release), **values)
        except (ValueError, KeyError, TypeError, AttributeError, PrivacyError) as error:
            raise self._broken(number) from error

    def _broken(self, number: int) -> IntegrityError:
        return IntegrityError(
            f"The privacy ledger {self.path} was altered at line {number + 1}. Nothing is trained until you restore it: "
            "without it nobody knows what was spent."
        )

    @property
    def releases(self) -> list[Release]:
        """All private releases so far."""
        return [entry.release for entry in self.entries if entry.release is not None]

    @property
    def all_private(self) -> bool:
        """Whether an epsilon can be stated at all."""
        return all(entry.private for entry in self.entries)

    def epsilon(self, delta: float, accountant: Accountant) -> float:
        """Cumulative epsilon over everything ever released; infinite once anything was released without noise."""
        return spent_epsilon(self.releases, delta, accountant) if self.all_private else float("inf")

    @contextmanager
    def locked(self) -> Iterator["Ledger"]:
        """Hold the ledger alone among processes and threads, with its entries read anew: look and debit in one go."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.with_suffix(".lock")):
            self.entries = self._read()
            yield self

    def debit(self, release: Release | None, *, run: str, round_number: int, now: datetime) -> Entry:
        """Record the intent to release, durably, before anything is computed. Call it inside `locked`.

        Args:
            release: what will be released; None for training without noise.
        """
        last = self.entries[-1] if self.entries else None
        entry = Entry(
            sequence=len(self.entries),
            time=now.isoformat(timespec="seconds"),
            run=run,
            round=round_number,
            private=release is not None,
            release=release,
            previous=last.digest if last else GENESIS,
        )
        line = entry.line()
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.truncate(self._length)
            file.seek(self._length)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._length += len(line)
        if last is None:
            fsync_folder(self.path.parent)
        write_atomic(self._head, entry.digest.encode(), mode=0o600)
        self.entries.append(entry)
        return entry
