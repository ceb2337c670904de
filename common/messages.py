"""What travels between server and device in a round, and nothing else. Both apps encode and decode with it.

A request carries the model and the server's wishes in the clear under TLS. A device answers with a status word and, where sums
are not secure, with its update; else the steps of the secure sum follow (`common.secagg`). Example counts, losses, accuracies,
labels and error texts have no place in any of them.
"""

import hashlib
from typing import Literal, TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from pydantic import Field, ValidationError

from common.arrays import Arrays, Shapes, largest_packed, pack, unpack
from common.canonical import encode
from common.config import (
    ClientLevelRequest,
    CountNoise,
    ModelConfig,
    PrivacyConfig,
    RoundCount,
    Settings,
    TrainConfig,
    UploadConfig,
)
from common.errors import IntegrityError, ReplyError
from common.identity import PublicKey, SigningKey

S = TypeVar("S", bound=Settings)

MAX_TEXT = 64 * 1024
SAFETENSORS, SECURE_SUM = "safetensors", "emofl.secagg"

Refusal = Literal["budget-spent", "no-data", "policy", "bad-request", "failed"]
"""Why a device sent nothing. `failed` stands for any error of its own; the text stays on the device."""

Step = Literal["advertise", "share", "mask", "confirm", "unmask"]
"""Of a secure sum, in this order; each is one message to a device and one from it."""


class TrainRequest(Settings):
    """The server's wish for one round; the device's own policy decides.

    Attributes:
        run: identifier of the run.
        round, rounds: this round, from 1, and the last one.
        preprocessing: fields of `models.preprocess.Preprocessing`.
        participations: how often this device should expect to be asked in the run; it spreads its budget over them.
        upload: how the update is to travel.
        evaluation_noise: noise multiplier of the device's two counts for federated evaluation; None asks for none.
        histogram_noise: noise multiplier of the device's counts of faces by class; None asks for none.
        client_level: what else is done to it for client-level privacy, if anything.
    """

    version: Literal[1] = 1
    run: str = Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")
    round: int = Field(ge=1)
    rounds: RoundCount
    participations: RoundCount
    model: ModelConfig
    train: TrainConfig
    privacy: PrivacyConfig
    upload: UploadConfig
    evaluation_noise: CountNoise | None = None
    histogram_noise: CountNoise | None = None
    client_level: ClientLevelRequest | None = None
    preprocessing: dict[str, str | int | float] = Field(default_factory=dict)

    @property
    def counted_classes(self) -> int:
        """How many values of a class histogram go into the sum; both sides lay it out by this."""
        return 0 if self.histogram_noise is None else len(self.model.classes)

    def digest(self, weights: bytes) -> bytes:
        """What the members of a secure sum must agree on: this request and the very same weights.

        A server that shows its devices different weights could make all updates but one vanish from the sum (Pasquini et al.
        2022, "Eluding secure aggregation in federated learning via model inconsistency").
        """
        return hashlib.sha256(encode(self.model_dump(mode="json")) + hashlib.sha256(weights).digest()).digest()


class TrainReply(Settings):
    """A device's answer. Server sees: who answered, for which round, trained or why not.

    Attributes:
        identity: where sums are secure, the device's public key in them (Ed25519, hexadecimal).
        proof: its signature of this round's digest, so that nobody joins in another device's name.
    """

    version: Literal[1] = 1
    run: str = Field(max_length=64)
    round: int
    status: Literal["trained", "refused"]
    reason: Refusal | None = None
    identity: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    proof: str | None = Field(default=None, pattern=r"^[0-9a-f]{128}$")


class SumHeader(Settings):
    """What goes with a message of a secure sum.

    Attributes:
        reason: a device's refusal; it takes no further part in this sum.
    """

    version: Literal[1] = 1
    run: str = Field(max_length=64)
    round: int = Field(ge=1)
    step: Step
    reason: Refusal | None = None


JOIN = "emofl secagg 1 join"


def joining(request: TrainRequest, identity: SigningKey, digest: bytes) -> TrainReply:
    """A device's answer that it has trained and waits for the secure sum. Server sees: its public key, proved to be its own."""
    proof = identity.sign(JOIN, digest)
    own = identity.public.raw.hex()
    return TrainReply(run=request.run, round=request.round, status="trained", identity=own, proof=proof.hex())


