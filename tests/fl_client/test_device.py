import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict

from common.arrays import Arrays, pack
from common.config import ModelConfig, PrivacyConfig, TrainConfig, UploadConfig
from common.emotions import EMOTIONS_7
from common.messages import TrainRequest, decode_reply, encode_request
from common.parameters import read_parameters
from common.privacy.accountant import Release, spent_epsilon
from common.privacy.ledger import Ledger, LedgerPlace
from fl_client.app import build_client_app
from fl_client.device import Device, answer_safely
from fl_client.model_cache import ModelCache
from fl_client.policy import Policy
from models.faces.faceset import FaceSet, one_hot
from models.mobilenet import build_model
from models.preprocess import Preprocessing

MODEL = ModelConfig(name="mobilenet_v2_025", stem_stride=2, trainable="head")
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def faces(n: int = 40) -> FaceSet:
    random = np.random.default_rng(0)
    return FaceSet(random.integers(0, 256, (n, 48, 48), dtype=np.uint8), one_hot(random.integers(0, 7, n), 7), EMOTIONS_7)


def arrays() -> Arrays:
    torch.manual_seed(0)
    return read_parameters(build_model(MODEL))


def weights() -> bytes:
    return pack(arrays())


PLAIN = UploadConfig(secure=False)


def device(tmp_path: Path, *, source: Callable[[Preprocessing], FaceSet] | None = None, **policy: object) -> Device:
    return Device(
        faces=source or (lambda preprocessing: faces()),
        ledger=tmp_path / "ledger.jsonl",
        policy=Policy.model_validate({"require_secure_aggregation": False} | policy),
        models=ModelCache(),
        now=lambda: NOW,
    )


def request(round_number: int = 1, *, rounds: int = 3, run: str = "run-1", **privacy: object) -> TrainRequest:
    return TrainRequest(
        run=run,
        round=round_number,
        rounds=rounds,
        participations=rounds,
        model=MODEL,
        train=TrainConfig(batch_size=8, local_steps=2),
        privacy=PrivacyConfig.model_validate(privacy),
        upload=PLAIN,
        preprocessing=Preprocessing().model_dump(),
    )


def test_a_whole_run_stays_within_the_budget_and_uses_it_up(tmp_path: Path) -> None:
    own = device(tmp_path)
    for number in (1, 2, 3):
        reply, update = own.answer(request(number, epsilon=2.0), weights())
        assert reply.status == "trained"
        assert update is not None
    spent = Ledger(own.ledger).epsilon(1e-5, "rdp")
    assert 1.95 < spent <= 2.0


def test_the_budget_is_cumulative_over_runs_and_process_restarts(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        device(tmp_path).answer(request(number, epsilon=2.0), weights())
    reply, update = device(tmp_path).answer(request(1, run="run-2", epsilon=2.0), weights())
    assert (reply.status, reply.reason, update) == ("refused", "budget-spent", None)
    assert len(Ledger(tmp_path / "ledger.jsonl").entries) == 3


def test_a_repeated_round_is_counted_twice_and_the_rest_gets_more_noise(tmp_path: Path) -> None:
    own = device(tmp_path)
    for number in (1, 1, 2, 3):
        own.answer(request(number, epsilon=2.0), weights())
    entries = Ledger(own.ledger).entries
    sigmas = [e.release.noise_multiplier for e in entries if e.release]
    assert len(entries) >= 3
    assert Ledger(own.ledger).epsilon(1e-5, "rdp") <= 2.0
    assert sigmas == sorted(sigmas)


def test_the_debit_is_on_disk_before_training_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*args: object, **settings: object) -> None:
        assert len(Ledger(tmp_path / "ledger.jsonl").entries) == 1
        raise MemoryError

    monkeypatch.setattr("fl_client.device.train_locally", explode)
    reply, update = answer_safely(device(tmp_path), request(), weights())
    assert (reply.status, reply.reason, update) == ("refused", "failed", None)
    assert len(Ledger(tmp_path / "ledger.jsonl").entries) == 1


@pytest.mark.parametrize(
    ("wish", "policy"),
    [
        ({"epsilon": 9.0}, {}),
        ({"epsilon": 2.0}, {"largest_epsilon": 1.0}),
        ({"delta": 1e-3}, {}),
        ({"delta": 0.03}, {"largest_delta": 0.5}),
        ({"private": False}, {}),
        ({}, {"require_secure_aggregation": True}),
    ],
)
def test_what_the_policy_forbids_is_refused_before_anything_is_spent(
    tmp_path: Path, wish: dict[str, object], policy: dict[str, object]
) -> None:
    reply, update = device(tmp_path, **policy).answer(request(**wish), weights())
    assert (reply.status, reply.reason, update) == ("refused", "policy", None)
    assert not (tmp_path / "ledger.jsonl").exists()


def test_a_server_that_the_rules_came_to_exclude_is_refused(tmp_path: Path) -> None:
    mine = device(tmp_path, allowed_servers=("ab" * 32,))
    for authority, reason in (("cd" * 32, "policy"), ("ab" * 32, None)):
        own = replace(mine, ledger=LedgerPlace(tmp_path / "ledger.jsonl", authority=authority))
        assert own.answer(request(), weights())[0].reason == reason


def test_training_without_privacy_needs_the_owners_leave_and_is_written_down(tmp_path: Path) -> None:
    own = device(tmp_path, allow_non_private=True)
    reply, _ = own.answer(request(private=False), weights())
    assert reply.status == "trained"
    assert not Ledger(own.ledger).all_private
    after, _ = own.answer(request(2), weights())
    assert (after.status, after.reason) == ("refused", "budget-spent")


