"""A device's budget over real processes and secure sums: it ends its own part, nobody else's, and a kill forgets nothing."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from common.privacy.accountant import Release, calibrate_noise
from common.privacy.ledger import Ledger
from fl_client.own_ledger import own_ledger
from simulation.drawn_folder import draw_folder
from tests.federation import CLIENT, Federation, federation_in

pytestmark = [pytest.mark.slow, pytest.mark.network]

CONFIG = """
[model]
name = "mobilenet_v2_tiny_128"
stem_stride = 2
[train]
local_steps = 2
[server]
patience = 50
[upload]
step_timeout = 120
"""
OTHERS = ("ben", "cleo", "dora")
DIES_ONCE = """
import os, signal
from pathlib import Path
from fl_client import device, node_process
trains, mark = device.train_locally, Path(os.environ["MARK"])
def dies_once(*given, **more):
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return trains(*given, **more)
device.train_locally = dies_once
node_process.main()
"""
"""The real process that takes part; it is killed when it is about to train for the first time."""


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Federation]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # where its processes keep the anchors of ledgers, and the join code
    (tmp_path / "emofl").mkdir(mode=0o700)
    with federation_in(tmp_path) as found:
        yield found


def start(federation: Federation, rounds: int, needed: int, *more: str) -> subprocess.Popen[bytes]:
    config = federation.folder / "fl.toml"
    config.write_text(CONFIG)
    arguments = ("--rounds", str(rounds), "--min-clients", str(needed), "--round-timeout", "300", "--config", str(config))
    server = federation.start_server(*arguments, *more)
    federation.until(lambda: federation.offered() != "" or "--new" in more, 900)
    return server


def faces_of(federation: Federation, name: str) -> Path:
    folder = federation.folder / name
    draw_folder(folder, 28, people=1, seed=3)
    return folder


def asked(federation: Federation, name: str, *words: str) -> str:
    """What `fl-client privacy` prints to the device's owner."""
    command = [sys.executable, "-c", CLIENT, "privacy", "--data", str(federation.folder / name), *words]
    return subprocess.run(command, env=federation.environment(), capture_output=True, check=True, text=True).stdout


def runs_of(federation: Federation) -> list[list[dict[str, Any]]]:
    """The records of each run, in the order of their names."""
    found = sorted(federation.server_folder.glob("runs/*/metrics.jsonl"))
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in found]


def test_a_device_at_90_percent_of_its_budget_trains_until_it_would_overspend_and_the_others_go_on(
    federation: Federation,
) -> None:
    faces = faces_of(federation, "anna")
    before = Release(calibrate_noise([], 0.2, 40, 0.9 * 8, 1e-5), 0.2, 40)
    with Ledger(own_ledger(faces / ".emofl", faces)).locked() as ledger:
        ledger.debit(before, run="another-servers-run", round_number=1, now=datetime.now(UTC))
    spent = json.loads(asked(federation, "anna", "--json"))
    assert 0.88 < spent["epsilon"] / spent["largest_epsilon"] < 0.91

    # 1. What is left lasts for the whole of a run: the device spreads it over the rounds.
    server = start(federation, 2, 4)
    federation.enrol(["anna", *OTHERS])
    federation.start_client("anna")
    for name in OTHERS:
        federation.play(name)
    federation.until(lambda: len(federation.records()) == 3, 900)
    assert [record["accepted"] for record in federation.records()[1:]] == [4, 4]
    federation.until(lambda: federation.status()["state"] == "finished", 120)

    # 2. The next run would overspend: it refuses, and the others go on.
    federation.run("from fl_server.cli import main; main()", "stop", "--dir", str(federation.server_folder), log="stop").wait(90)
    assert server.wait(90) == 0
    start(federation, 6, 3, "--new")
    federation.until(lambda: len(runs_of(federation)) == 2 and len(runs_of(federation)[1]) == 7, 900)
    records = runs_of(federation)[1][1:]
    refused = [record for record in records if record["left_out"].get("budget-spent")]
    assert refused, records
    for record in refused:
        assert (record["asked"], record["accepted"], record["left_out"]) == (4, 3, {"budget-spent": 1})

    # 3. Its owner is told, at once and afterwards, and nothing was overspent.
    said = federation.said("anna")
    assert "refused (budget-spent)" in said
    assert "Privacy budget spent: epsilon" in said
    assert "Traceback" not in said
    shown = json.loads(asked(federation, "anna", "--json"))
    assert 7.8 < shown["epsilon"] <= 8.0
    assert [debit["round"] for debit in shown["debits"]] == [1, 1, 2]
    assert shown["more_rounds_like_the_last"] == 0
    assert "Privacy budget spent" in asked(federation, "anna")
    assert "The chain of 3 debits holds" in asked(federation, "anna", "--verify")
    assert "anna" in federation.status()["online"]  # type: ignore[operator]


def test_a_device_killed_between_debit_and_training_has_the_debit_and_comes_back(federation: Federation) -> None:
    faces = faces_of(federation, "anna")
    start(federation, 5, 3)
    federation.enrol(["anna", *OTHERS])
    mark = federation.folder / "killed"
    federation.play("anna", program=DIES_ONCE, MARK=str(mark))
    federation.until(lambda: "Connected to" in federation.said("anna"), 300)
    for name in OTHERS:
        federation.play(name)
    federation.until(lambda: len(federation.records()) == 6, 900)
    assert mark.exists()
    records = federation.records()[1:]
    # The first round may have begun before all were there, and end without her with too few.
    assert all(record["accepted"] >= 3 for record in records[1:]), records  # type: ignore[operator]
    assert records[-1]["accepted"] == 4, records
    entries = Ledger(own_ledger(faces / ".emofl", faces)).entries
    trained = sum(record["accepted"] == 4 for record in records)
    assert len(entries) == trained + 1, "one debit, for the round in which it was killed, has no update"
    assert len({(entry.run, entry.round) for entry in entries}) == len(entries)
    shown = json.loads(asked(federation, "anna", "--json"))
    assert len(shown["debits"]) == trained + 1
    assert f"The chain of {trained + 1} debits holds" in asked(federation, "anna", "--verify")
