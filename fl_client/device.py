"""One device: its faces, its ledger, its policy, and its answer when a server asks for a round. `fl_client.app` calls it."""

import hashlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from common.arrays import Arrays, flatten, unpack
from common.config import PrivacyConfig
from common.emotions import EMOTIONS_7, EMOTIONS_8
from common.errors import ConfigError, EmoflError, ModelError, PrivacyError, ReplyError
from common.identity import SigningKey
from common.messages import Refusal, SumHeader, TrainReply, TrainRequest, joining
from common.parameters import write_parameters
from common.privacy.accountant import Release, calibrate_noise, spent_epsilon
from common.privacy.dpsgd.rows import at_once
from common.privacy.ledger import Ledger, LedgerPlace
from common.privacy.mechanisms import SecureRandom
from common.sum_encoding import sum_encoding
from fl_client.client_spending import COUNTS, Promise, run_of, survey_promises
from fl_client.losses import make_loss
from fl_client.model_cache import ModelCache
from fl_client.noisy_counts import count_releases, noisy_counts
from fl_client.own_head import RunHead
from fl_client.policy import Policy
from fl_client.secure_sum import AnyDevice, KnownDevices, SecureSums, Waiting, take_step
from fl_client.train import Plan, coarse_count, make_plan, train_locally
from fl_client.wipes import since_now
from models.faces.faceset import FaceSet
from models.preprocess import Preprocessing

log = logging.getLogger("emofl.client")

LABELLINGS = {tuple(sorted(EMOTIONS_7)), tuple(sorted(EMOTIONS_8))}
"""What a server may ask for. Were it free to choose, the refusals to a few choices would tell which emotions a device holds."""
DROWNED = 2.0
"""A round asked beyond the run's plan is refused once it would need this many times the noise the run began with."""


