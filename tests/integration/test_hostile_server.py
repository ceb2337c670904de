"""A server that wants more than it may have, as a process of its own, and a real `fl-client` that refuses each thing by name."""

import io
import json
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from common.privacy.ledger import Ledger
from fl_client.membership import load_membership
from simulation.drawn_folder import draw_folder
from tests.federation import CLIENT, Federation, federation_in
from tests.hostile import ANSWERS, MODULE, OWN_COHORT, TRACE

pytestmark = [pytest.mark.slow, pytest.mark.network]

HOSTILE = "from tests.hostile import main; main()"
CONFIG = '[model]\nname = "mobilenet_v2_tiny_128"\nstem_stride = 2\ntrainable = "head"\n[train]\nlocal_steps = 1\n'

REFUSALS = {
    "task type evaluate": ("error", "ReplyError", "The server asks for 'evaluate'; this device answers `train` alone."),
    "task type query": ("error", "ReplyError", "The server asks for 'query'; this device answers `train` alone."),
    "task type train.update": ("error", "ReplyError", "The server asks for 'train.update'; this device answers `train` alone."),
    "a larger epsilon": ("refused", "policy", "The server asks for epsilon 50; this device allows 8."),
    "a larger delta": ("refused", "policy", "The server asks for delta 0.001; this device allows 1e-05."),
    "no noise": ("refused", "policy", "The server asks to train without privacy, which this device does not allow."),
    "a noise of its own choice": ("refused", "bad-request", "The request is malformed"),
    "less noise on counts": ("refused", "budget-spent", "(budget-spent): "),
    "the update in the clear": ("refused", "policy", "The server asks for this device's update by itself"),
    "endless work": ("refused", "policy", "The server asks for 1000000 steps"),
    "a choice of emotions": ("refused", "bad-request", "The server asks for a choice of emotions"),
    "records of another kind": ("refused", "bad-request", "The request is malformed"),
    "a smaller cohort": ("refused", "policy", "The cohort has 4 devices; this device takes part from 5 on."),
    "a cohort without the device": ("refused", "bad-request", "This device is not in the cohort that it was invited to."),
    "other weights than the others'": ("refused", "bad-request", "gave other members of this sum another request"),
    "a cohort that shrinks": ("refused", "policy", "4 of 5 devices are left; a sum of fewer than 5 is refused."),
    "less noise than promised": ("refused", "policy", "The noise that the server asks for gives a client-level epsilon of"),
    "another promise within the run": ("refused", "budget-spent", "has changed the client-level promise of this run"),
}
"""By demand: status, the reason that the server learns, and words of what the device's owner reads."""

BEFORE_ANYTHING_IS_SPENT = list(REFUSALS)[:12]


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with federation_in(tmp_path) as found:
        yield found


def answers(federation: Federation) -> dict[str, dict[str, object]]:
    lines = federation.said("answers").splitlines(keepends=True)
    return {answer["demand"]: answer for answer in (json.loads(line) for line in lines if line.endswith("\n"))}


def offered_bundle(federation: Federation, home: Path) -> dict[str, bytes]:
    """What the server gives a device that asks for the bundle, as ours never does."""
    device = load_membership(home)
    keys = device.flower_keys()
    with sqlite3.connect(f"file:{federation.server_folder}/state.db?mode=ro", uri=True) as database:
        run_id, digest = database.execute("select run_id, fab_hash from run order by rowid desc").fetchone()
    client = FleetHttpClient.from_server_address(
        f"{device.address}:{device.fleet_port}",
        False,
        device.ca_file.read_bytes(),
        [RuntimeVersionHttpInterceptor(component_name="SuperNode"), NodeAuthHttpInterceptor(*keys)],
    )
    node = Node(node_id=federation.nodes()["anna"] % 2**64)
    with client:
        fab = client.GetFab(GetFabRequest(node=node, hash_str=digest, run_id=run_id % 2**64)).fab.content
    with zipfile.ZipFile(io.BytesIO(fab)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_hostile_server_is_refused_by_name_in_everything_and_its_code_leaves_no_trace(federation: Federation) -> None:
    trace, home, faces = federation.folder / "trace", federation.folder / "home", federation.folder / "anna"
    told = {TRACE: str(trace), ANSWERS: str(federation.folder / "answers.log")}
    config = federation.folder / "fl.toml"
    config.write_text(CONFIG)
    where = ("--dir", str(federation.server_folder), "--host", "127.0.0.1", "--port", str(federation.port))
    federation.run(HOSTILE, "start", *where, "--rounds", "20", "--config", str(config), log="server", **told)
    draw_folder(faces, 28, people=1, seed=1)
    home.mkdir()
    rules = ("policy", "--data", str(faces), "--set", f"smallest_cohort={OWN_COHORT}")
    assert federation.run(CLIENT, *rules, log="policy").wait(60) == 0
    federation.until(federation.offered)
    own = {"HOME": str(home), "TMPDIR": str(home), "FLWR_HOME": str(home / "flwr"), "XDG_STATE_HOME": str(home)}
    device = federation.run(CLIENT, "--data", str(faces), "--name", "anna", log="anna", **own)

    ledger = faces / ".emofl" / "ledger.jsonl"
    federation.until(lambda: BEFORE_ANYTHING_IS_SPENT[-1] in answers(federation), 500)
    federation.until(lambda: "all of the budget once more" in answers(federation), 500)

    found, said = answers(federation), federation.said("anna")
    for demand, (status, reason, words) in REFUSALS.items():
        assert (found[demand]["status"], found[demand]["reason"]) == (status, reason), demand
        assert found[demand]["size"] == 0, f"{demand}: something went along with the refusal"
        assert words in said, demand
    assert found["a cohort that is large enough"]["status"] == "step"
    assert found["all of the budget at once"]["status"] == "trained"
    assert "Traceback" not in said
    assert device.poll() is None

    kept = Ledger(ledger)
    rounds = [entry.round for entry in kept.entries]
    # The last of them is no request, and so no round.
    assert min(rounds) == len(BEFORE_ANYTHING_IS_SPENT), "a refused demand was debited"
    # A server may ask for all at once, and again: the noise grows, and the ceiling holds.
    assert 7.5 < kept.epsilon(1e-5, "rdp") <= 8

    offered = offered_bundle(federation, faces / ".emofl")
    assert f"{MODULE}:app".encode() in offered["pyproject.toml"]
    assert not trace.exists()
    code = offered[f"{MODULE}.py"]
    for folder in (home, faces):
        for path in folder.rglob("*"):
            assert MODULE not in path.name
            assert not path.is_file() or code not in path.read_bytes(), path
    # The code does what it is feared for, where it is run.
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=federation.folder).returncode == 0
    assert trace.read_text() == "it ran"
