"""What it saves to keep freed memory for the next step: `python -m benchmarks.allocator [--quick] [--check]`.

A private training step of the default network. Processes that do and do not call `common.allocator.keep_freed_memory` take
turns; each measures one case in threads, as simulations train, by CPU time.
"""

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.conclusion import conclude
from common.allocator import keep_freed_memory
from common.console import command_line, out, run_command_line


@dataclass(frozen=True)
class Case:
    """Trained part, batch, augmented copies of each face, and devices that train at once."""

    part: str
    batch: int
    copies: int = 1
    threads: int = 1

    def __str__(self) -> str:
        copies = f", {self.copies} copies" if self.copies > 1 else ""
        return f"{self.part}, batch {self.batch}{copies}" + (f", {self.threads} threads" if self.threads > 1 else "")


@dataclass(frozen=True)
class Figures:
    """Of one step: CPU time and page faults; and the process's peak memory."""

    milliseconds: float
    faults: float
    peak_mib: float


CASES = (
    Case("last-block", 64),
    Case("last-block", 256, copies=4),
    Case("full", 64),
    Case("full", 256),
    Case("full", 64, threads=2),
)
QUICK = CASES[:2]
TARGET = 1.05
"""No case may take longer, but for noise."""
SECONDS = 3.0
"""Of CPU time a case and turn, at least two steps."""


def measure(kept: bool, case: Case) -> Figures:
    """To be called in a fresh process."""
    if kept:
        keep_freed_memory()
    with ThreadPoolExecutor(case.threads) as pool:
        steps = list(pool.map(lambda _: make_step(case), range(case.threads)))
        list(pool.map(lambda step: step(), steps))
        start, faults, done = time.process_time(), page_faults(), 0
        while done < 2 or time.process_time() - start < SECONDS:
            list(pool.map(lambda step: step(), steps))
            done += case.threads
        spent, faults = time.process_time() - start, page_faults() - faults
    return Figures(1000 * spent / done, faults / done, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def make_step(case: Case) -> Callable[[], None]:
    import torch

    from common.config import ModelConfig
    from common.privacy.dpsgd.bookkeeping import BookkeepingGradients
    from common.privacy.mechanisms import SecureRandom
    from fl_client.losses import summed_loss
    from models.mobilenet import build_model
    from models.subset import select_trainable

    torch.set_num_threads(1)
    model = build_model(ModelConfig(stem_stride=1))
    select_trainable(model, case.part)
    gradients = BookkeepingGradients(
        model, clipping_norm=1.0, noise_multiplier=1.0, expected_batch=case.batch, random=SecureRandom()
    )
    inputs = torch.randn(case.batch * case.copies, 1, 48, 48).contiguous(memory_format=torch.channels_last)
    targets = torch.softmax(torch.randn(case.batch * case.copies, 7), 1)
    return partial(gradients.compute, inputs, targets, summed_loss, case.copies)


def page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def median_of(runs: Sequence[Figures]) -> Figures:
    return Figures(*(round(statistics.median(getattr(run, field.name) for run in runs), 1) for field in fields(Figures)))


app = command_line("What it saves to keep freed memory for the next training step.")


@app.command()
def main(
    quick: Annotated[bool, typer.Option("--quick", help="The last block alone, one turn.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail when a case takes longer.")] = False,
    turns: Annotated[int, typer.Option(min=1, help="Processes of each kind.")] = 3,
) -> None:
    """Measure private steps with memory handed back and kept, and print the ratios, then one line of JSON."""
    cases, turns = (QUICK, 1) if quick else (CASES, turns)
    runs: dict[tuple[Case, bool], list[Figures]] = {(case, kept): [] for case in cases for kept in (False, True)}
    for _ in range(turns):
        for (case, kept), found in runs.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found.append(pool.apply(measure, (kept, case)))
    table = Table(title="A private training step: freed memory handed back, and kept", title_justify="left")
    for heading in ("", "ms", "kept", "ratio", "page faults", "kept", "peak MiB", "kept"):
        table.add_column(heading, justify="left" if not heading else "right")
    results, missed = {}, []
    for case in cases:
        back, keep = (median_of(runs[case, kept]) for kept in (False, True))
        ratio = keep.milliseconds / back.milliseconds
        results[str(case)] = {"handed_back": vars(back), "kept": vars(keep), "ratio": round(ratio, 3)}
        times = (f"{back.milliseconds:.0f}", f"{keep.milliseconds:.0f}", f"{ratio:.2f}")
        table.add_row(
            str(case), *times, f"{back.faults:,.0f}", f"{keep.faults:,.0f}", f"{back.peak_mib:.0f}", f"{keep.peak_mib:.0f}"
        )
        if ratio > TARGET:
            missed.append(f"{case}: {ratio:.2f} of the time instead of at most {TARGET:g}")
    out.print(table)
    conclude("allocator", {"results": results, "targets": {"ratio": TARGET}, "missed": missed}, missed, check=check)


if __name__ == "__main__":
    run_command_line(app)
