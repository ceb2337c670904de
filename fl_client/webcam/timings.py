"""How long each stage of the loop takes, frame by frame: the loop fills it, `--benchmark` and the benchmark print it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

STAGES = ("detect", "track", "classify", "smooth", "draw", "record", "show")
"""In the order of the loop. `detect` runs on some frames only; `show` is the window, `record` the files."""

WHOLE = "whole frame"


@dataclass(frozen=True)
class Row:
    """One stage's figures, in milliseconds over all frames; a frame that left the stage out counts as 0.

    Attributes:
        share: of the whole, in [0, 1].
    """

    stage: str
    mean: float
    median: float
    p95: float
    most: float
    share: float


@dataclass
class Timings:
    """Milliseconds per stage and frame.

    Attributes:
        clock: seconds; `time.perf_counter` for what a person waits, `time.process_time` for what the processor works.
        keep: how many of the latest frames the figures cover, so that a camera that runs for days fills no memory.
    """

    clock: Callable[[], float] = time.perf_counter
    keep: int = 10_000
    frames: int = 0
    _now: dict[str, float] = field(default_factory=dict)
    _kept: list[dict[str, float]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the block's time to stage `name` of the frame in work."""
        started = self.clock()
        try:
            yield
        finally:
            self._now[name] = self._now.get(name, 0.0) + 1000 * (self.clock() - started)

    def next_frame(self) -> None:
        """The frame in work is done."""
        if len(self._kept) < self.keep:
            self._kept.append(self._now)
        else:
            self._kept[self.frames % self.keep] = self._now
        self._now = {}
        self.frames += 1

    def rows(self) -> list[Row]:
        """A row per stage that ran, in the loop's order, and the whole last; none before the first frame is done."""
        if not self._kept:
            return []
        names = [name for name in STAGES if any(name in frame for frame in self._kept)]
        table = np.array([[frame.get(name, 0.0) for name in names] for frame in self._kept]).reshape(len(self._kept), len(names))
        whole = table.sum(1)
        total = float(whole.mean()) or 1.0
        return [_row(name, table[:, at], total) for at, name in enumerate(names)] + [_row(WHOLE, whole, total)]


def _row(name: str, values: np.ndarray, total: float) -> Row:
    mean = float(values.mean())
    return Row(name, mean, float(np.median(values)), float(np.percentile(values, 95)), float(values.max()), mean / total)
