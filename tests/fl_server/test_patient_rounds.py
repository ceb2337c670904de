"""Rounds on a server whose disk is full wait, with what they have; the operator hears of it once."""

import errno
import os
from pathlib import Path

import pytest

from common.errors import RunError
from fl_server import run_supervisor, serverapp_process
from fl_server.checkpoint import Checkpoint, lacks_room
from fl_server.rounds import CHECKPOINT, METRICS, Accepted, Observers
from fl_server.run_folder import RunFolder
from fl_server.run_supervisor import ServerAppProcess
from fl_server.server_folder import ServerFolder
from fl_server.serverapp_process import PatientRounds
from tests.fl_server.grids import ScriptedGrid
from tests.fl_server.test_rounds import config, moved_by


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_round_that_finds_the_disk_full_is_kept_and_published_once_and_no_device_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lacking, published = Checkpoint.save, [2, 1], list[int]()
    rooms = [False, True, True]

    def save(self: Checkpoint, path: Path) -> None:
        if self.round == 1 and lacking:
            lacking.pop()
            raise RunError("The checkpoint cannot be written.") from full()
        real(self, path)

    def publish(accepted: Accepted) -> None:
        published.append(accepted.round)
        if published == [0, 1]:
            raise RunError("The registry cannot be written.") from full()

    monkeypatch.setattr(Checkpoint, "save", save)
    monkeypatch.setattr(serverapp_process, "lacks_room", lambda path: bool(rooms and rooms.pop()))
    grid = ScriptedGrid({1: moved_by(1.0), 2: moved_by(3.0)})
    rounds = PatientRounds(config(rounds=2), "a", tmp_path, poll=0.001, observers=Observers(publish=publish, published=lambda: 0))
    assert rounds.execute(grid).round == 2
    assert (len(grid.asked), published) == (2, [0, 1, 1, 2])
    assert len((tmp_path / METRICS).read_text().splitlines()) == 3


def test_another_error_ends_the_rounds_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Checkpoint, path: Path) -> None:
        raise RunError("The checkpoint cannot be written.") from OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Checkpoint, "save", broken)
    with pytest.raises(RunError, match="cannot be written"):
        PatientRounds(config(rounds=1), "a", tmp_path).execute(ScriptedGrid({1: moved_by(1.0)}))


def test_a_server_can_be_stopped_while_it_waits_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serverapp_process, "lacks_room", lambda path: True)
    rounds = PatientRounds(config(rounds=1), "a", tmp_path, stopped=lambda: True)
    with pytest.raises(RunError, match="while it waited for room"):
        rounds.execute(ScriptedGrid({}))


def test_a_disk_lacks_room_when_a_round_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / CHECKPOINT).write_bytes(bytes(10 * 2**20))
    free = [47 * 2**20, 49 * 2**20]
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free.pop(0)}))
    assert [lacks_room(tmp_path / CHECKPOINT), lacks_room(tmp_path / CHECKPOINT)] == [True, False]


def test_the_operator_hears_of_a_full_disk_once_and_of_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, rooms = list[str](), [True, True, False, False]
    monkeypatch.setattr(run_supervisor, "lacks_room", lambda path: rooms.pop(0))
    monkeypatch.setattr(ServerAppProcess, "_start", lambda self: None)
    process = ServerAppProcess(ServerFolder(tmp_path), RunFolder(tmp_path), None, tmp_path / "log", said.append)  # type: ignore[arg-type]
    for _ in range(4):
        process.look()
    assert said == [
        f"There is no room left on the disk of {tmp_path}: the next round waits until there is.",
        "There is room again; the rounds go on.",
    ]
