"""What the owner is shown of the budget: the table, the figures, the plots, and the check."""

import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.console import command_line, run_command_line
from common.errors import ConfigError, IntegrityError
from common.privacy.accountant import spent_epsilon
from common.privacy.ledger import Ledger
from common.privacy.release import Release
from fl_client.own_ledger import own_ledger
from fl_client.policy import Policy
from fl_client.policy_file import change_policy
from fl_client.privacy_commands import privacy
from fl_client.spending import Survey, survey

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RELEASE = Release(2.0, 0.1, 8)
Run = Callable[..., tuple[object, str, str]]


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    (tmp_path / "faces").mkdir()
    return tmp_path / "faces"


@pytest.fixture
def shown(faces: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `privacy --data FACES` with these words: (exit code, stdout, stderr)."""
    app = command_line("test")
    app.command()(privacy)

    def run(*words: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["privacy", "--data", str(faces), *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stop:
            run_command_line(app)
        return stop.value.code, *capsys.readouterr()

    return run


def spend(faces: Path, *runs: tuple[str, int], release: Release | None = RELEASE, authority: str | None = "ab" * 32) -> None:
    for run, rounds in runs:
        for number in range(1, rounds + 1):
            with Ledger(own_ledger(faces / ".emofl", faces, authority)).locked() as ledger:
                now = START + timedelta(hours=len(ledger.entries))
                ledger.debit(release, run=run, round_number=number, now=now)


def look(faces: Path, policy: Policy | None = None) -> Survey:
    return survey(own_ledger(faces / ".emofl", faces), policy or Policy())


def test_before_the_first_debit_there_is_a_sentence_and_nothing_is_made(faces: Path, shown: Run) -> None:
    code, out, _ = shown()
    assert (code, out.strip()) == (0, "Privacy: nothing was ever spent of epsilon 8.")
    assert shown("--verify")[0] == 0
    assert list(faces.iterdir()) == []


def test_what_was_spent_is_cumulative_over_runs_and_what_is_left_fits(faces: Path) -> None:
    spend(faces, ("a", 3), ("b", 2))
    found = look(faces)
    assert found.epsilons[-1] == found.epsilon == pytest.approx(spent_epsilon([Release(2.0, 0.1, 40)], 1e-5))
    assert list(found.epsilons) == sorted(found.epsilons)
    assert [(run, len(entries)) for run, entries, _ in found.runs()] == [("a", 3), ("b", 2)]
    more = found.more
    assert more is not None
    assert (
        spent_epsilon([Release(2.0, 0.1, 8 * (5 + more))], 1e-5) <= 8 < spent_epsilon([Release(2.0, 0.1, 8 * (6 + more))], 1e-5)
    )


def test_the_owners_ceiling_decides_what_is_left(faces: Path) -> None:
    spend(faces, ("a", 1), release=Release(2.0, 0.1, 320))
    spend(faces, ("a", 1))
    spent = look(faces).epsilon
    nearly = look(faces, Policy(largest_epsilon=spent / 0.95))
    assert "nearly spent" in nearly.sentence
    assert "95%" in nearly.sentence
    over = look(faces, Policy(largest_epsilon=spent * 0.99))
    assert (over.more, over.left) == (0, 0)
    assert over.sentence.startswith("Privacy budget spent")
    assert look(faces, Policy(largest_delta=1e-8)).epsilon > spent


def test_after_training_without_privacy_no_figure_is_shown(faces: Path, shown: Run) -> None:
    spend(faces, ("a", 2))
    spend(faces, ("b", 1), release=None, authority=None)
    spend(faces, ("c", 1))
    found = look(faces)
    assert [math.isinf(epsilon) for epsilon in found.epsilons] == [False, False, True, True]
    assert found.more is None
    _, out, _ = shown("--plot", faces / "plot.png")
    assert "no epsilon holds" in out
    assert "NON-PRIVATE" in out
    figures = json.loads(shown("--json")[1])
    assert figures["epsilon"] is None
    assert figures["debits"][2] | {"time": ""} == {
        "time": "",
        "server": None,
        "run": "b",
        "round": 1,
        "private": False,
        "noise_multiplier": None,
        "sample_rate": None,
        "steps": None,
        "epsilon_after_rdp": None,
    }


def test_the_table_says_when_for_whom_how_and_what_is_left(faces: Path, shown: Run) -> None:
    spend(faces, ("first", 2), ("second", 1))
    change_policy(faces / ".emofl", {"largest_epsilon": "3"})
    code, out, err = shown()
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith("2026-01-02 05:04")]
    assert line.split()[2:7] == ["abababab…", "second", "1", "2.000", "0.1"]
    assert " of 3 is spent" in out.splitlines()[-1]
    assert "more rounds like the last fit" in out.splitlines()[-1]


def test_a_long_ledger_is_shown_by_its_end_unless_all_is_asked_for(faces: Path, shown: Run) -> None:
    spend(faces, ("a", 25))
    assert "5 earlier" in shown()[1]
    everything = shown("--all")[1]
    assert "earlier" not in everything
    assert everything.count("2026-01-0") >= 25


def test_by_prv_less_was_spent_and_both_figures_are_named(faces: Path, shown: Run) -> None:
    spend(faces, ("a", 3))
    figures = json.loads(shown("--json", "--accountant", "prv")[1])
    rdp = json.loads(shown("--json")[1])
    assert 0 < figures["epsilon"] < rdp["epsilon"] == rdp["debits"][-1]["epsilon_after_rdp"]
    assert "By the PRV accountant" in shown("--accountant", "prv")[1]


def test_the_plot_is_a_picture_and_nothing_else_is_taken_for_one(faces: Path, shown: Run, tmp_path: Path) -> None:
    spend(faces, ("a", 3), ("b", 2))
    assert shown("--plot", tmp_path / "spent.png")[0] == 0
    with Image.open(tmp_path / "spent.png") as image:
        assert image.size == (770, 550)
        assert len(np.unique(np.asarray(image.convert("L")))) > 20
    code, _, err = shown("--plot", tmp_path / "spent.pdf")
    assert code == ConfigError.exit_code
    assert ".png" in err
    assert shown("--plot", tmp_path / "nowhere" / "spent.png")[0] != 0


def test_a_runs_name_cannot_steer_the_terminal(faces: Path, shown: Run) -> None:
    spend(faces, ("\x1b[2J[red]x[/]", 1))
    _, out, _ = shown()
    assert "\x1b" not in out
    assert "[red]x[/]" in out


@pytest.mark.parametrize("harm", ["alter", "cut", "delete", "no anchor", "older anchor"])
def test_verify_fails_whenever_something_may_be_missing(
    faces: Path, shown: Run, harm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spend(faces, ("a", 3))
    assert shown("--verify")[:2] == (0, "The chain of 3 debits holds, and it is the one that this machine remembers.\n")
    ledger = faces / ".emofl" / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    if harm == "alter":
        ledger.write_bytes(b"".join(lines).replace(b'"steps":8', b'"steps":1', 1))
    elif harm == "cut":
        ledger.write_bytes(b"".join(lines[:2]))
        (faces / ".emofl" / "ledger.head").write_text(json.loads(lines[1])["digest"])
    elif harm == "delete":
        shutil.rmtree(faces / ".emofl")
    elif harm == "no anchor":
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    else:
        here = tmp_path / "state-here"
        shutil.copytree(os.environ["XDG_STATE_HOME"], here)
        spend(faces, ("b", 2))
        monkeypatch.setenv("XDG_STATE_HOME", str(here))
    code, out, err = shown("--verify")
    assert (code, out) == (IntegrityError.exit_code, "")
    assert err.startswith("error: ")
    assert shown()[0] == (0 if "anchor" in harm else IntegrityError.exit_code)


def test_without_a_folder_there_is_a_sentence(faces: Path, shown: Run) -> None:
    faces.rmdir()
    code, _, err = shown()
    assert code == ConfigError.exit_code
    assert "is not a folder" in err
