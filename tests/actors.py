"""A device process that plays a part, for integration tests: `python -m tests.actors`, told by its environment.

It is the real node process; only training is replaced by a constant update, and one thing may go wrong on purpose.
Variables: EMOFL_NODE as for the real one; VALUE, the update in every place; FAULT, `what@step`, such as `die@mask` or
`hang@train`; ROUND, the round in which it happens, every round without it; OTHER, another device's node id.
"""

import json
import logging
import os
import signal
import time
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.app.message import remove_content_from_message

from common.arrays import Arrays, flatten, unpack
from common.messages import SumHeader, TrainReply, TrainRequest, encode_sum, joining
from common.sum_encoding import sum_encoding
from fl_client import app, folder_device, node_process, supernode
from fl_client.device import Device
from fl_client.secure_sum import Waiting
from tests.forged import SHAPES, forge

log = logging.getLogger("emofl.client")
WHAT, _, STEP = os.environ.get("FAULT", "").partition("@")


def now(step: str, number: int) -> bool:
    """Whether it goes wrong here."""
    return step == STEP and os.environ.get("ROUND", str(number)) == str(number)


def act(step: str, number: int) -> None:
    """Die or hang."""
    if now(step, number):
        log.info("%s at %s of round %d", WHAT, step, number)
        if WHAT == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if WHAT == "hang":
            time.sleep(100_000)


def answer(self: Device, request: TrainRequest, packed: bytes) -> tuple[TrainReply, Arrays | None]:
    """In place of `FolderDevice.answer`."""
    act("train", request.round)
    update = {name: np.full_like(array, np.float32(os.environ["VALUE"])) for name, array in unpack(packed).items()}
    reply = TrainReply(run=request.run, round=request.round, status="trained")
    wrong = WHAT if now("train", request.round) else ""
    if wrong == "stale":
        reply = reply.model_copy(update={"round": max(1, request.round - 1), "run": "an-older-run"})
    if wrong == "shape":
        update = {name: np.zeros(3, np.float32) for name in update}
    if wrong == "nan":
        update = {name: np.full_like(array, np.nan) for name, array in update.items()}
    if not request.upload.secure:
        return reply, update
    flat, identity = flatten(update), self.identity()
    encoding = sum_encoding(len(flat), request.upload, request.client_level)
    self.sums.keep(request.run, request.round, self.number, Waiting(flat, request.digest(packed), encoding, identity))
    joined = joining(request, identity, request.digest(packed))
    return joined.model_copy(update={"run": reply.run, "round": reply.round}), None


class Replayed(dict[str, bytes]):
    """What was sent in each step before."""


def actor(real: Any, replayed: Replayed) -> Any:
    """`Device.add_up`, with what goes wrong."""

    def add_up(self: Device, header: SumHeader, message: bytes) -> tuple[SumHeader, bytes | None]:
        act(header.step, header.round)
        reply, content = real(self, header, message)
        if content is not None and now(header.step, header.round):
            if WHAT == "garbage":
                content = os.urandom(len(content))
            elif WHAT == "replay":
                content = replayed.get(header.step, content)
        if content is not None:
            replayed.setdefault(header.step, content)
        return reply, content

    return add_up


OTHER = int(os.environ.get("OTHER", "0")) % 2**64
"""Another device's node id; the database has it with a sign."""


def stranger(real: Any) -> Any:
    """Flower's reply in another device's name."""

    def deliver(self: Any, reply: Message) -> None:
        reply.metadata.__dict__["_src_node_id"] = OTHER
        real(self, reply)

    return deliver


def forger(self: Any, reply: Message) -> None:
    """In place of `_Node._deliver`: a reply of the device's own making, of the shape that WHAT says."""
    made = forge(WHAT, reply, OTHER)
    reply.metadata.__dict__["_message_id"] = made.tree.object_id
    wanted, session = self._send(remove_content_from_message(reply), made.tree, 0.0)
    for name, content in made.parts.items():
        if name in wanted:
            self._push(reply.metadata.run_id, session, name, content)


def nonsense(message: Message, context: Context) -> Message:
    """In place of the whole app: records that nobody asked for, with numbers that should stay on the device."""
    content = RecordDict({"metrics": ConfigRecord({"num-examples": 17, "loss": 0.5})})
    if "sum" in message.content:
        header = SumHeader.model_validate_json(str(message.content["sum"]["json"]))
        content = encode_sum(header, b"")
        content["metrics"] = ConfigRecord({"num-examples": 17})
    return Message(content, reply_to=message)


def main() -> None:
    """Play the part."""
    setattr(folder_device.FolderDevice, "answer", answer)  # noqa: B010
    setattr(Device, "add_up", actor(Device.add_up, Replayed()))  # noqa: B010
    if WHAT == "name":
        setattr(supernode._Node, "_deliver", stranger(supernode._Node._deliver))  # noqa: B010
    if WHAT in SHAPES:
        setattr(supernode._Node, "_deliver", forger)  # noqa: B010
    if WHAT == "nonsense":
        setattr(folder_device, "build_client_app", lambda open_device: nonsense)  # noqa: B010
    json.loads(os.environ["EMOFL_NODE"])
    node_process.main()


if __name__ == "__main__":
    assert app
    main()
