"""Real processes over real TLS on loopback: a server, devices, and what happens to both."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from fl_server.roster import Roster
from fl_server.server_folder import ServerFolder
from simulation.drawn_folder import draw_folder
from tests.federation import CLIENT, Federation, federation_in, kill

pytestmark = [pytest.mark.slow, pytest.mark.network]

NAMES = ("anna", "ben", "cleo", "dora", "emil")
PATTERNS = {"anna": 0.0123456789, "ben": -0.0345678912}
"""What each device sends in every place; their mean is neither."""
TELLTALE = """
import os
import numpy as np
from common.arrays import unpack
from common.messages import TrainReply
from fl_client import folder_device, node_process
value = np.float32(os.environ["PATTERN"])
def answer(self, request, packed):
    update = {name: np.full_like(array, value) for name, array in unpack(packed).items()}
    return TrainReply(run=request.run, round=request.round, status="trained"), update
folder_device.FolderDevice.answer = answer
node_process.main()
"""


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with federation_in(tmp_path) as found:
        yield found


def test_a_run_outlives_a_killed_device_and_a_killed_server_and_a_revoked_device_is_told(federation: Federation) -> None:
    server = federation.start_server("--rounds", "3", "--model", "mobilenet_v2_tiny_128", "--round-timeout", "60")
    federation.until(lambda: (federation.folder / "emofl" / "join-code").exists())
    clients = {name: federation.start_client(name) for name in NAMES}
    federation.until(lambda: len(federation.records()) >= 2)

    kill(clients["anna"])
    nodes = federation.nodes()
    assert set(nodes) == set(NAMES)
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
    federation.start_server("--rounds", "2", "--min-clients", "2", "--model", "mobilenet_v2_tiny", "--no-secure-aggregation")
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
    (federation.folder / "emofl").chmod(0o755)  # others could put a code there, so none is offered or believed
    assert federation.run(CLIENT, "--data", str(lost), log="lost").wait(60) == 11
    assert "--join CODE" in federation.said("lost")
