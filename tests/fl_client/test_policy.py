"""The owner's rules: what they refuse, how they are kept, and that a damaged or misspelt one stops everything."""

import json
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import PrivacyConfig
from common.console import command_line, run_command_line
from common.errors import ConfigError
from fl_client.own_home import remember_home
from fl_client.policy import Policy
from fl_client.policy_commands import policy
from fl_client.policy_file import PolicyFile, change_policy, read_policy

Run = Callable[..., tuple[object, str, str]]
WISH = PrivacyConfig(epsilon=2.0)


def at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-04T{clock}")


@pytest.mark.parametrize(
    ("hours", "clock", "open_"),
    [
        ((), "12:00", True),
        (("22:00-06:00",), "21:59:59", False),
        (("22:00-06:00",), "22:00", True),
        (("22:00-06:00",), "00:00", True),
        (("22:00-06:00",), "05:59:59", True),
        (("22:00-06:00",), "06:00", False),
        (("09:00-17:30",), "17:29", True),
        (("09:00-17:30",), "17:30", False),
        (("09:00-10:00", "22:00-06:00"), "09:30", True),
        (("09:00-10:00", "22:00-06:00"), "12:00", False),
    ],
)
def test_work_is_asked_for_in_the_owners_hours_alone(hours: tuple[str, ...], clock: str, open_: bool) -> None:
    objection = Policy(hours=hours).out_of_hours(at(clock))
    assert (objection is None) is open_
    if objection:
        assert ", ".join(hours) in objection


@given(st.times(), st.times(), st.times())
def test_a_window_and_its_reverse_divide_the_day(first: object, last: object, now: object) -> None:
    first, last = f"{first:%H:%M}", f"{last:%H:%M}"
    if first == last:
        with pytest.raises(ValueError, match="no time of day"):
            Policy(hours=(f"{first}-{last}",))
        return
    when = datetime.combine(datetime(2026, 1, 1), now)
    inside = Policy(hours=(f"{first}-{last}",)).out_of_hours(when) is None
    assert inside != (Policy(hours=(f"{last}-{first}",)).out_of_hours(when) is None)


def test_servers_that_are_not_listed_are_strange_and_without_a_list_none_is() -> None:
    assert Policy().strange_server("ab" * 32) is None
    listed = Policy(allowed_servers=("ab" * 32,))
    assert listed.strange_server("ab" * 32) is None
    assert "allowed_servers" in str(listed.strange_server("cd" * 32))


@pytest.mark.parametrize(
    ("batch", "side", "words"),
    [
        (4096.0, 48, None),
        (2304.0, 64, None),
        (2305.0, 64, "allows 2304 as large"),
        (144.0, 256, None),
        (145.0, 256, "about 145 faces of 256x256 pixels"),
        (4097.0, 16, "allows 10000 of 4096"),
    ],
)
def test_a_step_has_as_many_pixels_as_the_owner_allows_faces(batch: float, side: int, words: str | None) -> None:
    objection = Policy().too_much(WISH, 1, batch, 100, side)
    assert objection is None if words is None else words in str(objection)


def test_a_step_by_opacus_has_fewer() -> None:
    opacus = WISH.model_copy(update={"engine": "opacus"})
    assert Policy().too_much(opacus, 1, 512.0, 100) is None
    assert "allows 512 as large with Opacus" in str(Policy().too_much(opacus, 1, 513.0, 100))
    assert "allows 288 as large" in str(Policy().too_much(opacus, 1, 289.0, 100, 64))


def test_faces_of_which_a_few_fill_the_memory_are_refused() -> None:
    assert Policy().objection(WISH, side=256) is None
    assert "512x512 pixels; devices take up to 256x256" in str(Policy().objection(WISH, side=512))


def test_a_small_cohort_and_an_update_in_the_clear_are_refused() -> None:
    assert Policy().objection(WISH) is None
    assert "cohort of 4" in str(Policy(smallest_cohort=5).objection(WISH, cohort=4))
    assert Policy(smallest_cohort=5).objection(WISH, cohort=5) is None
    assert "secure sum" in str(Policy().objection(WISH, secure=False))
    assert Policy(require_secure_aggregation=False).objection(WISH, secure=False) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"hours": ("25:00-06:00",)},
        {"hours": ("6-7",)},
        {"hours": ("06:00-06:00",)},
        {"hours": ("06:00-07:00\n",)},
        {"allowed_servers": ("AB" * 32,)},
        {"allowed_servers": ("ab",)},
        {"smallest_cohort": 2},
        {"largest_epsilon": 0},
        {"largest_epsilon": float("inf")},
        {"largest_delta": 1},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Policy.model_validate(wrong)


def test_the_rules_are_a_file_and_a_damaged_one_stops_everything(tmp_path: Path) -> None:
    assert read_policy(tmp_path) == Policy()
    (tmp_path / "policy.toml").write_text("largest_epsilon = 2.0\n")
    assert read_policy(tmp_path).largest_epsilon == 2.0
    for wrong in ("largest_epsilon = -1\n", "largest_epsilom = 2\n", "= 2\n"):
        (tmp_path / "policy.toml").write_text(wrong)
        with pytest.raises(ConfigError, match=r"policy\.toml"):
            read_policy(tmp_path)


