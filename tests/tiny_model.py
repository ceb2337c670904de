"""A network of one layer that looks at brightness alone, with the outputs of a published model. For tests of what runs models."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 7


def tiny_onnx(seed: int = 0, heatmap: bool = True) -> bytes:
    """`faces` (N, 1, 48, 48) -> `logits` (N, 7), the mean of `heatmap` (N, 7, 6, 6)."""
    rng = np.random.default_rng(seed)
    weights = {
        "weight": rng.normal(0, 2, (CLASSES, 1, 1, 1)).astype(np.float32),
        "bias": rng.normal(0, 0.5, CLASSES).astype(np.float32),
        "axes": np.array([2, 3], dtype=np.int64),
    }
    nodes = [
        helper.make_node("AveragePool", ["faces"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["cells", "weight", "bias"], ["heatmap"]),
        helper.make_node("ReduceMean", ["heatmap", "axes"], ["logits"], keepdims=0),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])]
    if heatmap:
        outputs.append(helper.make_tensor_value_info("heatmap", TensorProto.FLOAT, ["batch", CLASSES, 6, 6]))
    faces = helper.make_tensor_value_info("faces", TensorProto.FLOAT, ["batch", 1, 48, 48])
    graph = helper.make_graph(
        nodes, "tiny", [faces], outputs, [numpy_helper.from_array(value, name) for name, value in weights.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
