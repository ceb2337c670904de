"""One picture to judge the drawn data by: `python -m simulation.contact_sheet docs/images/synthetic_faces.png`.

Training faces by emotion, two frames of drawn scenes, and the crops that a stock detector's boxes give there.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from common.console import out, run_command_line
from common.emotions import EMOTIONS_7
from models.faces.contact_sheet import Layout, Picture, Row, sized, write_sheet
from models.faces.contact_sheet import contact_sheet as lay_out
from models.faces.crop import to_grey
from models.preprocess import Preprocessing
from simulation.synthetic_faces import draw_faces
from simulation.synthetic_scene import SceneFrame, render_scene

_LAYOUT, _SEED = Layout(), 1


def contact_sheet() -> Picture:
    """The whole sheet as (H, W, 3) uint8 BGR."""
    columns = _LAYOUT.columns
    faces = draw_faces(40 * len(EMOTIONS_7), seed=_SEED)
    rows = [Row(name, list(faces.images[faces.labels == label][:columns])) for label, name in enumerate(EMOTIONS_7)]
    frames = [frame for seed in (1, 2) for frame in render_scene(columns, seed=seed, people=2 + seed % 2, fps=0.9)]
    crops = [crop for frame in frames for crop in _detected(frame)]
    picked = crops[:: max(len(crops) // (2 * columns), 1)]
    rows += [Row("detected", picked[:columns]), Row("in scenes", picked[columns : 2 * columns])]
    return np.vstack([lay_out(rows, _LAYOUT), _scenes([frames[2], frames[-4]])])


def _detected(frame: SceneFrame) -> list[Picture]:
    cascade = cv2.CascadeClassifier(str(Path(cv2.__file__).with_name("data") / "haarcascade_frontalface_alt2.xml"))
    boxes = np.asarray(cascade.detectMultiScale(to_grey(frame.picture), 1.1, 3, 0, (60, 60)), dtype=int)
    return [Preprocessing().crop(frame.picture, (x, y, w, h)) for x, y, w, h in sorted(boxes.tolist())]


def _scenes(frames: list[SceneFrame]) -> Picture:
    width = _LAYOUT.columns * _LAYOUT.tile // len(frames)
    height = width * 3 // 4
    pictures = [sized(frame.picture, width, height) for frame in frames]
    name = lay_out([Row("scenes", [])], _LAYOUT)[:, : _LAYOUT.margin]
    margin = np.full((height, _LAYOUT.margin, 3), 255, np.uint8)
    margin[: len(name)] = name
    return np.hstack([margin, *pictures])


def main() -> None:
    """Write the sheet to the .png file named on the command line."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "synthetic_faces.png")
    write_sheet(path, contact_sheet())
    out.print(f"Wrote {path}.")


if __name__ == "__main__":
    run_command_line(main)
