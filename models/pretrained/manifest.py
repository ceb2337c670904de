"""What is said about the shipped base model, in one signed file. `models.pretraining.shipping` writes it."""

from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from common.canonical import decode, encode
from common.config import ModelConfig
from common.errors import IntegrityError
from models.manifest import FileEntry, MetricName, PrivacyStatement, Sentence, Sha256, Signed, Utc, Word
from models.preprocess import Preprocessing

CONTEXT = "emofl-base-v1"
"""What the signature is for, see `common.identity`."""

BaseFile = Literal["base.safetensors", "MODEL_CARD.md"]
WEIGHTS: BaseFile = "base.safetensors"
CARD: BaseFile = "MODEL_CARD.md"
MANIFEST, SIGNATURE, PUBLISHER = "manifest.json", "manifest.sig", "publisher.pub"

BASE_LIMIT = 8_000_000
"""Bytes that the weights may have, so that the repository stays small."""

MANIFEST_LIMIT = 1 << 20


class BaseManifest(Signed):
    """The signed facts of a base model.

    Attributes:
        variant, stem_stride: of `models.mobilenet`.
        last_layer: name of the layer whose rows are the two heads.
        heads: classes of each head, in the order of its rows; the heads stand one below the other in this order.
        preprocessing: how a face becomes the model's input.
        created: ISO 8601 in UTC.
        data: what it was trained on.
        images: faces it has seen, each pass and each warp counted.
        privacy: that it makes no promise.
        metrics: accuracy, balanced accuracy and calibration error by name, on PublicTest and PrivateTest.
        recipe: SHA-256 of the canonical JSON of the recipe.
        files: SHA-256 and size of the weights and of the model card.
    """

    schema_version: Literal[1]
    variant: Word
    stem_stride: Literal[1, 2]
    last_layer: Word
    heads: dict[Literal["ferplus", "fer2013"], tuple[Word, ...]]
    preprocessing: Preprocessing
    created: Utc
    data: Sentence
    images: int = Field(ge=1)
    privacy: PrivacyStatement
    metrics: dict[MetricName, float] = Field(max_length=100)
    recipe: Sha256
    files: dict[BaseFile, FileEntry]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if set(self.files) != {WEIGHTS, CARD}:
            raise ValueError(f"files must name {WEIGHTS} and {CARD}")
        if self.files[WEIGHTS].bytes > BASE_LIMIT:
            raise ValueError(f"{WEIGHTS} has more than {BASE_LIMIT:,} bytes")
        return self

    def config(self, classes: tuple[str, ...]) -> ModelConfig:
        """The network with a last layer for `classes`."""
        return ModelConfig(name=self.variant, stem_stride=self.stem_stride, classes=classes)

    def content(self) -> bytes:
        """The canonical JSON that is stored and signed."""
        return encode(self.model_dump(mode="json"))


def parse_base_manifest(content: bytes) -> BaseManifest:
    """The manifest in `content`; verify the signature first.

    Raises:
        IntegrityError: not canonical JSON, an unknown or missing key, or a value out of range.
    """
    decode(content)
    try:
        return BaseManifest.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "a value"
        raise IntegrityError(f"The manifest cannot be used: {where}: {first['msg'].removeprefix('Value error, ')}.") from error
