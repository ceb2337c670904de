import numpy as np
import onnx
import pytest
import torch
from torch import nn

from common.errors import ModelError
from common.parameters import read_parameters
from models import export
from models.export import OnnxTemplate, export_onnx


def network(seed: int, classes: int = 7) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, bias=False),
        nn.GroupNorm(2, 16),
        nn.Hardswish(),
        nn.Dropout(0.5),
        nn.Conv2d(16, 16, 3, groups=16),
        nn.GroupNorm(2, 16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, classes),
    )


def run(content: bytes, faces: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"faces": faces})[0]
    assert isinstance(logits, np.ndarray)
    return logits


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_onnx_gives_what_torch_gives_in_evaluation_at_any_batch_size(batch: int) -> None:
    model = network(0).train()
    content = export_onnx(model, 48)
    faces = np.random.default_rng(1).standard_normal((batch, 1, 48, 48), dtype=np.float32)
    with torch.inference_mode():
        expected = network(0).eval()(torch.from_numpy(faces)).numpy()
    np.testing.assert_allclose(run(content, faces), expected, atol=1e-4)


def test_export_leaves_the_model_as_it_was() -> None:
    model = network(0).train()
    before = read_parameters(model)
    export_onnx(model, 48)
    assert model.training
    for name, array in read_parameters(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_one_template_serves_any_weights_of_its_architecture() -> None:
    template = OnnxTemplate.trace(network(0), 32)
    faces = np.random.default_rng(1).standard_normal((3, 1, 32, 32), dtype=np.float32)
    for seed in (1, 2):
        content = template.fill(read_parameters(network(seed)))
        with torch.inference_mode():
            expected = network(seed).eval()(torch.from_numpy(faces)).numpy()
        np.testing.assert_allclose(run(content, faces), expected, atol=1e-4)


def test_tensors_that_start_equal_do_not_stay_bound_together() -> None:
    model = network(0)
    template = OnnxTemplate.trace(model, 32)
    weights = read_parameters(model)
    weights["1.weight"] = np.linspace(0.5, 2, 16, dtype=np.float32)
    weights["5.weight"] = np.linspace(3, -1, 16, dtype=np.float32)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load_from_string(template.fill(weights)).graph.initializer}
    assert set(stored) == set(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(stored[name], array)


def test_the_same_weights_give_the_same_bytes_without_paths() -> None:
    template = OnnxTemplate.trace(network(0), 32)
    content = template.fill(read_parameters(network(1)))
    assert content == template.fill(read_parameters(network(1))) == export_onnx(network(1), 32)
    assert b".py" not in content
    assert b"site-packages" not in content


def test_opset_and_free_batch_size_are_as_promised() -> None:
    graph = onnx.load_from_string(export_onnx(network(0), 32))
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 18)]
    sides = graph.graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_param or side.dim_value for side in sides] == ["batch", 1, 32, 32]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: w.pop("9.bias"), "9.bias is missing or too much"),
        (lambda w: w.update(extra=np.zeros(1, np.float32)), "extra is missing or too much"),
        (lambda w: w.update({"9.bias": np.zeros(8, np.float32)}), r"9.bias is float32 \(8,\)"),
        (lambda w: w.update({"9.bias": np.zeros(7, np.float64)}), "9.bias is float64"),
        (lambda w: w.update({"9.bias": np.full(7, np.nan, np.float32)}), "9.bias has values that are NaN or infinite"),
        (lambda w: w.update({"9.bias": np.full(7, np.inf, np.float32)}), "9.bias has values that are NaN or infinite"),
    ],
)
def test_weights_of_another_shape_name_or_kind_are_refused(change: object, reason: str) -> None:
    template, weights = OnnxTemplate.trace(network(0), 32), read_parameters(network(0))
    change(weights)  # type: ignore[operator]
    with pytest.raises(ModelError, match=reason):
        template.fill(weights)


def test_an_export_that_differs_from_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    template = OnnxTemplate.trace(network(0), 32)
    wrong = template.fill(read_parameters(network(1)))
    session = export.cpu_session
    monkeypatch.setattr(export, "cpu_session", lambda content: session(wrong))
    assert template.fill(read_parameters(network(1))) == wrong
    with pytest.raises(ModelError, match="does not agree with torch"):
        template.fill(read_parameters(network(2)))


def test_a_difference_just_above_the_tolerance_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    template, weights = OnnxTemplate.trace(network(0), 32), read_parameters(network(0))
    session = export.cpu_session

    class Off:
        def __init__(self, content: bytes, by: float) -> None:
            self.session, self.by = session(content), by

        def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            logits = self.session.run(names, inputs)[0]
            if len(logits) == 3:
                logits[2, 3] += self.by
            return [logits]

    monkeypatch.setattr(export, "cpu_session", lambda content: Off(content, 5e-5))
    template.fill(weights)
    for by in (2e-4, float("nan")):
        monkeypatch.setattr(export, "cpu_session", lambda content, by=by: Off(content, by))
        with pytest.raises(ModelError, match="at batch size 3"):
            template.fill(weights)


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 1, 3)
        self.two = self.one

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.two(self.one(x)).flatten(1)
        return logits


def test_tensors_that_are_shared_or_not_used_are_refused() -> None:
    with pytest.raises(ModelError, match=r"unused, shared"):
        export_onnx(_Tied(), 32)
    unused = network(0)
    unused.register_parameter("spare", nn.Parameter(torch.zeros(3)))
    with pytest.raises(ModelError, match="spare"):
        export_onnx(unused, 32)
    with pytest.raises(ModelError, match="num_batches_tracked"):
        export_onnx(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 30 * 30, 2)), 32)


def test_an_input_that_does_not_fit_the_model_is_one_sentence() -> None:
    with pytest.raises(ModelError, match=r"^The model cannot be exported to ONNX: [^\n]+$"):
        export_onnx(nn.Sequential(nn.Flatten(), nn.Linear(10, 7)), 32)
