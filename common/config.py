"""Every setting of a run, with its default, in one place. Frozen; unknown keys are refused.

A `RunConfig` is what `fl-sim run` and a server start from, what a run folder stores as `config.toml`, and what resumption reads.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from common.emotions import EMOTIONS_7, EMOTIONS_8
from common.errors import ConfigError
from common.secagg.graph import SMALLEST

LEAST_COUNT, LARGEST_COUNT = 1e-6, 1e12
"""Of a class; counts beyond would make weights that are not finite."""
ClassCount = Annotated[float, Field(ge=LEAST_COUNT, le=LARGEST_COUNT)]


class Settings(BaseModel):
    """Base of every configuration object."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelConfig(Settings):
    """The network and what of it is trained.

    Attributes:
        name: a variant of `models.mobilenet`.
        stem_stride: 1 keeps the resolution of small faces, 2 is three times as fast.
        classes: canonical emotion names, in the order of the logits.
        trainable: `full`, `last-block` or `head`.
        dropout: before the last layer; 0 keeps local training a function of its seed.
    """

    name: str = "mobilenet_v3_small"
    stem_stride: Literal[1, 2] = 1
    classes: tuple[str, ...] = EMOTIONS_7
    trainable: Literal["full", "last-block", "head"] = "full"
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _known_classes(self) -> Self:
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2 or set(self.classes) - set(EMOTIONS_8):
            raise ValueError(f"classes must be two or more different names out of {', '.join(EMOTIONS_8)}")
        return self


