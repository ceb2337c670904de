"""What the camera loop costs and how good it is: `python -m benchmarks.webcam [--data DATA] [--quick] [--check]`.

640x480 frames with 1 to 3 real faces each, which `camera_frames.py` composes in memory. One thread. Times are CPU time of this
process, so another one's work does not count, though a busy machine's cold caches do.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from rich.table import Table

from benchmarks.camera_frames import faceless, film, stills
from benchmarks.conclusion import conclude
from benchmarks.real_data import Data
from benchmarks.webcam_measures import FACELESS, measure_accuracy, measure_classifier, measure_detector, measure_loop, open_real
from common.console import command_line, out, run_command_line
from common.errors import DependencyError
from fl_client.webcam.base_model import BaseSource
from fl_client.webcam.classifier import Classifier
from fl_client.webcam.tracking import TrackingSettings
from models.detector.detectors import DETECTORS, Detector, make_detector

TARGETS: dict[str, tuple[str, float]] = {
    "detector_ms": ("at most", 8.0),
    "detector_recall": ("at least", 0.95),
    "false_boxes_on_200_frames": ("at most", 5.0),
    "classifier_ms": ("at most", 1.3),
    "loop_mean_ms": ("at most", 5.0),
    "loop_p95_ms": ("at most", 12.0),
    "loop_overlap": ("at least", 0.9),
}


def _detectors() -> dict[str, Detector]:
    made = {}
    for name in DETECTORS:
        try:
            made[name] = make_detector(name)
        except DependencyError as error:
            out.print(f"Left out: {error}", soft_wrap=True, markup=False)
    return made


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for at, heading in enumerate(headings):
        table.add_column(heading, justify="right" if at else "left")
    for row in rows:
        table.add_row(*row)
    out.print(table)


app = command_line("What the camera loop costs, and how good it is.")


@app.command()
def main(
    data: Data = None,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the frames.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail when a target is missed.")] = False,
) -> None:
    """Measure detectors, classifier, loop and accuracy; print tables, then one line of JSON."""
    cv2.setNumThreads(1)
    real = open_real(data)
    part = 10 if quick else 1
    frames, empty = list(stills(real.images, 300 // part, seed=0)), list(faceless(FACELESS, seed=0))
    detectors = _detectors()
    found = {name: measure_detector(detector, frames, empty) for name, detector in detectors.items()}
    _table(
        f"Detectors: {frames and sum(len(frame.faces) for frame in frames)} faces of 60 to 220 pixels, {FACELESS} frames without",
        ("detector", "ms", "recall", "overlap", "false boxes"),
        [
            (name, f"{np.median(one.ms):.1f}", f"{one.recall:.1%}", f"{np.mean(one.overlaps):.2f}", str(one.false_boxes))
            for name, one in found.items()
        ],
    )
    chosen = make_detector()
    classifier = Classifier(BaseSource().newest())
    classifier_ms = measure_classifier(classifier, frames[:100])
    video = list(film(real.images, 600 // part, seed=1))
    ways = {
        "detect every 5th, flow between": TrackingSettings(),
        "detect every 5th, hold between": TrackingSettings(between="hold"),
        "detect every frame": TrackingSettings(every=1),
    }
    looped = {name: measure_loop(chosen, classifier, video, tracking) for name, tracking in ways.items()}
    _table(
        f"Whole loop with '{chosen.name}', {len(video)} frames; the classifier alone takes {classifier_ms:.2f} ms",
        ("way", "mean ms", "p95 ms", "overlap", "new numbers", "of which"),
        [
            (
                name,
                f"{one.whole.mean:.1f}",
                f"{one.whole.p95:.1f}",
                f"{one.overlap:.3f}",
                str(one.swaps_of_number),
                ", ".join(f"{row.stage} {row.mean:.1f}" for row in one.rows[:-1]),
            )
            for name, one in looped.items()
        ],
    )
    accuracy = {
        f"{name}, light x{dim}": measure_accuracy(detector, classifier, real, 600 // part, dim)
        for name, detector in detectors.items()
        for dim in (1.0, 0.15)
    }
    _table(
        "Accuracy on FER+ majority faces, eight classes",
        ("detector", "faces", "ready crops", "true box", "loop", "loop, of those found"),
        [
            (name, str(one["faces"]), *(f"{one[key]:.1%}" for key in ("crops", "true_box", "loop", "loop_if_found")))
            for name, one in accuracy.items()
        ],
    )
    main_way, mine = looped["detect every 5th, flow between"], found[chosen.name]
    results = {
        "detector": chosen.name,
        "detector_ms": round(float(np.median(mine.ms)), 2),
        "detector_recall": round(mine.recall, 4),
        "false_boxes_on_200_frames": mine.false_boxes,
        "classifier_ms": round(classifier_ms, 2),
        "loop_mean_ms": round(main_way.whole.mean, 2),
        "loop_p95_ms": round(main_way.whole.p95, 2),
        "loop_overlap": round(main_way.overlap, 4),
        "accuracy": accuracy,
    }
    missed = [
        f"{name} is {results[name]} instead of {how} {limit}"
        for name, (how, limit) in TARGETS.items()
        if _misses(results[name], how, limit)
    ]
    line = {
        "results": results,
        "targets": {name: list(target) for name, target in TARGETS.items()},
        "missed": missed,
    }
    conclude("webcam", line, missed, check=check)


def _misses(value: Any, how: str, limit: float) -> bool:
    return bool(value > limit if how == "at most" else value < limit)


if __name__ == "__main__":
    run_command_line(app)
