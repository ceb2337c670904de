"""Real processes over real TLS on loopback: a server, devices, and what happens to both."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from fl_server.roster import Roster
from fl_server.server_folder import ServerFolder
from simulation.drawn_folder import draw_folder

pytestmark = [pytest.mark.slow, pytest.mark.network]

SERVER = "from fl_server.cli import main; main()"
CLIENT = "from fl_client.cli import main; main()"
PATTERNS = {"anna": 0.0123456789, "ben": -0.0345678912}
"""What each device sends in every place; their mean is neither."""
TELLTALE = """
import os
import numpy as np
from common.messages import TrainReply
from fl_client import folder_device, node_process
value = np.float32(os.environ["PATTERN"])
def answer(self, request, weights):
    update = {name: np.full_like(array, value) for name, array in weights.items()}
    return TrainReply(run=request.run, round=request.round, status="trained"), update
folder_device.FolderDevice.answer = answer
node_process.main()
"""


@dataclass
class Federation:
    """Processes with a home of their own, all ended at the end.

    Attributes:
        port: the first of three free ports.
    """

    folder: Path
    port: int
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def server_folder(self) -> Path:
        return self.folder / "server"

    def environment(self) -> dict[str, str]:
        here = str(self.folder)
        own = {"HOME": here, "XDG_STATE_HOME": here, "XDG_RUNTIME_DIR": here, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        return dict(os.environ) | own

    def run(self, program: str, *arguments: str, log: str, **more: str) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{log}.log", "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", program, *arguments],
                env=self.environment() | more,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def start_server(self, *arguments: str) -> subprocess.Popen[bytes]:
        where = ("--dir", str(self.server_folder), "--host", "127.0.0.1", "--port", str(self.port))
        return self.run(SERVER, "start", *where, *arguments, log="server")

    def start_client(self, name: str) -> subprocess.Popen[bytes]:
        faces = self.folder / name
        if not faces.exists():
            draw_folder(faces, 28, people=1, seed=sum(name.encode()))
        return self.run(CLIENT, "--data", str(faces), "--name", name, log=name)

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
        end = time.monotonic() + seconds
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


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    found = Federation(tmp_path, free_ports())
    yield found
    for process in found.started:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
    for process in found.started:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def kill(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_a_run_outlives_a_killed_device_and_a_killed_server_and_a_revoked_device_is_told(federation: Federation) -> None:
    server = federation.start_server(
        "--rounds", "3", "--min-clients", "2", "--model", "mobilenet_v2_tiny", "--round-timeout", "120"
    )
    federation.until(lambda: (federation.folder / "emofl" / "join-code").exists())
    clients = {name: federation.start_client(name) for name in ("anna", "ben", "cleo")}
    federation.until(lambda: len(federation.records()) >= 2)

    kill(clients["anna"])
    nodes = federation.nodes()
    assert set(nodes) == {"anna", "ben", "cleo"}
    kill(server)
    done = len(federation.records()) - 1
    assert federation.status()["running"] is False

    federation.start_server()
    federation.until(lambda: "Listening" in federation.said("server").split("Listening", 1)[1])
    assert federation.nodes() == nodes
    federation.until(lambda: len(federation.records()) == 4, 240)
    assert [record["round"] for record in federation.records()] == [0, 1, 2, 3]
    assert done >= 1
    federation.until(lambda: federation.status()["state"] == "finished")

    Roster(ServerFolder(federation.server_folder).roster, lambda: datetime.now(UTC)).revoke("ben")
    assert clients["ben"].wait(30) == 11
    assert "revoked" in federation.said("ben")
    assert clients["cleo"].poll() is None
    for name in ("ben", "cleo"):
        assert "Traceback" not in federation.said(name)
    assert "Traceback" not in federation.said("server")


def test_no_file_of_the_server_ever_holds_a_devices_update(federation: Federation) -> None:
    federation.start_server("--rounds", "2", "--min-clients", "2", "--model", "mobilenet_v2_tiny")
    federation.until(lambda: (federation.folder / "emofl" / "join-code").exists())
    for name in ("anna", "ben"):
        federation.start_client(name)
        federation.until(lambda name=name: f"Member of 127.0.0.1 as {name}" in federation.said(name))  # type: ignore[misc]
    for process in federation.started[1:]:
        kill(process)
    for name in ("anna", "ben"):
        settings = {"home": str(federation.folder / name / ".emofl"), "data": str(federation.folder / name), "poll": 0.5}
        federation.run(TELLTALE, log=name, EMOFL_NODE=json.dumps(settings), PATTERN=str(PATTERNS[name]))
    patterns = [np.full(8, np.float32(value)).tobytes() for value in PATTERNS.values()]

    def scan() -> bool:
        for path in federation.server_folder.rglob("*"):
            if path.is_file() and "registry" not in path.parts:
                try:
                    content = path.read_bytes()
                except FileNotFoundError:
                    continue
                assert not any(pattern in content for pattern in patterns), path
        return len(federation.records()) == 3

    federation.until(scan)
    assert any(isinstance(record["update_norm"], float) and record["update_norm"] > 0.1 for record in federation.records())
    kill(federation.started[0])
    scan()
    assert (federation.server_folder / "state.db-wal").exists()


def test_a_second_server_and_a_second_client_are_refused_in_one_sentence(federation: Federation) -> None:
    federation.start_server("--rounds", "1", "--min-clients", "5", "--model", "mobilenet_v2_tiny")
    federation.until(lambda: (federation.folder / "emofl" / "join-code").exists())
    assert federation.start_server().wait(60) == 8
    assert "A server already runs" in federation.said("server")
    federation.start_client("anna")
    federation.until(lambda: "Member of" in federation.said("anna"))
    again = federation.run(CLIENT, "--data", str(federation.folder / "anna"), log="again")
    assert again.wait(60) == 8
    assert "takes part" in federation.said("again")
    lost = federation.folder / "lost"
    draw_folder(lost, 14, people=1, seed=1)
    (federation.folder / "emofl" / "join-code").unlink()
    assert federation.run(CLIENT, "--data", str(lost), log="lost").wait(60) == 11
    assert "--join CODE" in federation.said("lost")
