"""Flower's state of runs, nodes and messages, with what our server needs beside. `fl_server.superlink` holds it.

Envelopes of messages are in a database file, so that node ids outlive the process; what messages carry stays in memory.
flwr 1.41.0 is pinned; `tests/fl_server/test_superlink.py` holds it to what is relied on here.
"""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import Array, Message
from flwr.app.message.arraychunk import ArrayChunk
from flwr.server.superlink.linkstate import LinkStateFactory, SqlLinkState
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_children_ids_from_object_content,
    get_object_type_from_object_content,
)
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.state.schema.corestate_models import ObjectPushSession, ObjectPushSessionRoot
from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes, Node
from flwr.supercore.utils import int64_to_uint64, uint64_to_int64
from flwr.superlink.federation import NoOpFederationManager
from sqlalchemy import delete, event, select, update

log = logging.getLogger("emofl.server")

MOST_OBJECTS, DEEPEST = 2_000, 10
"""Objects that one reply may consist of, and within each other: the largest network has a few hundred arrays, in pieces of at
most 5 MiB, each in an array, a record, a dictionary and the message."""

SETTLED = 5.0
"""Seconds that an announced reply may lack parts with no upload under way: one that has just ended, or will never be whole."""

LOCK_SECONDS = 30
"""For which a request waits for its turn to write."""


class LinkState(SqlLinkState):
    """Flower's, over a database file and objects in memory.

    Attributes:
        most_bytes: that the arrays of a reply to this run may come to, once the ServerApp has put them together.
    """

    most_bytes: Callable[[int], int]
    _missing: dict[str, float]

    @classmethod
    def open(cls, database: Path) -> "tuple[LinkState, LinkStateFactory]":
        """The state in a file, made with mode 0600, and the factory with which Flower's own code finds it."""
        database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
        factory = LinkStateFactory(str(database), NoOpFederationManager(), ObjectStoreFactory())
        state = cls(str(database), factory.federation_manager, factory.objectstore_factory.store())
        state._missing = {}
        state.initialize()
        if (engine := state._engine) is not None:
            event.listen(engine, "connect", _wait_longer)
            engine.dispose()  # of connections that were made before
        factory.state_instance = state
        return state, factory

    def get_message_res(self, message_ids: set[str], run_id: int) -> list[Message]:
        """Replies to messages, as Flower's, but none before all of it has arrived, and none that would burst the ServerApp.

        The ServerApp would wait for the rest of it, for hours if a device wishes, and for nobody else's meanwhile. And an array
        names the chunks that it is made of, each as often as its device likes: 50 kB would become 200 MB.
        """
        uploading = _uploading(MessageRes.reply_to_message_id).where(
            MessageRes.reply_to_message_id.in_(message_ids), ObjectPushSession.expires_at > now()
        )
        replies = select(MessageRes.reply_to_message_id, MessageRes.message_id, MessageRes.src_node_id).where(
            MessageRes.reply_to_message_id.in_(message_ids), MessageRes.delivered_at == ""
        )
        with self.session() as session:
            absent = set(session.scalars(uploading))
            come = [
                (str(asked), str(name), int(node or 0)) for asked, name, node in session.execute(replies) if asked not in absent
            ]
        seen = set()
        for asked, name, node in come:
            # Whatever the envelope says: the ServerApp reads the objects of a reply that calls itself an error, too.
            size, since = self._inflated(name), self._missing.setdefault(name, time.monotonic())
            if size is None and time.monotonic() < since + SETTLED:
                absent.add(asked)
                continue
            self._missing.pop(name, None)
            if size is not None and size <= self.most_bytes(run_id):
                seen.add(name)
                continue
            why = "lacks parts" if size is None else "takes more memory than its run allows"
            log.warning("the reply of device %d %s: dropped", int64_to_uint64(node), why)
            self.drop_reply(int64_to_uint64(node), name)
        found = super().get_message_res(message_ids - absent, run_id)
        if unseen := {reply.metadata.message_id for reply in found} - seen:  # announced only now, or made by Flower itself
            again = update(MessageRes).where(MessageRes.message_id.in_(unseen)).values(delivered_at="")
            with self.session() as session:
                waiting = set(session.scalars(again.returning(MessageRes.message_id)))
            found = [reply for reply in found if reply.metadata.message_id not in waiting]
        return found

    def _inflated(self, root: str) -> float | None:
        """What a reply comes to, as `inflated_bytes`; None while some is not there, infinite if more or deeper than one may be.

        An object keeps the children of its first announcement. So a reply may be tied to parts of an earlier one that never come,
        for which the ServerApp would wait, or by which Flower, which goes down recursively, would fail.
        """
        kept: Any = self.object_store
        contents: dict[str, bytes] = {}
        waiting, seen = [(root, 0)], 0
        with kept.lock_store:
            while waiting:
                name, depth = waiting.pop()
                entry, seen = kept.store.get(name), seen + 1
                if seen > MOST_OBJECTS or depth > DEEPEST:
                    return math.inf
                if entry is None:  # deleted: Flower answers that the reply is lost
                    return 0.0
                if not entry.is_available:
                    return None
                contents[name] = entry.content
                waiting.extend((child, depth + 1) for child in entry.child_object_ids)
        return inflated_bytes(contents)

    def was_enrolled(self, key: bytes) -> bool:
        """Whether a device with this key (PEM) was ever known, though it may be revoked."""
        with self.session() as session:
            return session.scalar(select(Node.node_id).where(Node.public_key == key)) is not None

    def forget_fetched(self, node: int) -> None:
        """A device that starts anew has lost the messages it had fetched and the reply it was sending.

        They are answered as lost, not waited for.
        """
        self.deactivate_node(node)
        with self.session() as session:
            answered = select(MessageRes.reply_to_message_id)
            lost = session.scalars(
                select(MessageIns.message_id).where(
                    MessageIns.dst_node_id == uint64_to_int64(node),
                    MessageIns.delivered_at != "",
                    MessageIns.message_id.not_in(answered),
                )
            ).all()
            unfinished = session.scalars(
                _uploading(MessageRes.message_id).where(MessageRes.src_node_id == uint64_to_int64(node))
            ).all()
        self.delete_messages({name for name in lost if name is not None})
        for reply in unfinished:
            self.drop_reply(node, reply)

    def drop_reply(self, node: int, reply: str) -> None:
        """Forget a device's reply, by its message id, with all that came of it: the ServerApp is told that it is lost."""
        with self.session() as session:
            asked = session.scalars(
                select(MessageRes.reply_to_message_id).where(
                    MessageRes.message_id == reply, MessageRes.src_node_id == uint64_to_int64(node)
                )
            ).all()
            uploads = session.scalars(
                select(ObjectPushSessionRoot.session_id).where(ObjectPushSessionRoot.root_object_id == reply)
            ).all()
            for upload in uploads:
                self._cleanup_push_session(upload, cleanup_messages=True)
            self.delete_messages({name for name in asked if name is not None})
        self.object_store.delete(reply)

    def end_run(self, run_id: int) -> None:
        """Stop a run, if it is not over, and forget its messages: devices are answered that it is over."""
        self.stop_run(run_id)
        self._missing.clear()
        with self.session() as session:
            session.execute(delete(MessageRes).where(MessageRes.run_id == uint64_to_int64(run_id)))
            session.execute(delete(MessageIns).where(MessageIns.run_id == uint64_to_int64(run_id)))