@dataclass(frozen=True)
class Device:
    """What a ClientApp needs to answer for one device.

    Attributes:
        faces: gives the device's training faces, prepared as the request says; called when they are needed.
        ledger: the device's own ledger file, with its anchor where it has one.
        seed: of shuffling and augmentation, never of noise or of Poisson batches.
        random: makes the source of noise and of Poisson batches.
        now: the clock, UTC.
        identity: this device's key in secure sums.
        known: which other devices it adds up with.
        rounding: by round, what rounds an update to the integers of a secure sum.
        sums: what it keeps between the messages of a round; `number` is its place in there.
        own_head: the file of a head of its own, for runs in which that never leaves the device.
    """

    faces: Callable[[Preprocessing], FaceSet]
    ledger: Path | LedgerPlace
    policy: Policy
    models: ModelCache
    seed: int = 0
    random: Callable[[], SecureRandom] = field(default=SecureRandom)
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    identity: Callable[[], SigningKey] = field(default=SigningKey.generate)
    known: KnownDevices = field(default_factory=AnyDevice)
    rounding: Callable[[int], Callable[[int], bytes]] = field(default=lambda number: secrets.token_bytes)
    sums: SecureSums = field(default_factory=SecureSums)
    number: int = 0
    own_head: Path | None = None

    @property
    def _place(self) -> LedgerPlace:
        return self.ledger if isinstance(self.ledger, LedgerPlace) else LedgerPlace(self.ledger)

    def answer(self, request: TrainRequest, packed: bytes) -> tuple[TrainReply, Arrays | None]:
        """Take part in one round, or refuse with a reason code.

        Server sees: the reply, and the noisy update only where the sum is not secure; else the update waits for `add_up`.
        """
        # 1. The request by itself, before any face is looked at: refusals must not say what the faces show.
        if tuple(sorted(request.model.classes)) not in LABELLINGS:
            return self._refuse(
                request, "bad-request", "The server asks for a choice of emotions; this device takes all 7 or all 8."
            )
        try:
            model = self.models.get(request.model)
            weights = unpack(packed)
            write_parameters(model, weights)
            make_loss(request.train, request.model.classes)
        except (ModelError, ReplyError, ConfigError) as error:
            return self._refuse(request, "bad-request", str(error))
        wish = request.client_level
        if contradiction := _contradiction(request):
            return self._refuse(request, "bad-request", contradiction)
        authority = self._place.authority
        if authority is not None and (objection := self.policy.strange_server(authority)):
            return self._refuse(request, "policy", objection)
        preprocessing = Preprocessing.model_validate(request.preprocessing)
        secure, side = request.upload.secure, preprocessing.size
        if objection := self.policy.objection(request.privacy, secure=secure, client_level=wish, side=side):
            return self._refuse(request, "policy", objection)
        # 2. The faces, and a plan that depends on their coarse number alone.
        own = self._own_head(request)
        faces = self.faces(preprocessing)
        if len(faces) == 0:
            return self._refuse(request, "no-data", "There are no faces to train on.")
        if request.model.classes != faces.classes:
            return self._refuse(request, "bad-request", "The server asks for other emotions than these faces are labelled with.")
        plan = make_plan(request.train, len(faces), request.round, request.rounds)
        batch = plan.sampling.expected_batch * request.train.augmentations
        if objection := self.policy.too_much(request.privacy, plan.steps, batch, coarse_count(len(faces)), side):
            return self._refuse(request, "policy", objection)
        if objection := own.objection(weights):
            return self._refuse(request, "failed", objection)
        if request.privacy.private:
            self.models.try_rows(request.model, request.privacy.engine)
        if at_once() and request.privacy.private and request.privacy.engine == "opacus":
            return self._refuse(
                request, "failed", "On this processor the Opacus engine would let faces show in others' gradients."
            )
        # 3. The budget: look and debit in one go, durable before anything is computed.
        try:
            with Ledger(self.ledger).locked() as ledger:
                promise = self._client_level(ledger, request)
                release = self._release(ledger, request, plan) if request.privacy.private else None
                for suffix, counting in count_releases(request, 1).items():
                    ledger.debit(counting, run=f"{request.run}{suffix}", round_number=request.round, now=self.now())
                ledger.debit(release, run=request.run, round_number=request.round, now=self.now(), client_level=promise)
        except PrivacyError as error:
            return self._refuse(request, "budget-spent", str(error))
        # 4. Evaluation of the model as it came, if it was asked for, and training; with the device's own head, if it keeps one.
        weights = own.adopt(weights)
        write_parameters(model, weights)
        counts = self._counts(model, faces, preprocessing, request)
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
            features=self.models.features,
        )
        update = own.keep(weights, update)
        if not request.upload.secure:
            return TrainReply(run=request.run, round=request.round, status="trained"), update
        # 5. The update waits for the others'.
        identity, digest = self.identity(), request.digest(packed)
        flat = flatten(update)
        encoding = sum_encoding(
            len(flat), request.upload, request.client_level, request.evaluation_noise is not None, request.counted_classes
        )
        waiting = Waiting(flat if counts is None else np.append(flat, counts), digest, encoding, identity)
        self.sums.keep(request.run, request.round, self.number, waiting)
        return joining(request, identity, digest), None

    def add_up(self, header: SumHeader, message: bytes) -> tuple[SumHeader, bytes | None]:
        """One step of the secure sum of a round that this device trained for. Server sees: what `take_step` returns."""
        reply, reason = header.model_copy(update={"reason": None}), "failed"
        try:
            waiting = self.sums.take(header.run, header.round, self.number)
            content = take_step(waiting, header, message, self.known, self.policy.smallest_cohort, self.rounding(header.round))
            if header.step == "unmask":
                self.sums.drop(self.number)
            return reply, content
        except PrivacyError as error:
            reason = "policy"
            log.warning("round %d: no part in the sum: %s", header.round, error)
        except (EmoflError, OSError) as error:
            reason = "bad-request"
            log.error("round %d: no part in the sum: %s", header.round, error)
        except Exception:
            log.exception("round %d: no part in the sum", header.round)
        self.sums.drop(self.number)
        return reply.model_copy(update={"reason": reason}), None

    def _own_head(self, request: TrainRequest) -> RunHead:
        """Made before the faces are read, so that it knows whether they are wiped meanwhile."""
        place = self._place
        layers = request.train.local_layers
        since = since_now(place.anchor.faces) if place.anchor is not None and layers != "none" else None
        return RunHead(self.own_head, f"{place.authority or 'unknown'}/{request.run}", layers, since)

    def _counts(
        self, model: nn.Module, faces: FaceSet, preprocessing: Preprocessing, request: TrainRequest
    ) -> NDArray[np.float32] | None:
        return noisy_counts(model, faces, preprocessing, request, self.random)

    def _client_level(self, ledger: Ledger, request: TrainRequest) -> dict[str, Any] | None:
        """The run's client-level promise, for the ledger. One promise holds for a whole run, and for as many rounds as it says.

        Raises:
            PrivacyError: the rounds are over, the promise has changed, or with it the owner's ceiling for all runs is exceeded.
        """
        wish, ceiling = request.client_level, self.policy.largest_client_epsilon
        run = ledger.place.authority, request.run
        found = survey_promises(ledger.entries, ceiling)
        begun = next((kept for kept in found.runs if (kept.authority, kept.name) == run), None)
        promise = None if wish is None else Promise(mode=wish.mode, epsilon=wish.epsilon, delta=wish.delta, rounds=wish.rounds)
        before = None if begun is None else begun.promise
        if promise != before and any(run_of(entry) == run for entry in ledger.entries):
            raise PrivacyError(
                "The server has changed the client-level promise of this run; it holds for the whole run or not at all."
            )
        if promise is None:
            return None
        if begun is not None and begun.taken >= promise.rounds:
            raise PrivacyError(
                f"The run's client-level epsilon {promise.epsilon:g} is for {promise.rounds} rounds, and they are over."
            )
        whole = found.promised if begun else found.promised + promise.epsilon
        if ceiling is not None and whole > ceiling:
            raise PrivacyError(
                f"With this run the client-level epsilons of all runs add up to {whole:g}; this device allows {ceiling:g}."
            )
        return promise.model_dump()

    def _release(self, ledger: Ledger, request: TrainRequest, plan: Plan) -> Release:
        """The noise for this round: what the run began with as long as the planned rest fits, more if it no longer does."""
        wish: PrivacyConfig = request.privacy
        if not ledger.all_private:
            raise PrivacyError("These faces were once used without privacy, so no epsilon holds for them any more.")
        mine = (e for e in ledger.entries if (e.authority, e.run) == (ledger.place.authority, request.run))
        earlier = [e.release for e in mine if e.release is not None]
        left = max(1, request.participations - len(earlier))
        steps, spent = plan.steps * left, [*ledger.releases, *count_releases(request, left).values()]
        rate = plan.sampling.rate
        if earlier:
            same = Release(earlier[-1].noise_multiplier, rate, steps)
            if spent_epsilon([*spent, same], wish.delta, wish.accountant) <= wish.epsilon:
                return Release(same.noise_multiplier, rate, plan.steps)
        sigma = calibrate_noise(spent, rate, steps, wish.epsilon, wish.delta, wish.accountant)
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


def _contradiction(request: TrainRequest) -> str | None:
    """Why no honest server sends this request, as a sentence, or None."""
    wish = request.client_level
    counted = request.evaluation_noise is not None or request.histogram_noise is not None
    if request.train.loss == "calibrated" and request.privacy.private:
        return "The server asks for an epsilon and for a loss in which one face changes the gradients of all others."
    if request.model.dropout > 0 and request.privacy.private:
        return "The server asks for an epsilon and for dropout, whose masks depend on who else is in the batch."
    if request.train.local_layers == "head" and request.model.only_the_head:
        return "The server asks to train only what stays on the device: nothing would be uploaded."
    if not request.upload.secure and (counted or (wish is not None and wish.mode == "distributed")):
        return "The server asks outside of a secure sum for what is safe inside one alone."
    if wish is not None and counted:
        return "The server asks for counts that its client-level promise does not cover."
    if request.run.endswith(COUNTS):
        return f"The server's run has a name that ends in {' or '.join(COUNTS)}, which the ledger keeps for counts."
    return None


def answer_safely(device: Device, request: TrainRequest, weights: bytes) -> tuple[TrainReply, Arrays | None]:
    """As `Device.answer`, with any error of the device turned into a refusal whose text stays here."""
    try:
        return device.answer(request, weights)
    except EmoflError as error:
        log.error("round %d failed: %s", request.round, error)
    except Exception:
        log.exception("round %d failed", request.round)
    return TrainReply(run=request.run, round=request.round, status="refused", reason="failed"), None
