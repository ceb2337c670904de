from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from common.errors import ModelError
from fl_client.webcam import classifier as classifier_module
from fl_client.webcam.classifier import Classifier
from models.class_counts import FER2013
from models.faces.inputs import model_inputs, softmax
from models.faces.light import DIM, relit
from models.preprocess import Box, Preprocessing
from models.prior import even_shift, prior_correct

from .conftest import BRIGHT, CLASSES, DARK, brightness_onnx, frame_with, loop_model, spied

PICTURE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(10, axis=0).repeat(10, axis=1)
BOXES = st.tuples(st.integers(-50, 170), st.integers(-50, 130), st.integers(1, 150), st.integers(1, 150))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(BOXES, min_size=1, max_size=4),
    st.sampled_from([Preprocessing(), Preprocessing(size=64, crop_margin=0.2, mean=0.4, std=0.3)]),
)
def test_the_loops_inputs_are_byte_for_byte_those_of_training(boxes: list[Box], preprocessing: Preprocessing) -> None:
    """All but those of faces in bad light, which are given a training face's contrast."""
    inputs = model_inputs(preprocessing, PICTURE, boxes)
    crops = [preprocessing.crop(PICTURE, box) for box in boxes]
    one_by_one = [preprocessing.normalise((crop if crop.std() >= DIM else relit(crop))[None]) for crop in crops]
    assert inputs.shape == (len(boxes), 1, preprocessing.size, preprocessing.size)
    assert inputs.dtype == np.float32
    assert inputs.tobytes() == b"".join(made.tobytes() for made in one_by_one)


