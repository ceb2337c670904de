import hashlib
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.errors import IntegrityError, PrivacyError, RunError
from common.privacy.accountant import Release, spent_epsilon
from common.privacy.ledger import Ledger, LedgerPlace

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RELEASE = Release(1.1, 0.1, 10)


def debit(path: Path, round_number: int = 1, release: Release | None = RELEASE, run: str = "r") -> None:
    with Ledger(path).locked() as ledger:
        ledger.debit(release, run=run, round_number=round_number, now=NOW)


def test_epsilon_adds_up_over_rounds_runs_and_restarts(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for number, run in enumerate(["a", "a", "b"]):
        debit(path, number, run=run)
    again = Ledger(path)
    assert again.epsilon(1e-5, "rdp") == pytest.approx(spent_epsilon([Release(1.1, 0.1, 30)], 1e-5))
    assert [entry.run for entry in again.entries] == ["a", "a", "b"]


def test_a_release_without_privacy_leaves_no_epsilon_to_state(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    debit(path)
    debit(path, release=None)
    assert Ledger(path).epsilon(1e-5, "rdp") == float("inf")


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "device" / "ledger.jsonl"
    debit(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_debit_survives_a_kill_right_after_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom datetime import datetime, UTC\n"
        "from common.privacy.ledger import Ledger\nfrom common.privacy.release import Release\n"
        "with Ledger(Path(sys.argv[1])).locked() as ledger:\n"
        "    ledger.debit(Release(1.1, 0.1, 10), run='r', round_number=1, now=datetime.now(UTC))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[3], check=False)
    assert Ledger(path).releases == [RELEASE]


@pytest.mark.parametrize(
    "change",
    [
        "alter",
        "remove first",
        "remove middle",
        "swap",
        "half line",
        "garbage",
        "add key",
        "alter last",
        "remove last",
        "remove all",
    ],
)
def test_any_change_of_the_past_is_noticed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "ledger.jsonl"
    for number in range(4):
        debit(path, number)
    lines = path.read_bytes().splitlines(keepends=True)
    changed = {
        "alter": [lines[0].replace(b'"steps":10', b'"steps":1'), *lines[1:]],
        "remove first": lines[1:],
        "remove middle": [lines[0], *lines[2:]],
        "swap": [lines[1], lines[0], *lines[2:]],
        "half line": [*lines[:3], lines[3][:20]],
        "garbage": [*lines, b"\xff\x00\n"],
        "alter last": [*lines[:3], lines[3].replace(b'"steps":10', b'"steps":1')],
        "remove last": lines[:3],
        "remove all": [],
        "add key": [*lines[:3], lines[3].replace(b'{"digest"', b'{"again":1,"digest"')],
    }[change]
    path.write_bytes(b"".join(changed))
    with pytest.raises(IntegrityError, match="was altered at line"):
        Ledger(path)


@pytest.mark.parametrize("depth", [200, 900, 100_000])
def test_a_line_of_deep_nesting_is_a_sentence(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "ledger.jsonl"
    debit(path)
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    path.write_bytes(path.read_bytes()[:-2] + b',"client_level":' + deep + b"}\n")
    with pytest.raises(IntegrityError, match="was altered at line 1"):
        Ledger(path)


def test_a_head_that_is_no_text_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    debit(path)
    path.with_suffix(".head").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(IntegrityError, match="was altered at line 2"):
        Ledger(path)


def test_a_crash_between_line_and_head_is_no_tampering(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    debit(path, 1)
    head = path.with_suffix(".head").read_bytes()
    debit(path, 2)
    path.with_suffix(".head").write_bytes(head)
    assert len(Ledger(path).entries) == 2
    debit(path, 3)
    assert len(Ledger(path).entries) == 3


def test_a_line_torn_by_a_crash_never_counted_and_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    debit(path, 1)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    assert len(Ledger(path).entries) == 1
    debit(path, 2)
    assert [entry.round for entry in Ledger(path).entries] == [1, 2]


def test_two_holders_cannot_spend_the_same_budget(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"

    def spend() -> None:
        for _ in range(20):
            with Ledger(path).locked() as ledger:
                ledger.debit(RELEASE, run="r", round_number=len(ledger.entries), now=NOW)

    threads = [threading.Thread(target=spend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = Ledger(path).entries
    assert [entry.round for entry in entries] == list(range(80))


def test_a_read_only_ledger_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    debit(path)
    before = path.read_bytes()
    assert len(Ledger(path).entries) == 1
    assert path.read_bytes() == before


def test_looking_makes_no_folder_and_the_first_debit_does(tmp_path: Path) -> None:
    path = tmp_path / "device" / "home" / "ledger.jsonl"
    with Ledger(path).locked() as ledger:
        assert ledger.entries == []
        assert not (tmp_path / "device").exists()
    with Ledger(path).locked() as ledger:
        ledger.debit(RELEASE, run="r", round_number=1, now=NOW)
        ledger.debit(RELEASE, run="r", round_number=2, now=NOW)
    assert [entry.round for entry in Ledger(path).entries] == [1, 2]


def test_a_ledger_that_somebody_else_began_after_the_look_is_not_debited(tmp_path: Path) -> None:
    path = tmp_path / "device" / "ledger.jsonl"
    with Ledger(path).locked() as ledger:
        debit(path, 1)
        with pytest.raises(RunError, match="try again"):
            ledger.debit(RELEASE, run="r", round_number=2, now=NOW)
    assert [entry.round for entry in Ledger(path).entries] == [1]


def test_a_debit_that_nobody_looked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PrivacyError, match="inside `locked`"):
        Ledger(tmp_path / "ledger.jsonl").debit(RELEASE, run="r", round_number=1, now=NOW)
    assert not (tmp_path / "ledger.jsonl").exists()


OLD = (
    b'{"digest":"%b","previous":"%b","private":true,"release":{"noise_multiplier":1.1,"sample_rate":0.1,"steps":10},'
    b'"round":1,"run":"r","sequence":0,"time":"2026-01-02T03:04:05+00:00"}\n'
)


def test_a_ledger_from_before_lines_named_their_server_still_holds_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    zeros = b"0" * 64
    body = OLD.replace(b'"digest":"%b",', b"") % zeros
    digest = hashlib.sha256(body).hexdigest().encode()
    path.write_bytes(OLD % (digest, zeros))
    place = LedgerPlace(path, authority="ab" * 32)
    with Ledger(place).locked() as ledger:
        ledger.debit(RELEASE, run="r", round_number=2, now=NOW)
    assert [entry.authority for entry in Ledger(path).entries] == [None, "ab" * 32]
    assert path.read_bytes().startswith(OLD % (digest, zeros))


def test_the_same_debit_is_never_the_same_line(tmp_path: Path) -> None:
    lines = set()
    for name in ("a", "b"):
        debit(tmp_path / f"{name}.jsonl")
        lines.add((tmp_path / f"{name}.jsonl").read_bytes())
    assert len(lines) == 2
