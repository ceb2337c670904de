"""What passes before a session is built: every export of this project, and nothing that decides as it runs."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from common.config import ModelConfig
from common.errors import ModelError
from common.parameters import read_parameters
from fl_client.webcam.graph import MOST_PARTS, OPERATIONS, check_graph
from models.export import export_onnx
from models.graft import graft, trunk_digest
from models.mobilenet import VARIANTS, build_model
from models.quantise import quantise
from models.subset import HEAD

from .conftest import brightness_onnx

Change = Callable[[onnx.ModelProto], object]


def changed(change: Change) -> bytes:
    model = onnx.load_from_string(brightness_onnx())
    change(model)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variants_export_passes_as_it_is_as_int8_and_with_another_head(name: str) -> None:
    torch.manual_seed(0)
    network = build_model(ModelConfig(name=name, stem_stride=2)).eval()
    content = export_onnx(network, 48)
    weights = read_parameters(network)
    head = {key: value + 1 for key, value in weights.items() if key.startswith(HEAD)}
    grafted = graft(content, head, trunk_digest(weights))
    assert grafted is not None
    for form in (content, quantise(content), grafted):
        check_graph(form, "It")
        assert {node.op_type for node in onnx.load_from_string(form).graph.node} <= OPERATIONS
    assert 8 * sum(len(node.input) + len(node.output) for node in onnx.load_from_string(content).graph.node) < MOST_PARTS


def subgraph(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Relu", ["faces"], ["x"], body=body))


def function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    model.functions.append(helper.make_function("emofl", "Relu", ["x"], ["y"], [node], [helper.make_opsetid("", 18)]))


def elsewhere(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def add(operation: str, *inputs: str, domain: str | None = None) -> Change:
    return lambda model: model.graph.node.append(helper.make_node(operation, inputs, ["made"], domain=domain))


def crowd(model: onnx.ModelProto) -> None:
    for _ in range(MOST_PARTS // 4):
        model.graph.node.add(op_type="Relu", input=["faces"], output=["x"])


def stored_input(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 2]), "sides"))
    model.graph.input.append(helper.make_tensor_value_info("sides", TensorProto.INT64, [2]))
    add("Reshape", "faces", "sides")(model)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        *((add(name, "faces"), f"the operation '{name}'") for name in ("Loop", "If", "Scan", "Sqrt", "ReduceMax", "NonZero")),
        (add("a\nb" + "c" * 99, "faces"), r"the operation 'a\\nbc{37}'"),
        (add("Relu", "faces", domain="com.microsoft"), "operations of another domain"),
        (subgraph, "a graph within the graph"),
        (function, "functions of its own"),
        (elsewhere, "numbers that stand in another file"),
        (crowd, "more than 100000 parts"),
        (add("Reshape", "faces", "flat"), "a Reshape to a size that is computed"),
        (add("Resize", "faces", "", "flat"), "a Resize to a size that is computed"),
        (add("ConstantOfShape", "flat"), "a ConstantOfShape to a size that is computed"),
        (stored_input, "a Reshape to a size that is computed"),
    ],
)
def test_what_no_export_holds_is_refused_by_name(change: Change, named: str) -> None:
    with pytest.raises(ModelError, match=f"^It is refused: it holds ({named}), as no model that this version of emofl knows.$"):
        check_graph(changed(change), "It")


def field(number: int, content: bytes, wire: int = 2) -> bytes:
    key = number << 3 | wire
    return varint(key) + varint(len(content)) + content


def varint(value: int) -> bytes:
    made = b""
    while value > 0x7F:
        made, value = made + bytes([value & 0x7F | 0x80]), value >> 7
    return made + bytes([value])


LOOPING = field(7, field(1, field(4, b"Loop")))


@pytest.mark.parametrize(
    "content",
    [
        brightness_onnx() + LOOPING,  # readers join two graphs
        brightness_onnx() + field(7, field(1, field(4, b"Relu") + field(4, b"Loop"))),  # and take the last of two names
        brightness_onnx() + varint((7 << 3 | 2) + (1 << 32)) + LOOPING[1:],  # a number that some cut to 32 bits
        brightness_onnx() + bytes([7 << 3 | 3]) + LOOPING[2:] + bytes([7 << 3 | 4]),  # a group
        brightness_onnx()[:-3],
        b"\xff" * 20,
    ],
)
def test_what_readers_could_take_differently_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError):
        check_graph(content, "It")


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_whatever_comes_is_checked_or_refused(content: bytes) -> None:
    for whole in (content, field(7, content), field(7, field(1, content)), field(7, field(5, content))):
        try:
            check_graph(whole, "It")
        except ModelError as error:
            assert str(error).startswith("It ")  # noqa: PT017
