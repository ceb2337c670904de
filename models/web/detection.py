"""The face detector that the project ships, as the browser takes it. Whoever makes a `CameraSite` passes it on."""

from importlib.resources import files

from models.detector.levels import LEVELS, MODEL_FILE
from models.web.site import Detection

SPEC = {
    "kind": "grid",
    "longest": 384,
    "threshold": 0.53,
    "multiple": 16,
    "same": 0.3,
    "levels": [
        {"output": output, "stride": level.stride, "side": level.side}
        for output, level in zip(("fine", "coarse"), LEVELS, strict=True)
    ],
}
"""As `models.detector.grid` and `candidates` have it; `tests/models/web/test_site.py` holds both to the same boxes."""


def shipped_detection() -> Detection | None:
    """The detector; None where this installation lacks its network."""
    file = files("models.detector") / MODEL_FILE
    return Detection(SPEC, file.read_bytes()) if file.is_file() else None
