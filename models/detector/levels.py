"""What the detector's network promises: its two grids, and the name of its file. Training and the camera loop read it."""

from dataclasses import dataclass

MODEL_FILE = "grid.onnx"


@dataclass(frozen=True)
class Level:
    """One grid.

    Attributes:
        stride: pixels between two cells.
        side: the face's side that the head's size output 0 stands for, in pixels; output t means side * exp(t).
        least, most: the sides that this grid learns, in pixels.
    """

    stride: int
    side: float
    least: float
    most: float


LEVELS = (Level(8, 24.0, 9.0, 44.0), Level(16, 72.0, 34.0, 260.0))
"""Fine for small faces, coarse for large ones; in between both learn."""

OUTPUTS = 4
"""Per cell: logit of a face, then x and y from the cell's middle to the face's in parts of the side, then log of the side."""
