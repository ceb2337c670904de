import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.config import ModelConfig
from models.export import OnnxTemplate, export_onnx
from models.heatmap import Explained, explains
from models.mobilenet import build_model

NAMES = ("mobilenet_v3_small_050", "mobilenet_v2_tiny_128")


def network(name: str, stem_stride: int = 2) -> nn.Module:
    """A network whose logits are far enough from zero that hardswish bends."""
    torch.manual_seed(1)
    model = build_model(ModelConfig.model_validate({"name": name, "stem_stride": stem_stride})).eval()
    with torch.no_grad():
        for layer in model.get_submodule("classifier").children():
            if isinstance(layer, nn.Linear):
                layer.weight.normal_(0, 0.3)
                layer.bias.normal_(0, 1)
    return model


def some_faces(count: int) -> Tensor:
    return torch.randn(count, 1, 48, 48, generator=torch.Generator().manual_seed(2))


def grad_cam(model: nn.Module, faces: Tensor) -> Tensor:
    """By autograd: gradients of each logit at the pooled features, times the feature map; (N, C, h, w)."""
    maps = model.get_submodule("features")(faces).detach()
    pooled = maps.mean((2, 3)).requires_grad_(True)
    logits = model.get_submodule("classifier")(pooled)
    found = []
    for k in range(logits.shape[1]):
        (gradient,) = torch.autograd.grad(logits[:, k].sum(), pooled, retain_graph=True)
        found.append((gradient[:, :, None, None] * maps).sum(1))
    return torch.stack(found, 1)


@pytest.mark.parametrize("name", NAMES)
def test_heatmap_is_grad_cam_of_the_last_feature_map_and_the_logits_stay_the_same(name: str) -> None:
    model, faces = network(name), some_faces(4)
    with torch.inference_mode():
        logits, heatmap = Explained(model)(faces)
        expected = model(faces)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(heatmap, grad_cam(model, faces), rtol=1e-4, atol=1e-4)


def test_with_one_linear_layer_the_heatmap_and_the_bias_add_up_to_the_logits() -> None:
    model, faces = network("mobilenet_v2_tiny_128"), some_faces(3)
    with torch.inference_mode():
        logits, heatmap = Explained(model)(faces)
    bias = model.get_parameter("classifier.1.bias")
    torch.testing.assert_close(heatmap.mean((2, 3)) + bias, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("stem_stride", "cells"), [(1, 3), (2, 2)])
def test_exported_heatmap_has_one_value_per_class_and_cell_and_agrees_at_any_batch_size(stem_stride: int, cells: int) -> None:
    import onnxruntime

    model = network("mobilenet_v3_small_050", stem_stride)
    session = onnxruntime.InferenceSession(export_onnx(model, 48), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["logits", "heatmap"]
    assert session.get_outputs()[1].shape == ["batch", 7, cells, cells]
    for count in (1, 5):
        heatmap = session.run(["heatmap"], {"faces": some_faces(count).numpy()})[0]
        assert isinstance(heatmap, np.ndarray)
        np.testing.assert_allclose(heatmap, grad_cam(model, some_faces(count)).numpy(), atol=1e-3)


def test_parameters_keep_their_names_in_the_wrapped_model() -> None:
    model = network("mobilenet_v2_tiny_128")
    assert list(Explained(model).state_dict()) == list(model.state_dict())


def test_a_model_with_another_head_is_exported_with_logits_alone() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    assert not explains(model)
    assert OnnxTemplate.trace(model, 32).outputs == ("logits",)
    three = network("mobilenet_v2_tiny_128")
    three.get_submodule("classifier").append(nn.Linear(7, 7))  # type: ignore[operator]
    assert not explains(three)
