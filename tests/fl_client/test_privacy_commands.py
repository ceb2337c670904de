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


def spend(
    faces: Path,
    *runs: tuple[str, int],
    release: Release | None = RELEASE,
    authority: str | None = "ab" * 32,
    promise: dict[str, object] | None = None,
) -> None:
    for run, rounds in runs:
        for number in range(1, rounds + 1):
            with Ledger(own_ledger(faces / ".emofl", faces, authority)).locked() as ledger:
                now = START + timedelta(hours=len(ledger.entries))
                ledger.debit(release, run=run, round_number=number, now=now, client_level=promise)


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


def evaluated(faces: Path, rounds: int) -> None:
    for number in range(1, rounds + 1):
        with Ledger(own_ledger(faces / ".emofl", faces, None)).locked() as ledger:
            for run, release in (("r.evaluation", Release(8.0, 1.0, 1)), ("r", Release(2.0, 0.1, 8))):
                ledger.debit(release, run=run, round_number=number, now=START + timedelta(hours=len(ledger.entries)))


def test_evaluation_belongs_to_its_run_and_to_the_rounds_that_still_fit(faces: Path) -> None:
    evaluated(faces, 6)
    found = look(faces)
    assert [(run, len(entries)) for run, entries, _ in found.runs()] == [("r", 12)]
    more = found.more
    assert more is not None

    def after(rounds: int) -> float:
        return spent_epsilon([Release(2.0, 0.1, 8 * rounds), Release(8.0, 1.0, rounds)], 1e-5)

    assert after(6 + more) <= 8 < after(7 + more)


def test_a_class_histogram_belongs_to_its_run_and_is_not_forecast_again(faces: Path) -> None:
    with Ledger(own_ledger(faces / ".emofl", faces, None)).locked() as ledger:
        for run, release in (
            ("r.histogram", Release(8.0, 1.0, 1)),
            ("r.evaluation", Release(8.0, 1.0, 1)),
            ("r", Release(2.0, 0.1, 8)),
        ):
            ledger.debit(release, run=run, round_number=1, now=START)
    found = look(faces)
    assert [(run, len(entries)) for run, entries, _ in found.runs()] == [("r", 3)]
    more = found.more
    assert more is not None

    def after(rounds: int) -> float:
        return spent_epsilon([Release(2.0, 0.1, 8 * rounds), Release(8.0, 1.0, rounds + 1)], 1e-5)

    assert after(1 + more) <= 8 < after(2 + more)


def test_where_rdp_is_above_the_ceiling_the_tighter_accountant_is_shown_by_name(faces: Path) -> None:
    spend(faces, ("a", 1), release=Release(2.0, 0.1, 320))
    by_rdp, by_prv = (spent_epsilon([Release(2.0, 0.1, 320)], 1e-5, name) for name in ("rdp", "prv"))
    found = look(faces, Policy(largest_epsilon=(by_rdp + by_prv) / 2))
    assert found.epsilon == pytest.approx(by_prv)
    assert found.left > 0
    assert f"epsilon {by_prv:.2f}" in found.sentence
    assert "by PRV" in found.sentence


def test_the_owners_ceiling_decides_what_is_left(faces: Path) -> None:
    spend(faces, ("a", 1), release=Release(2.0, 0.1, 320))
    spend(faces, ("a", 1))
    spent = look(faces).epsilon
    nearly = look(faces, Policy(largest_epsilon=spent / 0.95))
    assert "nearly spent" in nearly.sentence
    assert "95%" in nearly.sentence
    over = look(faces, Policy(largest_epsilon=spent * 0.8))
    assert (over.more, over.left) == (0, 0)
    assert over.sentence.startswith("Privacy budget spent")
    assert f"(`fl-client policy --data {faces} --set largest_epsilon=...`)" in over.sentence
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
    (told,) = [line for line in out.splitlines() if line.startswith("Privacy: ")]
    assert " of 3 is spent" in told
    assert "more rounds like the last fit" in told


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


def promise(mode: str = "distributed", epsilon: float = 8.0, rounds: int = 20) -> dict[str, object]:
    return {"mode": mode, "epsilon": epsilon, "delta": 1e-5, "rounds": rounds}


