"""Ring integers in as few bytes as their width needs. `common.secagg.wire` sends masked vectors so.

The bits of the values follow each other, the least significant first, in bytes filled from their least significant bit; what is
left of the last byte is zero. At 32 bits that is little-endian words.
"""

import numpy as np
from numpy.typing import NDArray

from common.errors import IntegrityError

NARROWEST, WIDEST = 8, 32
_LANES = 32
"""Values that together fill whole 32-bit words at any width."""


def packed_size(count: int, width: int) -> int:
    """Bytes of `count` values."""
    return (count * width + 7) // 8


def pack_bits(values: NDArray[np.uint32], width: int) -> bytes:
    """Flat uint32 values, each below 2^width, with 8 <= width <= 32."""
    if width == WIDEST:
        return values.astype("<u4", copy=False).tobytes()
    groups = -(-len(values) // _LANES)
    lanes = np.zeros(groups * _LANES, dtype=np.uint32)
    lanes[: len(values)] = values
    lanes = np.ascontiguousarray(lanes.reshape(groups, _LANES).T)
    words = np.zeros((width, groups), dtype=np.uint32)
    for lane in range(_LANES):
        word, shift = divmod(lane * width, 32)
        words[word] |= lanes[lane] << np.uint32(shift)
        if shift + width > 32:
            words[word + 1] |= lanes[lane] >> np.uint32(32 - shift)
    return words.T.astype("<u4", order="C").tobytes()[: packed_size(len(values), width)]


def unpack_bits(content: bytes, count: int, width: int) -> NDArray[np.uint32]:
    """The inverse of `pack_bits`.

    Raises:
        IntegrityError: another number of bytes, or the last one is not filled up with zeros.
    """
    if len(content) != packed_size(count, width):
        raise IntegrityError(f"{count} values of {width} bits are not {len(content)} bytes.")
    if width == WIDEST:
        return np.frombuffer(content, dtype="<u4").astype(np.uint32, copy=False)
    if (spare := -count * width % 8) and content[-1] >> (8 - spare):
        raise IntegrityError("The last byte of the packed values is not filled up with zeros.")
    groups = -(-count // _LANES)
    filled = content + bytes(4 * width * groups - len(content))
    words = np.ascontiguousarray(np.frombuffer(filled, dtype="<u4").reshape(groups, width).T)
    lanes = np.empty((_LANES, groups), dtype=np.uint32)
    for lane in range(_LANES):
        word, shift = divmod(lane * width, 32)
        lanes[lane] = words[word] >> np.uint32(shift)
        if shift + width > 32:
            lanes[lane] |= words[word + 1] << np.uint32(32 - shift)
    lanes &= np.uint32(2**width - 1)
    return np.ascontiguousarray(lanes.T).reshape(-1)[:count]
