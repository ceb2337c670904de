import errno
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.arrays import pack, unpack
from common.config import ModelConfig, TrainConfig
from common.errors import IntegrityError
from common.messages import TrainRequest
from common.privacy.accountant import Release
from common.privacy.ledger import Ledger
from fl_client.folder_device import folder_app
from fl_client.own_head import (
    FEDERATED,
    FITTED,
    PERSONAL,
    OwnHead,
    RunHead,
    forget_heads,
    personal_folder,
    read_head,
    write_head,
)
from fl_client.own_home import remember_home
from fl_client.own_ledger import own_ledger
from fl_client.policy import Policy
from models.subset import HEAD, shared_names
from tests.fl_client.test_device import NOW, arrays, device, request, weights

ROUND = TrainConfig(batch_size=8, local_steps=2, local_layers="head")


def asked(number: int = 1, **more: object) -> TrainRequest:
    """A round in which the whole model is trained, and the head stays."""
    model = ModelConfig(name="mobilenet_v2_025", stem_stride=2, trainable="last-block")
    return request(number).model_copy(update={"model": model, "train": ROUND, **more})


def test_the_head_is_trained_and_debited_and_never_uploaded(tmp_path: Path) -> None:
    own = replace(device(tmp_path), own_head=tmp_path / "own" / "head.safetensors")
    reply, update = own.answer(asked(), weights())
    assert reply.status == "trained"
    assert update
    assert not [name for name in update if name.startswith(HEAD)]
    head = read_head(own.own_head or Path())
    assert head is not None
    assert set(head.arrays) == {name for name in arrays() if name.startswith(HEAD)}
    assert any(not np.array_equal(value, arrays()[name]) for name, value in head.arrays.items())
    assert stat.S_IMODE((own.own_head or Path()).stat().st_mode) == 0o600
    assert len(Ledger(own.ledger).entries) == 1


def test_the_next_round_begins_with_the_devices_own_head_and_not_with_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fl_client import device as module

    begun = []
    train = module.train_locally

    def watched(model: object, given: dict[str, np.ndarray], *rest: object, **more: object) -> object:
        begun.append(given)
        return train(model, given, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "train_locally", watched)
    own = replace(device(tmp_path), own_head=tmp_path / "head.safetensors")
    own.answer(asked(1), weights())
    kept = read_head(tmp_path / "head.safetensors")
    moved = unpack(weights())
    moved = {name: value + 1 if name.startswith(HEAD) else value for name, value in moved.items()}
    own.answer(asked(2), pack(moved))
    own.answer(asked(1, run="run-2"), pack(moved))
    assert kept is not None
    for name, value in kept.arrays.items():
        assert np.array_equal(begun[1][name], value)
        assert np.array_equal(begun[2][name], moved[name])  # another run begins anew
    trunk = next(name for name in moved if not name.startswith(HEAD))
    assert np.array_equal(begun[1][trunk], moved[trunk])


def test_a_run_in_which_nothing_would_be_uploaded_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    own = device(tmp_path)
    reply, _ = own.answer(request().model_copy(update={"train": ROUND}), weights())
    assert (reply.status, reply.reason) == ("refused", "bad-request")
    assert not Ledger(own.ledger).entries


def test_a_loss_without_its_counts_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    own = device(tmp_path)
    reply, _ = own.answer(request().model_copy(update={"train": TrainConfig(loss="class-balanced")}), weights())
    assert (reply.status, reply.reason) == ("refused", "bad-request")
    assert not Ledger(own.ledger).entries


def test_a_damaged_or_foreign_head_gives_way_to_the_servers(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    own, plain = RunHead(path, "here/run-1", "head"), arrays()
    path.write_bytes(b"nothing")
    assert own.adopt(plain) is plain
    with pytest.raises(IntegrityError, match="no head of a model"):
        read_head(path)
    write_head(path, OwnHead({"classifier.1.weight": np.ones((2, 2), np.float32)}, {"run": "here/run-1"}))
    assert own.adopt(plain) is plain
    write_head(path, OwnHead({"features.0.0.weight": plain["features.0.0.weight"]}, {"run": "there/run-1"}))
    assert own.adopt(plain) is plain


def test_where_no_head_can_be_kept_the_round_is_refused_in_a_sentence_before_anything_is_spent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").touch()
    own = replace(device(tmp_path), own_head=tmp_path / "taken" / "head.safetensors")
    reply, update = own.answer(asked(), weights())
    assert (reply.status, reply.reason, update) == ("refused", "failed", None)
    assert "leaves a head on the device" in caplog.text
    assert not Ledger(own.ledger).entries
    assert own.answer(asked(train=ROUND.model_copy(update={"local_layers": "none"})), weights())[0].status == "trained"


def test_a_folder_is_tried_with_as_much_as_a_head_has_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, written = RunHead(tmp_path / "own" / "head.safetensors", "here/run-1", "head"), []
    assert own.objection(arrays()) is None
    assert list((tmp_path / "own").iterdir()) == []

    class Full:
        def __init__(self, **_: object) -> None: ...

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, content: bytes) -> None:
            written.append(len(content))
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fl_client.own_head.tempfile.NamedTemporaryFile", Full)
    objection = own.objection(arrays())
    assert objection is not None
    assert "make room there" in objection
    assert written == [sum(value.nbytes for name, value in arrays().items() if name.startswith(HEAD))]
    assert RunHead(None, "here/run-1", "head").objection(arrays()) is None
    assert replace(own, local_layers="none").objection(arrays()) is None


