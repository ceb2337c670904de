import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.arrays import pack, unpack
from common.config import ModelConfig, TrainConfig
from common.errors import IntegrityError
from common.messages import TrainRequest
from common.privacy.ledger import Ledger
from fl_client.own_head import OwnHead, RunHead, forget_heads, personal_folder, read_head, write_head
from models.subset import HEAD, shared_names
from tests.fl_client.test_device import arrays, device, request, weights

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
