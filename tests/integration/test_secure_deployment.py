"""Secure sums over real processes and real TLS: devices that die, hang or lie at every step, and what the server ever holds."""

import json
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common.errors import RunError
from fl_server.checkpoint import Checkpoint
from fl_server.rounds import CHECKPOINT
from tests.federation import PATIENCE, Federation, federation_in

pytestmark = [pytest.mark.slow, pytest.mark.network]

ACTOR = "from tests.actors import main; main()"
CONFIG = '[model]\nname = "mobilenet_v2_tiny_128"\nstem_stride = 2\n[upload]\nstep_timeout = {seconds}\nsecure = {secure}\n'


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with federation_in(tmp_path) as found:
        yield found


def start(federation: Federation, names: list[str], rounds: int, secure: bool = True, needed: int = 3) -> None:
    """A server, and devices that are enrolled and not yet there."""
    config = federation.folder / "fl.toml"
    config.write_text(CONFIG.format(secure=str(secure).lower(), seconds=12 * PATIENCE))
    federation.start_server(
        "--rounds", str(rounds), "--min-clients", str(needed), "--round-timeout", str(25 * PATIENCE), "--config", str(config)
    )
    federation.enrol(names)


def play(federation: Federation, name: str, value: float, fault: str = "", **more: str) -> subprocess.Popen[bytes]:
    """Device `name`, playing a part."""
    settings = {"home": str(federation.folder / name / ".emofl"), "data": str(federation.folder / name), "poll": 0.5}
    return federation.run(ACTOR, log=f"{name}-actor", EMOFL_NODE=json.dumps(settings), VALUE=str(value), FAULT=fault, **more)


def weights(federation: Federation) -> dict[int, np.ndarray]:
    """The last layer's bias by finished round."""
    (folder,) = federation.server_folder.glob("runs/*")
    try:
        checkpoint = Checkpoint.load(folder / CHECKPOINT)
    except RunError:
        return {}
    return {checkpoint.round: checkpoint.weights["classifier.1.bias"].copy()}


def watch(federation: Federation, rounds: int, seconds: float = 400) -> dict[int, np.ndarray]:
    """The bias after each round, as the checkpoints show it."""
    seen: dict[int, np.ndarray] = {}

    def look() -> bool:
        seen.update(weights(federation))
        return len(federation.records()) == rounds + 1

    federation.until(look, seconds)
    seen.update(weights(federation))
    return seen


NAMES = ["anna", "ben", "cleo", "dora", "emil", "fay", "gus", "hana"]


def test_eight_devices_of_which_two_die_in_the_sum_and_the_server_never_holds_an_update(federation: Federation) -> None:
    start(federation, NAMES, rounds=2, needed=6)
    values = {name: 0.0123456789 * (1 + number) for number, name in enumerate(NAMES)}
    dying = {"ben": "die@mask", "gus": "die@share"}
    for name, value in values.items():
        play(federation, name, value, dying.get(name, ""), ROUND="1")
    left = [value for name, value in values.items() if name not in dying]
    single = [np.full(6, np.float32(value)).tobytes() for value in values.values()]
    seen: dict[int, np.ndarray] = {}

    def scan() -> bool:
        for what, content in [*files(federation), *memory(federation)]:
            assert not any(pattern in content for pattern in single), what
        seen.update(weights(federation))
        return len(federation.records()) >= 3

    federation.until(scan, 400)
    first = federation.records()[1]
    assert (first["asked"], first["accepted"]) == (8, 6)
    assert sum(dict(first["left_out"]).values()) == 2  # type: ignore[call-overload]
    assert federation.records()[2]["accepted"] == 6
    seen.update(weights(federation))
    assert np.abs(seen[2] - seen[0] - 2 * np.mean(left)).max() < 1e-6


def files(federation: Federation) -> Iterator[tuple[str, bytes]]:
    """Everything under the server's folder but its published models."""
    for path in federation.server_folder.rglob("*"):
        if path.is_file() and "registry" not in path.parts:
            try:
                yield str(path), path.read_bytes()
            except FileNotFoundError:
                continue


