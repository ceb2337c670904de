"""How the detectors do on real photographs: `python -m benchmarks.webcam_photographs --in FOLDER [--in FOLDER ...]`.

The photographs are sample pictures of other projects, named in `photographs.json` with the places of their faces, and no part of
this one: unpack the sources of opencv-python, scikit-image, scikit-learn and matplotlib, and name the folders. `--held-out` adds
faceless ones of Debian 12 packages, named there and to be unpacked, too, which nothing was trained on or chosen by.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.camera_frames import HEIGHT, WIDTH
from benchmarks.conclusion import conclude
from common.console import command_line, out, run_command_line
from common.errors import DataError, DependencyError
from models.detector.detectors import DETECTORS, Detector
from models.detector.grid import THRESHOLD, GridDetector
from models.preprocess import Box

Picture = NDArray[np.uint8]
SIDES = (60, 100, 160)
"""Pixels of a face in the frames that are made of a photograph."""

SECTIONS = 8
"""Frames of each photograph without faces."""


def find(folders: Sequence[Path], names: Sequence[str]) -> dict[str, Picture]:
    """The named photographs, by their names.

    Raises:
        DataError: one of them lies in none of the folders.
    """
    found = {}
    for name in names:
        file, _, at = name.partition("@")
        paths = [path for folder in folders for path in sorted(folder.rglob(Path(file).name)) if str(path).endswith(f"/{file}")]
        content = paths[0].read_bytes() if paths else b""
        if at:
            content = _within(content, int(at))
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
        if picture is None:
            raise DataError(f"{name} is in none of the folders, or is no picture.")
        found[name] = np.asarray(picture, dtype=np.uint8)
    return found


def _within(content: bytes, at: int) -> bytes:
    """The file that begins at byte `at` of one of Qt's resource files (.rcc), where its length in four bytes comes before it."""
    return content[at : at + int.from_bytes(content[at - 4 : at], "big")]


def with_face(photographs: dict[str, Picture], boxes: dict[str, list[Box]]) -> Iterator[tuple[Picture, int, tuple[float, float]]]:
    """640x480 frames around each face, turned a little, at three sizes: the frame, the face's side and its middle."""
    rng = np.random.default_rng(5)
    for name, places in boxes.items():
        for x, y, wide, high in places:
            for side in SIDES:
                scale, turn = side / wide, float(rng.uniform(-12, 12))
                picture = photographs[name]
                across = x + wide / 2
                if rng.random() < 0.5:
                    picture, across = np.ascontiguousarray(picture[:, ::-1]), picture.shape[1] - across
                to = float(rng.uniform(140, 500)), float(rng.uniform(130, 350))
                matrix = np.asarray(cv2.getRotationMatrix2D((across, y + high / 2), turn, scale), dtype=np.float64)
                matrix[:, 2] += np.array((to[0] - across, to[1] - y - high / 2))
                if scale < 0.6:
                    picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.4 / scale), dtype=np.uint8)
                frame = cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
                yield np.asarray(frame, dtype=np.uint8), side, to


def without_faces(photographs: dict[str, Picture]) -> Iterator[Picture]:
    """640x480 sections of photographs."""
    rng = np.random.default_rng(3)
    for picture in photographs.values():
        rows, columns = picture.shape[:2]
        for _ in range(SECTIONS):
            high = int(min(rows, columns * 0.75) * rng.uniform(0.35, 1))
            wide = min(int(high / 0.75), columns)
            top, left = int(rng.integers(0, rows - high + 1)), int(rng.integers(0, columns - wide + 1))
            section = picture[top : top + high, left : left + wide]
            yield np.asarray(cv2.resize(section, (WIDTH, HEIGHT)), dtype=np.uint8)


def covers(box: Box, side: int, middle: tuple[float, float]) -> bool:
    """Whether a box stands on the face: its middle within a third of the side, its side between 0.55 and 1.8 of it."""
    x, y = box[0] + box[2] / 2 - middle[0], box[1] + box[3] / 2 - middle[1]
    return max(abs(x), abs(y)) < 0.33 * side and 0.55 < box[2] / side < 1.8


