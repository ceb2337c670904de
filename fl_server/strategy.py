"""Flower's own strategies, fed reply by reply instead of all at once. `fl_server.rounds` makes one per run.

Flower's FedAvg keeps every reply in memory and fails as a whole on one malformed reply. `StreamingAverage` takes its place under
Flower's FedProx, FedAvgM (Hsu et al. 2019) and FedAdam (Reddi et al. 2021), which keep their own arithmetic.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedProx

from common.config import ServerConfig
from common.errors import ReplyError
from common.messages import Arrays, decode_reply
from fl_server.aggregate import RunningMean, UpdateShape

log = logging.getLogger("emofl.server")


@dataclass
class Tally:
    """What became of a round's cohort.

    Attributes:
        asked: size of the cohort.
        accepted: updates in the mean.
        left_out: how many replies were left out, by reason.
        norms: L2 norm of each accepted update.
    """

    asked: int = 0
    accepted: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    norms: list[float] = field(default_factory=list)


class StreamingAverage(FedAvg):
    """FedAvg over updates with equal weights, in memory of one model.

    Before each round `prepare` says who is asked what; `configure_train` and `aggregate_train` are Flower's interface.

    Attributes:
        shape: what a valid update looks like; set once per run.
        tally: what became of the last round's cohort.
    """

    cohort: Sequence[int] = ()
    content: Callable[[float], RecordDict]
    shape: UpdateShape
    before: Arrays
    run: str
    on_reply: Callable[[Tally], None]
    tally = Tally()

    def prepare(
        self,
        cohort: Sequence[int],
        content: Callable[[float], RecordDict],
        before: Arrays,
        run: str,
        on_reply: Callable[[Tally], None],
    ) -> None:
        """Set what the next round needs.

        Args:
            cohort: node ids to ask.
            content: message content, given FedProx's proximal weight (0 for the others).
            before: the trained parameters before the round.
            run: the run's name, which every reply must carry.
            on_reply: told after each reply.
        """
        self.cohort, self.content, self.before, self.run, self.on_reply = cohort, content, before, run, on_reply

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """One message per device of the cohort; all share one content."""
        mu = config.get("proximal-mu", 0.0)
        content = self.content(mu if isinstance(mu, float) else 0.0)
        return [Message(content, dst_node_id=node, message_type=MessageType.TRAIN) for node in self.cohort]

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Add valid updates as they come; leave out, count and log all others. None when there was no valid one."""
        mean, waiting = RunningMean(self.shape), set(self.cohort)
        self.tally = Tally(asked=len(self.cohort))
        for message in replies:
            node = message.metadata.src_node_id
            try:
                if node not in waiting:
                    raise ReplyError("it was not asked, or has answered already")
                waiting.discard(node)
                if message.has_error():
                    raise ReplyError(f"Flower reports error {message.error.code}")
                reply, update = decode_reply(message.content, self.shape.shapes)
                if reply.status == "refused":
                    self.tally.left_out[reply.reason or "refused"] += 1
                    log.info("round %d: device %d refused: %s", server_round, node, reply.reason)
                elif (reply.run, reply.round) != (self.run, server_round):
                    raise ReplyError("it answers another round")
                else:
                    self.tally.norms.append(mean.add(update))
                    self.tally.accepted += 1
            except ReplyError as error:
                self.tally.left_out["malformed" if not message.has_error() else "error"] += 1
                log.warning("round %d: the reply of device %d is left out: %s", server_round, node, error)
            self.on_reply(self.tally)
        if waiting:
            self.tally.left_out["no-answer"] += len(waiting)
        if mean.count == 0:
            return None, None
        moved = mean.mean()
        return ArrayRecord({name: Array(self.before[name] + moved[name]) for name in self.before}), None


class _Prox(FedProx, StreamingAverage):
    pass


class _AvgM(FedAvgM, StreamingAverage):
    pass


class _Adam(FedAdam, StreamingAverage):
    pass


ServerState = dict[str, np.ndarray]
"""What a server optimiser carries from round to round, as arrays by name."""


def make_strategy(config: ServerConfig, proximal_mu: float) -> StreamingAverage:
    """The strategy that `config` names; FedAvgM and FedAdam take their own default learning rates (1.0 and 0.01)."""
    if config.strategy == "fedprox":
        return _Prox(proximal_mu=proximal_mu)
    if config.strategy == "fedavgm":
        rate = config.server_learning_rate or 1.0
        return _AvgM(server_learning_rate=rate, server_momentum=config.server_momentum)
    if config.strategy == "fedadam":
        rate = config.server_learning_rate or 0.01
        return _Adam(eta=rate, beta_1=config.server_momentum, beta_2=0.99)
    return StreamingAverage()


def save_state(strategy: StreamingAverage) -> ServerState:
    """The strategy's memory, for a checkpoint."""
    state: ServerState = {}
    if isinstance(strategy, FedAdam):
        for kind, values in (("m", strategy.m_t), ("v", strategy.v_t)):
            state |= {f"{kind}/{name}": value for name, value in (values or {}).items()}
    elif isinstance(strategy, FedAvgM) and strategy.momentum_vector is not None:
        names = list(strategy.shape.shapes)
        state = {f"momentum/{name}": value for name, value in zip(names, strategy.momentum_vector, strict=True)}
    return state


def load_state(strategy: StreamingAverage, state: ServerState, start: Arrays) -> None:
    """Give a fresh strategy the memory of `save_state`; `start` are the trained parameters now."""

    def part(kind: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(f"{kind}/"): value for name, value in state.items() if name.startswith(f"{kind}/")}

    if isinstance(strategy, FedAdam):
        strategy.m_t, strategy.v_t = part("m") or None, part("v") or None
    elif isinstance(strategy, FedAvgM):
        strategy.current_arrays = ArrayRecord({name: Array(value) for name, value in start.items()})
        momentum = part("momentum")
        strategy.momentum_vector = [momentum[name] for name in start] if momentum else None
