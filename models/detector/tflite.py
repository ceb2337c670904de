"""Reads a TensorFlow Lite network of plain convolutions and writes it as ONNX, for pictures of any size. `blaze.py` calls it.

The layout is that of the published FlatBuffers schema (tensorflow/lite/schema/schema.fbs, version 3).
"""

import struct
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from common.errors import ModelError

ADD, CONV, DEPTHWISE, DEQUANTIZE, MAX_POOL, RELU, PAD = 0, 3, 4, 6, 17, 19, 34
SAME = 0
NUMPY: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2"), 2: np.dtype("<i4")}


class _Table:
    """A FlatBuffers table: fields by their number in the schema."""

    def __init__(self, content: bytes, at: int) -> None:
        self._content, self._at = content, at
        self._fields = at - self._read("i", at)
        self._size = self._read("H", self._fields)

    def number(self, field: int, form: str, default: int = 0) -> int:
        """A scalar of struct format `form`."""
        where = self._where(field)
        return self._read(form, where) if where else default

    def table(self, field: int) -> "_Table | None":
        """A table that a field points to."""
        where = self._target(field)
        return None if where is None else _Table(self._content, where)

    def tables(self, field: int) -> list["_Table"]:
        """A vector of tables."""
        start = self._target(field)
        if start is None:
            return []
        places = [start + 4 + 4 * at for at in range(self._read("I", start))]
        return [_Table(self._content, place + self._read("I", place)) for place in places]

    def numbers(self, field: int) -> list[int]:
        """A vector of int32."""
        start = self._target(field)
        return [] if start is None else list(struct.unpack_from(f"<{self._read('I', start)}i", self._content, start + 4))

    def content(self, field: int) -> bytes:
        """A vector of bytes."""
        start = self._target(field)
        return b"" if start is None else self._content[start + 4 : start + 4 + self._read("I", start)]

    def _where(self, field: int) -> int:
        entry = 4 + 2 * field
        offset = self._read("H", self._fields + entry) if entry < self._size else 0
        return self._at + offset if offset else 0

    def _target(self, field: int) -> int | None:
        where = self._where(field)
        return where + self._read("I", where) if where else None

    def _read(self, form: str, at: int) -> int:
        return int(struct.unpack_from("<" + form, self._content, at)[0])


def onnx_from_tflite(content: bytes, outputs: dict[str, int], *, scale: float, shift: float) -> bytes:
    """The network as ONNX: `picture` (1, H, W, 3) uint8 of any size -> the named outputs, (1, channels, h, w) float32.

    Args:
        outputs: name to number of the tensor, each the end of a convolution; what comes after is left out.
        scale, shift: the network sees picture * scale + shift.

    Raises:
        ModelError: the file is damaged, or holds an operation that is not known here.
    """
    try:
        return _Converter(content).converted(outputs, scale, shift)
    except (struct.error, IndexError, KeyError, ValueError) as error:
        raise ModelError(f"The network is no TensorFlow Lite file of the expected kind ({type(error).__name__}).") from error


class _Converter:
    def __init__(self, content: bytes) -> None:
        model = _Table(content, struct.unpack_from("<I", content, 0)[0])
        self._codes = [max(code.number(0, "b"), code.number(3, "i")) for code in model.tables(1)]
        self._buffers = model.tables(4)
        graph = model.tables(2)[0]
        self._tensors, self._operators = graph.tables(0), graph.tables(3)
        (self._input,) = graph.numbers(1)
        self._dequantized: dict[int, int] = {}
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def converted(self, outputs: dict[str, int], scale: float, shift: float) -> bytes:
        self._constant("scale", np.float32(scale))
        self._constant("shift", np.float32(shift))
        self._node("Cast", ["picture"], "floats", to=TensorProto.FLOAT)
        self._node("Transpose", ["floats"], "planes", perm=[0, 3, 1, 2])
        self._node("Mul", ["planes", "scale"], "scaled")
        self._node("Add", ["scaled", "shift"], f"t{self._input}")
        left = set(outputs.values())
        for operator in self._operators:
            if not left:
                break
            self._operator(operator)
            left -= set(operator.numbers(2))
        if left:
            raise ModelError("The network does not have the outputs that are asked for.")
        for name, tensor in outputs.items():
            self._node("Identity", [f"t{tensor}"], name)
        graph = helper.make_graph(
            self._nodes,
            "converted",
            [helper.make_tensor_value_info("picture", TensorProto.UINT8, [1, "height", "width", 3])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, None, None]) for name in outputs],
            self._constants,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.checker.check_model(made)
        return bytes(made.SerializeToString())

    def _operator(self, operator: _Table) -> None:
        code = self._codes[operator.number(0, "I")]
        ins, (out,) = operator.numbers(1), operator.numbers(2)
        options, name = operator.table(4), f"t{out}"
        if code == DEQUANTIZE:
            self._dequantized[out] = ins[0]
        elif code in (CONV, DEPTHWISE) and options is not None:
            self._convolution(code, options, ins, name)
        elif code == MAX_POOL and options is not None:
            sides = [options.number(4, "i"), options.number(3, "i")]
            strides = [options.number(2, "i"), options.number(1, "i")]
            self._node("MaxPool", [f"t{ins[0]}"], name, kernel_shape=sides, strides=strides, auto_pad=_padding(options))
        elif code == ADD:
            self._node("Add", [f"t{at}" for at in ins], name)
        elif code == RELU:
            self._node("Relu", [f"t{ins[0]}"], name)
        elif code == PAD:
            # rows are batch, height, width, channels; ONNX wants all beginnings, then all ends, channels second
            before_after = self._values(ins[1])[[0, 3, 1, 2]].T.ravel().astype(np.int64)
            self._node("Pad", [f"t{ins[0]}", self._constant(f"{name}_pads", before_after)], name)
        else:
            raise ModelError(f"The network holds an operation that is not known here (number {code}).")

    def _convolution(self, code: int, options: _Table, ins: list[int], name: str) -> None:
        if options.number(4 if code == DEPTHWISE else 3, "b"):
            raise ModelError("The network holds a convolution with an activation of its own, which is not known here.")
        weights = self._values(ins[1])
        weights = weights.transpose(3, 0, 1, 2) if code == DEPTHWISE else weights.transpose(0, 3, 1, 2)
        inputs = [f"t{ins[0]}", self._constant(f"{name}_weights", weights), self._constant(f"{name}_bias", self._values(ins[2]))]
        strides = [options.number(2, "i"), options.number(1, "i")]
        groups = len(weights) if code == DEPTHWISE else 1
        self._node(
            "Conv", inputs, name, kernel_shape=list(weights.shape[2:]), strides=strides, group=groups, auto_pad=_padding(options)
        )

    def _values(self, number: int) -> NDArray[Any]:
        tensor = self._tensors[self._dequantized.get(number, number)]
        content = self._buffers[tensor.number(2, "I")].content(0)
        values = np.frombuffer(content, NUMPY[tensor.number(1, "b")]).reshape(tensor.numbers(0))
        return np.asarray(values, dtype=np.float32 if values.dtype.kind == "f" else np.int32)

    def _constant(self, name: str, values: Any) -> str:
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))


def _padding(options: _Table) -> str:
    return "SAME_UPPER" if options.number(0, "b") == SAME else "VALID"
