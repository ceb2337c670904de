"""What is said about a published model, in one signed file. `fl_server.hub` writes it, `models.published` verifies and reads it.

The manifest is canonical JSON; the signature is over exactly the stored bytes. No part of it names a path.
"""

import re
from datetime import datetime
from decimal import ROUND_CEILING, Context, Decimal
from math import isfinite
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from common.canonical import decode, encode
from common.config import ModelConfig
from common.errors import IntegrityError
from models.preprocess import Preprocessing

CONTEXT = "emofl-manifest-v1"
"""What a manifest's signature is for, see `common.identity`."""

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"

FileName = Literal["model.onnx", "model.safetensors"]
"""The files a version holds beside manifest and signature: these, no more and no fewer."""

ONNX: FileName = "model.onnx"
SAFETENSORS: FileName = "model.safetensors"

NOT_PRIVATE = "NOT PRIVATE"
NO_PROMISE = "trained without differential privacy; it may reveal faces it was trained on."

MANIFEST_LIMIT = 1 << 20
FILE_LIMIT = 1 << 26
"""Of each file of a version, 64 MiB: the largest variant's have 16.2. Who opens a version holds both in memory."""

VERSION_NAME = re.compile(r"([0-9]{6,12})-r([0-9]{4,12})")

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+@-]{0,99}$")]
MetricName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9._/-]{0,63}$")]
Utc = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?Z$")]
Sentence = Annotated[str, StringConstraints(min_length=1, max_length=500)]


Neighbouring = Literal["add-or-remove-one", "replace-one", "zero-out-one"]
"""Which data sets epsilon compares: with one unit more or less, another in its place, or its contribution replaced by zero."""


class Signed(BaseModel):
    """Base of what a manifest is made of: frozen, no unknown key, finite numbers, text without control characters."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _printable(cls, value: object) -> object:
        texts = value if isinstance(value, tuple) else (value,)
        if any(isinstance(text, str) and not text.isprintable() for text in texts):
            raise ValueError("text must not hold control characters")
        return value


class FileEntry(Signed):
    """One file's SHA-256 and its size in bytes."""

    sha256: Sha256
    bytes: int = Field(ge=1, le=FILE_LIMIT)


class Cohort(Signed):
    """How many devices the round asked, and how many replies entered the model; 0 and 0 for an initial model.

    Attributes:
        secure: whether the server learnt the sum of their updates alone.
    """

    asked: int = Field(ge=0)
    accepted: int = Field(ge=0)
    secure: bool = False

    @model_validator(mode="after")
    def _no_more_than_asked(self) -> Self:
        if self.accepted > self.asked:
            raise ValueError(f"{self.accepted} accepted replies are more than the {self.asked} devices asked")
        return self


class PrivacyStatement(Signed):
    """What the model promises about the data it was trained on. Make it with `guaranteed` or `absent`.

    Attributes:
        private: whether the promise holds; False whenever any training step ran without noise.
        unit: what is protected: one face (`record`), all of a device's faces (`client`), or nothing (`none`).
        neighbouring: the relation under which epsilon is meant.
        epsilon: the largest that any device of the run has spent, cumulative over everything it ever released.
        delta: in (0, 1), with the same reach.
        accountant: how epsilon was computed, such as `rdp`.
        clipping_norm: L2 bound of one unit's gradient or update.
        noise_source: where the noise came from.
        statement: the promise in plain words; a person reads this.
        non_private: everything that entered or accompanies the model without the guarantee, such as public pretraining.
    """

    private: bool
    unit: Literal["record", "client", "none"]
    neighbouring: Neighbouring | None = None
    epsilon: float | None = Field(default=None, ge=0)
    delta: float | None = Field(default=None, gt=0, lt=1)
    accountant: Word | None = None
    clipping_norm: float | None = Field(default=None, gt=0)
    noise_source: Sentence | None = None
    statement: Sentence
    non_private: tuple[Sentence, ...] = Field(default=(), max_length=20)

    @model_validator(mode="after")
    def _all_or_nothing(self) -> Self:
        guarantee = ("neighbouring", "epsilon", "delta", "accountant", "clipping_norm", "noise_source")
        given = [name for name in guarantee if getattr(self, name) is not None]
        if self.private and (self.unit == "none" or len(given) < len(guarantee)):
            raise ValueError(f"a private model states unit, {', '.join(guarantee)}")
        if not self.private and (self.unit != "none" or given):
            raise ValueError("a model that is not private states unit none and no epsilon, delta, clipping or noise")
        if not self.private and not self.non_private:
            raise ValueError("a model that is not private says in non_private what was not")
        if self.private == self.statement.startswith(NOT_PRIVATE):
            raise ValueError(f"the statement begins with {NOT_PRIVATE!r} if, and only if, private is false")
        return self

    @classmethod
    def guaranteed(
        cls,
        *,
        unit: Literal["record", "client"],
        epsilon: float,
        delta: float,
        accountant: str,
        clipping_norm: float,
        noise_source: str,
        neighbouring: Neighbouring = "add-or-remove-one",
        non_private: tuple[str, ...] = (),
    ) -> Self:
        """A model trained under differential privacy, with the sentence for people made from the numbers."""
        whom = {"record": "one face on a device", "client": "all faces of one device"}[unit]
        return cls(
            private=True,
            unit=unit,
            neighbouring=neighbouring,
            epsilon=epsilon,
            delta=delta,
            accountant=accountant,
            clipping_norm=clipping_norm,
            noise_source=noise_source,
            statement=f"Differentially private for {whom}: epsilon is at most {_ceiling(epsilon)} at delta {delta:g}.",
            non_private=non_private,
        )

    @property
    def stated_epsilon(self) -> str:
        """Epsilon for people, rounded up to two decimals; "none" without a guarantee."""
        return "none" if self.epsilon is None else _ceiling(self.epsilon)

    @classmethod
    def absent(cls, *non_private: str) -> Self:
        """A model without any guarantee; `non_private` says what was done without it."""
        return cls(private=False, unit="none", statement=f"{NOT_PRIVATE}: {NO_PROMISE}", non_private=non_private)


