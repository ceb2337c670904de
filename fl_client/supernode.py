"""The device's side of Flower: fetch a message, let the installed ClientApp answer it, send the answer. `node_process` runs it.

The one place of the client that touches Flower's internals (flwr 1.41.0, pinned; `tests/fl_client/test_supernode.py`). It uses
Flower's own Fleet connection. A stock SuperNode would also fetch the server's code bundle, unpack it and run what is in it;
here nothing asks for the bundle, and no message type but `train` reaches the app.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from flwr.app import Context, Message, RecordDict
from flwr.app.error import Error
from flwr.app.message import array as flower_array
from flwr.app.message import remove_content_from_message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, ErrorCode
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents,
    pull_objects,
    push_object_contents_from_iterable,
)
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.run import RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.fleet_http_connection import http_request_response
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from common.errors import EmoflError, ReplyError
from fl_client.node_settings import CHUNK_KIB, Ending

log = logging.getLogger("emofl.client")

ACCEPTED_TYPES = frozenset({"train"})
CHUNK_KNOB = "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE"
SOON = 0.25
"""Seconds after a message until the first look for another."""
MOST_OBJECTS = 20_000
"""Of one message; a model of 200 parameters has about 400."""
MOST_BYTES = 512 * 2**20
"""Of one message."""


class Answers(Protocol):
    """A ClientApp, or what stands for one."""

    def __call__(self, message: Message, context: Context) -> Message:
        """The reply to a message."""


@dataclass(frozen=True)
class Server:
    """Where Flower's Fleet API is, and how the device proves who it is.

    Attributes:
        address: host:port.
        ca_file: PEM of the only authority that is believed.
        keys: the device's EC key pair.
        poll: seconds between looks for a message.
    """

    address: str
    ca_file: Path
    keys: tuple[EllipticCurvePrivateKey, EllipticCurvePublicKey]
    poll: float = 3.0


class _Stopped(BaseException):
    """SIGTERM; no `except Exception` on the way may swallow it."""


class _Refused(BaseException):
    """The server answered 401; Flower's connection tells by sending this process SIGINT."""


def take_part(
    server: Server,
    app: Answers,
    on_ready: Callable[[int], None] = lambda node: None,
    may_work: Callable[[], bool] = lambda: True,
    chunk_bytes: int = CHUNK_KIB * 1024,
    after_message: Callable[[], None] = lambda: None,
) -> Ending:
    """Answer messages until the connection ends. Call it from the main thread: it uses signals.

    Server sees: the device's key, when it asks for messages, and the app's replies; of an error, its type alone.

    Args:
        on_ready: told the node id once the server has accepted the device.
        may_work: asked before each look for a message.
        chunk_bytes: size of the pieces in which arrays of a reply travel; each has 180 s to arrive.
        after_message: called once nothing of a message or of its reply is held any more.
    """
    with _signals(), _chunks_of(chunk_bytes):
        try:
            with http_request_response(server.address, False, server.ca_file.read_bytes(), server.keys) as connection:
                on_ready(connection[0])
                _Node(connection, app, after_message).serve(server.poll, may_work)
            return Ending.LOST
        except _Stopped:
            return Ending.STOPPED
        except (_Refused, SystemExit):
            # Flower raises SystemExit when the first contact fails.
            pass
        try:
            return ask_why(server)
        except _Stopped:
            return Ending.STOPPED