def memory(federation: Federation) -> Iterator[tuple[str, bytes]]:
    """What the server's processes hold, as the system shows it."""
    server = federation.started[0].pid
    children = Path(f"/proc/{server}/task/{server}/children")
    for pid in (server, *map(int, children.read_text().split() if children.exists() else [])):
        try:
            maps = Path(f"/proc/{pid}/maps").read_text()
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as held:
                for begin, end in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) rw-p", maps, re.MULTILINE):
                    first, size = int(begin, 16), int(end, 16) - int(begin, 16)
                    for at in range(first, first + size, 2**24):
                        try:
                            held.seek(at)
                            yield f"memory of {pid}", held.read(min(2**24 + 64, first + size - at))
                        except (OSError, OverflowError):
                            break
        except (FileNotFoundError, ProcessLookupError):
            continue


def test_the_memory_scan_finds_updates_where_there_are_any(federation: Federation) -> None:
    """Without secure sums the same scan must find what it looks for, or the test above shows nothing."""
    start(federation, NAMES[:2], rounds=30, secure=False, needed=2)
    pattern = struct.pack("<f", np.float32(0.0345678912)) * 6
    play(federation, "anna", 0.0345678912)
    play(federation, "ben", -0.0123456789)
    federation.until(lambda: any(pattern in content for _, content in memory(federation)), 300)
    assert not any(pattern in content for what, content in files(federation))


def test_a_device_may_die_at_any_step_of_any_round(federation: Federation) -> None:
    steps = ["train", "advertise", "share", "mask", "confirm", "unmask"]
    names = [*NAMES, "ivo", "jan"]
    start(federation, names, rounds=len(steps) + 1)  # not all may be there in the first
    for number, name in enumerate(names):
        fault = f"die@{steps[number]}" if number < len(steps) else ""
        play(federation, name, 0.01, fault, ROUND=str(number + 2))
    seen = watch(federation, len(steps) + 1, 900)
    for number, record in enumerate(federation.records()[2:], 1):
        assert record["accepted"] >= 10 - number, record
        assert record["accepted"] + sum(dict(record["left_out"]).values()) == record["asked"], record  # type: ignore[call-overload]
    for name, step in zip(names, steps, strict=False):
        assert f"die at {step} of round" in federation.said(f"{name}-actor"), name
    first, last = min(seen), max(seen)
    assert last == len(steps) + 1
    assert np.allclose(seen[last] - seen[first], 0.01 * (last - first), atol=1e-6)
    assert "Traceback" not in federation.said("server")


PARTS = {
    "hang@train": ("no-answer", "error"),
    "hang@mask": ("no-answer", "error"),
    "garbage@advertise": ("malformed",),
    "garbage@mask": ("malformed",),
    "replay@share": ("malformed", None),
    "stale@train": ("malformed",),
    "shape@train": ("bad-request",),
    "nan@train": ("bad-request",),
    "nonsense@train": ("malformed",),
    "name@train": ("no-answer", "error"),
    **{f"{shape}@train": ("malformed",) for shape in ("no-json", "no-message", "no-content", "no-child", "other-sender")},
}


@pytest.mark.parametrize("faults", [list(PARTS)[:5], list(PARTS)[5:10], list(PARTS)[10:]])
def test_devices_that_hang_or_lie_are_left_out_and_the_run_goes_on(federation: Federation, faults: list[str]) -> None:
    honest, liars = [*NAMES[:6], "ivo", "jan", "kim", "lea"], [f"liar{number}" for number in range(len(faults))]
    start(federation, [*honest, *liars], rounds=2, needed=8)
    nodes = federation.nodes()
    for name in honest:
        play(federation, name, 0.01)
    for name, fault in zip(liars, faults, strict=True):
        play(federation, name, 0.5, fault, OTHER=str(nodes["anna"]))
    seen = watch(federation, 2, 900)
    reasons = {reason for fault in faults for reason in PARTS[fault]}
    for record in federation.records()[1:]:
        left_out = dict(record["left_out"])  # type: ignore[call-overload]
        assert record["accepted"] + sum(left_out.values()) == record["asked"], record
        assert set(left_out) <= reasons, record
    last = federation.records()[2]  # not all may be there in the first
    assert len(honest) - 1 <= last["accepted"] <= len(honest) + 1  # type: ignore[operator]
    assert sum(dict(last["left_out"]).values()) >= len(liars) - 2  # type: ignore[call-overload]
    assert seen
    assert "Traceback" not in federation.said("server")
