"""A SuperLink with throw-away certificates on loopback, and what speaks to it, for tests of both sides."""

import http.client
import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flwr.common.serde import run_from_proto
from flwr.proto.runtime_pb2 import PullTaskInputRequest
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from common.certificates import CertificateAuthority, certificate_pem, new_key, public_pem
from fl_server.superlink import Identity, Started, SuperLink

ADMIN = "a-token-for-tests"


@dataclass(frozen=True)
class Deployed:
    """A running SuperLink.

    Attributes:
        folder: holds its database, and ca.pem.
    """

    folder: Path
    link: SuperLink

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def database(self) -> Path:
        return self.folder / "state" / "state.db"


def write_identity(folder: Path) -> Identity:
    """A server's certificate for 127.0.0.1 by a new authority, whose own is ca.pem."""
    now, key = datetime.now(UTC), new_key()
    authority = CertificateAuthority.create(now)
    certificate = authority.issue_server(key.public_key(), ["127.0.0.1"], now)
    (folder / "ca.pem").write_bytes(certificate_pem(authority.certificate))
    (folder / "server.pem").write_bytes(certificate_pem(certificate))
    (folder / "server.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Identity(folder / "server.pem", folder / "server.key")


@contextmanager
def superlink(folder: Path, identity: Identity | None = None) -> Iterator[Deployed]:
    """A SuperLink on free ports of 127.0.0.1; give the identity to start one again in the same folder."""
    link = SuperLink(folder / "state" / "state.db", identity or write_identity(folder), "127.0.0.1", 0, ADMIN)
    link.start()
    try:
        yield Deployed(folder, link)
    finally:
        link.stop()


def signed(key: EllipticCurvePrivateKey, ahead: timedelta = timedelta()) -> dict[str, str]:
    """Headers of a device whose clock is `ahead`, as Flower's client makes them."""
    stamp = (datetime.now(UTC) + ahead).isoformat()
    return {
        "flwr-public-key": b64encode(public_pem(key.public_key())).decode(),
        "flwr-signature": b64encode(key.sign(stamp.encode(), ECDSA(SHA256()))).decode(),
        "flwr-timestamp": stamp,
        "content-type": "application/protobuf",
    }


def trusting(ca_file: Path) -> ssl.SSLContext:
    """What verifies a server by its authority alone."""
    return ssl.create_default_context(cafile=str(ca_file))


def ask(
    deployed: Deployed, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, inside: bool = False
) -> tuple[int, bytes]:
    """Status and body of one request to the network's port, or to the one on loopback."""
    if inside:
        host, _, port = deployed.link.runtime_address.partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
    else:
        context = trusting(deployed.ca_file)
        connection = http.client.HTTPSConnection("127.0.0.1", deployed.link.port, timeout=10, context=context)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def server_app(deployed: Deployed, run: Started) -> HttpGrid:
    """The grid of a run's ServerApp, in this process."""
    grid = HttpGrid(deployed.link.runtime_address, True, None, token=run.token)
    given = grid._runtime_client.PullTaskInput(PullTaskInputRequest())
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = given.task_id, given.run.run_id, given.context.node_id
    grid.set_run(run_from_proto(given.run))
    return grid
