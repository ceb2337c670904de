"""The rounds of a run: choose a cohort, ask, add up, evaluate, keep, publish. `fl_server.app` calls `Rounds.execute`."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.serverapp import Grid
from torch import nn

from common.arrays import Arrays, pack
from common.canonical import encode
from common.config import ClientLevelRequest, RunConfig
from common.errors import ModelError, RunError
from common.files import write_atomic
from common.messages import TrainRequest, encode_request
from common.parameters import read_parameters, write_parameters
from common.sum_encoding import sum_encoding
from fl_server.aggregate import UpdateShape
from fl_server.average import follow
from fl_server.checkpoint import Checkpoint, config_digests
from fl_server.client_level import ClientLevel
from fl_server.cohort import Cohort, draw_cohort
from fl_server.exchange import Exchange
from fl_server.secure_round import SecureRound, SecureSum
from fl_server.strategy import StreamingAverage, Tally, load_state, make_strategy, save_state
from models.evaluate import Evaluation, evaluate
from models.faces.faceset import FaceSet
from models.frozen import FeatureCache
from models.mobilenet import build_model
from models.preprocess import Preprocessing
from models.subset import select_trainable, shared_names

log = logging.getLogger("emofl.server")

CHECKPOINT, METRICS = "checkpoint.safetensors", "metrics.jsonl"


@dataclass(frozen=True)
class Accepted:
    """A global model that a round produced.

    Attributes:
        round: 0 for the model before the first round.
        weights: all its parameters.
        tally: what became of the cohort.
        evaluation: on the public set, if there is one.
        histogram: faces of each class, as the devices told, noisy in a private run alone; None before they did.
    """

    round: int
    weights: Arrays
    tally: Tally
    evaluation: Evaluation | None
    histogram: dict[str, float] | None = None


@dataclass(frozen=True)
class Observers:
    """Who is told what, while a run goes on.

    Attributes:
        on_reply: after each reply of a round: round number and tally.
        annotate: what to add to a round's record, by round number.
        on_round: after each round's checkpoint: its record as in metrics.jsonl.
        publish: makes an accepted model public.
        published: the last round of this run that is public, None where nothing is published at all.
    """

    on_reply: Callable[[int, Tally], None] = lambda number, tally: None
    annotate: Callable[[int], dict[str, Any]] = lambda number: {}
    on_round: Callable[[dict[str, Any]], None] = lambda record: None
    publish: Callable[[Accepted], None] = lambda accepted: None
    published: Callable[[], int | None] = lambda: None


def class_counts(history: Iterable[dict[str, Any]]) -> dict[str, float] | None:
    """What a round's class histogram said, if one did; no count is below 1."""
    return next((record["class_counts"] for record in history if record.get("class_counts")), None)


