"""The device's record of everything it ever released: an append-only, hash-chained file. Intent is written before training.

A crash after `debit` therefore over-counts and never under-counts. The file spans rounds, runs and restarts; the device alone
reads it.
"""

import fcntl
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
from common.files import fsync_folder
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
        previous: SHA-256 of the line before.
    """

    sequence: int
    time: str
    run: str
    round: int
    private: bool
    release: Release | None
    previous: str

    def line(self) -> bytes:
        """The canonical JSON line of this entry."""
        return encode(asdict(self))


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
        content = self.path.read_bytes() if self.path.exists() else b""
        entries: list[Entry] = []
        previous = GENESIS
        for number, line in enumerate(content.splitlines(keepends=True)):
            entry = self._parse(line, number)
            if entry.line() != line or entry.previous != previous or entry.sequence != number:
                raise self._broken(number)
            entries.append(entry)
            previous = sha256(line)
        return entries

    def _parse(self, line: bytes, number: int) -> Entry:
        try:
            values: dict[str, Any] = json.loads(line)
            release = values.pop("release")
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

    def rounds_of(self, run: str) -> int:
        """How many debits run `run` has made here."""
        return sum(entry.run == run for entry in self.entries)

    @contextmanager
    def locked(self) -> Iterator["Ledger"]:
        """Hold the ledger alone among processes and threads, with its entries read anew: look and debit in one go."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.entries = self._read()
            yield self

    def debit(self, release: Release | None, *, run: str, round_number: int, now: datetime) -> Entry:
        """Record the intent to release, durably, before anything is computed. Call it inside `locked`.

        Args:
            release: what will be released; None for training without noise.
        """
        last = self.entries[-1].line() if self.entries else None
        entry = Entry(
            sequence=len(self.entries),
            time=now.isoformat(timespec="seconds"),
            run=run,
            round=round_number,
            private=release is not None,
            release=release,
            previous=GENESIS if last is None else sha256(last),
        )
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, entry.line())
            os.fsync(handle)
        finally:
            os.close(handle)
        if last is None:
            fsync_folder(self.path.parent)
        self.entries.append(entry)
        return entry