@pytest.mark.parametrize("side", [48, 30, 97])
def test_a_training_picture_seen_in_a_frame_becomes_the_same_input(side: int) -> None:
    """Training reads a ready-made crop with `whole`; the loop finds the same pixels inside a larger frame."""
    preprocessing = Preprocessing()
    blocks = np.random.default_rng(side).integers(0, 256, (side // 6 + 1, side // 6 + 1, 3), dtype=np.uint8)
    crop = blocks.repeat(6, axis=0).repeat(6, axis=1)[:side, :side]
    frame = frame_with([])
    frame[40 : 40 + side, 70 : 70 + side] = crop
    trained = preprocessing.normalise(preprocessing.whole(crop)[None])
    assert model_inputs(preprocessing, frame, [(70, 40, side, side)]).tobytes() == trained.tobytes()


def test_a_dim_face_reaches_the_model_with_the_contrast_of_a_bright_one() -> None:
    bright, dim = (model_inputs(Preprocessing(), (PICTURE * light).astype(np.uint8), [(10, 10, 90, 90)]) for light in (1.0, 0.1))
    assert dim.std() > 0.8 * bright.std()
    assert np.corrcoef(bright.ravel(), dim.ravel())[0, 1] > 0.95


def test_heatmaps_come_with_the_probabilities_where_they_are_asked_for_and_the_model_gives_them() -> None:
    plain = Classifier(loop_model())
    assert not plain.has_heat
    assert plain.read(PICTURE, [(10, 10, 50, 50)], heat=True).heat is None
    seeing = Classifier(loop_model(onnx=with_heatmap(brightness_onnx())))
    assert seeing.has_heat
    assert seeing.read(PICTURE, [(10, 10, 50, 50)]).heat is None
    reading = seeing.read(PICTURE, [(10, 10, 50, 50), (60, 10, 50, 50)], heat=True)
    assert reading.heat is not None
    assert reading.heat.shape == (2, len(CLASSES), 1, 1)
    np.testing.assert_allclose(softmax(reading.heat[:, :, 0, 0]), reading.probabilities, atol=1e-6)


def test_a_heatmap_of_another_shape_is_refused() -> None:
    with pytest.raises(ModelError, match="answers heatmaps"):
        Classifier(loop_model(onnx=with_heatmap(brightness_onnx(), flat=True)))


def with_heatmap(content: bytes, flat: bool = False) -> bytes:
    """A second output `heatmap`, (N, C, 1, 1), that repeats the logits."""
    model = onnx.load_from_string(content)
    places = numpy_helper.from_array(np.array([2] if flat else [2, 3]), "places")
    model.graph.initializer.append(places)
    model.graph.node.append(helper.make_node("Unsqueeze", ["logits", "places"], ["heatmap"]))
    shape = ["batch", len(CLASSES), 1] + [1] * (not flat)
    model.graph.output.append(helper.make_tensor_value_info("heatmap", TensorProto.FLOAT, shape))
    return bytes(model.SerializeToString())


def test_what_reaches_the_session_is_those_bytes_in_one_batch_for_all_faces() -> None:
    classifier = Classifier(loop_model())
    spy = spied(classifier)
    boxes = [(0, 0, 50, 50), (60, 10, 40, 44), (-10, 90, 64, 64)]
    classifier.probabilities(PICTURE, boxes)
    assert [batch.shape for batch in spy.batches] == [(3, 1, 48, 48)]
    assert spy.batches[0].tobytes() == model_inputs(Preprocessing(), PICTURE, boxes).tobytes()


def test_a_shift_makes_of_the_answers_what_the_correction_to_even_frequencies_makes_of_them() -> None:
    counts = np.array([FER2013[name] for name in CLASSES])
    boxes = [(10, 10, 60, 60), (80, 10, 60, 60)]
    plain = Classifier(loop_model()).probabilities(PICTURE, boxes)
    evened = Classifier(loop_model(shift=even_shift(counts).astype(np.float32))).probabilities(PICTURE, boxes)
    np.testing.assert_allclose(evened, prior_correct(plain, counts, np.ones(len(CLASSES))), atol=1e-6)
    assert np.abs(evened - plain).max() > 0.05
    assert evened.dtype == np.float32


def test_no_face_costs_no_inference() -> None:
    classifier = Classifier(loop_model())
    spy = spied(classifier)
    assert classifier.probabilities(PICTURE, []).shape == (0, len(CLASSES))
    assert spy.batches == []
    assert model_inputs(Preprocessing(), PICTURE, []).shape == (0, 1, 48, 48)


def test_probabilities_follow_the_manifests_classes() -> None:
    boxes = [(10, 10, 60, 60), (100, 10, 60, 60), (200, 10, 60, 60)]
    frame = frame_with([(boxes[0], 255), (boxes[1], 0), (boxes[2], 128)])
    classifier = Classifier(loop_model())
    probabilities = classifier.probabilities(frame, boxes)
    assert probabilities.shape == (3, len(CLASSES))
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    assert [CLASSES[at] for at in probabilities[:2].argmax(1)] == [BRIGHT, DARK]
    np.testing.assert_allclose(probabilities[2], 1 / len(CLASSES), atol=0.03)
    alone = [classifier.probabilities(frame, [box])[0] for box in boxes]
    np.testing.assert_allclose(probabilities, alone, atol=1e-6)


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=9))
def test_softmax_is_a_distribution_in_the_order_of_the_logits(logits: list[float]) -> None:
    shares = softmax(np.array([logits], dtype=np.float32))[0]
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    assert (shares >= 0).all()
    for first in range(len(logits)):
        for second in range(len(logits)):
            if logits[first] > logits[second]:
                assert shares[first] >= shares[second]


def test_it_runs_on_the_cpu_with_the_threads_that_were_asked_for() -> None:
    session = Classifier(loop_model(), threads=2)._session
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.get_session_options().intra_op_num_threads == 2


def chained_onnx(*nodes: Any, **stored: NDArray[Any]) -> bytes:
    """`nodes` from `faces` to a tensor `last`, whose values, flat, are weighed into seven logits."""
    columns = np.zeros((48 * 48, 7), dtype=np.float32)
    columns[0] = 1
    ends = [helper.make_node("Flatten", ["last"], ["flat"], axis=1), helper.make_node("MatMul", ["flat", "columns"], ["logits"])]
    graph = helper.make_graph(
        [*nodes, *ends],
        "chained",
        [helper.make_tensor_value_info("faces", TensorProto.FLOAT, ["batch", 1, 48, 48])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 7])],
        [numpy_helper.from_array(value, name) for name, value in {"columns": columns, **stored}.items()],
    )
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString())


