"""What distributed noise costs against central noise: `python -m benchmarks.client_level [--quick] [--check | --accuracy FILE]`.

By default in the error of the mean, with --accuracy in that of a model (`benchmarks.client_level_accuracy`).

Both means are released at the same client-level epsilon. Ten devices have updates of their own; the others share one, so that
the sum of their roundings is a binomial draw: exact, and quick for 1,000 devices. Noise of the whole cohort is one Skellam draw,
which is the law of the sum of all shares. Sums are taken modulo 2^bits, as in the papers; the ring of a round is wider.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.conclusion import conclude
from common.console import command_line, out, run_command_line
from common.privacy.client_level.accounting import calibrate_client_noise, calibrate_distributed
from common.privacy.client_level.central import CentralMechanism, CentralSum, clip_to_norm
from common.privacy.client_level.distributed import DistributedMechanism, noisy_survivors
from common.privacy.client_level.rotation import rotate, unrotate
from common.privacy.mechanisms import SecureRandom

EPSILON, DELTA, ROUNDS, CLIP = 8.0, 1e-5, 100, 1.0
SEED = bytes(32)
OWN = 10
"""Devices with an update of their own."""

TARGETS = {18: 1.06, 20: 1.03}
"""Error against central noise at the same epsilon, with as many survivors as the noise is sized for."""


@dataclass(frozen=True)
class Setup:
    """A cohort, the length of an update, and the bits of the sum."""

    members: int
    length: int
    bits: int

    def __str__(self) -> str:
        return f"{self.members} devices, {self.length} values, {self.bits} bits"


@dataclass(frozen=True)
class Errors:
    """Mean squared errors against the true mean of the clipped updates, over the central one of as many devices.

    Attributes:
        multiplier: noise multiplier over the central one.
        threshold: with as many survivors as secure aggregation needs at least.
        everybody: without dropouts, when the shares are more noise than needed.
        seconds: CPU time of a device for clip, rotation, rounding, noise and encoding.
    """

    multiplier: float
    threshold: float
    everybody: float
    seconds: float


def updates_of(count: int, length: int, random: np.random.Generator) -> list[tuple[int, NDArray[np.float64]]]:
    """`count` devices' updates, all longer than the clip, as (how many hold it, the update)."""
    own = min(OWN, count)
    held = [(1, random.normal(size=length)) for _ in range(own)]
    return held + ([(count - own, random.normal(size=length))] if count > own else [])


def distributed_sum(
    one: DistributedMechanism, held: list[tuple[int, NDArray[np.float64]]], bits: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """The decoded sum of all devices' integers and noise, taken modulo 2^bits."""
    total, secure = np.zeros(one.padded, dtype=np.int64), SecureRandom()
    for count, update in held:
        if count == 1:
            total += one.quantise(update, SEED, secure)
        else:
            scaled = rotate(clip_to_norm(update, one.clip), SEED) * one.scale
            floor = np.floor(scaled)
            total += count * floor.astype(np.int64) + random.binomial(count, scaled - floor)
    rate = sum(count for count, _ in held) * one.share.variance / 2
    total += random.poisson(rate, one.padded) - random.poisson(rate, one.padded)
    half = 1 << (bits - 1)
    return unrotate(((total + half) % (2 * half) - half) / one.scale, SEED, one.length)


def squared_error(setup: Setup, one: DistributedMechanism, central: float, count: int) -> float:
    """Of the distributed mean of `count` devices, over that of the central mean."""
    random = np.random.default_rng(setup.length + count)
    held = updates_of(count, setup.length, random)
    true = sum(n * clip_to_norm(update, CLIP) for n, update in held) / count
    distributed = distributed_sum(one, held, setup.bits, random) / count
    reference = CentralSum(CentralMechanism(CLIP, central, count), setup.length)
    noise = reference.release(SecureRandom())
    return float(((distributed - true) ** 2).mean() / (noise**2).mean())


def measure(setup: Setup) -> Errors:
    central = calibrate_client_noise(EPSILON, DELTA, ROUNDS, 1.0, "known")
    survivors = noisy_survivors(setup.members)
    asked = DistributedMechanism(setup.members, survivors, setup.length, CLIP, central, setup.bits)
    one = calibrate_distributed(asked, EPSILON, DELTA, ROUNDS)
    update = np.random.default_rng(0).normal(size=setup.length)
    one.encode(update, SEED, SecureRandom())
    start = time.process_time()
    one.encode(update, SEED, SecureRandom())
    seconds = time.process_time() - start
    threshold, everybody = (squared_error(setup, one, central, count) for count in (survivors, setup.members))
    return Errors(one.noise_multiplier / central, threshold, everybody, seconds)


def show(results: dict[Setup, Errors]) -> None:
    table = Table(title=f"Distributed against central noise, epsilon {EPSILON:g} over {ROUNDS} rounds", title_justify="left")
    for heading in ("devices", "values", "bits", "noise", "error, at threshold", "error, nobody gone", "device s"):
        table.add_column(heading, justify="right")
    for setup, errors in results.items():
        table.add_row(
            str(setup.members),
            f"{setup.length:,}",
            str(setup.bits),
            f"{errors.multiplier:.3f} x",
            f"{errors.threshold:.3f} x",
            f"{errors.everybody:.3f} x",
            f"{errors.seconds:.3f}",
        )
    out.print(table)


app = command_line("What distributed noise costs in accuracy against central noise.")


@app.command()
def main(
    quick: Annotated[bool, typer.Option("--quick", help="65,536 values and up to 100 devices only.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail when a target is missed.")] = False,
    accuracy: Annotated[
        Path | None, typer.Option(help="fer2013.csv: train a model's last layer on it instead, and compare accuracies.")
    ] = None,
) -> None:
    """Compare the means for several cohorts, lengths and bits, and print them, then one line of JSON."""
    if accuracy is not None:
        from benchmarks.client_level_accuracy import measure_accuracy  # not at the top: it imports torch

        measure_accuracy(accuracy, quick)
        return
    members, lengths = ((20, 100), (2**16,)) if quick else ((20, 100, 1000), (2**16, 2**18, 2**20))
    setups = [Setup(n, length, bits) for n in members for length in lengths for bits in (16, 18, 20)]
    results = {setup: measure(setup) for setup in setups}
    show(results)
    missed = [
        f"{setup}: {errors.threshold:.3f} times the central error instead of {TARGETS[setup.bits]}"
        for setup, errors in results.items()
        if errors.threshold > TARGETS.get(setup.bits, float("inf"))
    ]
    rows = {
        str(setup): {
            "noise_against_central": round(errors.multiplier, 4),
            "error_at_threshold": round(errors.threshold, 4),
            "error_nobody_gone": round(errors.everybody, 4),
            "device_s": round(errors.seconds, 4),
        }
        for setup, errors in results.items()
    }
    targets = {str(bits): target for bits, target in TARGETS.items()}
    conclude("client_level", {"results": rows, "targets": targets, "missed": missed}, missed, check=check)


if __name__ == "__main__":
    run_command_line(app)