def measure(
    detector: Any,
    faces: Sequence[tuple[Picture, int, tuple[float, float]]],
    empty: Sequence[Picture],
    held_out: Sequence[Picture] = (),
) -> dict[str, Any]:
    """Part of the faces found, in all and at each size; false boxes per 200 frames, of `held_out` too; median ms of CPU time."""
    hits: dict[int, list[bool]] = {side: [] for side in SIDES}
    for picture, side, middle in faces:
        hits[side].append(any(covers(one.box, side, middle) for one in detector.detect(picture)))
    times, false_boxes = [], 0
    for picture in empty:
        began = time.process_time()
        false_boxes += len(detector.detect(picture))
        times.append(1000 * (time.process_time() - began))
    unseen = sum(len(detector.detect(picture)) for picture in held_out)
    return {
        "recall": round(float(np.mean([hit for one in hits.values() for hit in one])), 4),
        **{f"recall_{side}": round(float(np.mean(one)), 4) for side, one in hits.items()},
        "false_boxes_per_200": round(200 * false_boxes / len(empty), 1),
        **({"held_out_false_boxes_per_200": round(200 * unseen / len(held_out), 1)} if held_out else {}),
        "ms": round(float(np.median(times)), 2),
    }


app = command_line("How the detectors do on real photographs.")


def ways(thresholds: Sequence[float]) -> dict[str, Callable[[], Detector]]:
    """What is measured, by what a table calls it: each detector as it ships, and `grid` in other ways."""
    made: dict[str, Callable[[], Detector]] = {name: partial(make, None) for name, make in DETECTORS.items()}
    made[f"grid ({THRESHOLD}, one look: as in browsers)"] = partial(GridDetector, twice=False)
    for threshold in thresholds:
        made[f"grid ({threshold}, two looks)"] = partial(GridDetector, threshold=threshold)
        made[f"grid ({threshold}, one look)"] = partial(GridDetector, threshold=threshold, twice=False)
    return made


@app.command()
def main(
    folders: Annotated[list[Path], typer.Option("--in", help="Where the photographs are looked for, with all below.")],
    thresholds: Annotated[
        list[float] | None, typer.Option("--threshold", min=0.2, max=0.99, help="Measure `grid` with this threshold, too.")
    ] = None,
    held_out: Annotated[bool, typer.Option("--held-out", help="Also on the photographs of the Debian packages.")] = False,
) -> None:
    """Measure every detector that runs here; print a table, then one line of JSON."""
    cv2.setNumThreads(1)
    known = json.loads(Path(__file__).with_name("photographs.json").read_text(encoding="utf-8"))
    faces = list(with_face(find(folders, list(known["faces"])), known["faces"]))
    empty = list(without_faces(find(folders, known["faceless"])))
    unseen = list(without_faces(find(folders, known["held_out"]["faceless"]))) if held_out else []
    results = {}
    for name, make in ways(thresholds or ()).items():
        try:
            results[name] = measure(make(), faces, empty, unseen)
        except DependencyError as error:
            out.print(f"Left out: {error}", soft_wrap=True, markup=False)
    table = Table(title=f"{len(faces)} frames with a real face, {len(empty)} without", title_justify="left")
    false = ("false_boxes_per_200", *(("held_out_false_boxes_per_200",) if held_out else ()))
    headings = ("detector", "recall", *(f"{side} px" for side in SIDES), "false boxes per 200", *("held out",) * held_out, "ms")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for name, one in results.items():
        recalls = [f"{one[key]:.1%}" for key in ("recall", *(f"recall_{side}" for side in SIDES))]
        table.add_row(name, *recalls, *(f"{one[key]:.0f}" for key in false), f"{one['ms']:.1f}")
    out.print(table)
    conclude("webcam_photographs", {"results": results})


if __name__ == "__main__":
    run_command_line(app)
