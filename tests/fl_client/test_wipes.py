"""Heads that are being fitted while their faces are wiped."""

import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from common.errors import IntegrityError
from common.privacy.anchor import Anchor
from common.privacy.ledger import Ledger, LedgerPlace
from fl_client import device as device_module
from fl_client import personal
from fl_client import personalise_commands as commands
from fl_client.capture.forget import forget
from fl_client.device import Device
from fl_client.folder_device import FolderDevice
from fl_client.own_head import FEDERATED, FITTED, PERSONAL, OwnHead, RunHead, forget_heads, keep_head, personal_folder
from fl_client.own_home import remember_home
from fl_client.own_ledger import own_ledger
from fl_client.personalise_commands import Start
from fl_client.wipes import since_now
from models.faces.folder import OWN_FOLDER
from models.subset import HEAD
from simulation.drawn_folder import draw_folder
from tests.fl_client.test_device import device, weights
from tests.fl_client.test_own_head import asked
from tests.fl_client.test_personalise_commands import start

__all__ = ["start"]
HEAD_OF_ONE = OwnHead({f"{HEAD}1.bias": np.zeros(7, np.float32)})


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    draw_folder(tmp_path / "mine", 42, people=1, seed=0)
    return tmp_path / "mine"


@pytest.fixture
def home(faces: Path, tmp_path: Path) -> Path:
    remember_home(faces, tmp_path / "home")
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def training(faces: Path, home: Path, tmp_path: Path) -> FolderDevice:
    """A device that takes part, with a home elsewhere."""
    plain = device(tmp_path)
    place = LedgerPlace(home / "ledger.jsonl", Anchor(faces))
    return FolderDevice(
        plain.faces, place, plain.policy, plain.models, now=plain.now, own_head=home / PERSONAL / FEDERATED, folder=faces
    )


def before_the_end_of(module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch, deed: Callable[[], object]) -> None:
    work = getattr(module, name)

    def worked(*given: object, **more: object) -> object:
        found = work(*given, **more)
        deed()
        return found

    monkeypatch.setattr(module, name, worked)


def while_training(monkeypatch: pytest.MonkeyPatch, deed: Callable[[], object]) -> None:
    before_the_end_of(device_module, "train_locally", monkeypatch, deed)


def while_fitting(monkeypatch: pytest.MonkeyPatch, deed: Callable[[], object]) -> None:
    before_the_end_of(personal, "personalise", monkeypatch, deed)


def test_a_head_that_a_round_trains_while_its_faces_are_forgotten_is_not_kept(
    training: FolderDevice, faces: Path, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    while_training(monkeypatch, lambda: forget(faces))
    reply, update = training.answer(asked(), weights())
    assert reply.status == "trained"
    assert update
    assert "were deleted during this round" in caplog.text
    assert not list(home.rglob("*.safetensors"))
    assert not faces.exists()
    assert len(Ledger(training.ledger).entries) == 1


def test_faces_that_are_forgotten_while_a_round_reads_them_leave_no_head(
    training: FolderDevice, faces: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = device_module.Device.answer

    def forgotten_behind(self: Device, request: object, packed: bytes) -> object:
        source = self.faces

        def then_gone(preprocessing: object) -> object:
            found = source(preprocessing)  # type: ignore[arg-type]
            forget(faces)
            return found

        return read(replace(self, faces=then_gone), request, packed)  # type: ignore[arg-type]

    monkeypatch.setattr(device_module.Device, "answer", forgotten_behind)
    assert training.answer(asked(), weights())[0].status == "trained"
    assert not list(home.rglob("*.safetensors"))


def test_new_faces_after_a_wipe_train_a_head_again(training: FolderDevice, faces: Path, home: Path) -> None:
    assert training.answer(asked(1), weights())[0].status == "trained"
    assert (home / PERSONAL / FEDERATED).exists()
    forget(faces)
    assert not (home / PERSONAL).exists()
    draw_folder(faces, 42, people=1, seed=1)
    assert training.answer(asked(2), weights())[0].status == "trained"
    assert (home / PERSONAL / FEDERATED).exists()


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("wipe", [forget, forget_heads])
def test_a_head_that_is_fitted_while_its_faces_or_heads_are_wiped_is_not_kept(
    faces: Path,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wipe: Callable[[Path], object],
    as_json: bool,
) -> None:
    while_fitting(monkeypatch, lambda: wipe(faces))
    commands.personalise(faces, keep_anyway=True, as_json=as_json)
    printed = capsys.readouterr()
    assert "deleted meanwhile" in printed.err
    assert '"kept": false' in printed.out if as_json else "Kept in" not in printed.out
    assert not (personal_folder(faces) / FITTED).exists()
    assert faces.exists() == (wipe is forget_heads)


def test_a_device_that_was_never_wiped_keeps_its_head_and_nothing_is_left_for_it_to_compare(faces: Path) -> None:
    since = since_now(faces)
    assert since.mark == b""
    assert keep_head(personal_folder(faces) / FITTED, HEAD_OF_ONE, since)
    assert not since.path.exists()


def test_each_wipe_leaves_another_mark_for_its_owner_alone_that_outlives_the_folder(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(faces)
    marks = [since_now(faces).mark]
    for _ in range(2):
        forget_heads(tmp_path / "link")
        marks.append(since_now(faces).mark)
    forget(faces)
    marks.append(since_now(faces).mark)
    assert len(set(marks)) == 4
    assert stat.S_IMODE(since_now(faces).path.stat().st_mode) == 0o600
    assert since_now(tmp_path / "others").mark == b""


def test_a_wipe_waits_for_a_head_that_is_being_stored_and_deletes_it(faces: Path) -> None:
    since = since_now(faces)
    wiper = threading.Thread(target=lambda: forget_heads(faces))
    with since.no_wipe() as unwiped:
        assert unwiped
        wiper.start()
        wiper.join(0.2)
        assert wiper.is_alive()
        path = personal_folder(faces) / FITTED
        path.parent.mkdir(parents=True)
        path.write_bytes(b"head")
    wiper.join(10)
    assert not path.exists()


def test_where_no_mark_can_be_left_everything_works_and_a_wipe_says_so(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))  # nobody can write there, root neither
    since = since_now(faces)
    assert keep_head(personal_folder(faces) / FITTED, HEAD_OF_ONE, since)
    assert forget_heads(faces)
    assert not (personal_folder(faces) / FITTED).exists()
    assert "a head that is being fitted now may still be stored" in caplog.text


def test_a_mark_that_cannot_be_read_costs_the_head_and_not_the_round(
    faces: Path, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    since = since_now(faces)
    own, name = RunHead(home / FEDERATED, "here/run-1", "head", since), f"{HEAD}1.bias"
    since.path.mkdir(parents=True)
    assert own.keep({name: np.zeros(7, np.float32)}, {name: np.ones(7, np.float32)}) == {}
    assert "is not kept" in caplog.text
    assert not (home / FEDERATED).exists()
    with pytest.raises(IntegrityError, match="cannot be read"):
        since_now(faces)


def test_a_device_whose_ledger_is_beside_its_faces_is_watched_too(
    training: FolderDevice, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = faces / OWN_FOLDER
    own = replace(training, ledger=own_ledger(beside, faces), own_head=beside / PERSONAL / FEDERATED)
    while_training(monkeypatch, lambda: forget(faces))
    assert own.answer(asked(), weights())[0].status == "trained"
    assert (beside / "ledger.jsonl").exists()
    assert not (beside / PERSONAL).exists()
