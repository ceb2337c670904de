"""Which home a command is about, and what is remembered of it."""

import os
import stat
from pathlib import Path

import pytest

from common.errors import IntegrityError
from common.privacy.accountant import Release
from common.privacy.ledger import Ledger, LedgerPlace
from fl_client.own_home import own_home, policy_command, remember_home, remembered_homes, strange_rules
from fl_client.own_ledger import own_ledger
from fl_client.policy_file import change_policy
from tests.fl_client.test_device import NOW


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    (tmp_path / "faces").mkdir()
    return tmp_path / "faces"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def debit(faces: Path, home: Path) -> None:
    with Ledger(own_ledger(home, faces)).locked() as ledger:
        ledger.debit(Release(2.0, 0.1, 1), run="run-1", round_number=1, now=NOW)


def test_without_a_memory_the_home_is_beside_the_faces_or_where_the_owner_says(faces: Path, home: Path) -> None:
    assert (own_home(faces, None).path, own_home(faces, None).elsewhere) == (faces / ".emofl", False)
    assert (own_home(faces, home).path, own_home(faces, home).elsewhere) == (home, True)
    assert own_home(faces, home).objection is None
    assert list(faces.iterdir()) == []


@pytest.mark.parametrize("remember", [debit, remember_home])
def test_the_home_that_a_device_takes_part_with_is_found_from_its_faces(faces: Path, home: Path, remember: object) -> None:
    remember(faces, home)  # type: ignore[operator]
    found = own_home(faces, None)
    assert (found.path, found.elsewhere, found.objection) == (home, True, None)
    (faces.parent / "link").symlink_to(home)
    assert own_home(faces, faces.parent / "link").objection is None


def test_in_another_home_than_the_devices_nothing_is_obeyed_and_that_is_said(faces: Path, home: Path, tmp_path: Path) -> None:
    remember_home(faces, home)
    found = own_home(faces, tmp_path / "other")
    assert found.path == tmp_path / "other"
    assert f"obeys the rules in {home}, and those in {tmp_path / 'other'} from when" in str(found.objection)


def test_a_folder_that_another_account_used_before_is_no_obstacle(
    faces: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's user may not look into what a host's user left beside the faces."""
    forbidden, real = faces / ".emofl", os.stat

    def stat_of(path: object, *rest: object, **more: object) -> os.stat_result:
        if str(path).startswith(str(forbidden)):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *rest, **more)  # type: ignore[call-overload,no-any-return]

    change_policy(forbidden, {"largest_epsilon": "1"})
    monkeypatch.setattr(os, "stat", stat_of)
    assert strange_rules(faces, home) == []


def test_a_home_that_is_gone_is_asked_for_and_not_made_anew(faces: Path, home: Path, tmp_path: Path) -> None:
    remember_home(faces, home)
    home.rename(tmp_path / "moved")
    with pytest.raises(IntegrityError, match=r"is missing: put it back, or give it with --home"):
        own_home(faces, None)
    assert own_home(faces, tmp_path / "moved").objection is None
    assert not home.exists()


def test_the_home_of_the_last_start_counts_before_the_one_where_the_ledger_was_last_written(
    faces: Path, home: Path, tmp_path: Path
) -> None:
    debit(faces, home)
    remember_home(faces, tmp_path / "newer")
    remember_home(faces, tmp_path / "newer")
    assert remembered_homes(faces) == (tmp_path / "newer", home)
    assert remembered_homes(tmp_path) == ()


def test_the_memory_is_the_owners_alone_and_a_damaged_one_is_one_sentence(faces: Path, home: Path) -> None:
    remember_home(faces, home)
    (path,) = (Path(os.environ["XDG_STATE_HOME"]) / "emofl" / "ledgers" / "homes").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("nowhere")
    with pytest.raises(IntegrityError, match="delete it, and start the client again"):
        own_home(faces, None)


def test_rules_in_other_homes_of_the_device_are_named(faces: Path, home: Path, tmp_path: Path) -> None:
    remember_home(faces, home)
    for folder in (home, faces / ".emofl"):
        change_policy(folder, {"largest_epsilon": "1"})
    assert strange_rules(faces, home) == [faces / ".emofl" / "policy.toml"]
    assert strange_rules(faces, faces / ".emofl") == [home / "policy.toml"]
    assert strange_rules(faces, tmp_path / "new") == [home / "policy.toml", faces / ".emofl" / "policy.toml"]


def test_the_command_that_changes_the_rules_is_written_out_for_this_device(tmp_path: Path) -> None:
    faces = tmp_path / "my faces"
    assert policy_command(own_ledger(faces / ".emofl", faces)) == f"fl-client policy --data '{faces}'"
    assert policy_command(own_ledger(tmp_path, faces)) == f"fl-client policy --data '{faces}' --home {tmp_path}"
    assert policy_command(LedgerPlace(tmp_path / "ledger.jsonl")) == "fl-client policy --data DIR"
