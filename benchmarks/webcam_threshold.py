"""Chooses the threshold of the detector `grid`: `python -m benchmarks.webcam_threshold [--data DATA]`.

The highest one that finds 95 % of the public test split's faces; the lower of that and of the one with `--light 0.15` ships.
`benchmarks.webcam` reports on the private split's.
"""

from collections.abc import Sequence
from typing import Annotated

import cv2
import typer
from rich.table import Table

from benchmarks.camera_frames import faceless, stills
from benchmarks.conclusion import conclude
from benchmarks.real_data import Data
from benchmarks.webcam import TARGETS
from benchmarks.webcam_measures import FACELESS, Found, measure_detector, open_real
from common.console import command_line, out, run_command_line
from common.errors import RunError
from models.detector.grid import THRESHOLD, GridDetector

SEED = 101
"""Of frames that no other benchmark composes."""

THRESHOLDS = tuple(round(0.5 + 0.01 * step, 2) for step in range(21))


def highest(recalls: Sequence[tuple[float, float]], least: float) -> float:
    """Of (threshold, recall) pairs, the highest threshold up to which every recall is at least `least`.

    Raises:
        RunError: the lowest one misses it already.
    """
    best = None
    for threshold, recall in sorted(recalls):
        if recall < least:
            break
        best = threshold
    if best is None:
        raise RunError(f"No threshold finds {least:.0%} of the faces.")
    return best


app = command_line("Choose the threshold of the detector 'grid'.")


@app.command()
def main(
    data: Data = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames with 1 to 3 faces each.")] = 600,
    light: Annotated[float, typer.Option(min=0.01, max=1.0, help="Part of the ordinary light.")] = 1.0,
    thresholds: Annotated[
        list[float] | None, typer.Option("--threshold", min=0.35, max=0.99, help="Only these. Default: 0.5 to 0.7.")
    ] = None,
) -> None:
    """Recall and false boxes at each threshold, with two looks and with one; print a table, then one line of JSON."""
    cv2.setNumThreads(1)
    shown = list(stills(open_real(data, "PublicTest").images, frames, SEED, light))
    empty = list(faceless(FACELESS, SEED))
    found: dict[float, dict[bool, Found]] = {}
    for threshold in thresholds or THRESHOLDS:
        found[threshold] = {
            twice: measure_detector(GridDetector(threshold=threshold, twice=twice), shown, empty) for twice in (True, False)
        }
    faces = sum(len(frame.faces) for frame in shown)
    table = Table(title=f"{faces} faces of PublicTest, {FACELESS} frames without", title_justify="left")
    for heading in ("threshold", "two looks", "false boxes", "one look", "false boxes"):
        table.add_column(heading, justify="right")
    for threshold, ways in found.items():
        cells = [cell for one in ways.values() for cell in (f"{one.recall:.1%}", str(one.false_boxes))]
        table.add_row(f"{threshold:.2f}", *cells)
    out.print(table)
    rows = {
        f"{threshold:.2f}": {
            name: {"recall": round(ways[twice].recall, 4), "false_boxes": ways[twice].false_boxes}
            for name, twice in (("two_looks", True), ("one_look", False))
        }
        for threshold, ways in found.items()
    }
    conclude("webcam_threshold", {"faces": faces, "light": light, "shipped": THRESHOLD, "results": rows})
    if thresholds is None:
        least = TARGETS["detector_recall"][1]
        chosen = highest([(threshold, ways[True].recall) for threshold, ways in found.items()], least)
        out.print(f"The highest that finds {least:.0%}: {chosen}; {THRESHOLD} ships.")


if __name__ == "__main__":
    run_command_line(app)