@dataclass
class Rounds:
    """One run on the server.

    Attributes:
        config: the run's configuration.
        run: its name.
        folder: where its checkpoint and metrics live.
        evaluation_faces: the public set, or None.
        order: brings node ids into a stable order, so that a seed chooses the same devices after a restart.
        secret_sampling: choose cohorts from the system's randomness instead of the seed (deployment).
        poll: seconds between looks for replies.
        stopped: asked now and then; True ends the run with what the last checkpoint holds.
    """

    config: RunConfig
    run: str
    folder: Path
    evaluation_faces: FaceSet | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    observers: Observers = field(default_factory=Observers)
    order: Callable[[Iterable[int]], Sequence[int]] = sorted
    secret_sampling: bool = False
    poll: float = 0.02
    stopped: Callable[[], bool] = lambda: False
    _features: FeatureCache = field(default_factory=FeatureCache, init=False, repr=False)

    def initial_model(self, weights: Arrays | None = None) -> nn.Module:
        """The model before round 1: from `weights`, or fresh from the run's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            model = build_model(self.config.model)
        if weights is not None:
            write_parameters(model, weights)
        return model

    def open_checkpoint(self, weights: Arrays | None = None) -> Checkpoint:
        """The run's checkpoint if it has one, else a fresh one from `weights` or the seed.

        Raises:
            RunError: the checkpoint is of another run or configuration.
        """
        digests = config_digests(self.config)
        path = self.folder / CHECKPOINT
        if not path.exists():
            return Checkpoint(self.run, digests, 0, read_parameters(self.initial_model(weights)))
        checkpoint = Checkpoint.load(path)
        if checkpoint.run != self.run or not set(digests) & set(checkpoint.config_digests):
            raise RunError(f"{self.folder} holds a run of another configuration; choose another folder or resume with its own.")
        checkpoint.config_digests = digests
        return checkpoint

    def execute(self, grid: Grid, weights: Arrays | None = None) -> Checkpoint:
        """Run from the checkpoint, or from `weights`, to the last round."""
        state = self.open_checkpoint(weights)
        model = self.initial_model(state.weights)
        names = shared_names(select_trainable(model, self.config.model.trainable), self.config.train.local_layers)
        strategy = make_strategy(self.config.server, self.config.train.proximal_mu)
        strategy.shape = UpdateShape({name: state.weights[name].shape for name in names}, self.config.server.max_update_norm)
        strategy.budget = self._budget(state, strategy.shape.size)
        load_state(strategy, state.server_state, {name: state.weights[name] for name in names})
        if not state.history:
            scores = self._evaluate(model)
            state.history.append(self._record(0, Tally(), scores, 0.0))
            self._keep(state, Accepted(0, state.weights, Tally(), scores))
        else:
            self._write_metrics(state)
            self._publish_what_a_crash_left(state, model)
        exchange = Exchange(grid, self.poll, self.stopped)
        while state.round < self.config.server.rounds:
            began = time.monotonic()
            accepted = self._one_round(exchange, strategy, state)
            public = state.shown()
            write_parameters(model, public)
            scores = self._evaluate(model)
            state.round += 1
            record = self._record(state.round, strategy.tally, scores, time.monotonic() - began)
            if strategy.budget is not None:
                record |= {"client_epsilon": round(strategy.budget.epsilon(), 4), "client_level": strategy.budget.cost}
            state.history.append(record)
            found = Accepted(state.round, public, strategy.tally, scores, class_counts(state.history))
            self._keep(state, found if accepted else None)
        return state

    def _one_round(self, exchange: Exchange, strategy: StreamingAverage, state: Checkpoint) -> bool:
        """Ask a cohort and move `state` by what it answers; False, and no move, if too few did."""
        number = state.round + 1
        # 1. Choose the cohort, and what each of its devices is asked.
        cohort = self._choose(exchange.grid, number)
        nodes = cohort.nodes
        wish = strategy.budget.begin(state.round, len(nodes), cohort.devices) if strategy.budget else None
        start = {name: state.weights[name] for name in strategy.shape.shapes}
        weights = pack(state.weights)
        counts = class_counts(state.history)
        request = self._request(number, cohort.participations, wish, counts)
        digest = request.digest(weights)

        def add_up(ready: Mapping[int, bytes]) -> SecureSum:
            scored, classes = self.config.evaluation.federated, request.counted_classes
            encoding = sum_encoding(strategy.shape.size, self.config.upload, wish, scored, classes)
            timeout = self.config.upload.step_timeout
            return SecureRound(exchange, ready, self.run, number, digest, encoding, timeout).sum()

        told = partial(self.observers.on_reply, number)
        strategy.prepare(nodes, encode_request(request, weights), start, self.run, self.config.upload, told, add_up, digest)
        # 2. Ask, and add up what comes.
        before = ArrayRecord({name: Array(value) for name, value in start.items()})
        timeout, patience = self.config.server.round_timeout, self.config.server.patience
        messages = strategy.configure_train(number, before, ConfigRecord(), exchange.grid)
        after, _ = strategy.aggregate_train(number, exchange.ask(messages, timeout, patience, strategy.most_have))
        # 3. Accept the new model if enough devices are in it.
        if after is None or strategy.tally.accepted < self.config.fewest_updates:
            log.warning("round %d: %d of %d updates, too few: the model stays", number, strategy.tally.accepted, len(nodes))
            load_state(strategy, state.server_state, start)
            return False
        state.weights = state.weights | {name: np.asarray(array.numpy(), dtype=np.float32) for name, array in after.items()}
        average = follow(state.weights, state.server_state, self.config.server.ema, state.round)
        state.server_state = save_state(strategy) | average
        return True

    def _keep(self, state: Checkpoint, accepted: Accepted | None) -> None:
        state.save(self.folder / CHECKPOINT)
        self._write_metrics(state)
        if accepted is not None:
            self._publish(accepted)
        self.observers.on_round(state.history[-1])

    def _write_metrics(self, state: Checkpoint) -> None:
        write_atomic(self.folder / METRICS, b"".join(encode(record) for record in state.history))

    def _publish_what_a_crash_left(self, state: Checkpoint, model: nn.Module) -> None:
        """The checkpoint comes before the publication, so a crash between them leaves a model that nobody can see."""
        last, public = state.history[-1], self.observers.published()
        accepted = state.round == 0 or last["accepted"] >= self.config.fewest_updates
        if public is not None and public < state.round and accepted:
            tally = Tally(asked=last["asked"], accepted=last["accepted"])
            weights = state.shown()
            write_parameters(model, weights)
            self._publish(Accepted(state.round, weights, tally, self._evaluate(model), class_counts(state.history)))

    def _publish(self, accepted: Accepted) -> None:
        try:
            self.observers.publish(accepted)
        except ModelError as error:
            log.error("round %d is not published: %s", accepted.round, error)

    def _choose(self, grid: Grid, number: int) -> Cohort:
        nodes = list(self.order(grid.get_node_ids()))
        while len(nodes) < self.config.fewest_updates:
            if self.stopped():
                raise RunError("The run was stopped while it waited for devices.")
            time.sleep(4 * self.poll)
            nodes = list(self.order(grid.get_node_ids()))
        return draw_cohort(self.config, number, nodes, self.secret_sampling)

    def _budget(self, state: Checkpoint, length: int) -> ClientLevel | None:
        costs = [record["client_level"] for record in state.history if record.get("client_level")]
        return ClientLevel.resume(self.config.client_level, length, self.config.server.rounds, costs)

    def _request(
        self, number: int, participations: int, wish: ClientLevelRequest | None, counts: dict[str, float] | None
    ) -> TrainRequest:
        asked, train = self.config.evaluation, self.config.train
        missing = asked.class_histogram and counts is None
        if asked.class_histogram and counts is not None and train.loss != "cross-entropy":
            train = train.model_copy(update={"class_counts": counts})
        elif asked.class_histogram and train.needs_counts:  # until the histogram is there, no class weighs more than another
            train = train.model_copy(update={"loss": "cross-entropy"})
        return TrainRequest(
            run=self.run,
            round=number,
            rounds=self.config.server.rounds,
            participations=participations,
            model=self.config.model,
            train=train,
            privacy=self.config.privacy,
            upload=self.config.upload,
            evaluation_noise=asked.noise_multiplier if asked.federated else None,
            histogram_noise=asked.noise_multiplier if missing else None,
            client_level=wish,
            preprocessing=self.preprocessing.model_dump(),
        )

    def _evaluate(self, model: nn.Module) -> Evaluation | None:
        if self.evaluation_faces is None:
            return None
        return evaluate(model, self.evaluation_faces, self.preprocessing, features=self._features)

    def _record(self, number: int, tally: Tally, scores: Evaluation | None, seconds: float) -> dict[str, Any]:
        record: dict[str, Any] = {
            "round": number,
            "asked": tally.asked,
            "accepted": tally.accepted,
            "left_out": dict(sorted(tally.left_out.items())),
            "update_norm": round(float(np.mean(tally.norms)), 6) if tally.norms else None,
            "seconds": round(seconds, 3),
        }
        if tally.scored is not None:
            right, faces = tally.scored
            record["federated_accuracy"] = min(1.0, max(0.0, right / faces)) if faces > 0 else None
        if tally.histogram is not None:
            names = self.config.model.classes
            record["class_counts"] = {name: max(1.0, count) for name, count in zip(names, tally.histogram, strict=True)}
        if scores is not None:
            record |= {
                "accuracy": scores.accuracy,
                "balanced_accuracy": scores.balanced_accuracy,
                "loss": scores.loss if math.isfinite(scores.loss) else None,
                "evaluated_on": scores.examples,
            }
        return record | self.observers.annotate(number)
