"""Flower's SuperLink inside our own process: the one place of the server that touches Flower's internals. `service` runs it.

flwr 1.41.0 is pinned; `tests/fl_server/test_superlink.py` holds it to what is relied on here. A stock SuperLink gives every
network peer its Control and Runtime APIs; here the network has Fleet alone, from devices whose key is enrolled.
"""

import hashlib
import hmac
import logging
import os
import secrets
import ssl
from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import uvicorn
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import (
    ACCESS_TOKEN_KEY,
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    SYSTEM_TIME_TOLERANCE,
    TIMESTAMP_HEADER,
    TIMESTAMP_TOLERANCE,
    TRANSPORT_TYPE_GRPC_RERE,
)
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.server.superlink.linkstate import LinkStateFactory, SqlLinkState
from flwr.supercore.auth.typing import AccountInfo
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER, FLWR_IN_MEMORY_DB_NAME, NodeStatus
from flwr.supercore.date import now
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes, Node
from flwr.supercore.utils import uint64_to_int64
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.main import create_app
from flwr.superlink.servicer.control import control_handlers
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from sqlalchemy import delete, select
from starlette.types import ASGIApp

from common.errors import RunError
from fl_server.gate import Gate, Headers, Refusal, Route
from fl_server.http_server import HttpServer, listen

log = logging.getLogger("emofl.server")

_FLEET = "/v1/fleet/"
_CALL = Route(64 * 1024, 20.0)
_FLEET_ROUTES: dict[str, Route] = {
    "activate-node": _CALL,
    "deactivate-node": _CALL,
    "send-node-heartbeat": _CALL,
    "pull-messages": _CALL,
    "get-run": _CALL,
    "get-fab": _CALL,
    "pull-object": _CALL,
    "confirm-message-received": _CALL,
    "push-messages": Route(2**20, 60.0, inspected=True),
    "push-object": Route(6 * 2**20, 180.0),
}
"""Arrays travel in objects of at most 5 MiB, each with 180 s to arrive. Registering over the network is not on the list."""
_LOCAL = Route(64 * 2**20, 120.0)

MOST_OBJECTS = 2_000
"""Objects that one reply may consist of; the largest network has a few hundred arrays, in pieces of at most 5 MiB."""

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
    """A run that Flower knows: its id, and the token with which one process may act as its ServerApp."""

    run_id: int
    token: str


@dataclass(frozen=True)
class Identity:
    """PEM files of the server's TLS: its certificate with chain, and its key."""

    certificate: Path
    key: Path


