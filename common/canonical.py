"""One byte string per JSON value, so that it can be hashed and signed."""

import hashlib
import json
from typing import Any, NoReturn

from common.errors import IntegrityError


def encode(value: Any) -> bytes:
    """Canonical JSON: keys sorted, no white space, UTF-8, one newline at the end.

    Signatures are made over these bytes as stored, so a verifier in another language needs no re-encoding.

    Raises:
        IntegrityError: a number is NaN or infinite, or a value has no JSON form.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return (text + "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise IntegrityError(f"This value cannot be written as canonical JSON: {error}.") from error


def decode(content: bytes) -> Any:
    """The value whose canonical JSON is exactly `content`.

    Raises:
        IntegrityError: not JSON, or not the one canonical form: white space, key order, a repeated key, NaN, 1e999.
    """

    def refuse(word: str) -> NoReturn:
        raise ValueError(f"{word} is not a JSON number")

    try:
        value = json.loads(content, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"This is not JSON: {error}.") from error
    if encode(value) != content:
        raise IntegrityError("This JSON is not in its canonical form: it was reformatted or altered.")
    return value


def sha256(content: bytes) -> str:
    """Lower-case hexadecimal SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()