def test_what_is_written_is_read_again_and_defaults_stay_defaults(tmp_path: Path) -> None:
    changes = {
        "largest_epsilon": "4.5",
        "largest_delta": "1e-7",
        "hours": "22:00-06:00, 12:00-13:00",
        "allow_non_private": "true",
    }
    written = change_policy(tmp_path / "home", changes | {"smallest_cohort": "7", "allowed_servers": "ab" * 32})
    assert written == read_policy(tmp_path / "home")
    assert (written.largest_epsilon, written.largest_delta, written.smallest_cohort) == (4.5, 1e-7, 7)
    assert written.hours == ("22:00-06:00", "12:00-13:00")
    assert change_policy(tmp_path / "home", {"hours": ""}).hours == ()
    assert "most_steps" not in (tmp_path / "home" / "policy.toml").read_text()


@pytest.mark.parametrize("changes", [{"epsilon": "2"}, {"largest_epsilon": "many"}, {"hours": "always"}, {"": "1"}])
def test_a_wrong_change_leaves_the_rules_as_they_are(tmp_path: Path, changes: dict[str, str]) -> None:
    change_policy(tmp_path, {"largest_epsilon": "3"})
    before = (tmp_path / "policy.toml").read_bytes()
    with pytest.raises(ConfigError):
        change_policy(tmp_path, {"most_steps": "5"} | changes)
    assert (tmp_path / "policy.toml").read_bytes() == before


def test_a_change_is_noticed_and_so_is_damage(tmp_path: Path) -> None:
    rules = PolicyFile(tmp_path)
    assert rules.policy == Policy()
    change_policy(tmp_path, {"largest_epsilon": "3"})
    assert rules.policy.largest_epsilon == 3
    (tmp_path / "policy.toml").write_text("largest_epsilon = 'lots'\n")
    with pytest.raises(ConfigError):
        _ = rules.policy
    with pytest.raises(ConfigError):
        _ = rules.policy
    os.unlink(tmp_path / "policy.toml")
    assert rules.policy == Policy()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `policy --data TMP_PATH` with these words: (exit code, stdout, stderr)."""
    app = command_line("test")
    app.command()(policy)

    def run(*words: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["policy", "--data", str(tmp_path), *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            run_command_line(app)
        return stop.value.code, *capsys.readouterr()

    return run


def test_the_command_shows_and_changes_them(tmp_path: Path, run: Run) -> None:
    code, out, _ = run("--json")
    assert (code, json.loads(out)) == (0, Policy().model_dump(mode="json"))
    assert not (tmp_path / ".emofl").exists()
    code, out, _ = run("--set", "hours=22:00-06:00", "--set", "largest_epsilon=2")
    assert code == 0
    assert "22:00-06:00" in out
    assert all(name in out for name in Policy.model_fields)
    assert json.loads(run("--json")[1])["largest_epsilon"] == 2
    code, _, err = run("--set", "epsilon=2")
    assert code == ConfigError.exit_code
    assert err.startswith("error: epsilon is not a rule; there are largest_epsilon,")
    assert run("--set", "hours")[0] == ConfigError.exit_code


def test_the_command_changes_the_rules_that_a_device_with_a_home_elsewhere_obeys(tmp_path: Path, run: Run) -> None:
    home = tmp_path / "home"
    home.mkdir()
    remember_home(tmp_path, home)
    obeyed = PolicyFile(home)
    code, _, err = run("--set", "largest_epsilon=1")
    assert (code, err.strip()) == (0, f"Changed: {home / 'policy.toml'}")
    assert obeyed.policy.largest_epsilon == 1
    assert not (tmp_path / ".emofl").exists()
    code, out, err = run("--json")
    assert (json.loads(out)["largest_epsilon"], err.strip()) == (1, f"The rules are in: {home / 'policy.toml'}")


def test_of_rules_in_a_home_that_the_device_does_not_have_yet_it_is_said_from_when_they_hold(tmp_path: Path, run: Run) -> None:
    """An owner who moves the device writes its rules before its first start there."""
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    remember_home(tmp_path, home)
    code, _, err = run("--home", other, "--set", "largest_epsilon=1")
    assert (code, read_policy(other).largest_epsilon) == (0, 1)
    assert f"obeys the rules in {home}, and those in {other} from when it is started with that --home" in " ".join(err.split())
    code, out, err = run("--home", other, "--json")
    assert (code, json.loads(out)["largest_epsilon"]) == (0, 1)
    assert "from when it is started" in err
    assert run("--home", home, "--set", "largest_epsilon=1")[0] == 0


def test_before_the_first_start_rules_are_written_where_the_owner_says(tmp_path: Path, run: Run) -> None:
    code, _, err = run("--home", tmp_path / "home", "--set", "largest_epsilon=1")
    assert (code, err.strip()) == (0, f"Changed: {tmp_path / 'home' / 'policy.toml'}")
    assert read_policy(tmp_path / "home").largest_epsilon == 1