def test_a_disk_that_fails_after_the_debit_costs_the_head_and_not_the_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    own = replace(device(tmp_path), own_head=tmp_path / "head.safetensors")
    own.answer(asked(1), weights())
    before = (tmp_path / "head.safetensors").read_bytes()
    monkeypatch.setattr("fl_client.own_head.write_head", broken)
    monkeypatch.setattr("fl_client.own_head.read_head", broken)
    reply, update = own.answer(asked(2), weights())
    assert reply.status == "trained"
    assert update
    assert "cannot be read (input/output error)" in caplog.text
    assert "cannot be written (input/output error)" in caplog.text
    assert (tmp_path / "head.safetensors").read_bytes() == before


@pytest.mark.parametrize("odd", [np.nan, np.inf, 3e38])
def test_a_head_that_is_not_finite_is_not_kept_and_the_old_one_stays(
    tmp_path: Path, odd: float, caplog: pytest.LogCaptureFixture
) -> None:
    own, name = RunHead(tmp_path / "head.safetensors", "here/run-1", "head"), f"{HEAD}1.bias"
    own.keep({name: np.zeros(7, np.float32)}, {name: np.ones(7, np.float32)})
    before = (tmp_path / "head.safetensors").read_bytes()
    grown = np.full(7, odd, np.float32)
    assert own.keep({name: grown}, {name: grown}) == {}
    assert (tmp_path / "head.safetensors").read_bytes() == before
    assert "not finite" in caplog.text


def test_what_stays_and_what_is_shared_are_all_that_was_trained() -> None:
    names = list(arrays())
    assert shared_names(names, "none") == names
    assert [name for name in names if name not in shared_names(names, "head")] == [n for n in names if n.startswith(HEAD)]


def test_forgetting_deletes_the_heads_and_leaves_the_ledger(tmp_path: Path) -> None:
    folder = personal_folder(tmp_path)
    write_head(folder / "fitted.safetensors", OwnHead({"classifier.1.bias": np.zeros(7, np.float32)}))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert forget_heads(tmp_path)
    assert not folder.parent.exists()
    assert not forget_heads(tmp_path)
    write_head(folder / "fitted.safetensors", OwnHead({"classifier.1.bias": np.zeros(7, np.float32)}))
    (folder.parent / "ledger.jsonl").touch()
    assert forget_heads(tmp_path)
    assert [path.name for path in folder.parent.iterdir()] == ["ledger.jsonl"]


def test_forgetting_deletes_the_heads_in_another_home_and_nothing_else_there(tmp_path: Path) -> None:
    faces, home = tmp_path / "faces", tmp_path / "home"
    faces.mkdir()
    home.mkdir()
    with Ledger(own_ledger(home, faces)).locked() as ledger:
        ledger.debit(Release(2.0, 0.1, 1), run="run-1", round_number=1, now=NOW)
    write_head(home / PERSONAL / FEDERATED, OwnHead({"classifier.1.bias": np.zeros(7, np.float32)}))
    (home / PERSONAL / "diary.txt").touch()
    assert forget_heads(faces)
    assert [path.name for path in (home / PERSONAL).iterdir()] == ["diary.txt"]
    assert Ledger(own_ledger(home, faces)).entries
    assert not forget_heads(faces)
    newer = tmp_path / "newer"
    write_head(newer / PERSONAL / FEDERATED, OwnHead({"classifier.1.bias": np.zeros(7, np.float32)}))
    remember_home(faces, newer)
    assert forget_heads(faces)
    assert list(newer.iterdir()) == []


def test_a_device_with_a_home_keeps_its_head_there_and_its_faces_may_be_read_only(tmp_path: Path) -> None:
    faces, home = tmp_path / "faces", tmp_path / "home"
    faces.mkdir()
    home.mkdir()
    opened = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fl_client.folder_device.build_client_app", lambda maker: opened.append(maker(None)))
        folder_app(faces, home, own_ledger(home, faces), Policy(), 1)
    assert opened[0].own_head == home / PERSONAL / FEDERATED
    assert list(faces.iterdir()) == []


def test_forgetting_follows_no_link(tmp_path: Path) -> None:
    faces, elsewhere = tmp_path / "faces", tmp_path / "elsewhere"
    faces.mkdir()
    write_head(elsewhere / PERSONAL / FITTED, OwnHead({"classifier.1.bias": np.zeros(7, np.float32)}))
    (faces / ".emofl").symlink_to(elsewhere)
    assert not forget_heads(faces)
    assert (elsewhere / PERSONAL / FITTED).exists()
    assert (faces / ".emofl").is_symlink()
