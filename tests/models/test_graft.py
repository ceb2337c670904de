import numpy as np
import pytest
import torch

from common.config import ModelConfig
from common.errors import ModelError
from common.parameters import read_parameters
from models.export import export_onnx
from models.graft import graft, trunk_digest
from models.mobilenet import build_model
from models.onnx_session import cpu_session
from models.subset import HEAD

CONFIG = ModelConfig(name="mobilenet_v2_025", stem_stride=2)


@pytest.fixture(scope="module")
def exported() -> tuple[torch.nn.Module, bytes]:
    torch.manual_seed(0)
    model = build_model(CONFIG).eval()
    return model, export_onnx(model, 48)


def other_head(model: torch.nn.Module) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    return {
        name: random.normal(0, 0.1, value.shape).astype(np.float32)
        for name, value in read_parameters(model).items()
        if name.startswith(HEAD)
    }


def test_a_grafted_file_answers_as_the_network_with_that_head(exported: tuple[torch.nn.Module, bytes]) -> None:
    model, content = exported
    weights, head = read_parameters(model), other_head(model)
    found = graft(content, head, trunk_digest(weights))
    assert found is not None
    own = build_model(CONFIG).eval()
    own.load_state_dict({name: torch.from_numpy(value) for name, value in (weights | head).items()})
    faces = np.random.default_rng(0).normal(size=(3, 1, 48, 48)).astype(np.float32)
    with torch.inference_mode():
        expected = own(torch.from_numpy(faces)).numpy()
    assert cpu_session(found).run(["logits"], {"faces": faces})[0] == pytest.approx(expected, abs=1e-4)


def test_a_head_of_another_trunk_is_not_grafted(exported: tuple[torch.nn.Module, bytes]) -> None:
    model, content = exported
    weights = read_parameters(model)
    moved = weights | {"features.0.0.weight": weights["features.0.0.weight"] + 1e-3}
    assert graft(content, other_head(model), trunk_digest(moved)) is None


def test_the_digest_is_of_the_trunk_alone(exported: tuple[torch.nn.Module, bytes]) -> None:
    weights = read_parameters(exported[0])
    assert trunk_digest(weights | other_head(exported[0])) == trunk_digest(weights)


def test_a_head_of_another_form_or_a_broken_file_is_one_sentence(exported: tuple[torch.nn.Module, bytes]) -> None:
    model, content = exported
    trunk = trunk_digest(read_parameters(model))
    with pytest.raises(ModelError, match="another form"):
        graft(content, {name: value[:2] for name, value in other_head(model).items()}, trunk)
    with pytest.raises(ModelError, match="cannot be read"):
        graft(content[:999], other_head(model), trunk)
