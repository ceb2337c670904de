"""A quarter of the size: an ONNX file's weights as 8-bit integers with a scale per output channel. `models.exported` calls it.

Activations stay float32, so nothing has to be calibrated. The factors are multiplied in while a runtime loads the file, which
every runtime does for what is constant: from then on it runs the very operations of the float32 file, and as fast.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from common.errors import ModelError

LARGEST = 127


def quantise(content: bytes) -> bytes:
    """The ONNX file `content`, each weight W of two or more dimensions stored as round(W[c] / s[c]) with s[c] = max |W[c]| / 127.

    Each value moves by at most half of its channel's s. Vectors (biases, the norms' scale and shift) stay float32.

    Raises:
        ModelError: it is not a float32 model with constant weights, such as one that was quantised before.
    """
    try:
        model = onnx.load_from_string(content)
        onnx.checker.check_model(model)
    except Exception as error:
        # protobuf's and onnx's exceptions share no public base class
        raise ModelError(
            f"This is not an ONNX model: {str(error).splitlines()[0] if str(error) else type(error).__name__}."
        ) from error
    graph = model.graph
    large = [one for one in graph.initializer if len(one.dims) > 1 and one.data_type == onnx.TensorProto.FLOAT]
    if not large or any(one.data_type == onnx.TensorProto.INT8 for one in graph.initializer):
        raise ModelError("This ONNX model does not hold float32 weights alone: it may have been quantised already.")
    kept = [tensor for tensor in graph.initializer if tensor not in large]
    steps = []
    for number, tensor in enumerate(large):
        integers, scales = to_int8(numpy_helper.to_array(tensor))
        stored, scale, plain = f"q{number}", f"s{number}", f"f{number}"
        kept += [numpy_helper.from_array(integers, stored), numpy_helper.from_array(scales, scale)]
        steps += [
            helper.make_node("Cast", [stored], [plain], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [plain, scale], [tensor.name]),
        ]
    nodes = [*steps, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    smaller: bytes = model.SerializeToString(deterministic=True)
    return smaller


def to_int8(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(C, ...) float32 -> integers in [-127, 127] of that shape, and scales of shape (C, 1, ...), above zero.

    A channel whose values are all below 1e-36 becomes zero.
    """
    largest = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True)
    scales = (largest / LARGEST).astype(np.float32)
    scales = np.where(scales < np.finfo(np.float32).tiny, np.float32(1), scales)
    return np.clip(np.rint(weights / scales), -LARGEST, LARGEST).astype(np.int8), scales
