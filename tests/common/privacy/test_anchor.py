"""What was spent on the faces of a folder is remembered outside of it: no deletion, old copy or second home forgets it."""

import shutil
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.errors import ConfigError, IntegrityError
from common.privacy.anchor import Anchor, state_folder
from common.privacy.ledger import Ledger, LedgerPlace
from common.privacy.release import Release

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RELEASE = Release(1.1, 0.1, 10)


def place(faces: Path, home: Path | None = None) -> LedgerPlace:
    return LedgerPlace((home or faces / ".emofl") / "ledger.jsonl", Anchor(faces))


def debit(where: LedgerPlace, times: int = 1) -> None:
    for _ in range(times):
        with Ledger(where).locked() as ledger:
            ledger.debit(RELEASE, run="r", round_number=len(ledger.entries) + 1, now=NOW)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    (tmp_path / "faces").mkdir()
    return tmp_path / "faces"


def test_an_anchored_ledger_goes_on_over_restarts(faces: Path) -> None:
    debit(place(faces), 3)
    assert [entry.round for entry in Ledger(place(faces)).entries] == [1, 2, 3]
    assert Anchor(faces).behind([entry.digest for entry in Ledger(place(faces)).entries]) == 0


def test_looking_leaves_nothing_behind(faces: Path) -> None:
    assert Ledger(place(faces)).entries == []
    assert list(faces.iterdir()) == []
    assert not state_folder().exists()


@pytest.mark.parametrize("harm", ["delete home", "delete file", "empty file", "delete file and head"])
def test_a_deleted_ledger_stops_training_and_says_where_it_was(faces: Path, harm: str) -> None:
    where = place(faces)
    debit(where, 2)
    if harm == "delete home":
        shutil.rmtree(where.path.parent)
    elif harm == "empty file":
        where.path.write_bytes(b"")
        where.path.with_suffix(".head").unlink()
    else:
        where.path.unlink()
        if harm == "delete file and head":
            where.path.with_suffix(".head").unlink()
    with pytest.raises(IntegrityError, match=r"altered at line|2 debits, last seen at .*faces/\.emofl/ledger\.jsonl.*--home"):
        debit(where)


def test_an_old_copy_of_the_ledger_and_its_head_is_noticed(faces: Path, tmp_path: Path) -> None:
    where = place(faces)
    debit(where, 2)
    shutil.copytree(where.path.parent, tmp_path / "backup")
    debit(where)
    shutil.rmtree(where.path.parent)
    shutil.copytree(tmp_path / "backup", where.path.parent)
    with pytest.raises(IntegrityError, match="3 debits were recorded"):
        Ledger(where)
    with pytest.raises(IntegrityError):
        debit(where)


def test_a_cut_ledger_whose_head_was_made_to_fit_is_noticed(faces: Path) -> None:
    where = place(faces)
    debit(where, 3)
    entries, lines = Ledger(where).entries, where.path.read_bytes().splitlines(keepends=True)
    where.path.write_bytes(b"".join(lines[:2]))
    where.path.with_suffix(".head").write_text(entries[1].digest)
    with pytest.raises(IntegrityError, match="3 debits were recorded"):
        Ledger(where)


def test_a_second_home_over_the_same_faces_is_refused(faces: Path, tmp_path: Path) -> None:
    debit(place(faces), 2)
    other = place(faces, tmp_path / "other")
    with pytest.raises(IntegrityError, match="is missing or empty"):
        debit(other)
    assert not other.path.exists()
    (tmp_path / "elsewhere").mkdir()
    debit(place(tmp_path / "elsewhere", tmp_path / "other"))
    with pytest.raises(IntegrityError, match="is another one"):
        debit(other)


def test_another_name_of_the_folder_is_the_same_folder(faces: Path, tmp_path: Path) -> None:
    debit(place(faces))
    (tmp_path / "link").symlink_to(faces)
    with pytest.raises(IntegrityError):
        debit(place(tmp_path / "link", tmp_path / "other"))
    debit(LedgerPlace(place(faces).path, Anchor(tmp_path / "link")))
    assert len(Ledger(place(faces)).entries) == 2


def test_of_two_copies_of_faces_and_ledger_one_alone_goes_on(faces: Path, tmp_path: Path) -> None:
    debit(place(faces))
    shutil.copytree(faces, tmp_path / "copy")
    debit(place(tmp_path / "copy"))
    with pytest.raises(IntegrityError, match=r"2 debits were recorded, the last at .*copy/.emofl"):
        debit(place(faces))
    debit(place(tmp_path / "copy"))


