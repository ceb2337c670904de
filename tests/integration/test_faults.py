"""What goes wrong around the processes: a cut network, a wrong clock, a full disk, a server killed in the middle of a sum.

Network namespaces and small file systems need root. EMOFL_CUT_SECONDS says how long the network stays cut: 90 by default.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.privacy.ledger import Ledger
from fl_server.hub import check_registry
from models.published import registry_key
from simulation.drawn_folder import draw_folder
from tests.federation import CLIENT, PATIENCE, Federation, federation_in, kill

pytestmark = [pytest.mark.slow, pytest.mark.network]

CUT_SECONDS = float(os.environ.get("EMOFL_CUT_SECONDS", "90"))
NAMES = ["anna", "ben", "cleo", "dora", "emil"]
CONFIG = f"""
[model]
name = "mobilenet_v2_tiny_128"
stem_stride = 2
[upload]
step_timeout = {20 * PATIENCE}
secure = true
"""


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with federation_in(tmp_path) as found:
        yield found


def start(federation: Federation, names: Sequence[str], rounds: int, needed: int) -> None:
    """A server of secure sums, and devices that are enrolled."""
    config = federation.folder / "fl.toml"
    config.write_text(CONFIG)
    federation.start_server(
        "--rounds", str(rounds), "--min-clients", str(needed), "--round-timeout", str(40 * PATIENCE), "--config", str(config)
    )
    federation.until(federation.offered)
    federation.enrol(names)


def last(federation: Federation) -> int:
    """The last finished round."""
    return len(federation.records()) - 1


def accepted(federation: Federation, count: int, after: int = 0) -> Callable[[], bool]:
    """Whether `count` devices were in the sum of a round later than `after`."""
    return lambda: any(record["accepted"] == count for record in federation.records()[after + 1 :])


def nothing_lost(federation: Federation, nodes: dict[str, int], *names: str) -> None:
    """Every round is there once, devices are who they were, and nobody saw a traceback."""
    assert [record["round"] for record in federation.records()] == list(range(last(federation) + 1))
    assert federation.nodes() == nodes
    for log in ("server", *names):
        assert "Traceback" not in federation.said(log), f"{log}\n{federation.said(log)}"
    for path in federation.server_folder.glob("*.log"):
        assert "Traceback" not in path.read_text(), path.read_text()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass(frozen=True)
class Network:
    """A network namespace that reaches this one over one cable.

    Attributes:
        name: of the namespace; its end of the cable is called the same.
        server: address of this end.
        inside: starts a command in the namespace.
    """

    name: str
    server: str

    @property
    def inside(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)

    def link(self, state: str) -> None:
        """`up` or `down`."""
        ip("-n", self.name, "link", "set", self.name, state)


@contextmanager
def network() -> Iterator[Network]:
    """A namespace, removed at the end with its cable."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("A network namespace needs root and the command `ip`.")
    found = Network(f"emofl{os.getpid() % 10**8}", f"10.203.{os.getpid() % 250}.1")
    outer = f"{found.name}s"
    try:
        ip("netns", "add", found.name)
        ip("link", "add", outer, "type", "veth", "peer", "name", found.name)
        ip("link", "set", found.name, "netns", found.name)
        ip("addr", "add", f"{found.server}/24", "dev", outer)
        ip("link", "set", outer, "up")
        ip("-n", found.name, "addr", "add", f"{found.server[:-1]}2/24", "dev", found.name)
        found.link("up")
        yield found
    except subprocess.CalledProcessError as error:
        pytest.skip(f"This machine makes no network namespaces: {error.stderr.decode().strip()}")
    finally:
        subprocess.run(["ip", "netns", "delete", found.name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", outer], check=False, capture_output=True)


def test_a_device_whose_network_is_cut_is_left_out_and_comes_back_by_itself(tmp_path: Path) -> None:
    with network() as cable, federation_in(tmp_path) as federation:
        federation.host = cable.server
        start(federation, NAMES, rounds=1000, needed=3)
        nodes = federation.nodes()
        cut_off = federation.play(NAMES[0], inside=cable.inside)
        for name in NAMES[1:]:
            federation.play(name)
        federation.until(accepted(federation, 5), 240)

        cable.link("down")
        before, end = last(federation), time.monotonic() + CUT_SECONDS
        federation.until(lambda: time.monotonic() > end, CUT_SECONDS + 10)
        federation.until(accepted(federation, 4, before), 120)
        cable.link("up")

        federation.until(accepted(federation, 5, last(federation)), 240)
        assert cut_off.poll() is None
        nothing_lost(federation, nodes, *NAMES)


FAST_CLOCK = """
import os
from datetime import timedelta
from pathlib import Path
from flwr.supernode import node_auth_http_interceptor
from fl_client import supernode
from tests.actors import main
(told,), ahead = supernode.ask_why.__defaults__, Path(os.environ["AHEAD"])
def now():
    return told() + timedelta(minutes=float(ahead.read_text()))
node_auth_http_interceptor.now = now
supernode.ask_why.__defaults__ = (now,)
main()
"""
"""A device whose clock is as many minutes ahead as a file says."""


def test_a_device_with_a_wrong_clock_says_so_and_takes_part_once_it_is_right(federation: Federation) -> None:
    start(federation, NAMES, rounds=1000, needed=3)
    nodes = federation.nodes()
    ahead = federation.folder / "ahead"
    ahead.write_text("10")
    wrong = federation.play(NAMES[0], program=FAST_CLOCK, AHEAD=str(ahead))
    for name in NAMES[1:]:
        federation.play(name)
    sentence = "This device's clock is 10 minutes ahead of the server's; set it right, then the device takes part."
    federation.until(accepted(federation, 4), 240)
    federation.until(lambda: federation.said(NAMES[0]).count(sentence) >= 2)
    federation.until(accepted(federation, 4, last(federation)), 120)
    assert wrong.poll() is None
    assert all(int(str(record["asked"])) <= 4 for record in federation.records())

    ahead.write_text("0")
    federation.until(accepted(federation, 5, last(federation)), 240)
    nothing_lost(federation, nodes, *NAMES)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """`folder` is a file system of its own, of this size."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("A small file system needs root and the command `mount`.")
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(folder)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip(f"This machine mounts no small file systems: {made.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room that is left."""
    path = folder / "filler"
    with open(path, "ab", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return path


def test_a_server_whose_disk_is_full_says_so_once_loses_no_round_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "server", "48m"), federation_in(tmp_path) as federation:
        start(federation, NAMES, rounds=1000, needed=3)
        nodes = federation.nodes()
        for name in NAMES:
            federation.play(name)
        federation.until(accepted(federation, 5), 240)

        filler = fill(federation.server_folder)
        before = last(federation)
        federation.until(lambda: "no room" in federation.said("server"), 120)
        time.sleep(15)
        assert before <= last(federation) <= before + 1
        filler.unlink()

        federation.until(accepted(federation, 5, before + 1), 240)
        federation.until(lambda: "There is room again" in federation.said("server"))
        assert federation.said("server").count("no room") == 1
        assert "Errno" not in federation.said("server")
        nothing_lost(federation, nodes, *NAMES)
        folder = federation.server_folder / "registry"
        published = list(check_registry(folder, registry_key(folder)))
        assert [model.manifest.round for model in published] == list(range(len(published)))
        assert len(published) >= last(federation)


def test_a_device_whose_disk_is_full_refuses_to_train_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "home", "48m"), federation_in(tmp_path) as federation:
        start(federation, NAMES[1:], rounds=60, needed=3)
        home, faces = tmp_path / "home", tmp_path / NAMES[0]
        draw_folder(faces, 28, people=1, seed=1)
        arguments = ("--data", str(faces), "--home", str(home), "--name", NAMES[0])
        device = federation.run(CLIENT, *arguments, log=NAMES[0])
        federation.until(lambda: "Member of" in federation.said(NAMES[0]))
        for name in NAMES[1:]:
            federation.play(name)
        federation.until(accepted(federation, 5), 300)
        nodes = federation.nodes()

        filler = fill(home)
        federation.until(lambda: "ledger" in federation.said(NAMES[0]), 120)
        first = last(federation)
        debited, trained = debits(home), federation.said(NAMES[0]).count(": trained;")
        federation.until(accepted(federation, 4, first + 1), 120)
        assert (debits(home), federation.said(NAMES[0]).count(": trained;")) == (debited, trained)
        left_out = [record["left_out"] for record in federation.records()[first + 1 :]]
        assert {"failed": 1} in left_out
        filler.unlink()

        federation.until(accepted(federation, 5, last(federation)), 240)
        assert debits(home) > debited
        assert device.poll() is None
        nothing_lost(federation, nodes, *NAMES)


def debits(home: Path) -> int:
    return len(Ledger(home / "ledger.jsonl").entries)


STEPS = """
import logging, time
from fl_client.device import Device
from tests import actors
real = Device.add_up
def add_up(self, header, message):
    logging.getLogger("emofl.client").info("step %s of round %d", header.step, header.round)
    time.sleep(0.5)
    return real(self, header, message)
Device.add_up = add_up
actors.main()
"""
"""A device that says which step of a sum it is asked for."""


def test_a_server_killed_in_the_middle_of_a_sum_repeats_that_round_with_everybody(federation: Federation) -> None:
    start(federation, NAMES, rounds=4, needed=5)
    nodes = federation.nodes()
    for name in NAMES:
        federation.play(name, program=STEPS)
    federation.until(lambda: "step share of round 2" in federation.said(NAMES[0]), 300)
    kill(federation.started[0])
    assert last(federation) == 1

    federation.start_server()
    federation.until(lambda: last(federation) == 4, 400)
    assert [record["accepted"] for record in federation.records()[1:]] == [5, 5, 5, 5]
    for name in NAMES:
        said = federation.said(name)
        assert said.count("step advertise of round 2") == 2
        assert said.count("step unmask of round 2") == 1
    federation.until(lambda: federation.status()["state"] == "finished")
    nothing_lost(federation, nodes, *NAMES)
