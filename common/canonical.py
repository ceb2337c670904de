"""One byte string per JSON value, so that it can be hashed and signed."""

import hashlib
import json
from typing import Any

from common.errors import IntegrityError


def encode(value: Any) -> bytes:
    """Canonical JSON: keys sorted, no white space, UTF-8, one newline at the end.

    Signatures are made over these bytes as stored, so a verifier in another language needs no re-encoding.

    Raises:
        IntegrityError: a number is NaN or infinite, or a value has no JSON form.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise IntegrityError(f"This value cannot be written as canonical JSON: {error}.") from error
    return (text + "\n").encode()


def sha256(content: bytes) -> str:
    """Lower-case hexadecimal SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()
