from collections import Counter

import numpy as np
import onnx
import torch
from torch import nn

from common.parameters import read_parameters
from models.blocks import SqueezeExcitation
from models.export import export_onnx
from models.onnx_forms import prepare


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.GroupNorm(4, 32),
        nn.Hardswish(),
        SqueezeExcitation(32, 8),
        nn.Conv2d(32, 16, 1, bias=False),
        nn.GroupNorm(1, 16, eps=0.1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    with torch.no_grad():
        for parameter in layers.parameters():
            if parameter.ndim == 1:
                parameter.normal_(0.5, 1)
    return layers.eval()


def operations(content: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(content).graph.node)


def run(content: bytes, faces: torch.Tensor) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"faces": faces.numpy()})[0])


def test_a_group_norm_is_one_normalisation_and_one_affine_operation_without_broadcasts() -> None:
    found = operations(export_onnx(network(), 16))
    assert (found["InstanceNormalization"], found["BatchNormalization"], found["Reshape"]) == (2, 2, 4)
    assert found["Mul"] == 1
    assert found["Add"] == found["Shape"] == 0


def test_prepared_layers_compute_what_they_computed_under_the_same_names() -> None:
    model, changed = network(), network()
    prepare(changed)
    faces = torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(changed(faces), model(faces))
    assert list(changed.state_dict()) == list(model.state_dict())


def test_groups_epsilon_and_a_mean_far_from_zero_survive_the_export() -> None:
    model = network()
    faces = 5 + 0.01 * torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = model(faces).numpy()
    np.testing.assert_allclose(run(export_onnx(model, 16), faces), expected, atol=2e-3 * float(np.abs(expected).max()))


def test_squeeze_and_excite_factors_are_spread_in_a_way_that_keeps_the_blocked_layout() -> None:
    content = export_onnx(network(), 16)
    assert operations(content)["Resize"] == 1
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(content), data_prop=True).graph
    shapes = {
        value.name: [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim] for value in graph.value_info
    }
    (mul,) = [node for node in graph.node if node.op_type == "Mul"]
    assert [shapes[name] for name in mul.input] == [["batch", 32, 16, 16]] * 2


def test_the_constants_of_the_graph_take_little_room_beside_the_weights() -> None:
    model = network()
    weights = sum(array.nbytes for array in read_parameters(model).values())
    assert len(export_onnx(model, 16)) < weights + 8_000
