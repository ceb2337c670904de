"""One picture to judge the drawn data by: `python -m simulation.contact_sheet docs/images/synthetic_faces.png`.

Training faces by emotion, two frames of drawn scenes, and the crops that a stock detector's boxes give there.
"""

import sys
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.console import out, run_command_line
from common.emotions import EMOTIONS_7
from common.errors import DeviceError
from common.files import write_atomic
from models.preprocess import Preprocessing
from simulation.synthetic_faces import draw_faces
from simulation.synthetic_scene import SceneFrame, render_scene

Picture = NDArray[np.uint8]

_COLUMNS, _TILE, _MARGIN, _SEED = 12, 72, 92, 1


def contact_sheet() -> Picture:
    """The whole sheet as (H, W, 3) uint8 BGR."""
    faces = draw_faces(40 * len(EMOTIONS_7), seed=_SEED)
    rows = []
    for label, name in enumerate(EMOTIONS_7):
        of_one_kind = faces.images[faces.labels == label][:_COLUMNS]
        rows.append(_row(name, [_sized(face, _TILE, _TILE) for face in of_one_kind]))
    frames = [frame for seed in (1, 2) for frame in render_scene(_COLUMNS, seed=seed, people=2 + seed % 2, fps=0.9)]
    crops = [crop for frame in frames for crop in _detected(frame)]
    picked = crops[:: max(len(crops) // (2 * _COLUMNS), 1)]
    rows += [_row("detected", picked[:_COLUMNS]), _row("in scenes", picked[_COLUMNS : 2 * _COLUMNS])]
    width = _COLUMNS * _TILE // 2
    scenes = [_sized(frame.picture, width, width * 3 // 4) for frame in (frames[2], frames[-4])]
    return np.vstack([*rows, _row("scenes", scenes)])


def _detected(frame: SceneFrame) -> list[Picture]:
    cascade = cv2.CascadeClassifier(str(Path(cv2.__file__).with_name("data") / "haarcascade_frontalface_alt2.xml"))
    boxes = np.asarray(cascade.detectMultiScale(Preprocessing().grey(frame.picture), 1.1, 3, 0, (60, 60)), dtype=int)
    return [_sized(Preprocessing().crop(frame.picture, (x, y, w, h)), _TILE, _TILE) for x, y, w, h in sorted(boxes.tolist())]


def _sized(picture: Picture, width: int, height: int) -> Picture:
    how = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how), dtype=np.uint8)


def _row(name: str, tiles: list[Picture]) -> Picture:
    """A line of pictures of one height, with its name in front."""
    line = np.full((len(tiles[0]), _MARGIN + _COLUMNS * _TILE, 3), 255, np.uint8)
    cv2.putText(line, name, (6, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.47, (0, 0, 0), 1, cv2.LINE_AA)
    left = _MARGIN
    for tile in tiles:
        width = tile.shape[1]
        line[:, left : left + width] = tile if tile.ndim == 3 else tile[:, :, None]
        left += width
    return line


def main() -> None:
    """Write the sheet to the .png file named on the command line."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "synthetic_faces.png")
    if not path.parent.is_dir():
        raise DeviceError(f"{path} cannot be written: its folder does not exist.")
    content = BytesIO()
    Image.fromarray(contact_sheet()[:, :, ::-1]).save(content, "png", optimize=True)
    write_atomic(path, content.getvalue())
    out.print(f"Wrote {path}.")


if __name__ == "__main__":
    run_command_line(main)