def test_client_level_promises_are_shown_beside_the_record_level_and_never_added_to_it(faces: Path, shown: Run) -> None:
    spend(faces, ("family", 3), promise=promise())
    spend(faces, ("clinic", 2), promise=promise("central", 4.0, 10), authority="cd" * 32)
    change_policy(faces / ".emofl", {"largest_client_epsilon": "16"})
    record, whole = shown()[1].split("All faces of this device together")
    assert " of 8 is spent" in record
    assert " of 16" not in record
    family, clinic = (next(line.split() for line in whole.splitlines() if f" {run} " in line) for run in ("family", "clinic"))
    assert family[2:] == ["abababab…", "family", "all", "devices", "server,", "public", "3", "of", "20", "8", "1e-05"]
    assert clinic[2:] == ["cdcdcdcd…", "clinic", "the", "server", "public", "2", "of", "10", "4", "1e-05"]
    assert "epsilon 12 of 16 (75%) is promised at delta 2e-05, by 2 runs. Further runs may promise 4." in whole
    assert "12.00 of 16" in whole
    figures = json.loads(shown("--json")[1])
    assert (figures["unit"], figures["client_level"]["unit"]) == ("record", "client")
    assert figures["epsilon"] == pytest.approx(spent_epsilon([Release(2.0, 0.1, 40)], 1e-5))
    level = figures["client_level"]
    assert (level["epsilon"], level["delta"], level["left"], level["runs_without"]) == (12.0, 2e-5, 4.0, [])
    assert [(run["mode"], run["holds_against_the_server"], run["rounds_taken"], run["rounds"]) for run in level["runs"]] == [
        ("distributed", True, 3, 20),
        ("central", False, 2, 10),
    ]


def test_a_run_without_a_promise_leaves_no_client_level_epsilon(faces: Path, shown: Run) -> None:
    spend(faces, ("bare", 1))
    assert "no run has promised them anything" in shown()[1]
    assert f"(`fl-client policy --data {faces} --set largest_client_epsilon=...`)" in shown()[1]
    spend(faces, ("family", 1), promise=promise())
    assert "1 run released something without such a promise" in shown()[1]
    level = json.loads(shown("--json")[1])["client_level"]
    assert (level["epsilon"], level["promised_epsilon"], level["left"], level["runs_without"]) == (None, 8.0, None, ["bare"])


def test_when_the_client_level_ceiling_is_reached_the_owner_is_told(faces: Path, shown: Run) -> None:
    spend(faces, ("family", 1), promise=promise())
    change_policy(faces / ".emofl", {"largest_client_epsilon": "8"})
    assert "Runs that promise anew are refused until you allow more; runs that have begun go on." in shown()[1]


def test_when_the_ceiling_was_lowered_below_what_is_promised_the_owner_is_told_that_all_rounds_are_refused(
    faces: Path, shown: Run
) -> None:
    spend(faces, ("family", 1), promise=promise())
    change_policy(faces / ".emofl", {"largest_client_epsilon": "4"})
    assert "so all their rounds are refused until you allow more." in shown()[1]


def test_the_plot_has_a_panel_for_the_client_level_where_there_are_promises(faces: Path, shown: Run, tmp_path: Path) -> None:
    spend(faces, ("family", 3), promise=promise())
    spend(faces, ("clinic", 1), promise=promise("central"))
    assert shown("--plot", tmp_path / "spent.png")[0] == 0
    with Image.open(tmp_path / "spent.png") as image:
        assert image.size == (770, 814)
        lowest = np.asarray(image.convert("L"))[580:]
        assert (lowest < 128).mean() > 0.02


def test_verify_counts_the_promises_and_fails_on_two_of_one_run(faces: Path, shown: Run) -> None:
    spend(faces, ("family", 2), promise=promise())
    code, out, _ = shown("--verify")
    assert (code, out.splitlines()[1:]) == (0, ["It also holds the client-level promise of 1 run."])
    spend(faces, ("family", 1), promise=promise(epsilon=9.0))
    code, out, err = shown("--verify")
    assert (code, out) == (IntegrityError.exit_code, "")
    assert "two client-level promises of the run family" in err


def test_ledger_and_rules_of_a_device_with_a_home_elsewhere_are_found_from_its_faces(
    faces: Path, shown: Run, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with Ledger(own_ledger(home, faces)).locked() as ledger:
        ledger.debit(RELEASE, run="a", round_number=1, now=START)
    change_policy(home, {"largest_epsilon": "0.5"})
    code, out, err = shown()
    assert (code, err.strip()) == (0, f"Ledger and rules are in {home}.")
    assert " of 0.5 is spent" in out
    assert f"(`fl-client policy --data {faces} --home {home} --set largest_epsilon=...`)" in out
    assert shown("--verify")[:2] == (0, "The chain of 1 debit holds, and it is the one that this machine remembers.\n")
    shutil.copytree(home, tmp_path / "copy")
    assert f"obeys the rules in {home}, and those in {tmp_path / 'copy'} from when" in shown("--home", tmp_path / "copy")[2]
    shutil.rmtree(home)
    assert shown("--verify")[0] == IntegrityError.exit_code


def test_without_a_folder_there_is_a_sentence(faces: Path, shown: Run) -> None:
    faces.rmdir()
    code, _, err = shown()
    assert code == ConfigError.exit_code
    assert "is not a folder" in err
