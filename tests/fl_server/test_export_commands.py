import json
import sys
from pathlib import Path

import pytest
import torch

from common.config import ModelConfig
from common.errors import ConfigError, DependencyError, IntegrityError
from common.parameters import read_parameters
from fl_server import export_commands
from models.exported import Source
from models.mobilenet import build_model
from models.preprocess import Preprocessing


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Source:
    """A small model instead of the base."""
    torch.manual_seed(0)
    config = ModelConfig(name="mobilenet_v2_tiny_128", stem_stride=2)
    source = Source("a small model", config, Preprocessing(), read_parameters(build_model(config)), "no promise")
    monkeypatch.setattr(export_commands, "_source", lambda model, publisher: source)
    return source


def test_one_format_is_written_with_its_description_and_shown(
    small: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "new" / "model.onnx"
    export_commands.export(to="onnx-int8", target=target, faces=3)
    facts = json.loads((tmp_path / "new" / "model.onnx.json").read_text())
    assert facts["format"] == "onnx-int8"
    assert facts["files"]["model.onnx"]["bytes"] == target.stat().st_size
    shown = capsys.readouterr().out
    assert "onnx-int8" in shown
    assert "3 made-up pictures, no faces: give --data" in shown


def test_all_writes_what_it_can_and_says_what_it_cannot(
    small: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("executorch", "executorch.exir", "litert_torch", "pnnx", "coremltools"):
        monkeypatch.setitem(sys.modules, module, None)
    export_commands.export(to="all", target=tmp_path / "out", faces=2, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert [facts["format"] for facts in said["written"]] == ["onnx", "onnx-int8"]
    assert set(said["missing"]) == {"executorch", "tflite", "coreml", "ncnn"}
    assert all("Run: pip install" in why for why in said["missing"].values())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "emofl.int8.onnx",
        "emofl.int8.onnx.json",
        "emofl.onnx",
        "emofl.onnx.json",
    ]


def test_a_missing_converter_that_was_asked_for_is_an_error(
    small: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pnnx", None)
    with pytest.raises(DependencyError, match="Run: pip install pnnx ncnn"):
        export_commands.export(to="ncnn", target=tmp_path / "model.param", faces=1)


def test_a_wrong_ending_is_refused_before_anything_is_converted(small: Source, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--out .*model\.tflite"):
        export_commands.export(to="tflite", target=tmp_path / "model.pte", faces=1)


def test_nothing_published_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="Nothing is published"):
        export_commands.export(to="onnx", target=tmp_path / "a.onnx", model=str(tmp_path), publisher="0" * 64, faces=1)
