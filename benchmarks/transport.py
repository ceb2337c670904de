"""What a round costs on its way: `python -m benchmarks.transport [--quick] [--check]`.

Our server and its streaming average against Flower's FedAvg on a stock SuperLink: the same devices, which answer over TLS with
enrolled keys and train nothing, on the same machine, in turns. Each device is a process; so are SuperLink and ServerApp.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks.conclusion import conclude
from benchmarks.sides import cpu_seconds
from benchmarks.transport_devices import take_part
from benchmarks.transport_place import PATIENCE, ROUND, Place, Setup, Usage, Way, resident
from benchmarks.transport_servers import average, serve_flower, serve_ours, start_flowers_run
from common.console import command_line, out, run_command_line
from common.errors import RunError

WAYS: tuple[Way, ...] = ("emofl", "flower")

ARRAYS = 158
"""That MobileNetV2 has; a third of them hold nearly all values. Flower sends each as an object of its own, ours all as one."""

TARGETS = {"seconds": 1.0, "bytes_sent": 1.02, "bytes_received": 1.02, "server_growth": 1.0}
"""What ours may be of Flower's: seconds a round, bytes per device, and how much SuperLink and ServerApp grow together."""
WITH_MORE_DEVICES = 1.5
"""By how much more our SuperLink, and our ServerApp, may grow with all devices than with a quarter of them: O(model)."""


@dataclass
class Pass:
    """Some rounds: seconds of each, usage by process, bytes of TCP payload that one device sent and received a round."""

    seconds: list[float]
    usage: dict[str, Usage]
    sent: float
    received: float


def measure(way: Way, setup: Setup) -> Pass:
    """One pass, in fresh processes and a fresh folder."""
    with ExitStack() as stack:
        place = Place(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="transport-"))), setup)
        place.prepare()
        if way == "flower":
            program, port, secret = stack.enter_context(serve_flower(place))
            superlink, runtime = program.pid, f"127.0.0.1:{port}"
        else:
            server, to_server = stack.enter_context(spawned(serve_ours, place))
            superlink = server.pid or 0
            port, runtime = heard(to_server, server)
        devices, to_devices = stack.enter_context(spawned(take_part, way, place, port))
        heard(to_devices, devices)
        app, to_app = stack.enter_context(spawned(average, way, place))
        heard(to_app, app)
        # Flower takes a task back that nobody has asked after for half a minute, so it is claimed when all else is there.
        if way == "flower":
            token = start_flowers_run(place, runtime, secret)
        else:
            to_server.send("run")
            token = heard(to_server, server)
        to_app.send((runtime, token))
        heard(to_app, app)
        watched = {"superlink": superlink, "serverapp": app.pid or 0}
        before = {name: (cpu_seconds(one), resident(one)[0]) for name, one in watched.items()}
        to_app.send("go")
        seconds = heard(to_app, app, ROUND * setup.rounds)
        usage = {
            name: Usage(cpu_seconds(one) - before[name][0], before[name][1], resident(one)[1]) for name, one in watched.items()
        }
        to_devices.send("end")
        said = heard(to_devices, devices)
        if None in said:
            raise RunError("A device ended before the rounds did.")
        each = [Usage(**one["usage"]) for one in said]
        usage["device"] = Usage(*(median(getattr(one, name) for one in each) for name in ("cpu", "before", "peak")))
        return Pass(seconds, usage, median(one["sent"] for one in said), median(one["received"] for one in said))