def ask_why(server: Server, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Ending:
    """After a refusal: ask once more, and read the server's reason."""
    client = FleetHttpClient.from_server_address(
        server.address,
        False,
        server.ca_file.read_bytes(),
        [RuntimeVersionHttpInterceptor(component_name="SuperNode"), NodeAuthHttpInterceptor(*server.keys)],
    )
    request = ActivateNodeRequest(public_key=public_key_to_bytes(server.keys[1]), heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
    try:
        with client:
            client.ActivateNode(request)
    except httpx.HTTPStatusError as error:
        return _read_refusal(error.response, now())
    except httpx.TransportError as error:
        if any(word in str(error).lower() for word in ("certificate", "ssl", "tls")):
            log.error("Who answers at %s is not the server that this device joined; nothing was sent to it.", server.address)
            return Ending.UNTRUSTED
    return Ending.LOST


def _read_refusal(response: httpx.Response, now: datetime) -> Ending:
    reason = ""
    with suppress(ValueError, AttributeError):
        reason = str(response.json().get("reason", ""))
    if reason in ("not-enrolled", "revoked"):
        return Ending.REVOKED if reason == "revoked" else Ending.NOT_ENROLLED
    if reason == "clock":
        try:
            ahead = (now - parsedate_to_datetime(response.headers["date"])).total_seconds() / 60
            side = "ahead of" if ahead > 0 else "behind"
            log.error(
                "This device's clock is %.0f minutes %s the server's; set it right, then the device takes part.", abs(ahead), side
            )
        except (KeyError, ValueError, TypeError):
            log.error("This device's clock differs from the server's; set it right, then the device takes part.")
        return Ending.CLOCK
    return Ending.REFUSED if response.status_code < 500 else Ending.LOST


@contextmanager
def _chunks_of(size: int) -> Iterator[None]:
    """Flower reads its size of pieces, 5 MiB, from one place of the process whenever an array is taken apart."""
    before = getattr(flower_array, CHUNK_KNOB)
    setattr(flower_array, CHUNK_KNOB, size)
    try:
        yield
    finally:
        setattr(flower_array, CHUNK_KNOB, before)


@contextmanager
def _signals() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stopped

    parent = os.getppid()

    def refused(number: int, frame: FrameType | None) -> None:
        # Flower sends the same signal when the parent process is gone.
        raise _Refused if os.getppid() == parent else _Stopped

    before = signal.signal(signal.SIGTERM, stop), signal.signal(signal.SIGINT, refused)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


class _Node:
    """One connection, in which messages are answered one after the other."""

    def __init__(self, connection: tuple[Any, ...], app: Answers, after_message: Callable[[], None] = lambda: None) -> None:
        self.node_id, self._receive, self._send, _, _, self._pull, self._push, self._confirm = connection
        self._app, self._after_message = app, after_message
        self._context: Context | None = None

    def serve(self, poll: float, may_work: Callable[[], bool]) -> None:
        """Until something raises. After a message it looks again soon, then less often: the steps of a sum follow closely."""
        pause = poll
        while True:
            received, handled = None, False
            try:
                received = self._receive() if may_work() else None
                if received is not None:
                    handled = True
                    self._handle(*received)
            except RunNotRunningException:
                log.info("The run is over; its message is dropped.")
                received = None
            if handled:
                self._after_message()
            if received is None:
                time.sleep(pause)
                pause = min(poll, 1.2 * pause)
            else:
                pause = min(poll, SOON)

    def _handle(self, message: Message, tree: ObjectTree) -> None:
        metadata = message.metadata
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = metadata.run_id, 1, self.node_id
        try:
            reply = self._answer(message, tree)
        except Exception as error:
            if isinstance(error, EmoflError):
                log.error("A message is refused: %s", error)
            elif isinstance(error, httpx.HTTPError):
                # The server took the message back while it was fetched, or is in trouble; nothing is wrong here.
                log.error("A message could not be fetched whole (%s); the next one is waited for.", type(error).__name__)
            else:
                log.exception("A message is not answered.")
            reply = Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=type(error).__name__), reply_to=message)
        self._deliver(reply)

    def _answer(self, message: Message, tree: ObjectTree) -> Message:
        metadata = message.metadata
        if metadata.message_type not in ACCEPTED_TYPES:
            raise ReplyError(f"The server asks for {metadata.message_type!r}; this device answers `train` alone.")
        if metadata.dst_node_id != self.node_id:
            raise ReplyError("The message is for another device.")
        contents = self._fetch(metadata.run_id, tree)
        self._confirm(metadata.run_id, metadata.message_id)
        whole = inflate_object_from_contents(metadata.message_id, contents)
        if not isinstance(whole, Message) or whole.metadata.run_id != metadata.run_id:
            raise ReplyError("What came is not the message that was announced.")
        if (whole.metadata.message_type, whole.metadata.dst_node_id) != (metadata.message_type, metadata.dst_node_id):
            raise ReplyError("What came is not the message that was announced.")
        whole.metadata.__dict__["_message_id"] = metadata.message_id
        return self._app(message=whole, context=self._context_of(metadata.run_id))

    def _context_of(self, run_id: int) -> Context:
        """What an app keeps between the messages of one run, in memory alone."""
        if self._context is None or self._context.run_id != run_id:
            self._context = Context(run_id=run_id, node_id=self.node_id, node_config={}, state=RecordDict(), run_config={})
        return self._context

    def _fetch(self, run_id: int, tree: ObjectTree) -> dict[str, bytes]:
        names = list({part.object_id for part in iterate_object_tree(tree)})
        if len(names) > MOST_OBJECTS:
            raise ReplyError(f"The message has {len(names)} parts; at most {MOST_OBJECTS} are taken.")
        room, guard = [MOST_BYTES], threading.Lock()

        def pull(name: str) -> bytes:
            content: bytes = self._pull(run_id, name)
            with guard:
                room[0] -= len(content)
                if room[0] < 0:
                    raise ReplyError(f"The message is larger than {MOST_BYTES} bytes.")
            return content

        return pull_objects(names, pull)

    def _deliver(self, reply: Message) -> None:
        """Flower would also tell how long the app took, which follows the sizes of the Poisson batches: here it took no time."""
        reply.metadata.__dict__["_message_id"] = reply.object_id
        with no_object_id_recompute():
            tree, parts = get_object_tree(reply), get_all_nested_objects(reply)
            wanted, session = self._send(remove_content_from_message(reply), tree, 0.0)
            run_id = reply.metadata.run_id
            push_object_contents_from_iterable(
                ((name, part.deflate()) for name, part in parts.items() if name in wanted),
                lambda name, content: self._push(run_id, session, name, content),
            )
