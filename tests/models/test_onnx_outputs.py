import subprocess
import sys
from contextlib import suppress

import numpy as np
import onnx
import pytest
import torch

from common.config import ModelConfig
from common.errors import ModelError
from models.export import export_onnx
from models.mobilenet import build_model
from models.onnx_outputs import only
from models.onnx_session import cpu_session
from tests.tiny_model import tiny_onnx

FACES = np.random.default_rng(0).standard_normal((2, 1, 48, 48), dtype=np.float32)


@pytest.fixture(scope="module")
def content() -> bytes:
    torch.manual_seed(0)
    return export_onnx(build_model(ModelConfig(name="mobilenet_v3_small_050")).eval(), 48)


def test_the_logits_alone_are_the_logits_beside_the_heatmap(content: bytes) -> None:
    both, alone = cpu_session(content), cpu_session(only(content, "logits"))
    assert [output.name for output in both.get_outputs()] == ["logits", "heatmap"]
    assert [output.name for output in alone.get_outputs()] == ["logits"]
    np.testing.assert_array_equal(alone.run(None, {"faces": FACES})[0], both.run(["logits"], {"faces": FACES})[0])


def test_the_logits_need_none_of_the_heatmaps_arithmetic(content: bytes) -> None:
    """What only the heatmap needs starts behind what both need: no operation of the rest may hang on it."""
    graph = onnx.load_from_string(content).graph
    made = {name: node for node in graph.node for name in node.output}
    needed, ahead = set(), ["logits"]
    while ahead:
        name = ahead.pop()
        if name in made and name not in needed:
            needed.add(name)
            ahead += made[name].input
    for_the_heatmap_alone = [node.op_type for node in graph.node if not needed & set(node.output)]
    assert for_the_heatmap_alone.count("MatMul") == 2
    assert {"Conv", "InstanceNormalization"}.isdisjoint(for_the_heatmap_alone)


def test_a_file_with_one_output_stays_as_it_is(content: bytes) -> None:
    alone = only(content, "logits")
    assert only(alone, "logits") is alone


def test_what_is_not_there_is_one_sentence(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"^This ONNX model has no output 'mood'\.$"):
        only(content, "mood")
    with pytest.raises(ModelError, match="not an ONNX model"):
        only(b"something else", "logits")


def test_nothing_but_the_other_outputs_is_left_out(content: bytes) -> None:
    wanted = onnx.load_from_string(content)
    del wanted.graph.output[1:]
    assert onnx.load_from_string(only(content, "logits")) == wanted
    wanted.graph.output[0].CopyFrom(onnx.load_from_string(content).graph.output[1])
    assert onnx.load_from_string(only(content, "heatmap")) == wanted


def test_a_damaged_file_is_one_sentence_wherever_it_ends() -> None:
    whole = tiny_onnx()
    for end in range(0, len(whole), 7):
        with suppress(ModelError):
            only(whole[:end], "logits")
    for at in range(len(whole)):
        with suppress(ModelError):
            only(whole[:at] + b"\xff" + whole[at + 1 :], "logits")
    for content in (b"", whole[:-9], b"\xff" * 40, whole + whole):
        with pytest.raises(ModelError, match=r"^This is not an ONNX model\.$"):
            only(content, "logits")


def test_it_needs_no_onnx_library() -> None:
    program = (
        "import sys, models.onnx_outputs, fl_client.webcam.classifier, fl_client.webcam.serving\nsys.exit('onnx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