def _ceiling(epsilon: float) -> str:
    if not isfinite(epsilon):
        return str(epsilon)
    return str(Decimal(str(float(epsilon))).quantize(Decimal("0.01"), context=Context(prec=400, rounding=ROUND_CEILING)))


class ModelFacts(Signed):
    """What the server knows about a model when it publishes it.

    Attributes:
        model: architecture, classes in the order of the logits, and the trained subset.
        preprocessing: how a face becomes the model's input.
        run: id of the run.
        round: the round whose aggregate this is, 0 for the initial model.
        created: ISO 8601 in UTC, such as 2026-01-31T12:00:00Z.
        cohort: devices asked and replies accepted in this round.
        privacy: of one face, see `PrivacyStatement`.
        client_privacy: of all faces of a device, where that was asked for: another promise, never added to the first.
        metrics: finite numbers by name, measured on public data or under the guarantee.
        init: what training began from, such as `random` or the name of pretrained weights.
    """

    model: ModelConfig
    preprocessing: Preprocessing
    run: Word
    round: int = Field(ge=0, lt=10**12)
    created: Utc
    cohort: Cohort
    privacy: PrivacyStatement
    client_privacy: PrivacyStatement | None = None
    metrics: dict[MetricName, float] = Field(default_factory=dict, max_length=100)
    init: Sentence

    @field_validator("created")
    @classmethod
    def _real_time(cls, value: str) -> str:
        datetime.fromisoformat(value)
        return value


class Manifest(ModelFacts):
    """The signed manifest of one version.

    Attributes:
        schema_version: of this format.
        sequence: 1, 2, 3, ... in the registry, without gaps; a higher one is newer, whatever the round.
        files: SHA-256 and size of every file of the version.
        previous: SHA-256 of the previous version's manifest file, None for the first.
    """

    schema_version: Literal[1]
    sequence: int = Field(ge=1, lt=10**12)
    files: dict[FileName, FileEntry]
    previous: Sha256 | None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if set(self.files) != {ONNX, SAFETENSORS}:
            raise ValueError(f"files must name {ONNX} and {SAFETENSORS}")
        if (self.sequence == 1) != (self.previous is None):
            raise ValueError("the first version, and no other, has no previous one")
        return self

    @property
    def version(self) -> str:
        """The version's name, which is its folder's: sequence and round, as in 000012-r0007."""
        return f"{self.sequence:06d}-r{self.round:04d}"

    def content(self) -> bytes:
        """The canonical JSON that is stored and signed."""
        content = encode(self.model_dump(mode="json"))
        if len(content) > MANIFEST_LIMIT:
            raise IntegrityError(f"The manifest has {len(content)} bytes; it may have {MANIFEST_LIMIT}.")
        return content


def parse_manifest(content: bytes) -> Manifest:
    """The manifest in `content`. Verify the signature first: `models.published` does.

    Raises:
        IntegrityError: too long, not canonical JSON, an unknown or missing key, or a value out of range.
    """
    if len(content) > MANIFEST_LIMIT:
        raise IntegrityError(f"A manifest has at most {MANIFEST_LIMIT} bytes, not {len(content)}.")
    decode(content)
    try:
        return Manifest.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "a value"
        what = "is not known to this version" if first["type"] == "extra_forbidden" else first["msg"]
        raise IntegrityError(f"The manifest cannot be used: {where}: {what.removeprefix('Value error, ')}.") from error
