"""What a person sees while the base model is trained: faces seen, speed, time left, and a line for each look at PublicTest."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.pretraining.data import FER2013, FERPLUS
from models.pretraining.trainer import Watch
from simulation.progress import make_progress

LINE_EVERY = 60.0
"""Seconds between two lines where there is no terminal."""


class PretrainDisplay:
    """A progress bar on a terminal, and elsewhere a line a minute."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = make_progress(console, disable=not console.is_terminal)
        self._task = self._progress.add_task("faces", total=None, note="")
        self._mark: tuple[float, int] | None = None
        self._rate = 0.0

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the bar meanwhile, on a terminal."""
        with self._progress:
            yield

    def watch(self) -> Watch:
        """What the trainer tells this display."""
        return Watch(self._note, self._on_step, self._on_validation)

    def _note(self, text: str) -> None:
        self._console.print(f"[dim]{escape(text)}[/]", soft_wrap=True)

    def _on_step(self, seen: int, total: int, loss: float) -> None:
        now = time.monotonic()
        if self._mark is None:
            self._mark = (now, seen)
        elapsed = now - self._mark[0]
        if elapsed > LINE_EVERY:
            self._rate = (seen - self._mark[1]) / elapsed
            self._mark = (now, seen)
            if not self._console.is_terminal:
                self._console.print(f"{seen:>9,} of {total:,} faces  loss {loss:.3f}  {self._rate:.0f} faces/s")
        elif self._rate == 0 and elapsed > 0:
            self._progress.update(self._task, note=f"loss {loss:.3f}  {(seen - self._mark[1]) / elapsed:.0f}/s")
        if self._rate:
            self._progress.update(self._task, note=f"loss {loss:.3f}  {self._rate:.0f}/s")
        self._progress.update(self._task, total=total, completed=seen)

    def _on_validation(self, record: dict[str, Any]) -> None:
        self._console.print(validation_line(record), soft_wrap=True)


def validation_line(record: dict[str, Any]) -> str:
    """One look at PublicTest in one line."""
    parts = [f"{record['images']:>9,} faces  train loss {record['train_loss']:.3f}"]
    for head, name in ((FERPLUS, "FER+ M8"), (FER2013, "FER2013")):
        found = record["validation"][head]
        parts.append(
            f"{name} {found['accuracy']:.1%} balanced {found['balanced_accuracy']:.1%} loss {found['loss']:.3f} "
            f"ECE {found['calibration_error']:.3f}"
        )
    return "  ".join(parts)


def result_table(result: dict[str, Any]) -> Table:
    """Accuracy, balanced accuracy and calibration of both heads on both public splits."""
    table = Table(title=f"{result['recipe']['variant']} after {result['images']:,} faces")
    for column in ("split", "labels", "faces", "accuracy", "balanced", "calibration error"):
        table.add_column(column)
    for split, key in (("PublicTest", "validation"), ("PrivateTest", "test")):
        for head, name in ((FERPLUS, "FER+ majority (M8)"), (FER2013, "FER2013")):
            found = result[key][head]
            table.add_row(
                split,
                name,
                f"{found['examples']:,}",
                f"{found['accuracy']:.1%}",
                f"{found['balanced_accuracy']:.1%}",
                f"{found['calibration_error']:.3f}",
            )
    return table
