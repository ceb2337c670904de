"""What an exported model is worth: its file, described for whoever builds an app on it, and compared with torch on faces.

`fl_server.export_commands` calls it, with the formats of `models.export`, `models.quantise` and `models.phone_formats`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.arrays import Arrays
from common.canonical import sha256
from common.config import ModelConfig
from common.parameters import read_parameters, write_parameters
from models.export import HEATMAP, INPUT, OUTPUT, OnnxTemplate
from models.mobilenet import build_model
from models.onnx_session import cpu_session
from models.phone_formats import FORMATS, Run, load_phone_format, write_phone_format
from models.preprocess import Preprocessing
from models.quantise import quantise

Format = Literal["onnx", "onnx-int8", "executorch", "tflite", "coreml", "ncnn"]
NAMES: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True)
class Source:
    """A model to export.

    Attributes:
        name: where it comes from, for the side-car.
        config: its architecture and classes.
        preprocessing: how a face becomes its input.
        weights: all parameters by name.
        privacy: what it promises, in words.
        onnx: the published ONNX file, if there is one: it is handed on as it was signed.
    """

    name: str
    config: ModelConfig
    preprocessing: Preprocessing
    weights: Arrays
    privacy: str
    onnx: bytes | None = None

    def network(self) -> nn.Module:
        """In torch, in evaluation mode."""
        model = build_model(self.config).eval()
        write_parameters(model, self.weights)
        return model


@dataclass(frozen=True)
class Agreement:
    """How far an exported model is from torch on the same faces.

    Attributes:
        faces: how many were compared.
        largest, mean: absolute difference of logits, over all of them.
        same: share of faces with the same most likely class, in [0, 1].
        accuracy, torch_accuracy: share of the faces given the class of their label; None without labels.
    """

    faces: int
    largest: float
    mean: float
    same: float
    accuracy: float | None
    torch_accuracy: float | None


@dataclass(frozen=True)
class Exported:
    """Files of one format, and what was found about them.

    Attributes:
        format: its name.
        files: what stands on disk; a `.mlpackage` is a folder.
        bytes: all of it.
        agreement: None where no runtime on this machine can run the format.
    """

    format: Format
    files: tuple[Path, ...]
    bytes: int
    agreement: Agreement | None


def suffix(name: Format) -> str:
    """What a file of the format ends in."""
    return FORMATS[name].suffix if name in FORMATS else {"onnx": ".onnx", "onnx-int8": ".int8.onnx"}[name]


def export(
    source: Source, name: Format, out: Path, faces: NDArray[np.uint8], labels: NDArray[np.int64] | None = None
) -> Exported:
    """Write `source` as `name` to `out`, and compare it with torch on `faces`.

    Args:
        faces: (N, size, size) uint8 crops, at least one.
        labels: (N,) index of each face's class; None if it has none.

    Raises:
        DependencyError: the converter is not installed.
        ModelError: the model cannot be converted, or not faithfully.
    """
    network = source.network()
    size = source.preprocessing.size
    run: Run | None
    if name in FORMATS:
        files = write_phone_format(name, network, size, out)
        run = load_phone_format(name, out)
    else:
        content = source.onnx or OnnxTemplate.trace(network, size).fill(read_parameters(network))
        content = quantise(content) if name == "onnx-int8" else content
        out.write_bytes(content)
        files, run = (out,), _onnx_run(content)
    agreement = None if run is None else compare(run, network, source.preprocessing.normalise(faces), labels)
    return Exported(name, files, sum(len(content) for content in _contents(files).values()), agreement)


def compare(run: Run, network: nn.Module, inputs: NDArray[np.float32], labels: NDArray[np.int64] | None = None) -> Agreement:
    """`run` against torch on `inputs`, (N, 1, size, size), one face at a time."""
    with torch.inference_mode():
        chunks = [network(torch.from_numpy(inputs[at : at + 64])).numpy() for at in range(0, len(inputs), 64)]
    expected = np.concatenate(chunks)
    got = np.concatenate([run(inputs[at : at + 1]) for at in range(len(inputs))])
    difference = np.abs(got - expected)
    chosen, wanted = got.argmax(1), expected.argmax(1)
    return Agreement(
        faces=len(inputs),
        largest=float(difference.max()),
        mean=float(difference.mean()),
        same=float((chosen == wanted).mean()),
        accuracy=None if labels is None else float((chosen == labels).mean()),
        torch_accuracy=None if labels is None else float((wanted == labels).mean()),
    )


def describe(source: Source, exported: Exported) -> dict[str, Any]:
    """The side-car: all that an app needs to run the files as this project does."""
    p, size, margin = source.preprocessing, source.preprocessing.size, 100 * source.preprocessing.crop_margin
    phone = exported.format in FORMATS
    outputs = [{"name": OUTPUT, "shape": ["batch" if not phone else 1, len(source.config.classes)], "meaning": "one per class"}]
    if not phone and _gives_heatmap(exported.files[0]):
        outputs.append(
            {"name": HEATMAP, "shape": ["batch", len(source.config.classes), "h", "w"], "meaning": "see docs/export.md"}
        )
    return {
        "format": exported.format,
        "model": {"name": source.config.name, "stem_stride": source.config.stem_stride, "from": source.name},
        "classes": list(source.config.classes),
        "input": {"name": INPUT, "shape": ["batch" if not phone else 1, 1, size, size], "type": "float32"},
        "outputs": outputs,
        "probabilities": "softmax of the logits",
        "preprocessing": p.model_dump(mode="json"),
        "how": (
            f"Take the square around the face box, {margin:g} % of its side wider on each side; repeat the picture's "
            f"edge beyond it; grey = 0.299 R + 0.587 G + 0.114 B; resize to {size}x{size} by area average when shrinking, "
            f"bilinearly when enlarging; input = (grey / 255 - {p.mean:g}) / {p.std:g}."
        ),
        "privacy": source.privacy,
        "files": {
            name: {"bytes": len(content), "sha256": sha256(content)} for name, content in _contents(exported.files).items()
        },
        "agreement_with_torch": None if exported.agreement is None else vars(exported.agreement),
    }


def made_up_pictures(count: int, size: int) -> NDArray[np.uint8]:
    """(count, size, size) uint8 smooth random pictures: not faces, and enough to see whether two programs compute the same."""
    small = np.random.default_rng(0).integers(0, 256, (count, 6, 6), dtype=np.uint8)
    return np.stack([cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC) for picture in small]).astype(np.uint8)


def _onnx_run(content: bytes) -> Run:
    session = cpu_session(content)
    return lambda face: np.asarray(session.run([OUTPUT], {INPUT: face})[0], dtype=np.float32)


def _gives_heatmap(path: Path) -> bool:
    return any(output.name == HEATMAP for output in cpu_session(path.read_bytes()).get_outputs())


def _contents(files: tuple[Path, ...]) -> dict[str, bytes]:
    """Every file's content by its name, those in folders by their path from the folder on."""
    found: dict[str, bytes] = {}
    for path in files:
        inside = sorted(part for part in path.rglob("*") if part.is_file()) if path.is_dir() else [path]
        found |= {str(part.relative_to(path.parent)): part.read_bytes() for part in inside}
    return found