@contextmanager
def spawned(work: Any, *arguments: Any) -> Iterator[tuple[SpawnProcess, Connection]]:
    """A fresh process that does `work`, and a pipe to it; it is ended on the way out."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, *arguments), daemon=False)
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        with suppress(OSError):
            ours.send("end")
        process.join(10)
        process.kill()


def heard(pipe: Connection, process: SpawnProcess, seconds: float = PATIENCE) -> Any:
    """What the process says next.

    Raises:
        RunError: it ended, or says nothing.
    """
    try:
        if wait([pipe, process.sentinel], seconds) and pipe.poll():
            return pipe.recv()
    except EOFError:
        pass
    raise RunError("A process of the benchmark ended or hangs; the lines above say why.")


@dataclass
class Summary:
    """The passes of one way, taken together: medians over all rounds, the largest of all peaks."""

    passes: Sequence[Pass]
    usage: dict[str, Usage] = field(init=False)

    def __post_init__(self) -> None:
        self.usage = {
            name: Usage(
                median(one.usage[name].cpu / len(one.seconds) for one in self.passes),
                median(one.usage[name].before for one in self.passes),
                max(one.usage[name].peak for one in self.passes),
            )
            for name in self.passes[0].usage
        }

    @property
    def figures(self) -> dict[str, float]:
        seconds = [second for one in self.passes for second in one.seconds]
        both = [self.usage[name] for name in ("superlink", "serverapp")]
        return {
            "seconds": median(seconds),
            "bytes_sent": median(one.sent for one in self.passes),
            "bytes_received": median(one.received for one in self.passes),
            "server_growth": sum(one.growth for one in both),
            "server_cpu": sum(one.cpu for one in both),
        } | {f"{name}_{what}": value for name, one in self.usage.items() for what, value in asdict(one).items()}


ROWS = (
    ("seconds", "seconds a round", 1.0),
    ("bytes_sent", "MB a device sends a round", 1e6),
    ("bytes_received", "MB a device receives a round", 1e6),
    ("superlink_cpu", "CPU s a round, SuperLink", 1.0),
    ("serverapp_cpu", "CPU s a round, ServerApp", 1.0),
    ("superlink_peak", "peak MiB, SuperLink", 1.0),
    ("superlink_before", "  of these before the rounds", 1.0),
    ("serverapp_peak", "peak MiB, ServerApp", 1.0),
    ("serverapp_before", "  of these before the rounds", 1.0),
    ("server_growth", "MiB that both grow by", 1.0),
    ("device_peak", "peak MiB, a device", 1.0),
)


def show(setup: Setup, ours: dict[str, float], theirs: dict[str, float]) -> None:
    title = f"{setup.devices} devices, replies of {setup.megabytes:g} MB in {setup.arrays} arrays"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("emofl", "Flower FedAvg", "ratio"):
        table.add_column(heading, justify="right")
    for name, said, unit in ROWS:
        ratio = f"{ours[name] / theirs[name]:.2f}" if theirs[name] else ""
        table.add_row(said, f"{ours[name] / unit:.2f}", f"{theirs[name] / unit:.2f}", ratio)
    out.print(table)


def growth_with_more(few: dict[str, float], all_: dict[str, float]) -> dict[str, float]:
    """By process: its growth with all devices, against its growth with few."""
    return {name: _growth(all_, name) / max(1.0, _growth(few, name)) for name in ("superlink", "serverapp")}


def _growth(figures: dict[str, float], name: str) -> float:
    return figures[f"{name}_peak"] - figures[f"{name}_before"]


def judge(ours: dict[str, float], theirs: dict[str, float], more: dict[str, float]) -> list[str]:
    """What misses its target, in words."""
    ratios = {name: ours[name] / theirs[name] for name in TARGETS}
    missed = [
        f"{name}: {ratios[name]:.2f} of Flower's instead of {most:g}" for name, most in TARGETS.items() if ratios[name] > most
    ]
    return missed + [
        f"{name}: it grows by {ratio:.2f} times as much with four times the devices, instead of {WITH_MORE_DEVICES:g}"
        for name, ratio in more.items()
        if ratio > WITH_MORE_DEVICES
    ]


app = command_line("What a round costs on its way, against Flower's FedAvg on a stock SuperLink.")


@app.command()
def main(
    quick: Annotated[bool, typer.Option("--quick", help="8 devices with 2 MB in 12 arrays, once.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail when a target is missed.")] = False,
    devices: Annotated[int | None, typer.Option(min=2, max=200, help="Devices, instead of 20.")] = None,
    arrays: Annotated[int | None, typer.Option(min=1, max=1000, help=f"Arrays of the model, instead of {ARRAYS}.")] = None,
) -> None:
    """Play rounds both ways, in turns, and print a table of both, then one line of JSON."""
    if quick:
        setup = Setup(devices or 8, 500_000, rounds=1, arrays=arrays or 12)
    else:
        setup = Setup(devices or 20, 2_500_000, rounds=2, arrays=arrays or ARRAYS)
    found: dict[Way, list[Pass]] = {way: [] for way in WAYS}
    for _ in range(1 if quick else 2):
        for way in WAYS:
            found[way].append(measure(way, setup))
    figures = {way: Summary(found[way]).figures for way in WAYS}
    few = Summary([measure("emofl", replace(setup, devices=max(2, setup.devices // 4)))]).figures
    more = growth_with_more(few, figures["emofl"])
    show(setup, figures["emofl"], figures["flower"])
    words = ", ".join(f"{name} {ratio:.2f}" for name, ratio in more.items())
    out.print(f"Growth of ours against a quarter of the devices: {words}.", markup=False)
    missed = judge(figures["emofl"], figures["flower"], more)
    result = {
        "setup": asdict(setup),
        "results": {way: {name: round(value, 3) for name, value in figures[way].items()} for way in WAYS},
        "growth_with_four_times_the_devices": {name: round(ratio, 3) for name, ratio in more.items()},
        "rounds": {way: [round(second, 2) for one in found[way] for second in one.seconds] for way in WAYS},
        "targets": TARGETS | {"with_more_devices": WITH_MORE_DEVICES},
        "missed": missed,
    }
    conclude("transport", result, missed, check=check)


if __name__ == "__main__":
    run_command_line(app)
