"""A ledger on a disk without room: nothing is debited, nothing is lost, and the next debit goes on from there."""

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.errors import RunError
from common.files import no_room, replacing
from common.privacy.ledger import Ledger
from common.privacy.release import Release

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def debit(path: Path, number: int) -> None:
    with Ledger(path).locked() as ledger:
        ledger.debit(Release(1.0, 0.1, 10), run="a", round_number=number, now=NOW)


def test_a_line_that_the_disk_took_in_part_is_cut_off_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "ledger.jsonl", os.pwrite
    debit(path, 1)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(os, "pwrite", lambda handle, line, at: real(handle, line[:40], at))
    with pytest.raises(RunError, match=r"no space left on device.*nothing is trained.*make room") as caught:
        debit(path, 2)
    assert no_room(caught.value)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    monkeypatch.undo()
    debit(path, 3)
    assert [entry.round for entry in Ledger(path).entries] == [1, 3]


def test_where_there_is_no_room_for_the_head_no_line_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    debit(path, 1)
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="no space left"):
        debit(path, 2)
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ledger.head", "ledger.jsonl", "ledger.lock"]


def test_a_file_that_is_replaced_around_a_block_stays_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(path, b"new"):
        raise ZeroDivisionError
    assert (path.read_bytes(), len(list(tmp_path.iterdir()))) == (b"old", 1)
    with replacing(path, b"new"):
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