def constant_onnx(value: float) -> bytes:
    return chained_onnx(helper.make_node("Mul", ["faces", "value"], ["last"]), value=np.array(value, dtype=np.float32))


def too_much_above(level: float) -> bytes:
    """Infinite, and so not finite, where a pixel's input is above `level`; 0 elsewhere."""
    nodes = [
        helper.make_node("Sub", ["faces", "level"], ["above"]),
        helper.make_node("Relu", ["above"], ["positive"]),
        helper.make_node("Mul", ["positive", "huge"], ["large"]),
        helper.make_node("Mul", ["large", "huge"], ["last"]),
    ]
    return chained_onnx(*nodes, level=np.array(level, dtype=np.float32), huge=np.array(1e30, dtype=np.float32))


def endless_onnx() -> bytes:
    """Idle on black faces; 2^62 rounds where the first pixel is bright."""
    shape = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["still"])],
        "body",
        [shape("round", TensorProto.INT64, []), shape("go", TensorProto.BOOL, [])],
        [shape("still", TensorProto.BOOL, [])],
    )
    nodes = [
        helper.make_node("ReduceMax", ["faces"], ["brightest"], keepdims=0),
        helper.make_node("Greater", ["brightest", "level"], ["bright"]),
        helper.make_node("Loop", ["rounds", "bright"], [], body=body),
        helper.make_node("Relu", ["faces"], ["last"]),
    ]
    return chained_onnx(*nodes, level=np.array(-1, dtype=np.float32), rounds=np.array(2**62))


def test_a_loop_that_waits_for_a_real_face_is_refused_before_it_is_built() -> None:
    with pytest.raises(ModelError, match=r"^The model run demo round 1 #1 is refused: it holds a graph within the graph, "):
        Classifier(loop_model(onnx=endless_onnx()))


def test_a_model_that_is_finite_on_a_black_face_alone_is_refused() -> None:
    with pytest.raises(ModelError, match="numbers that are not finite"):
        Classifier(loop_model(onnx=too_much_above(0.0)))


def test_a_model_that_takes_too_long_is_stopped_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [helper.make_node("MatMul", [f"t{at}", "square"], [f"t{at + 1}"]) for at in range(300)]
    chain = [
        helper.make_node("Resize", ["faces", "", "scales"], ["t0"]),
        *steps,
        helper.make_node("Resize", ["t300", "", "back"], ["last"]),
    ]
    content = chained_onnx(
        *chain,
        square=np.zeros((960, 960), dtype=np.float32),
        scales=np.array([1, 1, 20, 20], dtype=np.float32),
        back=np.array([1, 1, 0.05, 0.05], dtype=np.float32),
    )
    monkeypatch.setattr(classifier_module, "TRIAL_SECONDS", 0.5)
    with pytest.raises(ModelError, match=r"takes more than 0\.5 seconds to try"):
        Classifier(loop_model(onnx=content))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no model", "cannot be run by ONNX Runtime"),
        (b"", "cannot be run by ONNX Runtime"),
        (brightness_onnx(size=64), "cannot be run by ONNX Runtime"),
        (brightness_onnx(classes=5), r"answers \(4, 5\) where its manifest promises \(4, 7\)"),
        (constant_onnx(float("nan")), "numbers that are not finite"),
    ],
)
def test_a_model_that_cannot_work_is_refused_before_the_first_frame(content: bytes, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence) as caught:
        Classifier(loop_model(onnx=content, version="run demo round 3 #4"))
    assert "run demo round 3 #4" in str(caught.value)
    assert "\n" not in str(caught.value)
