"""One device: its faces, its ledger, its policy, and its answer when a server asks for a round. `fl_client.app` calls it."""

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from torch import nn

from common.config import ModelConfig, PrivacyConfig
from common.errors import EmoflError, ModelError, PrivacyError
from common.messages import Arrays, Refusal, TrainReply, TrainRequest
from common.parameters import write_parameters
from common.privacy.accountant import Release, calibrate_noise, spent_epsilon
from common.privacy.ledger import Ledger
from common.privacy.mechanisms import SecureRandom
from fl_client.policy import Policy
from fl_client.train import Plan, make_plan, train_locally
from models.faces.faceset import FaceSet
from models.isolation import refuse_mixed_examples
from models.mobilenet import build_model
from models.preprocess import Preprocessing
from models.subset import select_trainable

log = logging.getLogger("emofl.client")

DROWNED = 2.0
"""A round asked beyond the run's plan is refused once it would need this many times the noise the run began with."""


class ModelCache(threading.local):
    """One network per worker thread and configuration, never one per device; weights are written in before each use."""

    def __init__(self) -> None:
        self._models: dict[ModelConfig, nn.Module] = {}

    def get(self, config: ModelConfig) -> nn.Module:
        """The network of `config`, its trainable subset selected."""
        if config not in self._models:
            model = build_model(config)
            refuse_mixed_examples(model)
            self._models = {config: model}
        select_trainable(self._models[config], config.trainable)
        return self._models[config]


@dataclass(frozen=True)
class Device:
    """What a ClientApp needs to answer for one device.

    Attributes:
        faces: gives the device's training faces, prepared as the request says; called when they are needed.
        ledger: path of the device's own ledger file.
        seed: of shuffling and augmentation, never of noise or of Poisson batches.
        random: makes the source of noise and of Poisson batches.
        now: the clock, UTC.
    """

    faces: Callable[[Preprocessing], FaceSet]
    ledger: Path
    policy: Policy
    models: ModelCache
    seed: int = 0
    random: Callable[[], SecureRandom] = field(default=SecureRandom)
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def answer(self, request: TrainRequest, weights: Arrays) -> tuple[TrainReply, Arrays | None]:
        """Take part in one round, or refuse with a reason code. Server sees: the reply and the noisy update only."""
        # 1. The device's own rules and data.
        preprocessing = Preprocessing.model_validate(request.preprocessing)
        faces = self.faces(preprocessing)
        if len(faces) == 0:
            return self._refuse(request, "no-data", "There are no faces to train on.")
        if objection := self.policy.objection(request.privacy, len(faces)):
            return self._refuse(request, "policy", objection)
        # 2. A plan that depends on the coarse number of faces, not on what they show; and a model that can be trained at all.
        plan = make_plan(request.train, len(faces), request.round, request.rounds)
        if objection := self.policy.too_much(plan.steps, plan.sampling.expected_batch):
            return self._refuse(request, "policy", objection)
        try:
            model = self.models.get(request.model)
            write_parameters(model, weights)
        except ModelError as error:
            return self._refuse(request, "bad-request", str(error))
        if request.model.classes != faces.classes:
            return self._refuse(request, "bad-request", "The server asks for other emotions than these faces are labelled with.")
        # 3. The budget: look and debit in one go, durable before anything is computed.
        try:
            with Ledger(self.ledger).locked() as ledger:
                release = self._release(ledger, request, plan) if request.privacy.private else None
                ledger.debit(release, run=request.run, round_number=request.round, now=self.now())
        except PrivacyError as error:
            return self._refuse(request, "budget-spent", str(error))
        # 4. Training.
        update = train_locally(
            model,
            weights,
            faces,
            plan,
            request.train,
            preprocessing,
            privacy=request.privacy,
            release=release,
            random=self.random(),
            seed=self._seed(request),
        )
        return TrainReply(run=request.run, round=request.round, status="trained"), update

    def _release(self, ledger: Ledger, request: TrainRequest, plan: Plan) -> Release:
        """The noise for this round: what the run began with as long as the planned rest fits, more if it no longer does."""
        wish: PrivacyConfig = request.privacy
        if not ledger.all_private:
            raise PrivacyError("These faces were once used without privacy, so no epsilon holds for them any more.")
        earlier = [e.release for e in ledger.entries if e.run == request.run and e.release is not None]
        steps = plan.steps * max(1, request.participations - len(earlier))
        rate = plan.sampling.rate
        if earlier:
            same = Release(earlier[-1].noise_multiplier, rate, steps)
            if spent_epsilon([*ledger.releases, same], wish.delta, wish.accountant) <= wish.epsilon:
                return Release(same.noise_multiplier, rate, plan.steps)
        sigma = calibrate_noise(ledger.releases, rate, steps, wish.epsilon, wish.delta, wish.accountant)
        if earlier and sigma > DROWNED * earlier[0].noise_multiplier:
            raise PrivacyError(
                f"Epsilon {wish.epsilon:g} is all but spent: {ledger.epsilon(wish.delta, wish.accountant):.3f} used, and one "
                f"more round would need {sigma / earlier[0].noise_multiplier:.1f} times the noise."
            )
        return Release(sigma, rate, plan.steps)

    def _refuse(self, request: TrainRequest, reason: Refusal, sentence: str) -> tuple[TrainReply, None]:
        log.warning("round %d refused (%s): %s", request.round, reason, sentence)
        return TrainReply(run=request.run, round=request.round, status="refused", reason=reason), None

    def _seed(self, request: TrainRequest) -> int:
        text = f"{self.seed}/{request.round}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])


def answer_safely(device: Device, request: TrainRequest, weights: Arrays) -> tuple[TrainReply, Arrays | None]:
    """As `Device.answer`, with any error of the device turned into a refusal whose text stays here."""
    try:
        return device.answer(request, weights)
    except EmoflError as error:
        log.error("round %d failed: %s", request.round, error)
    except Exception:
        log.exception("round %d failed", request.round)
    return TrainReply(run=request.run, round=request.round, status="refused", reason="failed"), None
