"""The device's record of everything it ever released: an append-only, hash-chained file. Intent is written before training.

A crash after `debit` therefore over-counts and never under-counts. The file spans rounds, runs and restarts; the device alone
reads it. A second small file, written after each line, holds the last line's digest, so that lines cut off the end are missed;
`common.privacy.anchor` remembers the same outside of the ledger's folder.
"""

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from common.canonical import encode, sha256
from common.errors import IntegrityError, PrivacyError, RunError
from common.files import fsync_folder, locked, no_room, replacing
from common.privacy.anchor import Anchor
from common.privacy.release import Accountant, Release

GENESIS = "0" * 64
LATER = ("authority", "salt", "client_level")
"""Fields that older ledgers do not have; a line without them stays as it is."""


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
        authority: fingerprint of the server's certificate authority, None where it is not known.
        client_level: the client-level promise of the run, if it makes one: mode, epsilon, delta, rounds.
        salt: 32 random hexadecimal digits, so that no two lines of any two ledgers are the same.
    """

    sequence: int
    time: str
    run: str
    round: int
    private: bool
    release: Release | None
    previous: str
    authority: str | None = None
    salt: str | None = None
    client_level: dict[str, Any] | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the entry's canonical JSON; it closes the entry's line and opens the next one's."""
        return sha256(encode(self._values()))

    def line(self) -> bytes:
        """The canonical JSON line of this entry with its digest."""
        return encode(self._values() | {"digest": self.digest})

    def _values(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None or name not in LATER}


@dataclass(frozen=True)
class LedgerPlace:
    """A ledger of a device that takes part.

    Attributes:
        path: the file.
        anchor: remembers the ledger elsewhere; None for a ledger that may be forgotten, as a simulation's.
        authority: fingerprint of the authority of the server that debits are for.
    """

    path: Path
    anchor: Anchor | None = None
    authority: str | None = None


class Ledger:
    """The debits in one file.

    Args:
        place: the file, with its anchor where it has one; it is made, readable by its owner alone, at the first debit.

    Raises:
        IntegrityError: the chain is broken: a line was altered, removed, or half-written by something else than a crash; or the
            anchor remembers another ledger, or more debits than there are.
    """

    def __init__(self, place: Path | LedgerPlace) -> None:
        self.place = place if isinstance(place, LedgerPlace) else LedgerPlace(place)
        self.path = self.place.path
        self._holding: ExitStack | None = None
        self._locked = False
        self.entries = self._read()

    def _read(self) -> list[Entry]:
        # The head and the anchor before the lines: a writer may be at work.
        recalled = self.place.anchor.recall() if self.place.anchor else None
        head = self._head.read_text(errors="replace").strip() if self._head.exists() else None
        content = self.path.read_bytes() if self.path.exists() else b""
        entries: list[Entry] = []
        previous = GENESIS
        self._length = content.rfind(b"\n") + 1  # a crash in the middle of a write leaves a line without an end: it never counted
        for number, line in enumerate(content[: self._length].splitlines(keepends=True)):
            entry = self._parse(line, number)
            if entry.previous != previous or entry.sequence != number:
                raise self._broken(number)
            entries.append(entry)
            previous = entry.digest
        if head is not None and head not in {entry.digest for entry in entries}:
            raise self._broken(len(entries))
        if self.place.anchor:
            self.place.anchor.check(self.path, [entry.digest for entry in entries], recalled)
        return entries

    @property
    def _head(self) -> Path:
        return self.path.with_suffix(".head")

    def _parse(self, line: bytes, number: int) -> Entry:
        try:
            values: dict[str, Any] = json.loads(line)
            release = values.pop("release")
            del values["digest"]
            entry = Entry(release=None if release is None else Release(**release), **values)
            as_it_is_written = entry.line()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, PrivacyError, IntegrityError) as error:
            raise self._broken(number) from error
        if as_it_is_written != line:
            raise self._broken(number)
        return entry

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
        from common.privacy.accountant import spent_epsilon  # not at the top: a process that only looks needs no torch

        return spent_epsilon(self.releases, delta, accountant) if self.all_private else float("inf")

    @contextmanager
    def locked(self) -> Iterator["Ledger"]:
        """Hold the ledger alone among processes and threads, with its entries read anew: look and debit in one go.

        A ledger whose folder does not exist yet is held from the first debit on, which makes the folder.

        Raises:
            IntegrityError: as the constructor.
            ConfigError: the anchor cannot be written.
            RunError: the ledger's folder cannot be written.
        """
        with ExitStack() as stack:
            self._holding = stack
            try:
                if self.path.parent.exists():
                    self._hold(stack)
                self.entries = self._read()
                if self._locked:
                    self._anchor()
                yield self
            finally:
                self._holding, self._locked = None, False

    def _hold(self, stack: ExitStack) -> None:
        with self._writable():
            stack.enter_context(locked(self.path.with_suffix(".lock")))
        if self.place.anchor:
            stack.enter_context(self.place.anchor.held(self.entries[0].digest if self.entries else None))
        self._locked = True

    def _begin(self) -> None:
        """Make the folder and hold the ledger, if that is still to be done."""
        if self._holding is None:
            raise PrivacyError("A debit is made inside `locked` alone.")
        if self._locked:
            return
        with self._writable():
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._hold(self._holding)
        if self._read():
            raise RunError(f"Another process began the privacy ledger {self.path} at this moment: try again.")

    def _anchor(self) -> None:
        if self.place.anchor:
            self.place.anchor.advance(self.path, [entry.digest for entry in self.entries])

    def debit(
        self,
        release: Release | None,
        *,
        run: str,
        round_number: int,
        now: datetime,
        client_level: dict[str, Any] | None = None,
    ) -> Entry:
        """Record the intent to release, durably, before anything is computed. Call it inside `locked`.

        Args:
            release: what will be released; None for training without noise.
            client_level: the client-level promise of the run, if it makes one.

        Raises:
            ConfigError: the anchor cannot be written; the debit stands.
            RunError: the file cannot be written, as on a full disk, and nothing is debited; or another process began this ledger
                since `locked` looked.
        """
        self._begin()
        last = self.entries[-1] if self.entries else None
        entry = Entry(
            sequence=len(self.entries),
            time=now.isoformat(timespec="seconds"),
            run=run,
            round=round_number,
            private=release is not None,
            release=release,
            previous=last.digest if last else GENESIS,
            authority=self.place.authority,
            salt=secrets.token_hex(16),
            client_level=client_level,
        )
        # The head's room is taken first: where there is none, no line is written that counts for nothing.
        with self._writable(), replacing(self._head, entry.digest.encode(), mode=0o600):
            self._append(entry.line())
        self.entries.append(entry)
        self._anchor()
        return entry

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            cure = "make room there, and the device goes on by itself" if no_room(error) else "make its folder writable"
            raise RunError(
                f"The privacy ledger {self.path} cannot be written ({(error.strerror or str(error)).lower()}), and nothing is "
                f"trained without a debit: {cure}."
            ) from error

    def _append(self, line: bytes) -> None:
        """Durably, after the last whole line; what of it a full disk took is cut off again."""
        new = self._length == 0
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.ftruncate(handle, self._length)
            try:
                written = os.pwrite(handle, line, self._length)
                if written < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(handle)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(handle, self._length)
                raise
        finally:
            os.close(handle)
        self._length += len(line)
        if new:
            fsync_folder(self.path.parent)
