"""From a torch model to ONNX, checked against torch each time. The server calls it for every model it publishes.

The graph is traced once per architecture; afterwards only the weights in it are exchanged. Input `faces` (N, 1, size, size);
outputs `logits` (N, C) and, for MobileNets, `heatmap` (N, C, h, w): where in the face each class is seen, see `models.heatmap`.
"""

import io
import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from common.errors import ModelError
from common.parameters import read_parameters
from models.heatmap import Explained, explains
from models.onnx_forms import finish, prepare
from models.onnx_session import cpu_session

OPSET = 18
INPUT, OUTPUT, HEATMAP = "faces", "logits", "heatmap"
TOLERANCE = 1e-4
"""Largest difference between ONNX Runtime's outputs and torch's, relative to the largest value where that exceeds 1."""

Weights = Mapping[str, NDArray[np.float32]]
"""Arrays by their names in the model's state dict."""


@dataclass(frozen=True)
class OnnxTemplate:
    """The ONNX graph of one architecture, to be filled with weights; by one thread at a time.

    Attributes:
        size: side of the input in pixels: `faces` is (N, 1, size, size) float32, `logits` is (N, C) float32.
        outputs: `logits`, and `heatmap` if the model is one that `models.heatmap` explains.
    """

    size: int
    outputs: tuple[str, ...]
    _graph: Any
    _reference: nn.Module

    @classmethod
    def trace(cls, model: nn.Module, size: int) -> Self:
        """Trace `model`, which stays as it is, at opset 18 with a free batch size.

        Raises:
            ModelError: it has an operation that ONNX does not know, or a tensor that does not enter the graph by name.
        """
        reference = deepcopy(model).cpu().eval()
        names = set(reference.state_dict())
        _make_distinct(reference)
        outputs = (OUTPUT, HEATMAP) if explains(reference) else (OUTPUT,)
        graph = _trace(reference, size, outputs)
        inside = {tensor.name for tensor in graph.graph.initializer}
        if inside != names:
            odd = ", ".join(sorted(inside ^ names)[:3])
            raise ModelError(
                f"The model's tensors and the exported graph's do not match ({odd}): a tensor is unused, shared or no "
                "plain parameter. Export needs a model with parameters only, each used once."
            )
        for tensor in graph.graph.initializer:
            tensor.ClearField("raw_data")
        return cls(size, outputs, graph, reference)

    def fill(self, weights: Weights) -> bytes:
        """The ONNX file of this architecture with `weights`, with the same outputs as torch for batches of 1 and 3.

        Raises:
            ModelError: names, shapes or dtypes differ from the traced model's, a value is not finite, or the outputs
                differ by more than `TOLERANCE`.
        """
        self._check(weights)
        graph = onnx.ModelProto()
        graph.CopyFrom(self._graph)
        for tensor in graph.graph.initializer:
            tensor.raw_data = np.asarray(weights[tensor.name], dtype="<f4").tobytes()
        content: bytes = graph.SerializeToString(deterministic=True)
        try:
            onnx.checker.check_model(content)
        except onnx.checker.ValidationError as error:
            raise ModelError(f"The exported model is not valid ONNX: {str(error).splitlines()[0]}.") from error
        self._compare(content, weights)
        return content

    def _check(self, weights: Weights) -> None:
        expected = self._reference.state_dict()
        if odd := sorted(set(expected) ^ set(weights)):
            raise ModelError(f"The weights are not this architecture's: {odd[0]} is missing or too much.")
        for name, array in weights.items():
            if array.shape != tuple(expected[name].shape) or array.dtype != np.float32:
                raise ModelError(
                    f"The weights are not this architecture's: {name} is {array.dtype} {array.shape}, not float32 "
                    f"{tuple(expected[name].shape)}."
                )
            if not np.isfinite(array).all():
                raise ModelError(f"The model is not published: {name} has values that are NaN or infinite.")

    def _compare(self, content: bytes, weights: Weights) -> None:
        self._reference.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
        session = cpu_session(content)
        generator = np.random.default_rng(0)
        for batch in (1, 3):
            faces = generator.standard_normal((batch, 1, self.size, self.size), dtype=np.float32)
            expected = self._expected(torch.from_numpy(faces))
            for name, got, wanted in zip(self.outputs, session.run(list(self.outputs), {INPUT: faces}), expected, strict=True):
                if got.shape != wanted.shape:
                    raise ModelError(f"The exported model gives {name} of shape {got.shape}, torch {wanted.shape}.")
                difference = float(np.abs(got - wanted).max())
                allowed = TOLERANCE * max(1.0, float(np.abs(wanted).max()))
                if not difference <= allowed:
                    raise ModelError(
                        f"The exported model does not agree with torch: {name} differ by {difference:.2g} at batch size "
                        f"{batch}, and {allowed:.2g} is allowed."
                    )

    def _expected(self, faces: torch.Tensor) -> list[NDArray[np.float32]]:
        """torch's outputs: the logits of the model as it was built, not as it was traced."""
        with torch.inference_mode():
            expected = [self._reference(faces).numpy()]
            if HEATMAP in self.outputs:
                expected.append(Explained(self._reference)(faces)[1].numpy())
        return expected


def export_onnx(model: nn.Module, size: int) -> bytes:
    """The ONNX file of `model` for (N, 1, size, size) inputs. For many rounds keep an `OnnxTemplate` instead.

    Raises:
        ModelError: it cannot be exported faithfully.
    """
    return OnnxTemplate.trace(model, size).fill(read_parameters(model))


def _make_distinct(model: nn.Module) -> None:
    """Give every parameter values of its own: the exporter merges tensors that are equal, such as fresh biases."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))


def _trace(model: nn.Module, size: int, outputs: tuple[str, ...]) -> Any:
    traced = deepcopy(model)
    prepare(traced)
    if HEATMAP in outputs:
        traced = Explained(traced).eval()
    buffer: Any = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                traced,
                (torch.zeros(2, 1, size, size),),
                buffer,
                dynamo=False,
                opset_version=OPSET,
                do_constant_folding=False,
                input_names=[INPUT],
                output_names=list(outputs),
                dynamic_axes={name: {0: "batch"} for name in (INPUT, *outputs)},
            )
        graph = onnx.load_from_string(buffer.getvalue())
        for node in graph.graph.node:
            node.ClearField("doc_string")
        finish(graph)
        onnx.checker.check_model(graph, full_check=True)
    except (RuntimeError, TypeError, ValueError, onnx.checker.ValidationError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ModelError(f"The model cannot be exported to ONNX: {reason}.") from error
    return graph
