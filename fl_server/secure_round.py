"""The server's part in a secure sum over Flower: asks the devices that trained step by step, and learns the sum of their updates.

`fl_server.strategy` calls `SecureRound.sum` once all devices of a cohort have trained. The protocol is `common.secagg.server`.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from flwr.app import Message, MessageType, RecordDict

from common.errors import IntegrityError, ReplyError
from common.messages import Step, SumHeader, decode_sum, encode_sum
from common.secagg.server import Server
from common.secagg.wire import Advertisement, Confirmation, MaskedInput, Shares, Terms, Unmasking, WireMessage
from common.sum_encoding import DecodedSum, SumEncoding
from fl_server.exchange import MOST, Exchange, reason_of

log = logging.getLogger("emofl.server")

M = TypeVar("M", bound=WireMessage)

PATIENCE = 5.0
"""As `Exchange.ask`, in steps of a few bytes; a whole masked update may take long on a slow link."""


class _Refused(ReplyError):
    """The device goes no further.

    Attributes:
        reason: its code.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"It refuses ({reason}).")
        self.reason = reason


@dataclass(frozen=True)
class SecureSum:
    """What a secure sum gives.

    Attributes:
        decoded: the sum of the survivors' updates, as the request had them encoded.
        survivors: how many they are.
        left_out: devices that had trained and are not in it, by reason.
        members: devices that had trained; they agreed on its terms.
    """

    decoded: DecodedSum
    survivors: int
    left_out: Counter[str]
    members: int


class SecureRound:
    """One secure sum.

    Args:
        ready: identity key (32 bytes) of each device that trained, by node id.
        digest: what the devices must agree on, as `TrainRequest.digest` gives it.
        encoding: of an update.
        step_timeout: seconds that each step waits.
    """

    def __init__(
        self,
        exchange: Exchange,
        ready: Mapping[int, bytes],
        run: str,
        round_number: int,
        digest: bytes,
        encoding: SumEncoding,
        step_timeout: float,
    ) -> None:
        self._exchange, self._run, self._round = exchange, run, round_number
        self._encoding, self._timeout = encoding, step_timeout
        length = encoding.vector_length
        self._nodes = sorted(ready, key=lambda node: ready[node])
        self._member = {node: member for member, node in enumerate(self._nodes)}
        cohort = tuple(ready[node] for node in self._nodes)
        self._terms = Terms(run, round_number, length, digest, cohort, encoding.width(len(cohort)))
        self._server = Server(self._terms)
        self._most = 4 * length + 512 * len(ready) + 4096
        self._left_out: Counter[str] = Counter()

    def sum(self) -> SecureSum:
        """Ask the devices for all steps.

        Raises:
            RunError: too few went along, or the run was stopped; nothing is known of any update.
        """
        server, everybody = self._server, range(len(self._nodes))
        self._ask("advertise", dict.fromkeys(everybody, self._terms), Advertisement, server.add_advertisement)
        directory = server.close_advertising()
        told = dict.fromkeys((member for member, _ in directory.entries), directory)
        self._ask("share", told, Shares, server.add_shares)
        self._ask("mask", server.close_sharing(), MaskedInput, server.add_masked)
        lists = server.close_masking()
        self._left_out["no-answer"] += len(everybody) - len(lists) - self._left_out.total()
        survived = self._left_out.copy()
        confirmed = self._ask("confirm", lists, Confirmation, server.add_confirmation)
        quorum = server.close_confirming()
        self._ask("unmask", dict.fromkeys(confirmed, quorum), Unmasking, server.add_unmasking, server.can_finish)
        found = server.finish()
        return SecureSum(self._encoding.decode(found.total, self._terms), len(found.survivors), +survived, len(everybody))

    def _ask(
        self,
        step: Step,
        messages: Mapping[int, WireMessage],
        kind: type[M],
        add: Callable[[M], None],
        enough: Callable[[], bool] = lambda: False,
    ) -> list[int]:
        """Give each member its message and the server machine what they answer; the members whose answer held."""
        header, made = SumHeader(run=self._run, round=self._round, step=step), dict[int, RecordDict]()

        def contents() -> Iterator[Message]:
            for member, message in messages.items():
                if id(message) not in made:  # some steps have one message for all
                    made[id(message)] = encode_sum(header, message.encode())
                yield Message(made[id(message)], dst_node_id=self._nodes[member], message_type=MessageType.TRAIN)

        answered: list[int] = []
        patience = math.inf if step == "mask" else PATIENCE
        for reply in self._exchange.ask(contents(), self._timeout, patience, lambda: len(answered) >= MOST * len(messages)):
            node = reply.metadata.src_node_id
            try:
                message = self._read(reply, node, header, kind)
                add(message)
                answered.append(self._member[node])
            except (ReplyError, IntegrityError) as error:
                reason = error.reason if isinstance(error, _Refused) else reason_of(reply)
                self._left_out[reason] += 1
                log.warning("round %d: device %d is left out at step %s: %s", self._round, node, step, error)
            if enough():
                break
        return answered

    def _read(self, reply: Message, node: int, header: SumHeader, kind: type[M]) -> M:
        if reply.has_error():
            raise ReplyError(f"Error {reply.error.code} stands in its place.")
        given, content = decode_sum(reply.content, self._most)
        if given.model_copy(update={"reason": None}) != header:
            raise ReplyError("It answers another step.")
        if given.reason is not None:
            raise _Refused(given.reason)
        message = kind.decode(content)
        if getattr(message, "member", None) != self._member.get(node):
            raise ReplyError("It answers for another device.")
        return message
