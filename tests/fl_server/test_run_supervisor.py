"""The ServerApp's process is started, and started again, whatever keeps it from it."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common.errors import RunError
from fl_server import run_supervisor
from fl_server.replies import MOST_BYTES
from fl_server.run_folder import CHECKPOINT, RunFolder
from fl_server.run_supervisor import ServerAppProcess, most_reply_bytes
from fl_server.server_folder import ServerFolder
from fl_server.superlink import Started


@dataclass
class FakeLink:
    """A SuperLink's runs: which were started, and which are over."""

    runtime_address: str = "127.0.0.1:1"
    started: list[int] = field(default_factory=list)
    over: list[int] = field(default_factory=list)
    alive: list[int] = field(default_factory=list)
    broken: Exception | None = None
    stuck: Exception | None = None

    def start_run(self, most_reply_bytes: object) -> Started:
        if self.broken:
            raise self.broken
        self.started.append(len(self.started) + 1)
        return Started(len(self.started), 7, "token")

    def keep_alive(self, run: Started) -> None:
        self.alive.append(run.run_id)

    def end_run(self, run_id: int) -> None:
        if self.stuck:
            raise self.stuck
        self.over.append(run_id)


@dataclass
class FakeProcess:
    code: int | None = None

    def poll(self) -> int | None:
        return self.code


@dataclass
class Clock:
    seconds: float = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(run_supervisor, "time", found)
    return found


def supervisor(tmp_path: Path, link: FakeLink, said: list[str]) -> ServerAppProcess:
    run = RunFolder(tmp_path / "runs" / "a")
    return ServerAppProcess(ServerFolder(tmp_path), run, link, tmp_path / "log", said.append)  # type: ignore[arg-type]


def test_a_run_whose_process_cannot_be_made_is_ended_told_in_a_sentence_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    link, said, born = FakeLink(), list[str](), FakeProcess()
    lack = [OSError(12, "Cannot allocate memory"), OSError(12, "Cannot allocate memory")]

    def popen(*words: object, **options: object) -> FakeProcess:
        if lack:
            raise lack.pop()
        return born

    monkeypatch.setattr(subprocess, "Popen", popen)
    process = supervisor(tmp_path, link, said)
    process.look()
    assert (link.started, link.over) == ([1], [1])
    assert said == ["The ServerApp's process does not start (Cannot allocate memory); it is tried again in 2 s."]
    process.look()
    assert link.started == [1]
    clock.seconds += 2
    process.look()
    assert (link.started, link.over, said[1][-4:]) == ([1, 2], [1, 2], "4 s.")
    clock.seconds += 4
    process.look()
    assert (link.started, link.over, process.state) == ([1, 2, 3], [1, 2], "running")


def test_a_run_that_flower_refuses_is_tried_again(tmp_path: Path, clock: Clock) -> None:
    link, said = FakeLink(broken=RunError("Flower does not start the run: no.")), list[str]()
    supervisor(tmp_path, link, said).look()
    assert said == ["The ServerApp's process does not start (Flower does not start the run: no); it is tried again in 2 s."]


def test_a_run_that_could_not_be_ended_is_ended_before_the_next_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    link, said = FakeLink(stuck=OSError(28, "No space left on device")), list[str]()
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **options: (_ for _ in ()).throw(OSError(11, "Again")))
    process = supervisor(tmp_path, link, said)
    process.look()
    clock.seconds += 10
    process.look()
    assert link.started == [1]
    assert "No space left" in said[-1]
    link.stuck = None
    clock.seconds += 10
    process.look()
    assert (link.started, link.over) == ([1, 2], [1, 2])


def test_a_process_that_breaks_is_started_again_and_one_that_is_done_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    link, said, born = FakeLink(), list[str](), FakeProcess()
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **options: born)
    process = supervisor(tmp_path, link, said)
    process.look()
    born.code = -9
    process.look()
    assert said == ["The ServerApp's process ended (-9); it goes on from its checkpoint in 2 s."]
    born.code = None
    clock.seconds += 2
    process.look()
    assert (link.started, link.over) == ([1, 2], [1])
    clock.seconds += 3600
    born.code = 70
    process.look()
    assert said[-1].endswith("in 1 s.")


def test_as_long_as_the_process_lives_flower_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    link, born = FakeLink(), FakeProcess()
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **options: born)
    process = supervisor(tmp_path, link, [])
    for _ in range(61):
        process.look()
        clock.seconds += 1
    assert 10 <= len(link.alive) <= 12
    born.code = 2
    process.look()
    told = len(link.alive)
    clock.seconds += 60
    process.look()
    assert len(link.alive) == told


def test_a_reply_may_be_a_few_times_as_large_as_the_model(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert most_reply_bytes(run) == MOST_BYTES
    (tmp_path / CHECKPOINT).write_bytes(bytes(1000))
    assert most_reply_bytes(run) == 3000 + run_supervisor.SLACK
