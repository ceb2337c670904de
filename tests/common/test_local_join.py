"""The code for devices on the server's own machine: for the same user alone."""

import stat
from pathlib import Path

import pytest

from common import local_join


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "emofl"


def test_what_is_offered_is_found_until_it_is_withdrawn() -> None:
    assert local_join.find() is None
    assert local_join.offer("CODE")
    assert local_join.find() == "CODE"
    local_join.withdraw("CODE")
    assert local_join.find() is None
    local_join.withdraw("CODE")


def test_another_servers_offer_is_not_withdrawn() -> None:
    local_join.offer("OURS")
    local_join.offer("THEIRS")
    local_join.withdraw("OURS")
    assert local_join.find() == "THEIRS"


def test_the_file_and_its_folder_are_open_to_their_owner_alone(runtime: Path) -> None:
    local_join.offer("CODE")
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    assert stat.S_IMODE((runtime / local_join.FILE).stat().st_mode) == 0o600


def test_a_folder_that_others_can_enter_is_not_used(runtime: Path) -> None:
    runtime.mkdir(mode=0o755)
    runtime.chmod(0o755)
    assert not local_join.offer("CODE")
    (runtime / local_join.FILE).write_text("THEIRS")
    (runtime / local_join.FILE).chmod(0o600)
    assert local_join.find() is None


def test_a_file_that_others_can_read_or_a_link_is_not_believed(runtime: Path) -> None:
    local_join.offer("CODE")
    (runtime / local_join.FILE).chmod(0o644)
    assert local_join.find() is None
    (runtime / "other").write_text("THEIRS")
    (runtime / local_join.FILE).unlink()
    (runtime / local_join.FILE).symlink_to(runtime / "other")
    assert local_join.find() is None
