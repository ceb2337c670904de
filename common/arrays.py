"""A model's arrays by name, and the forms in which they travel: safetensors bytes, or one flat vector.

`common.messages` and the secure sum use it. Values may be sent in fewer bits, rounded at random so that the mean stays.
"""

import math
import secrets
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from common.config import Precision
from common.errors import ReplyError
from common.secagg.prg import SEED_BYTES, expand

Arrays = dict[str, NDArray[np.float32]]
Shapes = Mapping[str, tuple[int, ...]]

BYTES: dict[Precision, int] = {"float32": 4, "float16": 2, "int16": 2, "int8": 1}
INTEGERS: dict[Precision, int] = {"int16": 2**15 - 1, "int8": 2**7 - 1}
"""The largest magnitude of what is sent."""
SCALES = "scales"
"""Beside integers: what one unit stands for, per array in the order of their names."""
MOST_HEADER = 512 * 1024
"""Bytes that names and shapes may take up beside the values."""


def flatten(arrays: Arrays) -> NDArray[np.float32]:
    """All values as one vector, arrays in the order of their names."""
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)]) if arrays else np.empty(0, np.float32)


def l2_norm(values: NDArray[np.floating]) -> float:
    """Of all values together, added up in double precision.

    Without BLAS, which `np.linalg.norm` calls: its idle threads spin for longer than the sum takes.
    """
    flat = values.ravel()
    return math.sqrt(float(np.einsum("i,i->", flat, flat, dtype=np.float64)))


def unflatten(flat: NDArray[np.float32], shapes: Shapes) -> Arrays:
    """The inverse of `flatten`, in the order of `shapes`.

    Raises:
        ReplyError: the vector does not have as many values.
    """
    names = sorted(shapes)
    ends = np.cumsum([math.prod(shapes[name]) for name in names])
    if flat.ndim != 1 or len(flat) != (ends[-1] if len(ends) else 0):
        raise ReplyError("The vector does not have as many values as the model.")
    parts = dict(zip(names, np.split(flat, ends[:-1]), strict=False))
    return {name: parts[name].reshape(shape) for name, shape in shapes.items()}


def pack(arrays: Arrays, precision: Precision = "float32", random: Callable[[int], bytes] = secrets.token_bytes) -> bytes:
    """As safetensors bytes; below float32 each value is rounded to one of its two neighbours, at random and unbiased.

    Values that float16 cannot hold become its largest; integers have one scale per array, its largest magnitude / 127 or / 32767.

    Args:
        random: gives that many bytes, for rounding below float32.
    """
    if precision == "float32":
        return save({name: np.asarray(value, dtype=np.float32, order="C") for name, value in arrays.items()})
    sent: dict[str, NDArray[np.generic]] = {}
    scales = []
    for name in sorted(arrays):
        value = np.asarray(arrays[name], dtype=np.float64)
        chance = np.asarray((expand(random(SEED_BYTES), value.size) + 0.5) * 2.0**-32, dtype=np.float64).reshape(value.shape)
        if precision == "float16":
            sent[name] = _to_float16(value, chance)
        else:
            most = INTEGERS[precision]
            scale = float(np.float32(np.abs(value).max(initial=0.0) / most))
            scales.append(scale)
            sent[name] = np.asarray(np.clip(np.floor(value / (scale or 1.0) + chance), -most, most), dtype=precision)
    if precision in INTEGERS:
        sent[SCALES] = np.array(scales, dtype=np.float32)
    return save(sent)


def _to_float16(value: NDArray[np.float64], chance: NDArray[np.float64]) -> NDArray[np.float16]:
    most = float(np.finfo(np.float16).max)
    value = np.clip(value, -most, most)
    near = value.astype(np.float16)
    other = np.nextafter(near, np.where(value > near, most, -most).astype(np.float16))
    far = chance * np.abs(other.astype(np.float64) - near) < np.abs(value - near)
    return np.asarray(np.where(far, other, near))


def largest_packed(shapes: Shapes, precision: Precision = "float32") -> int:
    """Bytes that no honest `pack` of such arrays exceeds."""
    return BYTES[precision] * sum(math.prod(shape) for shape in shapes.values()) + 4 * len(shapes) + MOST_HEADER


def unpack(content: bytes, shapes: Shapes | None = None, precision: Precision = "float32") -> Arrays:
    """The arrays of `pack`, as float32.

    Args:
        shapes: what is expected; None takes whatever arrays there are.

    Raises:
        ReplyError: not safetensors, or a name, shape or type is not as expected.
    """
    if shapes is not None and len(content) > largest_packed(shapes, precision):
        raise ReplyError("The arrays hold more bytes than their shapes need.")
    try:
        found = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ReplyError(f"The arrays cannot be unpacked ({type(error).__name__}).") from error
    scales = found.pop(SCALES, None) if precision in INTEGERS else None
    if shapes is not None and set(found) != set(shapes):
        raise ReplyError("The parameters are not the ones that were asked for.")
    for name, value in found.items():
        if value.dtype != np.dtype(precision) or (shapes is not None and value.shape != tuple(shapes[name])):
            raise ReplyError(f"{name[:80]!r} is not {precision} of the shape that was asked for.")
    if precision in INTEGERS:
        if scales is None or scales.dtype != np.float32 or scales.shape != (len(found),):
            raise ReplyError(f"The {precision} values come without their scales.")
        return {name: found[name] * scale for name, scale in zip(sorted(found), scales, strict=True)}
    return {name: value.astype(np.float32, copy=False) for name, value in found.items()}
