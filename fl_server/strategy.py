"""Flower's own strategies, fed reply by reply instead of all at once. `fl_server.rounds` makes one per run.

Flower's FedAvg keeps every reply in memory and fails as a whole on one malformed reply. `StreamingAverage` takes its place under
Flower's FedProx, FedAvgM (Hsu et al. 2019) and FedAdam (Reddi et al. 2021), which keep their own arithmetic.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedProx

from common.arrays import Arrays, flatten, l2_norm, unflatten
from common.config import ServerConfig, UploadConfig
from common.errors import PrivacyError, ReplyError, RunError, Stopped
from common.messages import decode_reply, joined
from common.secagg.graph import SMALLEST
from fl_server.aggregate import ClippedMean, Mean, RunningMean, UpdateShape
from fl_server.client_level import ClientLevel
from fl_server.exchange import MOST, reason_of
from fl_server.secure_round import SecureSum

log = logging.getLogger("emofl.server")

AddUp = Callable[[Mapping[int, bytes]], SecureSum]


@dataclass
class Tally:
    """What became of a round's cohort.

    Attributes:
        asked: size of the cohort.
        accepted: updates in the mean.
        left_out: how many replies were left out, by reason.
        norms: L2 norm of each accepted update, where the server sees them; of the mean, where the sum is secure or noisy.
        scored: in federated evaluation, noisy: faces that the model before the round was right about, on each device with its own
            head if it keeps one, and faces.
        histogram: where the round asked for it, noisy: faces of each class.
    """

    asked: int = 0
    accepted: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    norms: list[float] = field(default_factory=list)
    scored: tuple[float, float] | None = None
    histogram: tuple[float, ...] | None = None


class StreamingAverage(FedAvg):
    """FedAvg over updates with equal weights, in memory of one model.

    Before each round `prepare` says who is asked what; `configure_train` and `aggregate_train` are Flower's interface.

    Attributes:
        shape: what a valid update looks like; set once per run.
        budget: of client-level privacy, if there is to be any; set once per run.
        tally: what became of the last round's cohort.
    """

    cohort: Sequence[int] = ()
    content: RecordDict
    shape: UpdateShape
    before: Arrays
    run: str
    upload: UploadConfig
    on_reply: Callable[[Tally], None]
    add_up: AddUp
    digest: bytes
    budget: ClientLevel | None = None
    tally = Tally()

    def prepare(
        self,
        cohort: Sequence[int],
        content: RecordDict,
        before: Arrays,
        run: str,
        upload: UploadConfig,
        on_reply: Callable[[Tally], None],
        add_up: AddUp,
        digest: bytes,
    ) -> None:
        """Set what the next round needs.

        Args:
            cohort: node ids to ask.
            content: what each of them is sent; FedProx's proximal weight is in the request.
            before: the trained parameters before the round.
            run: the run's name, which every reply must carry.
            upload: how updates travel.
            on_reply: told after each reply.
            add_up: where sums are secure, makes the sum of those who trained, given their identity keys by node id.
            digest: of what is asked: what their proofs of identity are for.
        """
        self.cohort, self.content, self.before, self.run, self.upload = cohort, content, before, run, upload
        self.on_reply, self.add_up, self.digest = on_reply, add_up, digest

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """One message per device of the cohort; all share one content."""
        return [Message(self.content, dst_node_id=node, message_type=MessageType.TRAIN) for node in self.cohort]

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Add valid updates as they come; leave out, count and log all others. None when there was no valid one."""
        mean, waiting, ready = self._mean(), set(self.cohort), dict[int, bytes]()
        self.tally = tally = Tally(asked=len(self.cohort))
        for message in replies:
            node = message.metadata.src_node_id
            try:
                if node not in waiting:
                    raise ReplyError("it was not asked, or has answered already")
                waiting.discard(node)
                if message.has_error():
                    raise ReplyError(f"error {message.error.code} stands in its place")
                reply, update = decode_reply(message.content, self.shape.shapes, self.upload)
                if reply.status == "refused":
                    tally.left_out[reply.reason or "refused"] += 1
                    log.info("round %d: device %d refused: %s", server_round, node, reply.reason)
                elif (reply.run, reply.round) != (self.run, server_round):
                    raise ReplyError("it answers another round")
                elif self.upload.secure:
                    ready[node] = _new(joined(reply, self.digest), ready)
                    tally.accepted += 1
                else:
                    norm = mean.add(update)
                    if self.budget is None:  # a client-level promise does not cover it
                        tally.norms.append(norm)
                    tally.accepted += 1
            except ReplyError as error:
                tally.left_out[reason_of(message)] += 1
                log.warning("round %d: the reply of device %d is left out: %s", server_round, node, error)
            self.on_reply(tally)
        if waiting:
            tally.left_out["no-answer"] += len(waiting)
        moved = self._secure_mean(server_round, ready) if self.upload.secure else mean.mean() if mean.count else None
        if moved is None:
            return None, None
        if self.budget is not None and not self.upload.secure:
            tally.norms = [l2_norm(flatten(moved))]
        return ArrayRecord({name: Array(self.before[name] + moved[name]) for name in self.before}), None

    def _secure_mean(self, server_round: int, ready: dict[int, bytes]) -> Arrays | None:
        """What the devices that trained have learned on average; the tally loses those who are not in it."""
        self.tally.accepted = 0
        if len(ready) < SMALLEST:
            log.warning("round %d: %d devices trained; a secure sum needs %d", server_round, len(ready), SMALLEST)
            self.tally.left_out += Counter({"no-sum": len(ready)})
            return None
        try:
            found = self.add_up(ready)
            self.tally.scored, self.tally.histogram = found.decoded.scored, found.decoded.histogram  # paid for, whatever follows
            mean = self.budget.release(found) if self.budget else found.decoded.total / found.survivors
            norm = l2_norm(mean)
            if self.budget is None and norm > self.shape.max_norm:
                raise RunError(f"the mean's norm is {norm:.3g}; at most {self.shape.max_norm:g} is accepted")
        except Stopped:
            raise
        except (RunError, PrivacyError) as error:
            log.warning("round %d: %s", server_round, error)
            self.tally.left_out["no-sum"] += len(ready)
            return None
        self.tally.accepted = found.survivors
        self.tally.left_out += found.left_out
        self.tally.norms = [norm]
        return unflatten(mean.astype(np.float32), self.shape.shapes)

    def most_have(self) -> bool:
        """Whether most of the devices that have not refused have trained: only they say how long training takes."""
        able = self.tally.asked - self.tally.left_out.total()
        return able > 0 and self.tally.accepted >= MOST * able

    def _mean(self) -> Mean:
        if self.budget is None or self.upload.secure:
            return RunningMean(self.shape)
        return ClippedMean(self.shape, self.budget.central_sum(), self.budget.release_central)


def _new(identity: bytes, taken: Mapping[int, bytes]) -> bytes:
    if identity in taken.values():
        raise ReplyError("it shows another device's identity")
    return identity


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
