"""What a DP-SGD step costs against a plain SGD step of the same model: `python -m benchmarks.dp_step [--quick] [--check]`.

The ways take turns in one process on one thread, so that they share whatever else the machine does; the clock is that process's
CPU time. Each way's peak memory is taken in a process of its own.
"""

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
import typer
from opacus.grad_sample import GradSampleHooks
from opacus.optimizers import DPOptimizer
from rich.table import Table
from torch import Tensor, nn

from benchmarks.conclusion import conclude
from common.config import ModelConfig
from common.console import command_line, out, run_command_line
from common.privacy.dpsgd.bookkeeping import BookkeepingGradients
from common.privacy.dpsgd.native import kernels
from common.privacy.dpsgd.opacus_engine import OpacusGradients
from common.privacy.mechanisms import SecureRandom
from fl_client.losses import summed_loss
from models.mobilenet import build_model

RATE, CLIPPING_NORM, NOISE_MULTIPLIER = 0.01, 1.0, 1.0
TIME_TARGET, NATIVE_TARGET, MEMORY_TARGET, NOISE_TARGET = 1.2, 0.8, 1.15, 2.0
"""Book-keeping against plain SGD, in time (torch alone, and with native kernels) and in memory; secure noise against
`torch.randn`."""
MEMORY_BATCH = 64
"""Peak memory is taken at this batch size alone: each way needs a process of its own for it."""
FEWEST = 3
"""Turns of the ways through Opacus, which take most of the time."""

Step = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True)
class Setup:
    """A model and a batch size to measure."""

    name: str
    batch: int

    def __str__(self) -> str:
        return f"{self.name}, batch {self.batch}"

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return build_model(ModelConfig(name=self.name, stem_stride=1))

    def faces(self) -> tuple[Tensor, Tensor]:
        inputs = torch.randn(self.batch, 1, 48, 48).contiguous(memory_format=torch.channels_last)
        return inputs, torch.softmax(torch.randn(self.batch, 7), 1)


def plain(setup: Setup) -> Step:
    """SGD without privacy, channels last."""
    model = setup.model()
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)

    def step(inputs: Tensor, targets: Tensor) -> None:
        optimiser.zero_grad()
        torch.autograd.backward(summed_loss(model(inputs), targets) / len(inputs))
        optimiser.step()

    return step


def engine(kind: type[BookkeepingGradients] | type[OpacusGradients], setup: Setup) -> Step:
    """One of our two engines, with secure noise and clipping, then SGD's step."""
    model = setup.model()
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    gradients = kind(
        model,
        clipping_norm=CLIPPING_NORM,
        noise_multiplier=NOISE_MULTIPLIER,
        expected_batch=setup.batch,
        random=SecureRandom(),
    )

    def step(inputs: Tensor, targets: Tensor) -> None:
        gradients.compute(inputs, targets, summed_loss)
        optimiser.step()

    return step


def native(setup: Setup) -> Step:
    """Book-keeping with the native kernels, where this machine has a compiler."""
    return engine(BookkeepingGradients, setup)


def without_kernels(work: Callable[[], object]) -> None:
    """Do `work` in torch alone."""
    found, kernels.library = kernels.library, lambda: None  # type: ignore[attr-defined]
    try:
        work()
    finally:
        kernels.library = found  # type: ignore[attr-defined]


def bookkeeping(setup: Setup) -> Step:
    """Book-keeping in torch alone."""
    step = engine(BookkeepingGradients, setup)
    return lambda inputs, targets: without_kernels(partial(step, inputs, targets))


def opacus(setup: Setup) -> Step:
    return engine(OpacusGradients, setup)


def stock(setup: Setup) -> Step:
    """Opacus as it comes, its noise from torch's generator, in the default layout: its convolutions are wrong in the other."""
    model = setup.model().to(memory_format=torch.contiguous_format)
    GradSampleHooks(model, loss_reduction="sum")
    optimiser = DPOptimizer(
        torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9),
        noise_multiplier=NOISE_MULTIPLIER,
        max_grad_norm=CLIPPING_NORM,
        expected_batch_size=setup.batch,
        loss_reduction="sum",
    )

    def step(inputs: Tensor, targets: Tensor) -> None:
        optimiser.zero_grad()
        torch.autograd.backward(summed_loss(model(inputs.contiguous().requires_grad_(True)), targets))
        optimiser.step()

    return step


WAYS: dict[str, Callable[[Setup], Step]] = {
    "plain SGD": plain,
    "book-keeping": bookkeeping,
    "book-keeping, native": native,
    "Opacus, our samplers": opacus,
    "Opacus": stock,
}