def test_no_faces_is_a_refusal(tmp_path: Path) -> None:
    reply, _ = device(tmp_path, source=lambda preprocessing: faces(0)).answer(request(), weights())
    assert (reply.status, reply.reason) == ("refused", "no-data")


def test_faces_too_large_for_the_memory_are_refused_before_any_is_read_or_paid_for(tmp_path: Path) -> None:
    read: list[Preprocessing] = []

    def source(preprocessing: Preprocessing) -> FaceSet:
        read.append(preprocessing)
        return faces()

    own = device(tmp_path, source=source, largest_batch=100)
    for side in (512, 240):  # the second: a few too many pixels in all
        asked = request().model_copy(update={"preprocessing": Preprocessing(size=side).model_dump()})
        reply, _ = own.answer(asked, weights())
        assert (reply.status, reply.reason) == ("refused", "policy")
        assert [preprocessing.size for preprocessing in read] == [240] * (side == 240)
    assert not Ledger(own.ledger).entries


def test_a_tampered_ledger_stops_training(tmp_path: Path) -> None:
    own = device(tmp_path)
    own.answer(request(), weights())
    own.ledger.write_bytes(own.ledger.read_bytes().replace(b'"steps":2', b'"steps":1'))
    reply, update = answer_safely(own, request(2), weights())
    assert (reply.status, reply.reason, update) == ("refused", "failed", None)


def test_an_error_text_never_leaves_the_device(tmp_path: Path) -> None:
    def secret(preprocessing: Preprocessing) -> FaceSet:
        raise RuntimeError("/home/ann/faces/sad/17.png is broken")

    reply, _ = answer_safely(device(tmp_path, source=secret), request(), weights())
    assert reply.reason == "failed"
    assert "ann" not in reply.model_dump_json()


def test_the_noise_fits_what_the_accountant_was_told(tmp_path: Path) -> None:
    own = device(tmp_path)
    own.answer(request(1, rounds=1, epsilon=1.0), weights())
    (release,) = Ledger(own.ledger).releases
    assert (release.sample_rate, release.steps) == (pytest.approx(8 / 40), 2)
    assert spent_epsilon([Release(release.noise_multiplier * 0.99, 0.2, 2)], 1e-5) > 1.0


def context() -> Context:
    return Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})


def test_the_client_app_answers_over_messages(tmp_path: Path) -> None:
    app = build_client_app(lambda context: device(tmp_path))
    message = Message(encode_request(request(), weights()), dst_node_id=2, message_type="train")
    message.metadata.__dict__["_message_id"] = "m"
    answer = app(message=message, context=context())
    shapes = {name: value.shape for name, value in arrays().items() if name.startswith("classifier.")}
    reply, update = decode_reply(answer.content, shapes, PLAIN)
    assert (reply.run, reply.round, reply.status) == ("run-1", 1, "trained")
    assert set(update) == set(shapes)


def test_a_reply_holds_the_update_and_a_status_and_nothing_else(tmp_path: Path) -> None:
    app = build_client_app(lambda context: device(tmp_path))
    message = Message(encode_request(request(), weights()), dst_node_id=2, message_type="train")
    message.metadata.__dict__["_message_id"] = "m"
    content = app(message=message, context=context()).content
    assert set(content) == {"reply", "update"}
    assert set(content["reply"]) == {"json"}
    assert set(json.loads(str(content["reply"]["json"]))) == {"version", "run", "round", "status", "reason", "identity", "proof"}


def test_a_message_that_is_no_request_is_refused(tmp_path: Path) -> None:
    app = build_client_app(lambda context: device(tmp_path))
    message = Message(RecordDict({"request": ConfigRecord({"json": "{}"})}), dst_node_id=2, message_type="train")
    message.metadata.__dict__["_message_id"] = "m"
    reply, _ = decode_reply(app(message=message, context=context()).content, {}, PLAIN)
    assert (reply.status, reply.reason) == ("refused", "bad-request")
    assert not (tmp_path / "ledger.jsonl").exists()


def test_a_request_that_cannot_be_trained_spends_nothing(tmp_path: Path) -> None:
    own, good = device(tmp_path), weights()
    wrong = [
        (request().model_copy(update={"model": ModelConfig(name="nope")}), good),
        (request(), pack({})),
        (request(), b"no weights"),
        (request(), pack(arrays() | {"classifier.1.bias": np.zeros(3, np.float32)})),
        (request().model_copy(update={"train": TrainConfig(loss="calibrated")}), good),
        (request().model_copy(update={"model": MODEL.model_copy(update={"dropout": 0.2})}), good),
    ]
    for wish, content in wrong:
        reply, update = own.answer(wish, content)
        assert (reply.status, reply.reason, update) == ("refused", "bad-request", None)
    assert not own.ledger.exists()


def test_endless_work_is_refused(tmp_path: Path) -> None:
    wish = request().model_copy(update={"train": TrainConfig(batch_size=8, local_steps=10**9)})
    reply, _ = device(tmp_path).answer(wish, weights())
    assert (reply.status, reply.reason) == ("refused", "policy")
    assert not (tmp_path / "ledger.jsonl").exists()


def test_an_error_before_the_device_is_open_leaves_no_text(tmp_path: Path) -> None:
    def broken(context: Context) -> Device:
        raise OSError("/home/ann is not there")

    message = Message(encode_request(request(), weights()), dst_node_id=2, message_type="train")
    message.metadata.__dict__["_message_id"] = "m"
    answer = build_client_app(broken)(message=message, context=context())
    assert not answer.has_error()
    assert "ann" not in str(answer.content)
