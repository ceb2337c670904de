"""ONNX Runtime sessions as whatever looks at pictures wants them: on the CPU, quiet, and idle when there is nothing to do."""

from typing import Any

from common.errors import DependencyError


def cpu_session(content: bytes, threads: int = 1) -> Any:
    """The ONNX file `content` in a session; ONNX Runtime's own errors, which share no public base class.

    Args:
        threads: for one inference (intra-op).
    """
    import onnxruntime  # `common` came first: it turns onnxruntime's telemetry off

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def open_session(content: bytes, what: str) -> Any:
    """An ONNX Runtime session on one CPU thread.

    Raises:
        DependencyError: ONNX Runtime cannot run it; `what` names it for the person.
    """
    try:
        return cpu_session(content)
    except Exception as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DependencyError(f"{what} cannot be run by ONNX Runtime: {first_line}.") from error
