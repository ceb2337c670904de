"""From a torch model to files for phone runtimes: ExecuTorch, LiteRT (tflite), ncnn, Core ML. `models.exported` calls it.

The converters are libraries of their own, none of which this project needs otherwise: a missing one is one sentence with its pip
command. Every file takes one face at a time, (1, 1, size, size) float32, and gives its logits, (1, C) float32.
"""

import importlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.errors import DependencyError, ModelError

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(1, 1, size, size) -> (1, C), by the format's own runtime."""


@dataclass(frozen=True)
class PhoneFormat:
    """One kind of file.

    Attributes:
        title: what people call its runtime.
        suffix: of its file; ncnn's second file ends in `.bin` instead of `.param`.
        modules: what must be importable to convert.
        pip: the command that installs them.
        convert: writes the file.
        load: opens it in its runtime; None where that runtime exists on the vendor's devices only.
    """

    title: str
    suffix: str
    modules: tuple[str, ...]
    pip: str
    convert: Callable[[nn.Module, torch.Tensor, Path], None]
    load: Callable[[Path], Run] | None

    def files(self, out: Path) -> tuple[Path, ...]:
        """What stands on disk after `convert(..., out)`."""
        return (out, out.with_suffix(".bin")) if self.suffix == ".param" else (out,)


def write_phone_format(name: str, model: nn.Module, size: int, out: Path) -> tuple[Path, ...]:
    """Convert `model` to the format `name` of `FORMATS`; returns the files written. What a converter prints is left out.

    Raises:
        DependencyError: the converter is not installed, or does not load beside this torch.
        ModelError: it refuses the model.
    """
    wanted = FORMATS[name]
    plain = deepcopy(model).cpu().eval().to(memory_format=torch.contiguous_format)
    with _quiet():
        for module in wanted.modules:
            try:
                importlib.import_module(module)
            except Exception as error:
                # a converter built for another torch fails in ways of its own
                what = "is not installed" if isinstance(error, ModuleNotFoundError) else f"does not load: {_first_line(error)}"
                raise DependencyError(f"{wanted.title} files need {module}, which {what}. Run: {wanted.pip}") from error
        try:
            wanted.convert(plain, torch.zeros(1, 1, size, size), out)
        except Exception as error:
            raise ModelError(f"{wanted.title} cannot convert this model: {_first_line(error)}.") from error
    return wanted.files(out)


def load_phone_format(name: str, out: Path) -> Run | None:
    """What runs a file of `write_phone_format`, or None where nothing on this machine can.

    Raises:
        ModelError: the format's runtime refuses the file.
    """
    wanted = FORMATS[name]
    if wanted.load is None:
        return None
    with _quiet():
        try:
            return wanted.load(out)
        except Exception as error:
            raise ModelError(f"{wanted.title} cannot run {out}: {_first_line(error)}.") from error


def _to_executorch(model: nn.Module, face: torch.Tensor, out: Path) -> None:
    partitioner = importlib.import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    exir = importlib.import_module("executorch.exir")
    program = exir.to_edge_transform_and_lower(
        torch.export.export(model, (face,)), partitioner=[partitioner.XnnpackPartitioner()]
    ).to_executorch()
    out.write_bytes(bytes(program.buffer))


def _run_executorch(out: Path) -> Run:
    runtime = importlib.import_module("executorch.runtime").Runtime.get()
    program = runtime.load_program(out.read_bytes())
    method = program.load_method("forward")

    def run(face: NDArray[np.float32], program: Any = program) -> NDArray[np.float32]:
        return np.array(method.execute([torch.from_numpy(face)])[0], dtype=np.float32)

    return run


def _to_tflite(model: nn.Module, face: torch.Tensor, out: Path) -> None:
    importlib.import_module("litert_torch").convert(model, (face,)).export(str(out))


def _run_tflite(out: Path) -> Run:
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter(str(out), num_threads=1)
    interpreter.allocate_tensors()
    faces, logits = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(face: NDArray[np.float32]) -> NDArray[np.float32]:
        interpreter.set_tensor(faces, face)
        interpreter.invoke()
        return np.array(interpreter.get_tensor(logits), dtype=np.float32)

    return run


def _to_ncnn(model: nn.Module, face: torch.Tensor, out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "model.pt"
        importlib.import_module("pnnx").export(model, str(script), (face,), fp16=False)
        out.write_bytes(script.with_suffix(".ncnn.param").read_bytes())
        out.with_suffix(".bin").write_bytes(script.with_suffix(".ncnn.bin").read_bytes())


def _run_ncnn(out: Path) -> Run:
    ncnn = importlib.import_module("ncnn")
    network = ncnn.Net()
    network.opt.num_threads = 1
    network.opt.use_fp16_storage = network.opt.use_fp16_packed = network.opt.use_fp16_arithmetic = False
    if network.load_param(str(out)) or network.load_model(str(out.with_suffix(".bin"))):
        raise ModelError("the file does not load")

    def run(face: NDArray[np.float32]) -> NDArray[np.float32]:
        with network.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(np.ascontiguousarray(face[0])))
            _, logits = extractor.extract("out0")
            return np.array(logits, dtype=np.float32).reshape(1, -1)

    return run


def _to_coreml(model: nn.Module, face: torch.Tensor, out: Path) -> None:
    coreml: Any = importlib.import_module("coremltools")
    tracer: Any = torch.jit
    coreml.convert(
        tracer.trace(model, face),
        inputs=[coreml.TensorType(name="faces", shape=tuple(face.shape))],
        outputs=[coreml.TensorType(name="logits")],
        convert_to="mlprogram",
        compute_precision=coreml.precision.FLOAT32,
        minimum_deployment_target=coreml.target.iOS16,
    ).save(str(out))


FORMATS: dict[str, PhoneFormat] = {
    "executorch": PhoneFormat(
        "ExecuTorch", ".pte", ("executorch.exir",), "pip install executorch==1.5.1", _to_executorch, _run_executorch
    ),
    "tflite": PhoneFormat(
        "LiteRT",
        ".tflite",
        ("litert_torch", "ai_edge_litert"),
        "pip install --no-deps litert-torch==0.10.0 && pip install ai-edge-litert ai-edge-quantizer litert-converter jax "
        "jaxtyping multipledispatch fire torchao",
        _to_tflite,
        _run_tflite,
    ),
    "ncnn": PhoneFormat("ncnn", ".param", ("pnnx", "ncnn"), "pip install pnnx ncnn", _to_ncnn, _run_ncnn),
    "coreml": PhoneFormat("Core ML", ".mlpackage", ("coremltools",), "pip install coremltools==9.0", _to_coreml, None),
}


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:300].rstrip(".")


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing reaches the terminal, from Python or from below it."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    try:
        with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
