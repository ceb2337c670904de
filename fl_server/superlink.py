"""Flower's SuperLink inside our own process: devices, runs, and the two ports of its HTTP APIs. `service` runs it.

A stock SuperLink gives every network peer its Control and Runtime APIs; here the network has Fleet alone, from devices whose
key is enrolled. With `flower_app`, `link_state` and `fleet_door` it is all of the server that touches Flower's internals
(flwr 1.41.0, pinned; `tests/fl_server/test_superlink.py`).
"""

import hashlib
import hmac
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.supercore.auth.typing import AccountInfo
from flwr.supercore.constant import TASK_TOKEN_HEADER, NodeStatus
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.superlink.servicer.control import control_handlers
from starlette.types import ASGIApp

from common.errors import RunError
from fl_server.fleet_door import FLEET, FleetDoor, fleet_routes, sender
from fl_server.flower_app import build_app
from fl_server.gate import Gate, Headers, Refusal, Route
from fl_server.http_server import HttpServer, listen
from fl_server.link_state import LinkState
from fl_server.replies import MOST_BYTES

_LOCAL = Route(64 * 2**20, 120.0)


PYPROJECT = b"""
[project]
name = "emofl"
version = "1.0.0"
description = "Names the installed apps; holds no code."
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "emofl"
[tool.flwr.app.components]
serverapp = "fl_server.app:app"
clientapp = "fl_client.app:app"
[tool.flwr.app.config]
"""


def bundle_files() -> dict[str, bytes]:
    """All that a run's bundle (FAB) contains. Neither side unpacks it."""
    return {"pyproject.toml": PYPROJECT}


@dataclass(frozen=True)
class Started:
    """A run that Flower knows: its id and its task's, and the token with which one process may act as its ServerApp."""

    run_id: int
    task_id: int
    token: str


@dataclass(frozen=True)
class Identity:
    """PEM files of the server's TLS: its certificate with chain, and its key."""

    certificate: Path
    key: Path


class SuperLink:
    """Flower's state and HTTP APIs.

    Messages are known to a database file, so that device ids outlive a crash; what they carry stays in memory.

    Args:
        database: SQLite file, made with mode 0600.
        identity: of the network's port.
        host, port: of the network's port; 0 takes a free one.
        admin_token: opens the Control API, on loopback.
        pages, page_posts: as `fl_server.gate.Gate`, on the network's port.
    """

    def __init__(
        self,
        database: Path,
        identity: Identity,
        host: str,
        port: int,
        admin_token: str,
        pages: ASGIApp | None = None,
        page_posts: Mapping[str, Route] | None = None,
    ) -> None:
        self._state, factory = LinkState.open(database)
        self._door = FleetDoor(self._state)
        self._state.most_bytes = self._door.replies.most
        self._identity = identity
        app = build_app(factory, admin_token)
        inside = {key: _LOCAL for key in PROTOBUF_REQUEST_TYPES if not key[1].startswith(FLEET)}
        gate = Gate(app, fleet_routes(), self._door.admit, self._door.inspect, sender, pages, page_posts)
        self._network = HttpServer(gate, listen(host, port), self._tls)
        self._admin, self._tokens = admin_token, dict[int, str]()
        self._loopback = HttpServer(Gate(app, inside, self._admit_inside), listen("127.0.0.1", 0), None)

    @property
    def port(self) -> int:
        """Of the network's port."""
        return self._network.port

    @property
    def runtime_address(self) -> str:
        """Where the ServerApp's process finds the Runtime API: on loopback, for bearers of a task's token."""
        return f"127.0.0.1:{self._loopback.port}"

    def start(self) -> None:
        """Answer requests, from threads of this process. Runs of an earlier process are over.

        Raises:
            RunError: a port does not open.
        """
        for run in self._state.get_run_info():
            self.end_run(run.run_id)
        for key, (node, _) in self.enrolled().items():
            self._door.let_in(key, node)
        self._loopback.start()
        self._network.start()

    def stop(self) -> None:
        """Answer no more."""
        self._network.stop()
        self._loopback.stop()

    def enrol(self, public_key: bytes, name: str) -> int:
        """The node id of a device's key (PEM of an EC key), which from now on may take part.

        Raises:
            RunError: the key was revoked.
        """
        node = self._state.get_node_id_by_public_key(public_key)
        try:
            if node is None:
                node = self._state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, public_key, 30, name=name)
        except ValueError as error:
            raise RunError(f"The key of {name} was revoked; a device that comes back needs a new key.") from error
        self._door.let_in(public_key, node)
        return node

    def revoke(self, public_key: bytes) -> None:
        """From its next request on, the device is refused; for good."""
        self._door.shut_out(public_key)
        node = self._state.get_node_id_by_public_key(public_key)
        if node is not None:
            self._state.delete_node(NOOP_FLWR_AID, node)

    def suspend(self, public_key: bytes) -> None:
        """Refuse the device until `enrol` is called for it again; it keeps its node id and goes on trying."""
        self._door.suspend(public_key)

    def enrolled(self) -> dict[bytes, tuple[int, bool]]:
        """Node id and whether it is online, by the PEM of the device's key."""
        alive = (NodeStatus.REGISTERED, NodeStatus.ONLINE, NodeStatus.OFFLINE)
        found = self._state.get_node_info(statuses=alive)
        return {info.public_key: (info.node_id, info.status == NodeStatus.ONLINE) for info in found}

    def start_run(self, most_reply_bytes: Callable[[], int] = lambda: MOST_BYTES) -> Started:
        """A new run, its ServerApp's task claimed.

        Args:
            most_reply_bytes: that a device's reply may have; asked whenever a part of one comes.

        Raises:
            RunError: Flower refuses.
        """
        bundle, _ = build_fab_from_files(bundle_files())[:2]
        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        account = AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME)
        try:
            run_id = control_handlers.start_run(StartRunRequest(fab=fab_to_proto(fab)), account, self._state, None).run_id
        except FlowerError as error:
            raise RunError(f"Flower does not start the run: {error.message}.") from error
        tasks = self._state.get_tasks(run_ids=[run_id], statuses=["pending"])
        token = self._state.claim_task(tasks[0].task_id) if tasks else None
        if token is None:
            self.end_run(run_id)
            raise RunError("Flower does not give out the run's task; flwr 1.41.0 is needed.")
        self._door.replies.allow(run_id, most_reply_bytes)
        self._tokens[run_id] = token
        return Started(run_id, tasks[0].task_id, token)

    def keep_alive(self, run: Started) -> None:
        """Say that the run's process lives; Flower gives up on one not heard of for 30 s after its start, later 60."""
        self._state.acknowledge_task_heartbeat(run.task_id)

    def end_run(self, run_id: int) -> None:
        """Stop a run, if it is not over, and forget its messages: devices are answered that it is over."""
        self._state.end_run(run_id)
        self._tokens.pop(run_id, None)
        self._door.replies.forget(run_id)

    def _admit_inside(self, path: str, headers: Headers) -> Refusal | None:
        """Who comes over loopback shows a token before anything is read: any account of this machine can connect.

        What a token is good for is for Flower to say.
        """
        task, bearer = headers.get(TASK_TOKEN_HEADER, ""), headers.get("authorization", "").removeprefix("Bearer ")
        shown = [(task, token) for token in list(self._tokens.values())] + [(bearer, self._admin)]
        known = [hmac.compare_digest(given.encode(), wanted.encode()) for given, wanted in shown]
        return None if any(known) else Refusal(401, "no-token")

    def _tls(self, config: uvicorn.Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self._identity.certificate, self._identity.key)
        return context
