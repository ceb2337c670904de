import os
import stat
import threading
import time
from pathlib import Path

import pytest

from common.errors import ConfigError, IntegrityError
from common.files import locked, read_plain, read_token, write_atomic, write_once


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("write", [write_atomic, write_once])
def test_the_content_is_durable_before_the_name_and_the_name_before_the_return(
    write: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, events = tmp_path / "file", []
    monkeypatch.setattr(os, "fsync", lambda handle: events.append((os.fstat(handle).st_ino, path.exists())))
    write(path, b"content")  # type: ignore[operator]
    assert events == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_write_once_never_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert write_once(path, b"first", mode=0o600)
    assert not write_once(path, b"second")
    assert path.read_bytes() == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_of_exactly_the_limit_is_read_and_one_byte_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_plain(path, 5) == b"12345"
    with pytest.raises(IntegrityError, match="larger than the 4 bytes"):
        read_plain(path, 4)


def test_links_folders_pipes_and_absent_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, reason in {
        "link": "symbolic link",
        "folder": "not a plain file",
        "pipe": "not a plain file",
        "absent": "no such file",
    }.items():
        with pytest.raises(IntegrityError, match=reason):
            read_plain(tmp_path / name, 100)
    with pytest.raises(IntegrityError, match="not a plain file"):
        read_plain(Path("/dev/zero"), 100)


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    lock, inside, seen = tmp_path / ".lock", [], []

    def work() -> None:
        for _ in range(10):
            with locked(lock):
                inside.append(1)
                time.sleep(0.001)
                seen.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 40


def test_a_token_file_that_was_emptied_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(ConfigError, match="delete it"):
        read_token(tmp_path / "token")
    (tmp_path / "token").write_text("x" * 40 + "\n")
    assert read_token(tmp_path / "token") == "x" * 40
