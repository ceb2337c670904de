"""Who runs with a server's folder: asked by many, held by one."""

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from common.errors import RunError
from fl_server import server_lock
from fl_server.server_lock import LOCK, only_server, running_server


def test_two_who_ask_at_once_do_not_take_each_other_for_the_server(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("12345")
    with open(tmp_path / LOCK) as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert running_server(tmp_path) is None


def test_a_server_starts_while_others_ask_whether_it_runs(tmp_path: Path) -> None:
    stop, found = threading.Event(), set[int | None]()

    def ask() -> None:
        while not stop.is_set():
            found.add(running_server(tmp_path))

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(20):
            with only_server(tmp_path):
                time.sleep(0.01)
    finally:
        stop.set()
        for asker in askers:
            asker.join()
    assert found <= {None, os.getpid()}


def test_a_server_that_has_not_written_its_number_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / LOCK
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        writing = threading.Timer(0.1, path.write_text, ("77",))
        writing.start()
        assert running_server(tmp_path) == 77
        writing.join()


def test_a_lock_that_names_nobody_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_lock, "PATIENCE", 0.05)
    with open(tmp_path / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="does not say"):
            running_server(tmp_path)