def inflated_bytes(contents: Mapping[str, bytes]) -> float:
    """What the arrays among a reply's objects, by name, come to once Flower joins their chunks; unreadable ones are left out.

    Flower joins the data of whatever an array calls its chunks, of other arrays too, and so on: infinitely many, here.
    """
    total = 0.0
    for content in contents.values():
        try:
            if get_object_type_from_object_content(content) == Array.__qualname__:
                named = get_object_children_ids_from_object_content(content)
                chunks = [contents[named[at]] for at in json.loads(get_object_body(content, Array))["arraychunk_ids"]]
                kinds = {get_object_type_from_object_content(chunk) for chunk in chunks}
                total += sum(map(len, chunks)) if kinds <= {ArrayChunk.__qualname__} else math.inf
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            continue
    return total


def _wait_longer(connection: Any, record: Any) -> None:
    """Flower gives up after 5 s; on a machine that is very busy, whoever writes may be kept from going on for longer."""
    connection.execute(f"PRAGMA busy_timeout = {LOCK_SECONDS * 1000}")


def _uploading(column: Any) -> Any:
    """Selects of replies of which objects are still to come."""
    return (
        select(column)
        .select_from(MessageRes)
        .join(ObjectPushSessionRoot, ObjectPushSessionRoot.root_object_id == MessageRes.message_id)
        .join(ObjectPushSession, ObjectPushSession.session_id == ObjectPushSessionRoot.session_id)
        .where(ObjectPushSession.pending_count > 0)
    )
