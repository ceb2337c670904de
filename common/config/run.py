"""All settings of a run together, and what must hold between them."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from common.config.base import Settings
from common.config.data import DataConfig
from common.config.model import ModelConfig
from common.config.privacy import ClientLevelConfig, EvaluationConfig, PrivacyConfig
from common.config.server import ServerConfig, UploadConfig
from common.config.training import TrainConfig
from common.errors import ConfigError
from common.secagg.fields import MEMBERS_LIMIT
from common.secagg.graph import SMALLEST


class RunConfig(Settings):
    """A whole run.

    Attributes:
        seed: of data, initial weights, cohorts and shuffling; never of privacy noise.
        init: a published model to start from, or `base`, the one that ships; None starts from the seed.
    """

    seed: int = Field(default=0, ge=0, lt=2**31)
    init: Literal["base"] | Path | None = None
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    server: ServerConfig = ServerConfig()
    upload: UploadConfig = UploadConfig()
    client_level: ClientLevelConfig = ClientLevelConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    data: DataConfig = DataConfig()

    @property
    def fewest_updates(self) -> int:
        """Updates below which a round is not accepted."""
        return max(self.server.min_replies, SMALLEST) if self.upload.secure else self.server.min_replies

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.privacy.private and self.model.dropout > 0:
            raise ValueError("model.dropout must be 0 in a private run: its masks would depend on who else is in the batch")
        if self.server.cohort is not None and self.server.cohort > self.data.clients:
            raise ValueError(f"A cohort of {self.server.cohort} cannot be drawn from {self.data.clients} clients")
        if self.server.min_replies > self.data.clients:
            raise ValueError(f"server.min_replies {self.server.min_replies} is more than the {self.data.clients} clients")
        if self.upload.secure and min(self.server.cohort or self.data.clients, self.data.clients) < SMALLEST:
            raise ValueError(
                f"Secure aggregation needs a cohort of at least {SMALLEST} devices: of two, each knows the other's update. "
                "Take more devices, or --no-secure-aggregation"
            )
        if self.upload.secure and (self.server.cohort or 0) > MEMBERS_LIMIT:
            raise ValueError(f"Secure aggregation takes cohorts of at most {MEMBERS_LIMIT} devices: make server.cohort smaller")
        for asked, option in (
            (self.evaluation.federated, "federated evaluation (--federated-evaluation)"),
            (self.evaluation.class_histogram, "the class histogram (--class-histogram)"),
        ):
            if asked and (not self.upload.secure or self.client_level.mode != "none"):
                raise ValueError(
                    f"{option} goes through a secure sum and has no client-level guarantee: "
                    "leave out --no-secure-aggregation and --client-dp"
                )
        if self.evaluation.class_histogram and self.train.class_counts:
            raise ValueError(
                "the class histogram (--class-histogram) asks the devices for what train.class_counts (--class-counts) says: "
                "leave out one of them"
            )
        odd = sorted(set(self.model.classes) ^ set(self.train.class_counts))
        wanted = self.train.needs_counts or (self.train.loss == "calibrated" and self.train.class_counts)
        if wanted and not self.evaluation.class_histogram and odd:
            raise ValueError(
                f"train.loss {self.train.loss} (--loss) needs public counts of the model's classes: {odd[0]} is missing or too "
                "much; give train.class_counts (--class-counts happiness=7215,...), or ask the devices with --class-histogram"
            )
        if self.train.loss == "calibrated" and self.privacy.private:
            raise ValueError(
                "train.loss calibrated (--loss) weighs by a device's own class counts, so one face changes the gradients of all "
                "others and no epsilon would hold: take logit-adjusted, or --non-private"
            )
        if self.train.local_layers == "head" and self.model.only_the_head:
            raise ValueError(
                f"with train.local_layers head (--personal-head) and --trainable {self.model.trainable} nothing would be "
                "uploaded: train last-block or full"
            )
        if self.client_level.mode == "distributed" and not self.upload.secure:
            raise ValueError(
                "Distributed noise (--client-dp distributed) is safe inside a secure sum alone: leave out --no-secure-aggregation"
            )
        if self.server.strategy == "fedprox" and self.train.proximal_mu == 0:
            raise ValueError("fedprox needs a pull to the global model: set train.proximal_mu (--mu), such as 0.01")
        if self.server.strategy != "fedprox" and self.train.proximal_mu > 0:
            raise ValueError(f"train.proximal_mu (--mu) belongs to the strategy fedprox, not {self.server.strategy}")
        return self


def make_config(values: dict[str, Any]) -> RunConfig:
    """A `RunConfig` from nested plain values.

    Raises:
        ConfigError: one sentence that names the first wrong setting and what is wrong with it.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{where} is not a setting; check its spelling.") from error
        raise ConfigError(f"{where} is wrong: {what}." if where else f"{what}.") from error
