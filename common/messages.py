"""What travels between server and device, and nothing else: one request, one reply. Both apps encode and decode with it.

A request carries the model and the server's wishes in the clear under TLS. A reply carries the update and a status word: no
example counts, losses, accuracies, labels or error texts.
"""

import io
import math
from typing import Literal

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from common.config import ModelConfig, PrivacyConfig, Settings, TrainConfig
from common.errors import ReplyError

Arrays = dict[str, NDArray[np.float32]]

MAX_REQUEST_TEXT = 64 * 1024

Refusal = Literal["budget-spent", "no-data", "policy", "bad-request", "failed"]
"""Why a device sent no update. `failed` stands for any error of its own; the text stays on the device."""


class TrainRequest(Settings):
    """The server's wish for one round; the device's own policy decides.

    Attributes:
        run: identifier of the run.
        round, rounds: this round, from 1, and the last one.
        preprocessing: fields of `models.preprocess.Preprocessing`.
        participations: how often this device should expect to be asked in the run; it spreads its budget over them.
    """

    version: Literal[1] = 1
    run: str = Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")
    round: int = Field(ge=1)
    rounds: int = Field(ge=1)
    participations: int = Field(ge=1)
    model: ModelConfig
    train: TrainConfig
    privacy: PrivacyConfig
    preprocessing: dict[str, str | int | float] = Field(default_factory=dict)


class TrainReply(Settings):
    """A device's answer. Server sees: who answered, for which round, trained or why not, and the update's arrays."""

    version: Literal[1] = 1
    run: str
    round: int
    status: Literal["trained", "refused"]
    reason: Refusal | None = None


def _arrays_to_record(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(np.ascontiguousarray(value)) for name, value in arrays.items()})


def encode_request(request: TrainRequest, weights: Arrays) -> RecordDict:
    """The message content a server sends: `weights` are all of the model's parameters by name."""
    return RecordDict(
        {"weights": _arrays_to_record(weights), "request": ConfigRecord({"json": request.model_dump_json()})},
    )


def decode_request(content: RecordDict) -> tuple[TrainRequest, Arrays]:
    """The request and the weights of a message.

    Raises:
        ReplyError: the content is not a request of this version.
    """
    try:
        text = content["request"]["json"]
        if not isinstance(text, str) or len(text) > MAX_REQUEST_TEXT:
            raise ReplyError("The request is not text of a sensible size.")
        request = TrainRequest.model_validate_json(text)
        record = content["weights"]
        if not isinstance(record, ArrayRecord):
            raise ReplyError("The request carries no weights.")
        return request, {name: _to_float32(array) for name, array in record.items()}
    except (KeyError, TypeError, ValidationError) as error:
        raise ReplyError(f"The request is malformed ({type(error).__name__}).") from error


def encode_reply(reply: TrainReply, update: Arrays | None = None) -> RecordDict:
    """The message content a device sends; `update` is the change of each trained parameter."""
    records = RecordDict({"reply": ConfigRecord({"json": reply.model_dump_json()})})
    if update is not None:
        records["update"] = _arrays_to_record(update)
    return records


def decode_reply(content: RecordDict, expected: dict[str, tuple[int, ...]]) -> tuple[TrainReply, Arrays]:
    """The reply and its update, its arrays checked against the names and shapes that were asked for.

    Sizes are compared before anything is unpacked, so a reply cannot make the server allocate more than it expects.

    Args:
        expected: shape of each trained parameter by name.

    Raises:
        ReplyError: the reply is malformed, or an array's name, shape or type is not as expected.
    """
    try:
        text = content["reply"]["json"]
        if not isinstance(text, str) or len(text) > MAX_REQUEST_TEXT:
            raise ReplyError("The reply is not text of a sensible size.")
        reply = TrainReply.model_validate_json(text)
    except (KeyError, TypeError, ValidationError) as error:
        raise ReplyError(f"The reply is malformed ({type(error).__name__}).") from error
    surplus = set(content) - {"reply", "update"}
    if surplus:
        raise ReplyError(f"The reply carries {len(surplus)} records that nobody asked for.")
    if reply.status == "refused":
        return reply, {}
    record = content.get("update")
    if not isinstance(record, ArrayRecord) or set(record) != set(expected):
        raise ReplyError("The update's parameters are not the ones that were asked for.")
    arrays: Arrays = {}
    for name, shape in expected.items():
        array = record[name]
        if tuple(array.shape) != shape or array.dtype != "float32":
            raise ReplyError(f"{name} should be float32 of shape {shape}.")
        if len(array.data) > 4 * int(np.prod(shape)) + 1024:
            raise ReplyError(f"{name} holds more bytes than its shape needs.")
        arrays[name] = _to_float32(array)
    return reply, arrays


def _to_float32(array: Array) -> NDArray[np.float32]:
    """The values of an array, its own header believed only as far as it agrees with the message and with the bytes there are."""
    try:
        stream = io.BytesIO(array.data)
        read = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}[read_magic(stream)]
        shape, fortran, dtype = read(stream)
        payload = stream.read()
        honest = shape == tuple(array.shape) and dtype == np.dtype("<f4") and not (fortran and len(shape) > 1)
        if not honest or array.stype != "numpy.ndarray" or len(payload) != 4 * math.prod(shape):
            raise ReplyError("An array is not the float32 values that it says it is.")
        return np.frombuffer(payload, dtype=np.float32).reshape(shape).copy()
    except ReplyError:
        raise
    except Exception as error:
        raise ReplyError(f"An array cannot be unpacked ({type(error).__name__}).") from error
