"""A head put in place of another, in a model's ONNX file, without torch. `fl_client.personal_source` uses it."""

import hashlib
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from common.errors import ModelError
from models.subset import HEAD

Weights = Mapping[str, NDArray[np.float32]]


def trunk_digest(weights: Weights) -> str:
    """SHA-256 of all parameters but the head's: a head fits the trunk that it was trained on, and no other."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        if not name.startswith(HEAD):
            digest.update(f"{name}{weights[name].shape}".encode())
            digest.update(np.ascontiguousarray(weights[name], dtype="<f4").tobytes())
    return digest.hexdigest()


def graft(content: bytes, head: Weights, trunk: str) -> bytes | None:
    """The ONNX file `content`, as `models.export` writes it, with the parameters of `head`; None if its trunk has another digest.

    Raises:
        ModelError: it is no such file, or its head has other names or shapes.
    """
    try:
        graph = onnx.load_from_string(content)
        found = {tensor.name: tensor for tensor in graph.graph.initializer}
        if trunk_digest({name: numpy_helper.to_array(tensor) for name, tensor in found.items()}) != trunk:
            return None
    except Exception as error:  # protobuf's own, whatever the file holds
        raise ModelError("This model's ONNX file cannot be read, so no own head fits it.") from error
    shapes = {name: tuple(tensor.dims) for name, tensor in found.items() if name.startswith(HEAD)}
    if shapes != {name: value.shape for name, value in head.items()}:
        raise ModelError("Your own head has another form than this model's: fit it again with `fl-client personalise`.")
    for name, value in head.items():
        found[name].CopyFrom(numpy_helper.from_array(np.asarray(value, dtype=np.float32), name))
    grafted: bytes = graph.SerializeToString(deterministic=True)
    return grafted