class TrainConfig(Settings):
    """How a device trains in one round.

    Attributes:
        batch_size: expected examples per step, B. With n faces the Poisson sampling rate is min(1, B / n).
        local_epochs: expected passes over the device's data per round; the steps are ceil(local_epochs * n / B).
        local_steps: a fixed number of steps instead.
        learning_rate, momentum, weight_decay: of SGD.
        decay: the learning rate falls along a half cosine to this part of itself over the run's rounds; 1 keeps it.
        proximal_mu: FedProx's pull towards the global model (Li et al. 2020, Algorithm 2), 0 without.
        augment: random flips, shifts, small rotations and scales of each face.
        augmentations: K, so many differently augmented copies of each face in a step, their gradients averaged before the face is
            clipped (De et al. 2022): K times the work, the same epsilon.
        loss: `cross-entropy`; `class-balanced` (Cui et al. 2019), which weighs rare classes up; or `logit-adjusted` (Menon et
            al. 2021), which learns what would be right if all classes were as frequent. See `fl_client.losses`.
        class_counts: how many faces of each class there are, by name: public numbers of all the data there is, from which the
            last two make their weights. Never one device's own: then one face would change what the others weigh.
        balance: beta of the class-balanced loss; 0 weighs all classes alike, towards 1 by the inverse of their counts.
        adjustment: tau of the logit-adjusted loss; 1 aims at balanced accuracy.
        local_layers: `head`: each device keeps a last layer of its own, which it neither uploads nor takes from the server
            (FedPer, Arivazhagan et al. 2019); `none`.
    """

    batch_size: int = Field(default=32, ge=1)
    local_epochs: float = Field(default=1.0, gt=0)
    local_steps: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(default=0.05, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    decay: float = Field(default=0.1, gt=0, le=1)
    proximal_mu: float = Field(default=0.0, ge=0)
    augment: bool = True
    augmentations: int = Field(default=1, ge=1, le=32)
    loss: Literal["cross-entropy", "class-balanced", "logit-adjusted"] = "cross-entropy"
    class_counts: dict[str, ClassCount] = Field(default_factory=dict, max_length=len(EMOTIONS_8))
    balance: float = Field(default=0.999, ge=0, lt=1)
    adjustment: float = Field(default=1.0, ge=0, le=10)
    local_layers: Literal["none", "head"] = "none"

    @field_validator("class_counts")
    @classmethod
    def _known_names(cls, counts: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(set(counts) - set(EMOTIONS_8)):
            raise ValueError(f"{unknown[0][:80]!r} is no emotion; write one of {', '.join(EMOTIONS_8)}")
        return counts

    @model_validator(mode="after")
    def _different_copies(self) -> Self:
        if self.augmentations > 1 and not self.augment:
            raise ValueError("augmentations above 1 need augment: without it all copies of a face are the same")
        return self


class PrivacyConfig(Settings):
    """Record-level differential privacy on the device: one face added or removed (add/remove neighbours).

    Attributes:
        private: False trains without any guarantee and marks all that follows as non-private.
        epsilon: ceiling of what a device may have spent in all, this run and everything before it.
        delta: probability with which epsilon may fail to hold; below 1 / n for a device with n faces.
        clipping_norm: largest L2 norm C of one face's gradient.
        accountant: `rdp` (Mironov 2017) or `prv` (Gopi et al. 2021, tighter and slower).
        engine: `bookkeeping` or `opacus`: two ways to the same noisy gradients, the first several times faster.
    """

    private: bool = True
    epsilon: float = Field(default=8.0, gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    clipping_norm: float = Field(default=1.0, gt=0)
    accountant: Literal["rdp", "prv"] = "rdp"
    engine: Literal["bookkeeping", "opacus"] = "bookkeeping"


class ServerConfig(Settings):
    """Rounds, cohort and the server's optimiser.

    Attributes:
        rounds: how many rounds the run has.
        cohort: devices asked per round; None asks all.
        min_replies: replies below which a round is not accepted.
        round_timeout: seconds after which a round goes on without the missing devices.
        patience: once three quarters of a cohort have answered, the others get this many times as long as those took, and
            half a minute at least.
        strategy: `fedavg`, `fedprox`, `fedavgm` or `fedadam`.
        server_learning_rate: of FedAvgM and FedAdam; None takes the strategy's default (1.0 and 0.01).
        server_momentum: FedAvgM's momentum, FedAdam's beta_1.
        ema: evaluate and publish a moving average of the global models; this much of the old average stays each round, 0 without.
        max_update_norm: an update with a larger L2 norm is left out; of a secure sum, the whole round is, by the mean's norm.
    """

    rounds: int = Field(default=20, ge=1)
    cohort: int | None = Field(default=None, ge=1)
    min_replies: int = Field(default=2, ge=1)
    round_timeout: float = Field(default=3600.0, gt=0)
    patience: float = Field(default=3.0, ge=1)
    strategy: Literal["fedavg", "fedprox", "fedavgm", "fedadam"] = "fedavg"
    server_learning_rate: float | None = Field(default=None, gt=0)
    server_momentum: float = Field(default=0.9, ge=0, lt=1)
    ema: float = Field(default=0.0, ge=0, lt=1)
    max_update_norm: float = Field(default=1000.0, gt=0, le=1000.0)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.cohort is not None and self.cohort < self.min_replies:
            raise ValueError(f"cohort {self.cohort} can never give min_replies {self.min_replies}")
        return self


class UploadConfig(Settings):
    """How a device's update travels.

    Attributes:
        secure: under secure aggregation: the server learns the sum of a cohort's updates and none of them.
        clip: largest magnitude of one value in a secure sum; what is beyond is cut off on the device.
        step_timeout: seconds that each step of a secure sum waits for devices.
        precision: how a value is rounded. In secure sums: `float32`, 32-bit integers, as fine as the cohort allows; or `int16`,
            16 bits and log2(cohort) more. Where sums are not secure: `float32`, `float16`, `int16` or `int8`.
    """

    secure: bool = True
    clip: float = Field(default=2.0, gt=0, le=1e3)
    step_timeout: float = Field(default=120.0, gt=0)
    precision: Literal["float32", "float16", "int16", "int8"] = "float32"

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.secure and self.precision not in ("float32", "int16"):
            raise ValueError(
                f"precision {self.precision} (--upload) is for updates in the clear: secure sums have float32 or int16; "
                "choose one of these, or add --no-secure-aggregation"
            )
        return self


class EvaluationConfig(Settings):
    """Noisy numbers about the devices' own faces, in the secure sum: how well the model does, and what emotions there are.

    Attributes:
        federated: ask how well the model does before each round: the global one, with `train.local_layers` head the global one's
            other layers under each device's own head.
        class_histogram: ask in one round how many faces of each class there are; the rounds after it train with these
            `train.class_counts`.
        noise_multiplier: of each device's noise on its counts, in units of how far one face moves them; it is debited beside the
            training, at a sampling rate of 1.
    """

    federated: bool = False
    class_histogram: bool = False
    noise_multiplier: float = Field(default=8.0, gt=0)


class ClientLevelConfig(Settings):
    """Client-level differential privacy: all faces of one device together, beside whatever each face has.

    Attributes:
        mode: `central`: the server adds the noise, and is trusted to; `distributed`: every device adds its share inside a secure
            sum, so that the server sees a noisy sum only; `none`.
        epsilon, delta: of the whole run; record-level epsilon is another promise, and the two are never added.
        clip: largest L2 norm of a device's update.
        adaptive: let the clip follow the median of the updates' norms (central; Andrew et al. 2021).
        bits: width of the integers that hold a distributed sum.
    """

    mode: Literal["none", "central", "distributed"] = "none"
    epsilon: float = Field(default=8.0, gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    clip: float = Field(default=1.0, ge=1e-6, le=1e6)
    adaptive: bool = False
    bits: int = Field(default=20, ge=8, le=24)

    @model_validator(mode="after")
    def _central_alone(self) -> Self:
        if self.adaptive and self.mode != "central":
            raise ValueError("adaptive (--adaptive-clip) needs mode central (--client-dp central)")
        return self


class ClientLevelRequest(Settings):
    """What a device is asked to do for client-level privacy in one round.

    Attributes:
        mode, epsilon, delta, clip, bits: as in `ClientLevelConfig`, the clip as it stands in this round.
        noise_multiplier: z, of the noise in the sum, in units of the clip.
        rounds: for which the promise is.
    """

    mode: Literal["central", "distributed"]
    epsilon: float = Field(gt=0, le=1e3)
    delta: float = Field(gt=0, lt=1)
    clip: float = Field(ge=1e-6, le=1e6)
    bits: int = Field(ge=8, le=24)
    noise_multiplier: float = Field(ge=1e-2, le=1e4)
    rounds: int = Field(ge=1, le=1_000_000)


class DataConfig(Settings):
    """Where a simulation's faces come from and how devices differ.

    Attributes:
        path: fer2013.csv, a folder that holds it, a folder of emotions, or None for drawn faces.
        labels: `fer2013` (7 classes) or `ferplus` (8 classes, soft votes).
        drawn: how many training faces to draw when there is no path.
        clients: simulated devices.
        scheme: `iid`, `dirichlet`, `one-class-poor`, `quantity` or `by-person`.
        alpha: Dirichlet concentration; smaller is more skewed.
        holdout: part of each device's faces kept aside for its own accuracy.
    """

    path: Path | None = None
    labels: Literal["fer2013", "ferplus"] = "fer2013"
    drawn: int = Field(default=6000, ge=100)
    clients: int = Field(default=20, ge=1)
    scheme: Literal["iid", "dirichlet", "one-class-poor", "quantity", "by-person"] = "dirichlet"
    alpha: float = Field(default=0.3, gt=0)
    holdout: float = Field(default=0.1, ge=0, lt=1)


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
        for asked, option in (
            (self.evaluation.federated, "federated evaluation (--federated-evaluation)"),
            (self.evaluation.class_histogram, "the class histogram (--class-histogram)"),
        ):
            if asked and (not self.upload.secure or self.client_level.mode != "none"):
                raise ValueError(
                    f"{option} goes through a secure sum and has no client-level guarantee: "
                    "leave out --no-secure-aggregation and --client-dp"
                )
        if self.evaluation.class_histogram and (self.train.loss == "cross-entropy" or self.train.class_counts):
            raise ValueError(
                "the class histogram (--class-histogram) is for a --loss that needs class counts and is not given any"
            )
        odd = sorted(set(self.model.classes) ^ set(self.train.class_counts))
        if self.train.loss != "cross-entropy" and not self.evaluation.class_histogram and odd:
            raise ValueError(
                f"train.loss {self.train.loss} (--loss) needs public counts of the model's classes: {odd[0]} is missing or too "
                "much; give train.class_counts (--class-counts happiness=7215,...), or ask the devices with --class-histogram"
            )
        if self.train.local_layers == "head" and self.model.trainable == "head":
            raise ValueError(
                "with train.local_layers head (--personal-head) and --trainable head nothing would be uploaded: train last-block "
                "or full"
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


def read_config(path: Path) -> dict[str, Any]:
    """Nested values of a TOML file, for `make_config`.

    Raises:
        ConfigError: the file is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {path} is not valid TOML: {error}.") from error


def named_counts(text: str) -> dict[str, float]:
    """Numbers by name from text such as `happiness=7215,fear=4097`, for `train.class_counts`.

    Raises:
        ConfigError: it is written otherwise.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, sign, number = (word.strip() for word in part.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if not sign or not name or name in found or not LEAST_COUNT <= value <= LARGEST_COUNT:
            raise ConfigError(f"{part.strip()!r} is no count: write each class once, as in happiness=7215,fear=4097.")
        found[name] = value
    return found


def nest_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Groups of settings from dotted names, such as `server.rounds`; None means not given and is left out."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if value is not None:
            *groups, last = name.split(".")
            target = nested
            for group in groups:
                target = target.setdefault(group, {})
            target[last] = value
    return nested


def merge_settings(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Nested settings of `base`, with those of `over` in their place.

    Raises:
        ConfigError: `base` gives one value where `over` has a group.
    """
    merged = dict(base)
    for name, value in over.items():
        known = merged.get(name)
        if isinstance(value, dict) and known is not None and not isinstance(known, dict):
            raise ConfigError(f"{name} is wrong: it is a group of settings, not {known!r}.")
        merged[name] = merge_settings(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged
