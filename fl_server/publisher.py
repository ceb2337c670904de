"""Makes each accepted global model public: exported, stated, signed. The rounds' observer in simulation and deployment."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from torch import nn

from common.config import ClientLevelConfig, PrivacyConfig, RunConfig
from common.parameters import read_parameters, write_parameters
from fl_server.hub import PublishedVersion, Registry
from fl_server.rounds import Accepted
from models.class_counts import as_metrics
from models.export import OnnxTemplate
from models.manifest import Cohort, Manifest, ModelFacts, PrivacyStatement
from models.preprocess import Preprocessing
from models.published import read_registered, version_names
from models.starting_point import StartingPoint

NOISE_SOURCE = "Gaussian, sum of 4 draws per value, from AES-256-CTR keyed by the device's operating system"


CLIENT_NOISE = {
    "central": "Gaussian, sum of 4 draws per value, from AES-256-CTR keyed by the server's operating system",
    "distributed": "Skellam, a share from each device in a secure sum, from AES-256-CTR keyed by its operating system",
}


def client_statement(config: ClientLevelConfig, trained: bool, init: Manifest | None = None) -> PrivacyStatement | None:
    """What a model promises for all faces of one device together; None where nothing was asked for.

    What training began from counts as in `privacy_statement`.
    """
    if config.mode == "none":
        return None
    earlier = (0.0, 0.0)
    if init is not None and not untouched(init):
        promise = init.client_privacy
        if promise is None or promise.epsilon is None or promise.delta is None:
            return PrivacyStatement.absent(f"initial weights without client-level privacy: {init.run} {init.version}")
        earlier = (promise.epsilon, promise.delta)
    return PrivacyStatement.guaranteed(
        unit="client",
        neighbouring="zero-out-one",
        epsilon=(config.epsilon if trained else 0.0) + earlier[0],
        delta=min(config.delta + earlier[1], 0.999),
        accountant="rdp",
        clipping_norm=config.clip,
        noise_source=CLIENT_NOISE[config.mode] + ("; the clip follows the median norm" if config.adaptive else ""),
    )


def untouched(init: Manifest) -> bool:
    """Whether no device's face has gone into a model: it states a record-level epsilon of 0."""
    return init.privacy.private and init.privacy.unit == "record" and init.privacy.epsilon == 0.0


def privacy_statement(
    privacy: PrivacyConfig, trained: bool, init: Manifest | None = None, public_data: str | None = None
) -> PrivacyStatement:
    """What a model promises: the ceiling that every device enforced on itself, or that there is none.

    What training began from counts too: weights without a promise leave none, and an earlier promise's epsilon and delta add up,
    because the same devices may have taken part in both (basic composition).

    Args:
        trained: False for the model before round 1, which has seen no device's faces in this run.
        init: manifest of the model that training began from.
        public_data: what else it was trained on, that no device has to protect.
    """
    beginning: tuple[str, ...] = ()
    if public_data is not None:
        beginning = (f"trained without privacy on public data: {public_data}",)
    if init is not None:
        beginning = (f"initial weights: {init.run} {init.version}", *init.privacy.non_private)
        if not init.privacy.private or init.privacy.unit != "record":
            return PrivacyStatement.absent(*beginning)
    if not privacy.private:
        return PrivacyStatement.absent("federated training on the devices' faces", *beginning)
    earlier = (init.privacy.epsilon or 0.0, init.privacy.delta or 0.0) if init and init.privacy.epsilon else (0.0, 0.0)
    return PrivacyStatement.guaranteed(
        unit="record",
        epsilon=(privacy.epsilon if trained else 0.0) + earlier[0],
        delta=min(privacy.delta + earlier[1], 0.999),
        accountant=privacy.accountant,
        clipping_norm=privacy.clipping_norm,
        noise_source=NOISE_SOURCE,
        non_private=beginning,
    )


def told_counts(config: RunConfig, histogram: Mapping[str, float] | None) -> Mapping[str, float]:
    """How many faces of each class a published model says that it learnt from; empty where it says nothing.

    Counts that the devices told without noise stay here. And a model whose loss evened the classes out already says nothing, or
    whoever runs it would do so twice.
    """
    public = config.train.class_counts
    if config.train.needs_counts:
        return {}
    if histogram is not None:
        return histogram if config.privacy.private else {}
    return public if set(public) == set(config.model.classes) else {}


@dataclass
class Publisher:
    """Publishes the accepted models of one run.

    Attributes:
        registry: where to.
        model: a network of the run's architecture, used to export.
        start: what training began from.
        now: the clock, UTC.
    """

    registry: Registry
    config: RunConfig
    run: str
    model: nn.Module
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    start: StartingPoint = field(default_factory=StartingPoint)
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    last: PublishedVersion | None = None
    _template: OnnxTemplate | None = None

    def published(self) -> int:
        """The last round of this run in the registry, -1 if there is none.

        Raises:
            IntegrityError: the registry's newest version is not ours.
        """
        names = version_names(self.registry.folder)
        if not names:
            return -1
        manifest = read_registered(self.registry.folder, names[-1], self.registry.key.public).manifest
        return manifest.round if manifest.run == self.run else -1

    def publish(self, accepted: Accepted) -> None:
        """Export, state, sign.

        Raises:
            ModelError: the export does not agree with torch.
            IntegrityError, RunError: the registry cannot take it.
        """
        write_parameters(self.model, accepted.weights)
        if self._template is None:
            self._template = OnnxTemplate.trace(self.model, self.preprocessing.size)
        weights = read_parameters(self.model)
        scores = accepted.evaluation
        metrics: dict[str, float] = {}
        if scores is not None:
            found = {"accuracy": scores.accuracy, "balanced_accuracy": scores.balanced_accuracy, "loss": scores.loss}
            metrics = {name: value for name, value in found.items() if math.isfinite(value)}
        trained = accepted.round > 0
        if trained:
            metrics |= as_metrics(told_counts(self.config, accepted.histogram))
        record = privacy_statement(self.config.privacy, trained, self.start.manifest, self.start.public_data)
        client = client_statement(self.config.client_level, trained, self.start.manifest)
        facts = ModelFacts(
            model=self.config.model,
            preprocessing=self.preprocessing,
            run=self.run,
            round=accepted.round,
            created=self.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            cohort=Cohort(
                asked=accepted.tally.asked,
                accepted=accepted.tally.accepted,
                secure=self.config.upload.secure and accepted.tally.accepted > 0,
            ),
            privacy=record,
            client_privacy=client,
            metrics=metrics,
            init=self.start.name,
        )
        self.last = self.registry.publish(weights, self._template.fill(weights), facts)