def test_faces_that_move_keep_their_ledger(faces: Path, tmp_path: Path) -> None:
    debit(place(faces), 2)
    moved = faces.rename(tmp_path / "moved")
    debit(place(moved))
    assert len(Ledger(place(moved)).entries) == 3
    faces.mkdir()
    with pytest.raises(IntegrityError, match=r"3 debits, last seen at .*moved"):
        debit(place(faces))


def test_one_home_over_changing_folders_is_one_ledger(tmp_path: Path) -> None:
    for name in ("monday", "tuesday"):
        (tmp_path / name).mkdir()
        debit(place(tmp_path / name, tmp_path / "home"))
    assert len(Ledger(place(tmp_path / "monday", tmp_path / "home")).entries) == 2
    debit(place(tmp_path / "monday", tmp_path / "home"))


def test_a_ledger_from_before_anchors_is_anchored_at_the_next_start(faces: Path) -> None:
    where = place(faces)
    for _ in range(3):
        debit(LedgerPlace(where.path))
    with Ledger(where).locked():
        pass
    shutil.rmtree(where.path.parent)
    with pytest.raises(IntegrityError, match="3 debits"):
        Ledger(where)


KILLED_BETWEEN = """
import os, signal, sys
from datetime import datetime, UTC
from pathlib import Path
from common.privacy import anchor
from common.privacy.release import Release
from common.privacy.ledger import Ledger, LedgerPlace
faces = Path(sys.argv[1])
anchor.Anchor.advance = lambda self, ledger, digests: digests and os.kill(os.getpid(), signal.SIGKILL)
with Ledger(LedgerPlace(faces / ".emofl" / "ledger.jsonl", anchor.Anchor(faces))).locked() as ledger:
    ledger.debit(Release(1.1, 0.1, 10), run="r", round_number=1, now=datetime.now(UTC))
"""


@pytest.mark.parametrize("before", [0, 1])
def test_a_kill_between_ledger_and_anchor_is_no_tampering(faces: Path, before: int) -> None:
    where = place(faces)
    program = KILLED_BETWEEN
    if before:
        debit(where)
        program = program.replace(
            "lambda self, ledger, digests: digests and", "lambda self, ledger, digests: len(digests) > 1 and"
        )
    done = subprocess.run([sys.executable, "-c", program, str(faces)], cwd=Path(__file__).parents[3], check=False)
    assert done.returncode == -9
    digests = [entry.digest for entry in Ledger(where).entries]
    assert len(digests) == before + 1
    assert Anchor(faces).behind(digests) == (1 if before else None)
    debit(where)
    assert len(Ledger(where).entries) == before + 2


def test_a_damaged_anchor_stops_training(faces: Path) -> None:
    debit(place(faces))
    (mark,) = state_folder().glob("*.json")
    for content in (b"", b"{}", b'{"count":0,"head":"x","ledger":""}'):
        mark.write_bytes(content)
        with pytest.raises(IntegrityError, match="is damaged"):
            Ledger(place(faces))


def test_a_state_folder_that_cannot_be_written_is_one_sentence_and_nothing_is_debited(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="XDG_STATE_HOME"):
        debit(place(faces))
    assert not place(faces).path.exists()


def test_a_ledger_that_went_on_at_another_machine_is_taken_as_it_is(faces: Path) -> None:
    where = place(faces)
    debit(where, 2)
    debit(LedgerPlace(where.path, Anchor(faces, faces.parent / "other-machine")), 3)
    debit(where)
    assert len(Ledger(where).entries) == 6


def test_two_homes_cannot_both_begin_over_the_same_faces(faces: Path, tmp_path: Path) -> None:
    outcomes: list[str] = []

    def begin(home: Path) -> None:
        try:
            debit(place(faces, home), 5)
            outcomes.append("debited")
        except IntegrityError:
            outcomes.append("refused")

    threads = [threading.Thread(target=begin, args=(tmp_path / f"home{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["debited", *["refused"] * 5]


def test_a_reader_beside_a_writer_sees_no_tampering(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where, recall = place(faces), Anchor.recall
    debit(where)

    def overtaken(self: Anchor) -> object:
        with monkeypatch.context() as once:
            once.setattr(Anchor, "recall", recall)
            debit(where)
        return recall(self)

    monkeypatch.setattr(Anchor, "recall", overtaken)
    assert len(Ledger(where).entries) == 2


def test_the_anchors_are_their_owners_alone(faces: Path) -> None:
    debit(place(faces))
    for path in state_folder().rglob("*.json"):
        assert path.stat().st_mode & 0o777 == 0o600
