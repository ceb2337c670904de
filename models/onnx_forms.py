"""Layers in the form that ONNX Runtime runs fastest on a CPU. `models.export` puts them in before it traces a model.

They compute what the layers they replace compute, under the same parameter names. Measured in docs/export.md.
"""

from typing import Any

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import SqueezeExcitation


class _Normalise(torch.autograd.Function):
    """GroupNorm as Reshape, InstanceNormalization, Reshape, BatchNormalization.

    The first three normalise a group's values, which lie side by side. The last applies scale and shift per channel: with mean 0
    and variance 1 it is one operation that reads the picture once, where a multiplication and an addition of (C, 1, 1) vectors
    fall apart into thousands of short loops on small maps. opset 21's GroupNormalization becomes those as well, and more.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, epsilon: float, *sides: int) -> Tensor:
        return F.group_norm(x, groups, weight, bias, epsilon)

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, bias: Any, groups: int, epsilon: float, *sides: int) -> Any:
        channels = sides[0]

        def numbers(*values: int) -> Any:
            return g.op("Constant", value_t=torch.tensor(values))

        def filled(value: float, count: int) -> Any:
            return g.op("ConstantOfShape", numbers(count), value_t=torch.tensor([value]))

        apart = g.op("Reshape", x, numbers(0, groups, -1))
        normal = g.op("InstanceNormalization", apart, filled(1.0, groups), filled(0.0, groups), epsilon_f=epsilon)
        together = g.op("Reshape", normal, numbers(-1, *sides))
        mean, variance = filled(0.0, channels), filled(1.0, channels)
        return g.op("BatchNormalization", together, weight, bias, mean, variance, epsilon_f=0.0).setType(x.type())


class _Scale(torch.autograd.Function):
    """(N, C, H, W) times (N, C, 1, 1), the factors first spread over the picture, which keeps ORT's blocked layout."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factors: Tensor, height: int, width: int) -> Tensor:
        return x * factors

    @staticmethod
    def symbolic(g: Any, x: Any, factors: Any, height: int, width: int) -> Any:
        scales = g.op("Constant", value_t=torch.tensor([1.0, 1.0, float(height), float(width)]))
        empty = g.op("Constant", value_t=torch.tensor([]))
        spread = g.op(
            "Resize",
            factors,
            empty,
            scales,
            mode_s="nearest",
            nearest_mode_s="floor",
            coordinate_transformation_mode_s="asymmetric",
        )
        return g.op("Mul", x, spread.setType(x.type())).setType(x.type())


class _GroupNorm(nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        normal: Tensor = _Normalise.apply(x, self.weight, self.bias, self.num_groups, self.eps, *_sides(x))
        return normal


class _SqueezeExcitation(SqueezeExcitation):
    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = _Scale.apply(x, self.factors(x), *_sides(x)[1:])
        return scaled


def _sides(x: Tensor) -> list[int]:
    """Channels, height and width as plain numbers, where tracing would make them part of the graph."""
    return [int(side) for side in x.shape[1:]]


FORMS: dict[type[nn.Module], type[nn.Module]] = {nn.GroupNorm: _GroupNorm, SqueezeExcitation: _SqueezeExcitation}


def prepare(model: nn.Module) -> None:
    """Give the layers of `model` their fast form, in place."""
    for module in model.modules():
        if form := FORMS.get(type(module)):
            module.__class__ = form


def finish(graph: Any) -> None:
    """Make the traced `graph` as its runtime wants it, in place: shapes stated, constants shared, names short."""
    _state_batch(graph)
    _share_constants(graph.graph)
    _shorten(graph.graph)


def _state_batch(graph: Any) -> None:
    """Say that the free batch size comes first after each Reshape and Resize, where shape inference loses it.

    The layout optimiser joins only tensors that it knows to be alike.
    """
    batch = graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    lost = {node.output[0] for node in graph.graph.node if node.op_type in ("Reshape", "Resize")}
    for value in onnx.shape_inference.infer_shapes(graph).graph.value_info:
        sides = value.type.tensor_type.shape.dim
        if value.name in lost and sides and not sides[0].HasField("dim_value"):
            sides[0].dim_param = batch
            graph.graph.value_info.append(value)


def _share_constants(graph: Any) -> None:
    """One constant for all that are equal: every normalisation brings six of its own."""
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        node.ClearField("name")
        node.input[:] = [same.get(name, name) for name in node.input]
        if node.op_type in ("Constant", "ConstantOfShape"):
            (made,) = node.output
            node.ClearField("output")
            kept = first.setdefault(node.SerializeToString(deterministic=True), made)
            node.output.append(made)
            if kept != made:
                same[made] = kept
                continue
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _shorten(graph: Any) -> None:
    """Number the tensors between the operations: the exporter's names tell of modules and take as much room as a layer."""
    kept = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    made = [name for node in graph.node for name in node.output if name not in kept]
    short = {name: f"t{number}" for number, name in enumerate(made)}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [short.get(name, name) for name in names]
    for value in graph.value_info:
        value.name = short[value.name]
