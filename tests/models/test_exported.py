import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from common.config import ModelConfig
from common.errors import DependencyError, ModelError
from common.parameters import read_parameters
from models import phone_formats
from models.exported import Source, compare, describe, export, made_up_pictures
from models.mobilenet import build_model
from models.phone_formats import PhoneFormat, write_phone_format
from models.preprocess import Preprocessing

CONFIG = ModelConfig(name="mobilenet_v2_tiny_128", stem_stride=2)


@pytest.fixture(scope="module")
def source() -> Source:
    torch.manual_seed(0)
    model = build_model(CONFIG)
    with torch.no_grad():
        model.get_parameter("classifier.1.weight").normal_(0, 0.5)
    return Source("a test", CONFIG, Preprocessing(crop_margin=0.1), read_parameters(model), "no promise")


def test_an_onnx_file_agrees_with_torch_and_is_described(source: Source, tmp_path: Path) -> None:
    found = export(source, "onnx", tmp_path / "a.onnx", made_up_pictures(5, 48))
    assert found.agreement is not None
    assert found.agreement.faces == 5
    assert found.agreement.largest < 1e-4
    assert found.agreement.same == 1
    assert found.agreement.accuracy is None
    assert found.bytes == (tmp_path / "a.onnx").stat().st_size
    facts = describe(source, found)
    assert facts["classes"] == list(CONFIG.classes)
    assert Preprocessing.model_validate(facts["preprocessing"]) == source.preprocessing
    assert [output["name"] for output in facts["outputs"]] == ["logits", "heatmap"]
    assert facts["files"]["a.onnx"]["bytes"] == found.bytes
    assert "(grey / 255 - 0.5) / 0.25" in facts["how"]
    assert "10 % of its side wider" in facts["how"]


def test_the_published_file_is_handed_on_byte_for_byte(source: Source, tmp_path: Path) -> None:
    first = tmp_path / "first.onnx"
    export(source, "onnx", first, made_up_pictures(1, 48))
    marked = first.read_bytes() + b"\x32\x00"  # one more empty producer_version: another file, the same graph
    published = Source(**(vars(source) | {"onnx": marked}))
    export(published, "onnx", tmp_path / "second.onnx", made_up_pictures(1, 48))
    assert (tmp_path / "second.onnx").read_bytes() == marked


def test_the_small_file_is_compared_as_it_is_and_not_as_the_large_one(source: Source, tmp_path: Path) -> None:
    found = export(source, "onnx-int8", tmp_path / "a.onnx", made_up_pictures(4, 48))
    assert found.agreement is not None
    assert found.agreement.largest > 1e-3


def test_comparison_counts_differences_classes_and_labels() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
    inputs = np.array([[2, 1, 0, 0], [1, 2, 0, 0]], dtype=np.float32).reshape(2, 1, 2, 2)

    def off(face: np.ndarray) -> np.ndarray:
        return np.array([[face.flat[0] + 0.5, face.flat[1] - 1.0]], dtype=np.float32)

    found = compare(off, network, inputs, np.array([0, 1]))
    assert (found.largest, found.mean, found.same) == (1.0, 0.75, 0.5)
    assert (found.accuracy, found.torch_accuracy) == (0.5, 1.0)


@pytest.mark.parametrize("name", ["executorch", "tflite", "ncnn", "coreml"])
def test_a_missing_converter_is_one_sentence_with_its_command(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in phone_formats.FORMATS[name].modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DependencyError, match=r"^[^\n]* files need .* Run: pip install ") as caught:
        write_phone_format(name, nn.Linear(1, 1), 48, tmp_path / "x")
    assert caught.value.exit_code == 9
    assert not list(tmp_path.iterdir())


def test_a_converter_that_fails_is_one_sentence_and_its_chatter_is_kept_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def convert(model: nn.Module, face: torch.Tensor, out: Path) -> None:
        os.write(1, b"chatter")
        raise RuntimeError("no such layer.\nsecond line")

    format = PhoneFormat("A runtime", ".x", ("a_converter",), "pip install a", convert, None)
    monkeypatch.setitem(sys.modules, "a_converter", types.ModuleType("a_converter"))
    monkeypatch.setitem(phone_formats.FORMATS, "tflite", format)
    with pytest.raises(ModelError, match=r"^A runtime cannot convert this model: no such layer\.$"):
        write_phone_format("tflite", nn.Linear(1, 1), 48, tmp_path / "x")
    assert capfd.readouterr().out == ""


def test_a_phone_file_is_compared_with_its_own_runtime(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pretended converter that writes torch's own format, and a runtime that is off by one."""

    def convert(model: nn.Module, face: torch.Tensor, out: Path) -> None:
        assert not model.training
        assert face.shape == (1, 1, 48, 48)
        out.write_bytes(b"12345")
        out.with_suffix(".bin").write_bytes(b"678")

    network = source.network()

    def load(out: Path) -> phone_formats.Run:
        assert out.read_bytes() == b"12345"
        return lambda face: np.asarray(network(torch.from_numpy(face)).detach().numpy() + 1)

    format = PhoneFormat("A runtime", ".param", (), "", convert, load)
    monkeypatch.setitem(phone_formats.FORMATS, "ncnn", format)
    found = export(source, "ncnn", tmp_path / "a.param", made_up_pictures(3, 48))
    assert found.bytes == 8
    assert found.agreement is not None
    assert found.agreement.largest == pytest.approx(1, abs=1e-4)
    assert found.agreement.same == 1
    assert set(describe(source, found)["files"]) == {"a.param", "a.bin"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["executorch", "tflite", "ncnn", "coreml"])
def test_installed_converters_agree_with_torch(name: str, source: Source, tmp_path: Path) -> None:
    for module in phone_formats.FORMATS[name].modules:
        pytest.importorskip(module, reason=f"{name} needs: {phone_formats.FORMATS[name].pip}", exc_type=ImportError)
    found = export(source, name, tmp_path / f"a{phone_formats.FORMATS[name].suffix}", made_up_pictures(3, 48))  # type: ignore[arg-type]
    assert found.bytes > 100_000
    if name != "coreml":
        assert found.agreement is not None
        assert found.agreement.largest < 5e-3
