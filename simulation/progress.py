"""What a person sees while a simulation runs: round, accuracy, epsilon, devices per second, time left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from common.config import RunConfig
from fl_server.rounds import Observers
from fl_server.strategy import Tally


def round_line(record: dict[str, Any], config: RunConfig) -> str:
    """One finished round in one line; before round 1 nothing is spent."""
    rounds = config.server.rounds
    parts = [f"round {record['round']:>{len(str(rounds))}}/{rounds}"]
    if "accuracy" in record:
        parts.append(f"accuracy {record['accuracy']:6.1%}  balanced {record['balanced_accuracy']:6.1%}")
    if record.get("federated_accuracy") is not None:
        parts.append(f"on devices {record['federated_accuracy']:6.1%}")
    epsilons = [f"epsilon {record['epsilon']:.2f}"] if config.privacy.private and record.get("epsilon") is not None else []
    if config.client_level.mode != "none":
        epsilons.append(f"client-level {record.get('client_epsilon', 0.0):.2f}")
    parts += epsilons or ["NON-PRIVATE"]
    if record["round"]:
        pace = record["asked"] / max(record["seconds"], 1e-9)
        parts.append(f"{record['accepted']}/{record['asked']} devices, {pace:.1f}/s")
    if record["left_out"]:
        parts.append("left out: " + ", ".join(f"{count} {why}" for why, count in record["left_out"].items()))
    return "  ".join(parts)


def make_progress(console: Console, disable: bool = False) -> Progress:
    """Bars with a note, the time gone and the time left; every task has the field `note`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=disable,
    )


class Display:
    """A progress bar over rounds, one over the devices of a round, and a line for each finished round."""

    def __init__(self, console: Console, config: RunConfig, done: int = 0) -> None:
        self._console, self._config = console, config
        self._progress = make_progress(console)
        self._rounds = self._progress.add_task("rounds ", total=config.server.rounds, completed=done, note="")
        self._devices = self._progress.add_task("devices", total=None, note="")
        self._began = time.monotonic()

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the bars meanwhile, on a terminal."""
        with self._progress:
            yield

    def wrap(self, observers: Observers) -> Observers:
        """Observers that also move the bars."""

        def on_reply(number: int, tally: Tally) -> None:
            answered = tally.accepted + sum(tally.left_out.values())
            if answered <= 1:
                self._began = time.monotonic()
            speed = f"{answered / max(time.monotonic() - self._began, 1e-3):.1f}/s" if answered > 1 else ""
            self._progress.update(self._devices, total=tally.asked, completed=answered, note=speed)

        def on_round(record: dict[str, Any]) -> None:
            observers.on_round(record)
            self._console.print(round_line(record, self._config), soft_wrap=True)
            self._progress.update(self._rounds, completed=record["round"])
            self._progress.update(self._devices, completed=0)

        return replace(observers, on_reply=on_reply, on_round=on_round)
