"""What a secure sum costs its devices and its server: `python -m benchmarks.secagg [--quick] [--check]`.

One device and the server do all their work for real; the other devices are stand-ins that send well-formed messages. The clock is
CPU time of one thread. Sending is not part of it; the bytes are counted instead. Devices drop out after they shared, which is
the dearest moment. Of the masks that the server takes off, as many as make `VALUES_IN_FULL` are timed and the rest extrapolated.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from benchmarks.conclusion import conclude
from common.console import command_line, out, run_command_line
from common.identity import SigningKey
from common.secagg import prg
from common.secagg.client import Client, Limits
from common.secagg.fields import Entries, RingVector
from common.secagg.keys import SEALED_BYTES, AgreementKey, commitment, seal, unseal
from common.secagg.ring import Ring, narrowest
from common.secagg.roster import Roster, advertise, sign_input, sign_survivors
from common.secagg.server import Server
from common.secagg.shamir import SHARE_BYTES, split
from common.secagg.wire import Confirmation, Directory, MaskedInput, Shares, Terms, Unmasking, WireMessage

UPLOAD_TARGET = 1.73
"""Bytes a device sends against the plain update: what Bonawitz et al. 2017 report for 2^10 devices and 2^20 values."""

VALUES_IN_FULL = 6_000_000_000
"""Values of masks that the server expands at most; beyond that, its time per mask is extrapolated."""

CLIP = 1.0
LARGEST_SHORT = 2**15 - 1


@dataclass(frozen=True)
class Setup:
    """A cohort, a model and how many drop out, in percent; values of float32, or rounded to 16 bits, and so the plain upload."""

    members: int
    length: int
    dropped: int
    short: bool = False

    def __str__(self) -> str:
        return f"{self.members} devices, {self.length} values{' of 16 bits' * self.short}, {self.dropped} % dropped"

    @property
    def ring(self) -> Ring:
        return Ring(self.members, CLIP, narrowest(self.members, LARGEST_SHORT)) if self.short else Ring(self.members, CLIP)

    @property
    def plain(self) -> int:
        """Bytes of an upload that is not secure."""
        return (2 if self.short else 4) * self.length


@dataclass
class Costs:
    """CPU seconds and bytes of one device and of the server, which takes off `masks` masks, `timed` of them for real."""

    device: float = 0.0
    server: float = 0.0
    up: int = 0
    down: int = 0
    masks: int = 0
    timed: int = 0

    @contextmanager
    def of_device(self) -> Iterator[None]:
        start = time.process_time()
        yield
        self.device += time.process_time() - start

    @contextmanager
    def of_server(self) -> Iterator[None]:
        start = time.process_time()
        yield
        self.server += time.process_time() - start

    def sends(self, message: WireMessage) -> None:
        self.up += len(message.encode())

    def receives(self, message: WireMessage) -> None:
        self.down += len(message.encode())


@dataclass
class StandIn:
    """A device that is not measured: its secrets, and their shares by holder."""

    identity: SigningKey
    mask_key: AgreementKey = field(default_factory=lambda: AgreementKey.generate(secrets.token_bytes))
    share_key: AgreementKey = field(default_factory=lambda: AgreementKey.generate(secrets.token_bytes))
    seed: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    seeds: dict[int, bytes] = field(default_factory=dict)
    keys: dict[int, bytes] = field(default_factory=dict)

    def share(self, member: int, server: Server, device: Client) -> Shares:
        """Real shares, sealed for the measured device (member 0); for the others, bytes of the right length."""
        session, neighbours, own, first = server._session, server._graph.neighbours(member), self.raw, server.terms.cohort[0]
        holders = sorted(neighbours | {member})
        points = [holder + 1 for holder in holders]
        seeds, keys = split([self.seed, self.mask_key.raw], points, server.plan.threshold, secrets.token_bytes)
        self.seeds, self.keys = dict(zip(holders, seeds, strict=True)), dict(zip(holders, keys, strict=True))
        sealed = dict.fromkeys(sorted(neighbours), bytes(SEALED_BYTES))
        if 0 in sealed:
            key = self.share_key.sealing_key(device._share_key.public, session, own, first)
            sealed[0] = seal(key, self.seeds[0] + self.keys[0], session, own, first, secrets.token_bytes)
        return Shares(member, commitment(self.seed, session, own), tuple(sealed.items()))

    def open(self, sealed: bytes, server: Server, device: Client) -> bytes:
        """The share of the measured device's seed that it sealed for this one."""
        first = server.terms.cohort[0]
        key = self.share_key.sealing_key(device._share_key.public, server._session, first, self.raw)
        return unseal(key, sealed, server._session, first, self.raw)[:SHARE_BYTES]

    @property
    def raw(self) -> bytes:
        return self.identity.public.raw


