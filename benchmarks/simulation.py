"""What a simulation costs beyond training: `python -m benchmarks.simulation [--quick] [--check]`.

A message over the simulation's grid, a client with all that devices and server do, the start, a thousand devices' memory, and
a whole private round against Flower with Opacus and Ray. Times are CPU times of whole process trees, so that other work on the
machine counts less; the sides of the whole round take turns.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from rich.table import Table

from benchmarks.conclusion import conclude
from benchmarks.sides import Side, tree_cpu
from benchmarks.simulation_job import BATCH, EPSILON, MODEL
from common.config import ModelConfig, make_config
from common.console import command_line, out, run_command_line
from common.errors import RunError
from common.parameters import read_parameters
from common.privacy.accountant import calibrate_noise
from fl_client.app import build_client_app
from fl_server.app import build_server_app
from fl_server.exchange import Exchange
from fl_server.rounds import Observers, Rounds
from models.faces.faceset import FaceSet, one_hot
from models.mobilenet import build_model
from models.starting_point import starting_point
from simulation.backend import make_crew, simulate
from simulation.devices import SimulatedDevices
from simulation.synthetic_faces import draw_faces

MESSAGE_TARGET, START_TARGET, ROUND_TARGET = 2.0, 5.0, 8.0
"""Milliseconds a message, seconds to the first round, times as fast as Flower with Opacus on Ray."""
CLIENTS, STEPS, FACES = 20, 5, 160


def carried(rounds: int) -> dict[str, float]:
    """CPU and wall milliseconds of a message and its reply that hold next to nothing."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict({"n": ConfigRecord({"n": 1})}), reply_to=message)

    times: list[tuple[float, float]] = []

    def server_app(order: object, stopped: object) -> ServerApp:
        server = ServerApp()

        @server.main()
        def main(grid: Grid, context: Context) -> None:
            exchange, content = Exchange(grid, 0.002), RecordDict({"x": ConfigRecord()})
            for _ in range(rounds):
                began = time.process_time(), time.monotonic()
                nodes = grid.get_node_ids()
                heard = sum(1 for _ in exchange.ask((Message(content, dst_node_id=n, message_type="train") for n in nodes), 60))
                times.append(((time.process_time() - began[0]) / heard, (time.monotonic() - began[1]) / heard))

        return server

    simulate(server_app, lambda: app, CLIENTS, make_crew("in-process", 1, 1))
    cpu, wall = zip(*times[1:], strict=True)
    return {"cpu_ms": 1000 * statistics.median(cpu), "wall_ms": 1000 * statistics.median(wall)}


def random_faces(number: int) -> FaceSet:
    """A device's faces; what they show is nothing to time."""
    random = np.random.default_rng(number)
    config = ModelConfig()
    labels = random.integers(0, len(config.classes), 32)
    images = random.integers(0, 255, (32, 48, 48), dtype=np.uint8)
    return FaceSet(images, one_hot(labels, len(config.classes)), config.classes)


@contextmanager
def training_timed() -> Iterator[list[float]]:
    """Thread CPU seconds of every local training while it lasts."""
    from fl_client import device

    real: Callable[..., Any] = device.train_locally  # type: ignore[attr-defined]
    spent: list[float] = []

    def timed(*arguments: object, **more: object) -> object:
        began = time.thread_time()
        try:
            return real(*arguments, **more)
        finally:
            spent.append(time.thread_time() - began)

    device.train_locally = timed  # type: ignore[assignment, attr-defined]
    try:
        yield spent
    finally:
        device.train_locally = real  # type: ignore[attr-defined]


def whole_clients(secure: bool, clients: int, cohort: int, rounds: int) -> dict[str, float]:
    """CPU milliseconds per client of all that is not training: ledger, accounting, encoding, sums, checkpoint."""
    config = make_config(
        {
            "data": {"clients": clients},
            "server": {"rounds": rounds, "cohort": cohort},
            "train": {"local_steps": 1, "batch_size": 4},
            "upload": {"secure": secure},
        }
    )
    marks: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as place, training_timed() as trained:
        folder = Path(place)

        def on_round(record: dict[str, Any]) -> None:
            if record["round"] and record["accepted"] + record["left_out"].get("budget-spent", 0) != cohort:
                raise RunError(f"Only {record['accepted']} of {cohort} devices took part.")
            marks.append((time.process_time(), sum(trained)))

        devices = SimulatedDevices(config, folder / "devices", random_faces)
        plan = Rounds(config, "benchmark", folder, None, observers=Observers(on_round=on_round), poll=0.002)
        simulate(
            lambda order, stopped: build_server_app(plan),
            lambda: build_client_app(devices.open),
            clients,
            make_crew("in-process", 1, 1),
        )
    spans = [(b[0] - a[0] - (b[1] - a[1])) / cohort for a, b in pairwise(marks)]
    return {"first_round_ms": 1000 * spans[0], "cpu_ms": 1000 * statistics.median(spans[1:])}


def crowd(clients: int, rounds: int) -> float:
    """Peak MiB of a process that simulates `clients` devices, 20 a round. From /proc: `exec` hands getrusage's peak on."""
    code = (
        "import torch; torch.set_num_threads(1); from benchmarks.simulation import whole_clients; "
        f"whole_clients(False, {clients}, 20, {rounds}); "
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"A simulation of {clients} devices failed: {done.stderr.strip().splitlines()[-1:]}")
    return float(done.stdout.split()[-1]) / 1024


