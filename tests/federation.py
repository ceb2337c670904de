"""A federation of real processes with a home of its own, on loopback or between network namespaces, for integration tests."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fl_client.enrolment import enrol
from simulation.drawn_folder import draw_folder

PATIENCE = float(os.environ.get("EMOFL_PATIENCE", "1"))
"""How many times as long everything may take: more than 1 for a machine that is busy with other work."""

SERVER = "from fl_server.cli import main; main()"
CLIENT = "from fl_client.cli import main; main()"
ACTOR = "from tests.actors import main; main()"
WATCHED = """
import json, os, sys, threading
from common.processes import stopping_signals
from fl_client.node_settings import FINAL
from fl_client.supervisor import Supervisor
stop = threading.Event()
def say(sentence):
    sys.stderr.write(sentence + chr(10))
    sys.stderr.flush()
with stopping_signals(stop):
    settings = json.dumps(json.loads(os.environ["EMOFL_NODE"]) | {"parent": os.getpid()})
    command = [sys.executable, "-c", os.environ["WATCHED"]]
    code = Supervisor(command, dict(os.environ) | {"EMOFL_NODE": settings}, FINAL, say).run(stop)
sys.exit(code or 0)
"""
"""Runs another program under the supervisor that `fl-client --data` has."""


@dataclass
class Federation:
    """Processes with a home of their own, all ended at the end.

    Attributes:
        port: the first of three free ports.
    """

    folder: Path
    port: int
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    host: str = "127.0.0.1"

    @property
    def server_folder(self) -> Path:
        return self.folder / "server"

    def environment(self) -> dict[str, str]:
        here = str(self.folder)
        own = {"HOME": here, "XDG_STATE_HOME": here, "XDG_RUNTIME_DIR": here, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        return dict(os.environ) | own

    def run(self, program: str, *arguments: str, log: str, inside: Sequence[str] = (), **more: str) -> subprocess.Popen[bytes]:
        """A Python program; `inside` is a command that starts it somewhere else."""
        with open(self.folder / f"{log}.log", "ab") as output:
            process = subprocess.Popen(
                [*inside, sys.executable, "-c", program, *arguments],
                env=self.environment() | more,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def start_server(self, *arguments: str) -> subprocess.Popen[bytes]:
        where = ("--dir", str(self.server_folder), "--host", self.host, "--port", str(self.port))
        return self.run(SERVER, "start", *where, *arguments, log="server")

    def start_client(self, name: str) -> subprocess.Popen[bytes]:
        faces = self.folder / name
        if not faces.exists():
            draw_folder(faces, 28, people=1, seed=sum(name.encode()))
        return self.run(CLIENT, "--data", str(faces), "--name", name, log=name)

    def enrol(self, names: Sequence[str]) -> None:
        """Make devices known to the running server; nobody plays them yet."""
        used = ""
        for name in names:
            self.until(lambda used=used: self.offered() not in ("", used), 60)  # type: ignore[misc]
            used = self.offered()
            enrol(used, self.folder / name / ".emofl", name)
        self.until(lambda: set(names) <= set(self.nodes()), 60)

    def offered(self) -> str:
        """The join code for this user's next device."""
        path = self.folder / "emofl" / "join-code"
        return path.read_text() if path.exists() else ""

    def play(
        self, name: str, value: float = 0.01, program: str = ACTOR, inside: Sequence[str] = (), **more: str
    ) -> subprocess.Popen[bytes]:
        """Enrolled device `name`, as `tests.actors` plays it, under the client's supervisor."""
        settings = {"home": str(self.folder / name / ".emofl"), "data": str(self.folder / name), "poll": 0.5}
        told = {"EMOFL_NODE": json.dumps(settings), "WATCHED": program, "VALUE": str(value)}
        return self.run(WATCHED, log=name, inside=inside, **told, **more)

    def status(self) -> dict[str, object]:
        found = subprocess.run(
            [sys.executable, "-c", SERVER, "status", "--dir", str(self.server_folder), "--json"],
            env=self.environment(),
            capture_output=True,
            check=True,
        )
        return dict(json.loads(found.stdout))

    def said(self, log: str) -> str:
        path = self.folder / f"{log}.log"
        return path.read_text() if path.exists() else ""

    def records(self) -> list[dict[str, object]]:
        found = [
            json.loads(line) for path in self.server_folder.glob("runs/*/metrics.jsonl") for line in path.read_text().splitlines()
        ]
        return sorted(found, key=lambda record: record["round"])

    def nodes(self) -> dict[str, int]:
        with sqlite3.connect(f"file:{self.server_folder}/state.db?mode=ro", uri=True) as database:
            return dict(database.execute("select name, node_id from node"))

    def until(self, what: Callable[[], object], seconds: float = 150) -> None:
        end = time.monotonic() + PATIENCE * seconds
        while not what():
            if time.monotonic() > end:
                logs = {
                    path.name: path.read_text()[-3000:]
                    for path in [*self.folder.glob("*.log"), *self.folder.glob("server/*.log")]
                }
                pytest.fail("\n".join(f"== {name}\n{text}" for name, text in logs.items()))
            time.sleep(0.2)


def free_ports() -> int:
    """A port that is free, with the two after it."""
    for first in range(20_000 + os.getpid() % 20_000, 60_000, 3):
        with ExitStack() as stack:
            try:
                for port in range(first, first + 3):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
        return first
    raise RuntimeError("no free ports")


@contextmanager
def federation_in(folder: Path) -> Iterator[Federation]:
    """A federation whose processes are ended with the block."""
    found = Federation(folder, free_ports())
    try:
        yield found
    finally:
        end(found)


def end(found: Federation) -> None:
    """Stop all processes that still run."""
    for process in found.started:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
    for process in found.started:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def kill(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