@dataclass
class Round:
    """One round with member 0 measured. The stand-ins' vectors are noise, so the sum means nothing."""

    setup: Setup
    costs: Costs = field(default_factory=Costs)

    def __post_init__(self) -> None:
        n, costs = self.setup.members, self.costs
        identities = sorted((SigningKey.generate() for _ in range(n)), key=lambda key: key.public.raw)
        self.terms = Terms(
            "benchmark", 1, self.setup.length, bytes(32), tuple(key.public.raw for key in identities), self.setup.ring.width
        )
        self.peers = {member: StandIn(identity) for member, identity in enumerate(identities) if member}
        self.left = [member for member in self.peers if member > n * self.setup.dropped // 100]
        costs.receives(self.terms)
        with costs.of_device():
            self.device = Client(self.terms, identities[0], Roster(frozenset(self.terms.cohort)), Limits())
        self.server = Server(self.terms)

    def play(self) -> Costs:
        self.share(self.advertise())
        self.mask()
        self.confirm()
        self.unmask()
        self.finish()
        return self.costs

    def advertise(self) -> Directory:
        with self.costs.of_device():
            own = self.device.advertise()
        self.costs.sends(own)
        others = [
            advertise(self.terms, member, peer.mask_key.public, peer.share_key.public, peer.identity)
            for member, peer in self.peers.items()
        ]
        with self.costs.of_server():
            for message in [own, *others]:
                self.server.add_advertisement(message)
            return self.server.close_advertising()

    def share(self, directory: Directory) -> None:
        self.costs.receives(directory)
        with self.costs.of_device():
            self.shared = self.device.share(directory)
        self.costs.sends(self.shared)
        others = [peer.share(member, self.server, self.device) for member, peer in self.peers.items()]
        with self.costs.of_server():
            for message in [self.shared, *others]:
                self.server.add_shares(message)
            self.delivery = self.server.close_sharing()[0]
        self.costs.receives(self.delivery)

    def mask(self) -> None:
        ring, random = self.setup.ring, np.random.default_rng(0)
        update = random.normal(0, 0.1, self.setup.length).astype(np.float32)
        with self.costs.of_device():
            own = self.device.mask(self.delivery, ring.encode(update, secrets.token_bytes))
        self.costs.sends(own)
        noise = RingVector(random.integers(0, 2**ring.width, self.setup.length, dtype=np.uint32), ring.width)
        session = self.server._session
        others = [MaskedInput(m, sign_input(session, self.delivery.sharers, m, self.peers[m].identity), noise) for m in self.left]
        with self.costs.of_server():
            for message in [own, *others]:
                self.server.add_masked(message)
            self.survivors = self.server.close_masking()[0]
        self.costs.receives(self.survivors)

    def confirm(self) -> None:
        with self.costs.of_device():
            own = self.device.confirm(self.survivors)
        self.costs.sends(own)
        lists = self.delivery.sharers, self.survivors.survivors
        others = [Confirmation(m, sign_survivors(self.server._session, *lists, m, self.peers[m].identity)) for m in self.left]
        with self.costs.of_server():
            for message in [own, *others]:
                self.server.add_confirmation(message)
            self.quorum = self.server.close_confirming()
        self.costs.receives(self.quorum)

    def unmask(self) -> None:
        with self.costs.of_device():
            own = self.device.unmask(self.quorum)
        self.costs.sends(own)
        left, sealed, others = set(self.left), dict(self.shared.sealed), []
        for member in self.left:
            known = sorted((self.server._graph.neighbours(member) | {member}) - {0})
            seeds: Entries = tuple((m, self.peers[m].seeds[member]) for m in known if m in left)
            if member in sealed:
                seeds = ((0, self.peers[member].open(sealed[member], self.server, self.device)), *seeds)
            keys: Entries = tuple((m, self.peers[m].keys[member]) for m in known if m not in left)
            others.append(Unmasking(member, seeds, keys))
        with self.costs.of_server():
            for message in [own, *others]:
                self.server.add_unmasking(message)

    def finish(self) -> None:
        """The server's last step; of the masks, at most `VALUES_IN_FULL` are expanded and the rest extrapolated."""
        with self.costs.of_server():
            seeds = [seed for plus, minus in self.server._masks_left() for seed in plus + minus]
        timed = seeds[: VALUES_IN_FULL // self.setup.length]
        start = time.process_time()
        for first in range(0, len(timed), 128):
            prg.apply(self.server._total, plus=timed[first : first + 128], minus=[])
        self.costs.server += (time.process_time() - start) * len(seeds) / len(timed)
        self.costs.masks, self.costs.timed = len(seeds), len(timed)


def show(results: dict[Setup, Costs]) -> None:
    table = Table(title="A secure sum, per device and for the server", title_justify="left")
    for heading in ("devices", "values", "gone", "device s", "server s", "masks", "kB up", "/ plain", "kB down"):
        table.add_column(heading, justify="right")
    for setup, costs in results.items():
        mark = " *" if costs.masks > costs.timed else ""
        table.add_row(
            str(setup.members),
            f"{setup.length:,}" + " x 16 bits" * setup.short,
            f"{setup.dropped} %",
            f"{costs.device:.3f}",
            f"{costs.server:.2f}{mark}",
            str(costs.masks),
            f"{costs.up / 1000:.0f}",
            f"{costs.up / setup.plain:.3f}",
            f"{costs.down / 1000:.0f}",
        )
    out.print(table)
    if any(costs.masks > costs.timed for costs in results.values()):
        out.print("* The masks are extrapolated from a part of them; all else was done in full.", markup=False)


app = command_line("What a secure sum costs its devices and its server.")


@app.command()
def main(
    quick: Annotated[bool, typer.Option("--quick", help="100,000 values only, and 1,000 devices only once.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail when a target is missed.")] = False,
) -> None:
    """Play rounds of several sizes and print seconds and bytes, then one line of JSON."""
    sizes = [(n, length) for n in (10, 100, 1000) for length in (100_000, 1_500_000)]
    setups = [Setup(n, length, dropped) for n, length in sizes for dropped in (0, 10, 30)]
    setups += [Setup(n, 2**20, 0, short=True) for n in (10, 100, 1024)]
    if quick:
        setups = [Setup(n, 100_000, dropped) for n in (10, 100) for dropped in (0, 30)] + [Setup(1000, 100_000, 30)]
        setups.append(Setup(10, 100_000, 0, short=True))
    results = {setup: Round(setup).play() for setup in setups}
    show(results)
    missed = [
        f"{setup}: {costs.up / setup.plain:.2f} times the plain upload instead of {UPLOAD_TARGET}"
        for setup, costs in results.items()
        if costs.up > UPLOAD_TARGET * setup.plain
    ]
    rows = {
        str(setup): {
            "device_s": round(costs.device, 4),
            "server_s": round(costs.server, 4),
            "server_extrapolated": costs.masks > costs.timed,
            "masks": costs.masks,
            "bytes_sent": costs.up,
            "bytes_received": costs.down,
            "sent_against_plain": round(costs.up / setup.plain, 4),
        }
        for setup, costs in results.items()
    }
    conclude("secagg", {"results": rows, "targets": {"upload": UPLOAD_TARGET}, "missed": missed}, missed, check=check)


if __name__ == "__main__":
    run_command_line(app)