def joined(reply: TrainReply, digest: bytes) -> bytes:
    """The identity key that `joining` proved.

    Raises:
        ReplyError: there is none, or its proof is not for this round.
    """
    if reply.identity is None or reply.proof is None:
        raise ReplyError("It has no identity for the secure sum.")
    identity = bytes.fromhex(reply.identity)
    try:
        PublicKey(identity).verify(JOIN, digest, bytes.fromhex(reply.proof))
    except IntegrityError as error:
        raise ReplyError("It shows an identity that is not its own.") from error
    return identity


def _text(settings: Settings) -> ConfigRecord:
    return ConfigRecord({"json": settings.model_dump_json()})


def _bytes(content: bytes, kind: str) -> ArrayRecord:
    """One array, however many parameters are in it: Flower sends every array as an object of its own."""
    return ArrayRecord({"content": Array("uint8", (len(content),), kind, content)})


def _read_text(content: RecordDict, name: str, kind: type[S]) -> S:
    try:
        text = content[name]["json"]
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise ReplyError(f"The {name} is not text of a sensible size.")
        return kind.model_validate_json(text)
    except (KeyError, TypeError, ValidationError) as error:
        raise ReplyError(f"The {name} is malformed ({type(error).__name__}).") from error


def _read_bytes(content: RecordDict, name: str, kind: str, most: int | None) -> bytes:
    record = content.get(name)
    if not isinstance(record, ArrayRecord) or set(record) != {"content"}:
        raise ReplyError(f"The message carries no {name}.")
    array = record["content"]
    if array.stype != kind or (most is not None and len(array.data) > most):
        raise ReplyError(f"The {name} is of another kind, or larger than it can be.")
    return array.data


def encode_request(request: TrainRequest, weights: bytes) -> RecordDict:
    """The message content a server sends: `weights` are all of the model's parameters, as `common.arrays.pack` gives them."""
    return RecordDict({"weights": _bytes(weights, SAFETENSORS), "request": _text(request)})


def decode_request(content: RecordDict) -> tuple[TrainRequest, bytes]:
    """The request and the packed weights of a message.

    Raises:
        ReplyError: the content is not a request of this version.
    """
    return _read_text(content, "request", TrainRequest), _read_bytes(content, "weights", SAFETENSORS, None)


def encode_reply(reply: TrainReply, update: Arrays | None = None, upload: UploadConfig | None = None) -> RecordDict:
    """The message content a device sends; `update` is the change of each trained parameter, None where the sum is secure."""
    records = RecordDict({"reply": _text(reply)})
    if update is not None:
        precision = upload.precision if upload else "float32"
        records["update"] = _bytes(pack(update, precision), SAFETENSORS)
    return records


def decode_reply(content: RecordDict, expected: Shapes, upload: UploadConfig) -> tuple[TrainReply, Arrays]:
    """The reply and its update, which is empty where the sum is secure or the device refused.

    Sizes are compared before anything is unpacked, so a reply cannot make the server allocate more than it expects.

    Args:
        expected: shape of each trained parameter by name.

    Raises:
        ReplyError: the reply is malformed, or an array's name, shape or type is not as expected.
    """
    reply = _read_text(content, "reply", TrainReply)
    with_update = reply.status == "trained" and not upload.secure
    surplus = set(content) - ({"reply", "update"} if with_update else {"reply"})
    if surplus:
        raise ReplyError(f"The reply carries {len(surplus)} records that nobody asked for.")
    if not with_update:
        return reply, {}
    most = largest_packed(expected, upload.precision)
    return reply, unpack(_read_bytes(content, "update", SAFETENSORS, most), expected, upload.precision)


def encode_sum(header: SumHeader, message: bytes | None = None) -> RecordDict:
    """One step of a secure sum, either way; a refusal has no message."""
    records = RecordDict({"sum": _text(header)})
    if message is not None:
        records["message"] = _bytes(message, SECURE_SUM)
    return records


def decode_sum(content: RecordDict, most: int | None = None) -> tuple[SumHeader, bytes]:
    """The header and the message, which is empty in a refusal.

    Args:
        most: bytes that the message may have.

    Raises:
        ReplyError: the content is not a step of a secure sum.
    """
    header = _read_text(content, "sum", SumHeader)
    if surplus := set(content) - {"sum", "message"}:
        raise ReplyError(f"The message carries {len(surplus)} records that nobody asked for.")
    if header.reason is not None:
        return header, b""
    return header, _read_bytes(content, "message", SECURE_SUM, most)
