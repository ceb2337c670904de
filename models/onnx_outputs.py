"""An ONNX file that gives less than it could: whoever needs the logits alone runs them alone. The camera loop and REST call it.

ONNX Runtime computes every output of a file, whichever are fetched; without the heatmap it leaves out what only that needs.
"""

import onnx

from common.errors import ModelError


def only(content: bytes, output: str) -> bytes:
    """The ONNX file `content` with `output` as its only output; as it is where it has no other.

    Raises:
        ModelError: it is no ONNX file, or has no such output.
    """
    try:
        model = onnx.load_from_string(content)
    except Exception as error:
        # protobuf's exceptions share no public base class
        raise ModelError("This is not an ONNX model.") from error
    wanted = [one for one in model.graph.output if one.name == output]
    if not wanted:
        raise ModelError(f"This ONNX model has no output {output!r}.")
    if len(model.graph.output) == 1:
        return content
    del model.graph.output[:]
    model.graph.output.extend(wanted)
    smaller: bytes = model.SerializeToString()
    return smaller