def spent(work: Callable[[], object]) -> float:
    """CPU milliseconds of one call."""
    start = time.process_time()
    work()
    return 1000 * (time.process_time() - start)


def take_turns(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each, measured A B C A B C after one call each to warm up; Opacus stops after `FEWEST`."""
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats):
        for name, work in works.items():
            if turn < FEWEST or not name.startswith("Opacus"):
                times[name].append(spent(work))
    return {name: statistics.median(found) for name, found in times.items()}


def peak_memory(name: str, setup: Setup) -> float:
    """MiB that two steps add to what the process held before the first. To be called in a fresh fork: `exec` hands a peak on."""
    torch.set_num_threads(1)
    inputs, targets = setup.faces()
    step = WAYS[name](setup)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(inputs, targets)
    step(inputs, targets)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def measure(setup: Setup, ways: list[str], repeats: int) -> dict[str, dict[str, float]]:
    """Per way: milliseconds, memory, and both against plain SGD; and the noise by itself."""
    inputs, targets = setup.faces()
    steps = {name: WAYS[name](setup) for name in ways}
    times = take_turns({name: partial(step, inputs, targets) for name, step in steps.items()}, repeats)
    memory = {}
    for name in ways if setup.batch == MEMORY_BATCH else ():
        with multiprocessing.get_context("forkserver").Pool(1) as pool:
            memory[name] = pool.apply(peak_memory, (name, setup))
    count, secure = sum(p.numel() for p in setup.model().parameters()), SecureRandom()
    noise = take_turns(
        {
            "secure noise": lambda: secure.normal(count, 1.0),
            "secure noise, torch": lambda: without_kernels(lambda: secure.normal(count, 1.0)),
            "torch.randn": lambda: torch.randn(count),
        },
        2 * repeats,
    )
    base = ways[0]
    rows = {
        name: {
            "ms": times[name],
            "ratio": times[name] / times[base],
        }
        | ({"mib": memory[name], "memory_ratio": memory[name] / memory[base]} if memory else {})
        for name in ways
    }
    for name in ("secure noise", "secure noise, torch"):
        rows[name] = {"ms": noise[name], "ratio_to_randn": noise[name] / noise["torch.randn"]}
    return rows


def show(setup: Setup, rows: dict[str, dict[str, float]]) -> None:
    table = Table(title=str(setup), title_justify="left")
    for heading in ("", "CPU ms a step", "against plain", "peak MiB", "against plain"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, row in rows.items():
        if name in WAYS:
            memory = (f"{row['mib']:.0f}", f"{row['memory_ratio']:.2f}") if "mib" in row else ("", "")
            table.add_row(name, f"{row['ms']:.1f}", f"{row['ratio']:.2f}", *memory)
        else:
            table.add_row(f"{name} within", f"{row['ms']:.1f}", f"{row['ratio_to_randn']:.2f} x randn", "", "")
    out.print(table)


app = command_line("What private training costs against plain SGD.")


@app.command()
def main(
    quick: Annotated[bool, typer.Option("--quick", help="The default model at batch 32, few repeats, no stock Opacus.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail when a target is missed.")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Turns per way.")] = 9,
) -> None:
    """Measure each way of a training step side by side and print ratios, then one line of JSON."""
    torch.set_num_threads(1)
    setups = [Setup(name, batch) for name in ("mobilenet_v3_small", "mobilenet_v2_050") for batch in (32, 64)]
    ways = list(WAYS)
    if kernels.library() is None:  # type: ignore[attr-defined]
        ways.remove("book-keeping, native")
    if quick:
        setups, ways, repeats = setups[:1], ways[:-1], min(repeats, 5)
    results, missed = {}, []
    for setup in setups:
        rows = measure(setup, ways, repeats)
        show(setup, rows)
        results[str(setup)] = rows
        for what, found, target in (
            ("time", rows["book-keeping"]["ratio"], TIME_TARGET),
            ("time, native", rows.get("book-keeping, native", {}).get("ratio"), NATIVE_TARGET),
            ("memory", rows["book-keeping"].get("memory_ratio"), MEMORY_TARGET),
            ("noise", rows["secure noise"]["ratio_to_randn"], NOISE_TARGET),
        ):
            if found is not None and found > target:
                missed.append(f"{setup}: {what} {found:.2f} instead of {target}")
    targets = {"time": TIME_TARGET, "native": NATIVE_TARGET, "memory": MEMORY_TARGET, "noise": NOISE_TARGET}
    rounded = {
        setup: {name: {key: round(value, 3) for key, value in row.items()} for name, row in rows.items()}
        for setup, rows in results.items()
    }
    conclude("dp_step", {"results": rounded, "targets": targets, "missed": missed}, missed, check=check)


if __name__ == "__main__":
    run_command_line(app)