def start() -> dict[str, float]:
    """CPU and wall seconds of `fl-sim run` until it asks its first devices; faces are drawn."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        options = ["--clients", "20", "--scheme", "iid", "--drawn", "640", "--rounds", "1", "--local-steps", "1"]
        command = [sys.executable, "-c", "from simulation.cli import main; main()", "run", "--out", str(folder), *options]
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not (folder / "metrics.jsonl").exists():
                if process.poll() is not None or time.monotonic() > began + 600:
                    raise RunError("fl-sim run did not come to its first round.")
                time.sleep(0.02)
            return {"cpu_s": tree_cpu(process.pid), "wall_s": time.monotonic() - began}
        finally:
            process.kill()
            process.wait()


def whole_round(python: str, clients: int, rounds: int) -> dict[str, Any]:
    """CPU and wall seconds of a private round, ours and Flower's with Opacus on Ray, in turns."""
    config = make_config({"init": "base", "upload": {"secure": False}})
    classes = config.model.classes
    first = starting_point(config).weights or read_parameters(build_model(config.model))
    noise = calibrate_noise([], BATCH / FACES, STEPS * rounds, EPSILON, 1e-5)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        drawn = draw_faces(clients * FACES, seed=1, people=clients, classes=classes)
        for number in range(clients):
            part = drawn.take(np.arange(number, len(drawn), clients))
            np.savez(folder / f"device-{number}.npz", images=part.images, targets=part.targets)
        test = draw_faces(350, seed=2, people=12, classes=classes)
        np.savez(folder / "test.npz", images=test.images, targets=test.targets)
        np.savez(folder / "weights.npz", **first)  # type: ignore[arg-type]
        job = [str(folder), str(clients), str(rounds), str(STEPS), str(noise)]
        sides: list[Side] = []
        scores = {}
        try:
            for name, runs in (("ours", sys.executable), ("flower", python)):
                sides.append(Side(name, [runs, "-m", "benchmarks.simulation_job", name, *job]))
            for _ in range(rounds):
                for side in sides:
                    side.turn()
                    scores[side.name] = side.ask("accuracy")
        finally:
            for side in sides:
                side.end()
    found: dict[str, Any] = {"clients": clients, "steps": STEPS, "batch": BATCH, "rounds": rounds, "model": MODEL}
    for side in sides:
        later = side.rounds[1:] or side.rounds
        found[side.name] = {key: statistics.median(r[key] for r in later) for key in ("cpu_s", "wall_s")}
        found[side.name] |= {"start": side.start, "first_round": side.rounds[0], "accuracy": scores[side.name]}
    found["times_as_fast"] = {key: found["flower"][key] / found["ours"][key] for key in ("cpu_s", "wall_s")}
    return found


app = command_line("What a simulation costs beyond training.")


@app.command()
def main(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repeats and 4 clients in the whole round.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail when a target is missed.")] = False,
    ray: Annotated[
        str, typer.Option(help="A Python with flwr[simulation], opacus and this package's requirements.")
    ] = sys.executable,
    parts: Annotated[
        str, typer.Option(help="Any of messages, clients, start, crowd, round.")
    ] = "messages,clients,start,crowd,round",
) -> None:
    """Measure, print a table and one line of JSON."""
    torch.set_num_threads(1)
    wanted = set(parts.split(","))
    results: dict[str, Any] = {"load": os.getloadavg()[0]}
    missed = []
    if "messages" in wanted:
        results["message"] = carried(5 if quick else 20)
        if results["message"]["cpu_ms"] > MESSAGE_TARGET:
            missed.append(f"message {results['message']['cpu_ms']:.2f} ms instead of {MESSAGE_TARGET}")
    if "clients" in wanted:
        rounds = 3 if quick else 5
        results["client"] = whole_clients(False, CLIENTS, CLIENTS, rounds)
        results["client_secure"] = whole_clients(True, CLIENTS, CLIENTS, rounds)
    if "start" in wanted:
        results["start"] = start()
        if results["start"]["cpu_s"] > START_TARGET:
            missed.append(f"start {results['start']['cpu_s']:.1f} s instead of {START_TARGET}")
    if "crowd" in wanted:
        results["peak_mib"] = {count: crowd(count, 2 if quick else 4) for count in (20, 1000)}
    if "round" in wanted:
        results["round"] = whole_round(ray, 4 if quick else CLIENTS, 2 if quick else 3)
        if results["round"]["times_as_fast"]["cpu_s"] < ROUND_TARGET:
            missed.append(f"round {results['round']['times_as_fast']['cpu_s']:.1f} times as fast instead of {ROUND_TARGET}")
    show(results)
    conclude("simulation", {**results, "missed": missed}, missed, check=check)


def show(results: dict[str, Any]) -> None:
    table = Table(title="fl-sim", title_justify="left", show_header=False)
    labels = {
        "message": "an empty message and its reply",
        "client": "a client beyond its training, plain sum",
        "client_secure": "a client beyond its training, secure sum",
        "start": "fl-sim run to its first round",
        "peak_mib": "peak memory, by number of devices",
    }
    for name, label in labels.items():
        if name in results:
            table.add_row(label, ", ".join(f"{key} {value:.2f}" for key, value in results[name].items()))
    if "round" in results:
        for side in ("ours", "flower"):
            row = results["round"][side]
            table.add_row(
                f"a round of {results['round']['clients']} clients, {side}",
                f"{row['cpu_s']:.1f} s CPU, {row['wall_s']:.1f} s, start {row['start']['cpu_s']:.1f} s CPU, "
                f"accuracy {row['accuracy']:.3f}",
            )
        table.add_row(
            "times as fast", ", ".join(f"{key} {value:.1f}" for key, value in results["round"]["times_as_fast"].items())
        )
    out.print(table)


if __name__ == "__main__":
    run_command_line(app)
