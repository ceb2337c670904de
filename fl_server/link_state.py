"""Flower's state of runs, nodes and messages, with what our server needs beside. `fl_server.superlink` holds it.

Envelopes of messages are in a database file, so that node ids outlive the process; what messages carry stays in memory.
flwr 1.41.0 is pinned; `tests/fl_server/test_superlink.py` holds it to what is relied on here.
"""

import os
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.server.superlink.linkstate import LinkStateFactory, SqlLinkState
from flwr.supercore.date import now
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.state.schema.corestate_models import ObjectPushSession, ObjectPushSessionRoot
from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes, Node
from flwr.supercore.utils import uint64_to_int64
from flwr.superlink.federation import NoOpFederationManager
from sqlalchemy import delete, event, select

LOCK_SECONDS = 30
"""For which a request waits for its turn to write."""


class LinkState(SqlLinkState):
    """Flower's, over a database file and objects in memory."""

    @classmethod
    def open(cls, database: Path) -> "tuple[LinkState, LinkStateFactory]":
        """The state in a file, made with mode 0600, and the factory with which Flower's own code finds it."""
        database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
        factory = LinkStateFactory(str(database), NoOpFederationManager(), ObjectStoreFactory())
        state = cls(str(database), factory.federation_manager, factory.objectstore_factory.store())
        state.initialize()
        if (engine := state._engine) is not None:
            event.listen(engine, "connect", _wait_longer)
            engine.dispose()  # of connections that were made before
        factory.state_instance = state
        return state, factory

    def get_message_res(self, message_ids: set[str], run_id: int) -> list[Message]:
        """Replies to messages, as Flower's, but none before all of it has arrived.

        The ServerApp would wait for the rest of it, for hours if a device wishes, and for nobody else's meanwhile.
        """
        uploading = _uploading(MessageRes.reply_to_message_id).where(
            MessageRes.reply_to_message_id.in_(message_ids), ObjectPushSession.expires_at > now()
        )
        with self.session() as session:
            return super().get_message_res(message_ids - set(session.scalars(uploading)), run_id)

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
        with self.session() as session:
            session.execute(delete(MessageRes).where(MessageRes.run_id == uint64_to_int64(run_id)))
            session.execute(delete(MessageIns).where(MessageIns.run_id == uint64_to_int64(run_id)))


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