class _AdminOnly(NoOpControlAuthnPlugin):
    """Flower's stock plugin lets everybody use the Control API."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token.encode()

    def validate_tokens_in_metadata(self, metadata: Sequence[tuple[str, str | bytes]]) -> tuple[bool, AccountInfo | None]:
        given = dict(metadata).get(ACCESS_TOKEN_KEY, "")
        given = given if isinstance(given, bytes) else given.encode()
        if not hmac.compare_digest(given, self._token):
            return False, None
        return True, AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME)


class _NothingBeside(SuperLinkLifespan):
    """Flower would start gRPC servers, a SuperExec and a health server beside the app, if the environment says so."""

    def startup(self) -> None:
        pass

    def shutdown(self) -> None:
        pass


class SuperLink:
    """Flower's state and HTTP APIs.

    Messages are known to a database file, so that device ids outlive a crash; what they carry stays in memory.

    Args:
        database: SQLite file, made with mode 0600.
        identity: of the network's port.
        host, port: of the network's port; 0 takes a free one.
        admin_token: opens the Control API, on loopback.
        pages: answers GET requests that are not Flower's.
    """

    def __init__(
        self, database: Path, identity: Identity, host: str, port: int, admin_token: str, pages: ASGIApp | None = None
    ) -> None:
        database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
        factory = LinkStateFactory(str(database), NoOpFederationManager(), ObjectStoreFactory())
        state = factory.state()
        if not isinstance(state, SqlLinkState):
            raise RunError("Flower did not give a database state; flwr 1.41.0 is needed.")
        self._state = state
        self._nodes: dict[bytes, int] = {}
        self._suspended: set[bytes] = set()
        app = create_app(_settings(admin_token), _NothingBeside)
        # create_app made a state of its own, with one place for messages and what they carry; ours takes its place.
        app.state.linkstate_factory = app.state.runtime_state_factory = factory
        self._identity = identity
        outside = {("POST", _FLEET + name): route for name, route in _FLEET_ROUTES.items()}
        inside = {key: _LOCAL for key in PROTOBUF_REQUEST_TYPES if not key[1].startswith(_FLEET)}
        self._network = HttpServer(Gate(app, outside, self._admit, self._inspect, pages), listen(host, port), self._tls)
        self._loopback = HttpServer(Gate(app, inside, lambda path, headers: None), listen("127.0.0.1", 0), None)

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
        self._end_earlier_runs()
        self._nodes = {key: node for key, (node, _) in self.enrolled().items()}
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
        self._nodes[public_key] = node
        self._suspended.discard(public_key)
        return node

    def revoke(self, public_key: bytes) -> None:
        """From its next request on, the device is refused; for good."""
        self._nodes.pop(public_key, None)
        node = self._state.get_node_id_by_public_key(public_key)
        if node is not None:
            self._state.delete_node(NOOP_FLWR_AID, node)

    def suspend(self, public_key: bytes) -> None:
        """Refuse the device until `enrol` is called for it again; it keeps its node id and goes on trying."""
        if self._nodes.pop(public_key, None) is not None:
            self._suspended.add(public_key)

    def enrolled(self) -> dict[bytes, tuple[int, bool]]:
        """Node id and whether it is online, by the PEM of the device's key."""
        alive = (NodeStatus.REGISTERED, NodeStatus.ONLINE, NodeStatus.OFFLINE)
        found = self._state.get_node_info(statuses=alive)
        return {info.public_key: (info.node_id, info.status == NodeStatus.ONLINE) for info in found}

    def start_run(self) -> Started:
        """A new run, its ServerApp's task claimed.

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
            raise RunError("Flower does not give out the run's task; flwr 1.41.0 is needed.")
        return Started(run_id, token)

    def end_run(self, run_id: int) -> None:
        """Stop a run, if it is not over, and forget its messages: devices are answered that it is over."""
        self._state.stop_run(run_id)
        with self._state.session() as session:
            session.execute(delete(MessageRes).where(MessageRes.run_id == uint64_to_int64(run_id)))
            session.execute(delete(MessageIns).where(MessageIns.run_id == uint64_to_int64(run_id)))

    def _end_earlier_runs(self) -> None:
        """What their messages carried died with the process that held it."""
        for run in self._state.get_run_info():
            self.end_run(run.run_id)

    def _admit(self, path: str, headers: Headers) -> Refusal | None:
        """Let in whoever signs with an enrolled key; says why not only to whoever holds the key in question."""
        try:
            key = b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER], validate=True)
            signature = b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER], validate=True)
            stamp = headers[TIMESTAMP_HEADER]
            age = (now() - datetime.fromisoformat(stamp)).total_seconds()
            if len(key) > 1024 or not verify_signature(bytes_to_public_key(key), stamp.encode(), signature):
                return Refusal(401, "unsigned")
        except Exception:
            # Keys of other kinds and curves raise what they like, and a stranger's nonsense must not fill the log.
            return Refusal(401, "unsigned")
        node = self._nodes.get(key)
        if node is None and key in self._suspended:
            return Refusal(503, "suspended")
        if node is None:
            return Refusal(401, "revoked" if self._was_enrolled(key) else "not-enrolled")
        if not -SYSTEM_TIME_TOLERANCE < age < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE:
            return Refusal(401, "clock")
        if path == _FLEET + "activate-node":
            self._forget_what_was_lost(node)
        return None

    def _inspect(self, path: str, headers: Headers, body: bytes) -> Refusal | None:
        """Replies are the sender's own, and come without content: what is in an envelope would be written to the database."""
        try:
            request = PushMessagesRequest.FromString(body)
        except DecodeError:
            return Refusal(400, "malformed")
        messages = request.messages_list
        node = self._nodes.get(b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER]))
        if len(messages) != 1 or messages[0].metadata.src_node_id != node:
            return Refusal(400, "not-yours")
        if messages[0].content.ByteSize() or len(messages[0].error.reason) > 100:
            return Refusal(400, "content-in-envelope")
        trees = request.message_object_trees
        if len(trees) != 1 or not _is_plain(trees[0]):
            return Refusal(400, "malformed")
        return None

    def _was_enrolled(self, key: bytes) -> bool:
        with self._state.session() as session:
            return session.scalar(select(Node.node_id).where(Node.public_key == key)) is not None

    def _forget_what_was_lost(self, node: int) -> None:
        """A device that starts anew has lost the messages it had fetched: they are answered as lost, not waited for."""
        self._state.deactivate_node(node)
        with self._state.session() as session:
            answered = select(MessageRes.reply_to_message_id)
            lost = session.scalars(
                select(MessageIns.message_id).where(
                    MessageIns.dst_node_id == uint64_to_int64(node),
                    MessageIns.delivered_at != "",
                    MessageIns.message_id.not_in(answered),
                )
            ).all()
        self._state.delete_messages({name for name in lost if name is not None})

    def _tls(self, config: uvicorn.Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self._identity.certificate, self._identity.key)
        return context


def _settings(admin_token: str) -> SuperLinkLifespanConfig:
    return SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="127.0.0.1",
        port=0,
        insecure=False,
        certificates=None,
        superexec_auth_secret=secrets.token_bytes(32),
        authn_plugin=_AdminOnly(admin_token),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=FLWR_IN_MEMORY_DB_NAME,
        isolation="process",
        runtime_dependency_install=False,
    )


def _is_plain(tree: ObjectTree) -> bool:
    """Whether a tree of objects is small and names each object's children once: Flower expands it by name, under a lock.

    An object that is given twice with different children makes that expansion double at every level.
    """
    children: dict[str, list[str]] = {}
    waiting, nodes = [tree], 0
    while waiting:
        node = waiting.pop()
        nodes += 1
        named = [child.object_id for child in node.children]
        if nodes > MOST_OBJECTS or children.setdefault(node.object_id, named) != named:
            return False
        waiting.extend(node.children)
    return True
