"""What it saves to keep freed memory for the next step: `python -m benchmarks.allocator [--quick] [--check]`.

A private training step of the default network, by trained part, batch and augmented copies of each face. Processes that do and
do not call `common.allocator.keep_freed_memory` take turns; each measures in a thread, as simulations train, by CPU time.
"""

import multiprocessing
import resource
import statistics
import threading
import time
from functools import partial
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.conclusion import conclude
from common.allocator import keep_freed_memory
from common.console import command_line, out, run_command_line

Case = tuple[str, int, int]
"""Trained part, batch, augmented copies of a face."""
CASES: tuple[Case, ...] = (("last-block", 64, 1), ("last-block", 256, 4), ("full", 64, 1), ("full", 256, 1))
QUICK = CASES[:2]
TARGET = 1.0
"""No case may become slower."""
SECONDS = 3.0
"""Of CPU time a case and turn, at least two steps."""

Figures = dict[str, tuple[float, float]]
"""By case: milliseconds and page faults of a step; and under `peak` the process's MiB, and 0."""


def label(case: Case) -> str:
    part, batch, copies = case
    return f"{part}, batch {batch}" + (f", {copies} copies" if copies > 1 else "")


def measure(kept: bool, cases: tuple[Case, ...]) -> Figures:
    """To be called in a fresh process."""
    if kept:
        keep_freed_memory()
    found: Figures = {}
    thread = threading.Thread(target=lambda: found.update((label(case), time_case(*case)) for case in cases))
    thread.start()
    thread.join()
    return found | {"peak": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 0.0)}


def time_case(part: str, batch: int, copies: int) -> tuple[float, float]:
    """Milliseconds and page faults of one step, after a first that is not counted."""
    import torch

    from common.config import ModelConfig
    from common.privacy.dpsgd.bookkeeping import BookkeepingGradients
    from common.privacy.mechanisms import SecureRandom
    from fl_client.losses import summed_loss
    from models.mobilenet import build_model
    from models.subset import select_trainable

    torch.set_num_threads(1)
    model = build_model(ModelConfig(stem_stride=1))
    select_trainable(model, part)
    gradients = BookkeepingGradients(model, clipping_norm=1.0, noise_multiplier=1.0, expected_batch=batch, random=SecureRandom())
    inputs = torch.randn(batch * copies, 1, 48, 48).contiguous(memory_format=torch.channels_last)
    targets = torch.softmax(torch.randn(batch * copies, 7), 1)
    step = partial(gradients.compute, inputs, targets, summed_loss, copies)
    step()
    start, faults, steps = time.process_time(), page_faults(), 0
    while steps < 2 or time.process_time() - start < SECONDS:
        step()
        steps += 1
    spent = time.process_time() - start
    gradients.close()
    return 1000 * spent / steps, (page_faults() - faults) / steps


def page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


app = command_line("What it saves to keep freed memory for the next training step.")


@app.command()
def main(
    quick: Annotated[bool, typer.Option("--quick", help="The last block alone, one turn.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail when a case became slower.")] = False,
    turns: Annotated[int, typer.Option(min=1, help="Processes of each kind.")] = 3,
) -> None:
    """Measure private steps with memory handed back and kept, and print the ratios, then one line of JSON."""
    cases, turns = (QUICK, 1) if quick else (CASES, turns)
    runs: dict[bool, list[Figures]] = {False: [], True: []}
    for _ in range(turns):
        for kept, found in runs.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found.append(pool.apply(measure, (kept, cases)))
    table = Table(title="A private training step", title_justify="left")
    for heading in ("", "handed back, ms", "kept, ms", "ratio", "page faults", "kept"):
        table.add_column(heading, justify="left" if not heading else "right")
    results, missed = {}, []
    for name in (*map(label, cases), "peak"):
        back, keep = ([statistics.median(run[name][i] for run in runs[kept]) for i in (0, 1)] for kept in (False, True))
        ratio = keep[0] / back[0]
        results[name] = {"handed_back": round(back[0], 1), "kept": round(keep[0], 1), "ratio": round(ratio, 3)}
        if name == "peak":
            out.print(table)
            out.print(f"Peak memory: {back[0]:,.0f} MiB handed back, {keep[0]:,.0f} MiB kept ({ratio:.2f}x).")
            continue
        table.add_row(name, f"{back[0]:.0f}", f"{keep[0]:.0f}", f"{ratio:.2f}", f"{back[1]:,.0f}", f"{keep[1]:,.0f}")
        if ratio > TARGET:
            missed.append(f"{name}: {ratio:.2f} of the time instead of at most {TARGET:g}")
    conclude("allocator", {"results": results, "targets": {"ratio": TARGET}, "missed": missed}, missed, check=check)


if __name__ == "__main__":
    run_command_line(app)
