"""Makes each accepted global model public: exported, stated, signed. The rounds' observer in simulation and deployment."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from torch import nn

from common.config import PrivacyConfig, RunConfig
from common.parameters import write_parameters
from fl_server.hub import PublishedVersion, Registry
from fl_server.rounds import Accepted
from models.export import OnnxTemplate, weights_of
from models.manifest import Cohort, ModelFacts, PrivacyStatement
from models.preprocess import Preprocessing

NOISE_SOURCE = "Gaussian, sum of 4 draws per value, from AES-256-CTR keyed by the device's operating system"


def privacy_statement(privacy: PrivacyConfig, trained: bool, init: str) -> PrivacyStatement:
    """What a model of this run promises: the ceiling that every device enforced on itself, or that there is none.

    Args:
        trained: False for the model before round 1, which has seen no device.
        init: what training began from.
    """
    beginning = () if init == "random" else (f"initial weights: {init}",)
    if not privacy.private:
        return PrivacyStatement.absent("federated training on the devices' faces", *beginning)
    return PrivacyStatement.guaranteed(
        unit="record",
        epsilon=privacy.epsilon if trained else 0.0,
        delta=privacy.delta,
        accountant=privacy.accountant,
        clipping_norm=privacy.clipping_norm,
        noise_source=NOISE_SOURCE,
        non_private=beginning,
    )


@dataclass
class Publisher:
    """Publishes the accepted models of one run.

    Attributes:
        registry: where to.
        model: a network of the run's architecture, used to export.
        init: what training began from, for the manifest.
        now: the clock, UTC.
    """

    registry: Registry
    config: RunConfig
    run: str
    model: nn.Module
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    init: str = "random"
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    last: PublishedVersion | None = None
    _template: OnnxTemplate | None = None

    def publish(self, accepted: Accepted) -> None:
        """Export, state, sign.

        Raises:
            ModelError: the export does not agree with torch.
            IntegrityError, RunError: the registry cannot take it.
        """
        write_parameters(self.model, accepted.weights)
        if self._template is None:
            self._template = OnnxTemplate.trace(self.model, self.preprocessing.size)
        weights = weights_of(self.model)
        scores = accepted.evaluation
        metrics: dict[str, float] = {}
        if scores is not None:
            found = {"accuracy": scores.accuracy, "balanced_accuracy": scores.balanced_accuracy, "loss": scores.loss}
            metrics = {name: value for name, value in found.items() if math.isfinite(value)}
        facts = ModelFacts(
            model=self.config.model,
            preprocessing=self.preprocessing,
            run=self.run,
            round=accepted.round,
            created=self.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            cohort=Cohort(asked=accepted.tally.asked, accepted=accepted.tally.accepted),
            privacy=privacy_statement(self.config.privacy, accepted.round > 0, self.init),
            metrics=metrics,
            init=self.init,
        )
        self.last = self.registry.publish(weights, self._template.fill(weights), facts)
