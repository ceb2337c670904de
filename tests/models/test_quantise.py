import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import nn

from common.errors import ModelError
from models.export import export_onnx
from models.onnx_session import cpu_session
from models.quantise import quantise, to_int8


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, bias=False),
        nn.GroupNorm(8, 64),
        nn.Conv2d(64, 256, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(256, 7),
    ).eval()


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=4, max_side=6), elements=st.floats(-1e6, 1e6, width=32)))
def test_every_weight_moves_by_at_most_half_a_step_of_its_channel(weights: np.ndarray) -> None:
    integers, scales = to_int8(weights)
    assert (scales > 0).all()
    assert np.abs(integers.astype(int)).max() <= 127
    assert (np.abs(integers * scales - weights) <= scales * 0.5001).all()


def test_a_channel_of_zeros_stays_zero_and_its_neighbours_do_not_feel_it() -> None:
    weights = np.array([[0, 0], [1, -0.5]], dtype=np.float32)
    integers, scales = to_int8(weights)
    np.testing.assert_array_equal(integers, [[0, 0], [127, -64]])
    np.testing.assert_allclose(scales[1], 1 / 127)


def test_the_file_shrinks_to_a_quarter_and_the_logits_move_little() -> None:
    content = export_onnx(network(), 32)
    small = quantise(content)
    assert len(small) < 0.28 * len(content)
    faces = np.random.default_rng(0).standard_normal((5, 1, 32, 32), dtype=np.float32)
    exact, rough = (cpu_session(file).run(["logits"], {"faces": faces})[0] for file in (content, small))
    difference = np.abs(exact - rough).max()
    assert 0 < difference < 0.02 * np.abs(exact).max()


def test_after_loading_the_runtime_has_the_operations_of_the_float_file(tmp_path: object) -> None:
    import onnxruntime

    counts = []
    for content in (export_onnx(network(), 32), quantise(export_onnx(network(), 32))):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = f"{tmp_path}/optimised.onnx"
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        counts.append([node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node])
    assert counts[0] == counts[1]
    assert "Cast" not in counts[1]


def test_vectors_stay_as_they_were() -> None:
    content = export_onnx(network(), 32)
    before, after = (
        {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(file).graph.initializer}
        for file in (content, quantise(content))
    )
    for name, array in before.items():
        if array.ndim == 1:
            np.testing.assert_array_equal(after[name], array)
        else:
            assert name not in after


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(100)])
def test_what_is_no_onnx_model_is_one_sentence(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"^This (is not an ONNX model|ONNX model does not hold)"):
        quantise(content)


def test_a_model_is_not_quantised_twice() -> None:
    with pytest.raises(ModelError, match="already"):
        quantise(quantise(export_onnx(network(), 32)))
