"""Which devices may speak on the Fleet port, and what their replies may be. `fl_server.superlink` asks it at the gate.

flwr 1.41.0 is pinned; `tests/fl_server/test_superlink.py` holds it to what is relied on here.
"""

import logging
import re
from base64 import b64decode
from datetime import datetime

from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Metadata, ObjectTree, PushObjectRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from common.flower_log import PROVOKED
from fl_server.gate import Headers, Refusal, Route
from fl_server.link_state import MOST_OBJECTS, LinkState
from fl_server.replies import Busy, Replies, TooMuch
from fl_server.seats import Seats

log = logging.getLogger(PROVOKED)

FLEET = "/v1/fleet/"
PUSH_MESSAGES, PUSH_OBJECT, ACTIVATE = FLEET + "push-messages", FLEET + "push-object", FLEET + "activate-node"
UPLOADS, UPLOADS_EACH = 128, 4
"""Objects under way at a time, of all devices and of one; Flower's client sends two, and tries again when it is told to wait."""
MOST_TEXT = 64
"""Characters of a name that is not an object's: Flower writes them to its database and its log."""


def fleet_routes() -> dict[tuple[str, str], Route]:
    """Flower's calls that devices may make. Registering over the network is not on the list.

    Arrays travel in objects of at most 5 MiB, each with 180 s to arrive.
    """
    call = Route(64 * 1024, 20.0)
    names = ("deactivate-node", "send-node-heartbeat", "pull-messages", "get-run", "get-fab", "pull-object")
    return {("POST", FLEET + name): call for name in (*names, "confirm-message-received")} | {
        ("POST", ACTIVATE): call,
        ("POST", PUSH_MESSAGES): Route(2**20, 60.0, inspected=True),
        ("POST", PUSH_OBJECT): Route(6 * 2**20, 180.0, inspected=True, seats=Seats(UPLOADS, UPLOADS_EACH)),
    }


def sender(headers: Headers) -> str:
    """Whose admitted request it is: the key that it is signed with, in one spelling."""
    return b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER]).decode("latin-1")


class FleetDoor:
    """Lets devices in by their key, and looks at what they send."""

    def __init__(self, state: LinkState) -> None:
        self._state = state
        self._nodes: dict[bytes, int] = {}
        self._suspended: set[bytes] = set()
        self.replies = Replies(self._size_of, state.drop_reply)

    def let_in(self, key: bytes, node: int) -> None:
        """From now on, who signs with this key (PEM) is this node."""
        self._nodes[key] = node
        self._suspended.discard(key)

    def shut_out(self, key: bytes) -> None:
        """From its next request on, the device is refused."""
        self._nodes.pop(key, None)

    def suspend(self, key: bytes) -> None:
        """Refuse the device until it is let in again; it goes on trying."""
        if self._nodes.pop(key, None) is not None:
            self._suspended.add(key)

    def admit(self, path: str, headers: Headers) -> Refusal | None:
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
            return Refusal(401, "revoked" if self._state.was_enrolled(key) else "not-enrolled")
        if not -SYSTEM_TIME_TOLERANCE < age < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE:
            return Refusal(401, "clock")
        if path == ACTIVATE:
            self._state.forget_fetched(node)
        return None

    def inspect(self, path: str, headers: Headers, body: bytes) -> Refusal | None:
        """Replies are the sender's own, announced, and no larger than their run needs."""
        node = self._nodes.get(sender(headers).encode("latin-1"))
        if node is None:
            return Refusal(401, "revoked")
        try:
            if path == PUSH_OBJECT:
                part = PushObjectRequest.FromString(body)
                if not is_object_id(part.object_id) or len(part.session_id) > MOST_TEXT:
                    return Refusal(400, "malformed")
                # Flower's client takes 403 for the end of the run: it gives up the message, and asks for the next.
                known = self.replies.arrived(node, part.object_id, len(part.object_content))
                return None if known else Refusal(403, "not-announced")
            return self._inspect_reply(node, PushMessagesRequest.FromString(body))
        except DecodeError:
            return Refusal(400, "malformed")
        except Busy:
            return Refusal(503, "busy")
        except TooMuch as error:
            log.warning("device %d: %s", node, error)
            return Refusal(413, "reply-too-large")

    def _inspect_reply(self, node: int, request: PushMessagesRequest) -> Refusal | None:
        """What is in an envelope would be written to the database."""
        messages, trees = request.messages_list, request.message_object_trees
        if len(messages) != 1 or messages[0].metadata.src_node_id != node:
            return Refusal(400, "not-yours")
        metadata = messages[0].metadata
        if messages[0].content.ByteSize() or len(messages[0].error.reason) > 100:
            return Refusal(400, "content-in-envelope")
        objects = plain_objects(trees[0]) if len(trees) == 1 else None
        if objects is None or trees[0].object_id != metadata.message_id:
            return Refusal(400, "malformed")
        if not _well_named(metadata) or not all(map(is_object_id, objects)):
            return Refusal(400, "malformed")
        if not self.replies.announce(node, metadata.run_id, metadata.message_id, objects):
            return Refusal(400, "malformed")
        return None

    def _size_of(self, name: str) -> int | None:
        content = self._state.object_store.get(name)
        return None if content is None else len(content)


def is_object_id(name: str) -> bool:
    """Whether it is what Flower calls objects and messages by: SHA-256, 64 lower-case hex digits."""
    return re.fullmatch("[0-9a-f]{64}", name) is not None


def _well_named(metadata: Metadata) -> bool:
    ids = metadata.message_id, metadata.reply_to_message_id
    return all(map(is_object_id, ids)) and max(len(metadata.group_id), len(metadata.message_type)) <= MOST_TEXT


def plain_objects(tree: ObjectTree) -> set[str] | None:
    """All objects of a tree, if it is small and names each object's children once: Flower expands it by name, under a lock.

    An object that is given twice with different children makes that expansion double at every level.
    """
    children: dict[str, list[str]] = {}
    waiting, nodes = [tree], 0
    while waiting:
        node = waiting.pop()
        nodes += 1
        named = [child.object_id for child in node.children]
        if nodes > MOST_OBJECTS or children.setdefault(node.object_id, named) != named:
            return None
        waiting.extend(node.children)
    return set(children)
