"""Rounds under secure aggregation, server and devices talking over messages; only training is replaced by a given update."""

import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message

from common.arrays import flatten, pack
from common.config import RunConfig, UploadConfig, make_config
from common.errors import IntegrityError, PrivacyError, RunError
from common.identity import SigningKey
from common.messages import (
    SECURE_SUM,
    TrainRequest,
    decode_request,
    decode_sum,
    encode_reply,
    encode_request,
    encode_sum,
    joining,
)
from common.secagg.server import Server
from common.secagg.wire import MaskedInput
from common.sum_encoding import MOST_FACES, sum_encoding
from fl_client.secure_sum import AnyDevice, SecureSums, Waiting, take_step
from fl_server.checkpoint import Checkpoint
from fl_server.rounds import CHECKPOINT, Accepted, Observers, Rounds
from tests.fl_server.grids import ScriptedGrid

HEAD = {"classifier.1.weight": (7, 1280), "classifier.1.bias": (7,)}
STEPS = ["advertise", "share", "mask", "confirm", "unmask"]


def config(**server: object) -> RunConfig:
    return make_config(
        {
            "model": {"name": "mobilenet_v2_025", "stem_stride": 2, "trainable": "head"},
            "server": {"rounds": 1, "round_timeout": 0.3} | server,
            "upload": {"step_timeout": 0.3},
        }
    )


class Member:
    """A device that has trained; `at` changes what it does in one step."""

    def __init__(self, value: float, at: dict[str, Callable[[Message, Message | None], Message | None]] | None = None) -> None:
        self.value, self.at, self.key = value, at or {}, SigningKey.generate()
        self.sums, self.sent = SecureSums(), list[bytes]()

    def __call__(self, message: Message) -> Message | None:
        step = "train" if "request" in message.content else decode_sum(message.content)[0].step
        act = self.at.get(step)
        reply: Message | None = None
        if act is not silent:
            reply = self.train(message) if step == "train" else self.step(message)
        reply = act(message, reply) if act else reply
        if reply is not None and reply.has_content():
            self.sent += [array.data for record in reply.content.array_records.values() for array in record.values()]
            self.sent += [str(dict(record)).encode() for record in reply.content.config_records.values()]
        return reply

    def update(self) -> dict[str, np.ndarray]:
        return {name: np.full(shape, self.value, np.float32) for name, shape in HEAD.items()}

    def train(self, message: Message) -> Message:
        request, weights = decode_request(message.content)
        encoding = sum_encoding(sum(v.size for v in self.update().values()), request.upload, request.client_level)
        waiting = Waiting(flatten(self.update()), request.digest(weights), encoding, self.key)
        self.sums.keep(request.run, request.round, 0, waiting)
        return Message(encode_reply(joining(request, self.key, request.digest(weights))), reply_to=message)

    def step(self, message: Message) -> Message:
        header, content = decode_sum(message.content)
        try:
            answer = take_step(self.sums.take(header.run, header.round, 0), header, content, AnyDevice(), 3)
        except (IntegrityError, PrivacyError):
            return Message(encode_sum(header.model_copy(update={"reason": "bad-request"})), reply_to=message)
        return Message(encode_sum(header, answer), reply_to=message)


def silent(message: Message, reply: Message | None) -> None:
    return None


def explode(message: Message, reply: Message | None) -> Message:
    raise RuntimeError


def changed(change: Callable[[bytes], bytes]) -> Callable[[Message, Message | None], Message]:
    def act(message: Message, reply: Message | None) -> Message:
        header, content = decode_sum(cast(Message, reply).content)
        return Message(encode_sum(header, change(content)), reply_to=message)

    return act


def surplus(message: Message, reply: Message | None) -> Message:
    answer = cast(Message, reply)
    answer.content["metrics"] = ConfigRecord({"num-examples": 17})
    return answer


def huge(message: Message, reply: Message | None) -> Message:
    header = decode_sum(message.content)[0]
    record = encode_sum(header)
    record["message"] = ArrayRecord({"content": Array("uint8", (2**26,), SECURE_SUM, bytes(2**26))})
    return Message(record, reply_to=message)


def refuse(message: Message, reply: Message | None) -> Message:
    header = decode_sum(message.content)[0].model_copy(update={"reason": "policy"})
    return Message(encode_sum(header), reply_to=message)


def run(folder: Path, members: list[Member], settings: RunConfig | None = None, **more: Any) -> tuple[Checkpoint, np.ndarray]:
    """The run's end, and by how much the head's bias moved."""
    folder.mkdir(exist_ok=True)
    rounds = Rounds(settings or config(), "run-1", folder, poll=0.001, **more)
    first = rounds.open_checkpoint().weights["classifier.1.bias"].copy()
    state = rounds.execute(ScriptedGrid({100 + number: member for number, member in enumerate(members)}))
    return state, state.weights["classifier.1.bias"] - first


def test_the_model_moves_by_the_mean_of_the_updates_and_the_record_says_so(tmp_path: Path) -> None:
    state, moved = run(tmp_path, [Member(value) for value in (0.1, 0.2, 0.6)])
    assert np.allclose(moved, 0.3, atol=1e-6)
    record = state.history[1]
    assert (record["asked"], record["accepted"], record["left_out"]) == (3, 3, {})
    assert record["update_norm"] == pytest.approx(0.3 * np.sqrt(7 * 1281), rel=1e-4)


def test_values_of_16_bits_make_the_upload_smaller_and_the_mean_hardly_different(tmp_path: Path) -> None:
    uploads = {}
    for precision in ("float32", "int16"):
        members = [Member(value) for value in (0.1, 0.2, 0.6)]
        settings = config().model_copy(update={"upload": UploadConfig(precision=precision, step_timeout=0.3)})
        _, moved = run(tmp_path / precision, members, settings)
        assert np.allclose(moved, 0.3, atol={"float32": 1e-6, "int16": 2.0 / 32767}[precision])
        uploads[precision] = max(map(len, members[0].sent))
    assert uploads["int16"] == pytest.approx(uploads["float32"] * 18 / 32, abs=200), "three devices' sums have 18 bits"


def test_no_device_sends_its_update_or_anything_that_follows_it(tmp_path: Path) -> None:
    members = [Member(0.1), Member(0.2), Member(0.2)]
    run(tmp_path, members)
    sent = [content for member in members for content in member.sent]
    assert len(sent) == 3 * (2 * len(STEPS) + 1)
    patterns = {np.float32(v).tobytes() * 3 for v in (0.1, 0.2)}
    assert not any(pattern in content for pattern in patterns for content in sent)
    first, second = (max(member.sent, key=len) for member in members[1:])
    assert len(first) == len(second) > 4 * 7 * 1281
    words = np.frombuffer(first[-4 * 7 * 1281 :], "<u4")
    assert len(np.unique(words)) > 0.99 * len(words)
    assert first != second


@pytest.mark.parametrize("step", ["train", *STEPS])
@pytest.mark.parametrize("fault", [silent, explode], ids=["silent", "dead"])
def test_a_device_that_drops_out_at_any_step_costs_nobody_else_the_round(tmp_path: Path, step: str, fault: Any) -> None:
    members = [Member(value) for value in (0.1, 0.2, 0.3, 0.2)] + [Member(0.7, {step: fault})]
    state, moved = run(tmp_path, members)
    record = state.history[1]
    if step in ("confirm", "unmask"):
        assert np.allclose(moved, 0.3, atol=1e-6)
        assert (record["accepted"], record["left_out"]) == (5, {})
    else:
        assert np.allclose(moved, 0.2, atol=1e-6)
        assert (record["accepted"], record["left_out"]) == (4, {"no-answer" if fault is silent else "error": 1})


WRONG = {
    "nothing of ours": changed(lambda content: b"garbage"),
    "cut short": changed(lambda content: content[:-1]),
    "too long": changed(lambda content: content + b"\x00"),
    "as another member": changed(lambda content: content[:6] + bytes([0, 0 if content[7] else 1]) + content[8:]),
    "surplus record": surplus,
    "huge": huge,
}


@pytest.mark.parametrize("step", ["advertise", "share", "mask"])
@pytest.mark.parametrize("kind", WRONG)
def test_a_malformed_step_leaves_its_device_out(tmp_path: Path, step: str, kind: str) -> None:
    members = [Member(value) for value in (0.1, 0.2, 0.3, 0.2)] + [Member(0.7, {step: WRONG[kind]})]
    state, moved = run(tmp_path, members)
    assert np.allclose(moved, 0.2, atol=1e-6)
    assert (state.history[1]["accepted"], state.history[1]["left_out"]) == (4, {"malformed": 1})


def test_a_refusal_in_a_step_is_counted_under_its_reason(tmp_path: Path) -> None:
    state, moved = run(tmp_path, [Member(0.2) for _ in range(4)] + [Member(0.7, {"share": refuse})])
    assert np.allclose(moved, 0.2, atol=1e-6)
    assert state.history[1]["left_out"] == {"policy": 1}


def test_a_masked_vector_of_another_length_is_left_out(tmp_path: Path) -> None:
    class Longer(Member):
        def update(self) -> dict[str, np.ndarray]:
            return super().update() | {"more": np.zeros(3, np.float32)}

    state, moved = run(tmp_path, [Member(0.2) for _ in range(4)] + [Longer(0.7)])
    assert np.allclose(moved, 0.2, atol=1e-6)
    assert state.history[1]["left_out"] == {"bad-request": 1}


@pytest.mark.parametrize("step", STEPS)
def test_with_too_few_devices_left_the_model_stays_and_the_run_goes_on(tmp_path: Path, step: str) -> None:
    members = [Member(0.1), Member(0.2, {step: silent}), Member(0.3, {step: silent})]
    state, moved = run(tmp_path, members, config(rounds=2))
    assert np.array_equal(moved, np.zeros(7))
    assert [record["accepted"] for record in state.history] == [0, 0, 0]
    assert [record["left_out"] for record in state.history[1:]] == [{"no-sum": 3}] * 2


def test_two_devices_are_never_added_up(tmp_path: Path) -> None:
    members = [Member(0.1), Member(0.2), Member(0.3, {"train": silent})]
    state, moved = run(tmp_path, members)
    assert np.array_equal(moved, np.zeros(7))
    assert state.history[1]["left_out"] == {"no-answer": 1, "no-sum": 2}
    assert not any(len(content) > 5000 for member in members for content in member.sent)


def test_an_identity_can_be_shown_by_one_device_alone(tmp_path: Path) -> None:
    members = [Member(0.2) for _ in range(5)]
    members[4].key = members[0].key
    state, _ = run(tmp_path, members)
    assert (state.history[1]["accepted"], state.history[1]["left_out"]) == (4, {"malformed": 1})


def test_who_shows_another_devices_identity_is_out_and_the_other_is_not(tmp_path: Path) -> None:
    victim = Member(0.2)

    def steal(message: Message, reply: Message | None) -> Message:
        answer = cast(Message, reply)
        known = json.loads(str(answer.content["reply"]["json"])) | {"identity": victim.key.public.raw.hex()}
        answer.content["reply"] = ConfigRecord({"json": json.dumps(known)})
        return answer

    state, moved = run(tmp_path, [Member(0.9, {"train": steal}), victim, *(Member(0.2) for _ in range(3))])
    assert np.allclose(moved, 0.2, atol=1e-6)
    assert (state.history[1]["accepted"], state.history[1]["left_out"]) == (4, {"malformed": 1})


def test_a_sum_that_nobody_could_have_learnt_is_not_taken_over(tmp_path: Path) -> None:
    members = [Member(0.01), Member(0.01), Member(1.9)]
    state, moved = run(tmp_path, members, config(max_update_norm=10.0))
    assert np.array_equal(moved, np.zeros(7))
    assert state.history[1]["left_out"] == {"no-sum": 3}


@pytest.mark.parametrize("step", ["train", "mask", "unmask"])
def test_a_run_that_is_stopped_in_a_sum_repeats_the_round(tmp_path: Path, step: str) -> None:
    stop: list[bool] = []

    def stopping(message: Message, reply: Message | None) -> Message | None:
        stop.append(True)
        return reply

    members = [Member(0.2), Member(0.2), Member(0.2, {step: stopping})]
    with pytest.raises(RunError, match="resume it"):
        run(tmp_path, members, stopped=lambda: bool(stop))
    assert Checkpoint.load(tmp_path / CHECKPOINT).round == 0
    state, _ = run(tmp_path, [Member(0.2) for _ in range(3)])
    assert [record["accepted"] for record in state.history] == [0, 3]


def without_identity(message: Message, reply: Message | None) -> Message:
    answer = cast(Message, reply)
    known = json.loads(str(answer.content["reply"]["json"]))
    answer.content["reply"] = ConfigRecord({"json": json.dumps(known | {"identity": None})})
    return answer


def in_the_clear(message: Message, reply: Message | None) -> Message:
    answer = cast(Message, reply)
    content = pack({name: np.zeros(shape, np.float32) for name, shape in HEAD.items()})
    answer.content["update"] = ArrayRecord({"content": Array("uint8", (len(content),), "safetensors", content)})
    return answer


@pytest.mark.parametrize("fault", [without_identity, in_the_clear])
def test_a_trained_device_shows_an_identity_and_sends_no_update_in_the_clear(tmp_path: Path, fault: Any) -> None:
    state, _ = run(tmp_path, [Member(0.2) for _ in range(3)] + [Member(0.2, {"train": fault})])
    assert (state.history[1]["accepted"], state.history[1]["left_out"]) == (3, {"malformed": 1})


def test_a_server_that_shows_one_device_other_weights_gets_nothing_from_it(tmp_path: Path) -> None:
    """Pasquini et al. 2022: with weights that silence everybody else, the sum would be the victim's update."""

    class Deceived(Member):
        def train(self, message: Message) -> Message:
            request, weights = decode_request(message.content)
            message.content = encode_request(request, weights[:-1] + bytes([weights[-1] ^ 1]))
            return super().train(message)

    victim = Deceived(0.7)
    state, moved = run(tmp_path, [Member(0.2) for _ in range(4)] + [victim])
    assert np.allclose(moved, 0.2, atol=1e-6)
    assert state.history[1]["left_out"] == {"malformed": 1}  # its proof is for the weights that it saw
    assert not any(len(content) > 5000 for content in victim.sent)


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam"])
def test_a_servers_optimiser_works_on_the_secure_mean(tmp_path: Path, strategy: str) -> None:
    state, moved = run(tmp_path, [Member(0.2) for _ in range(3)], config(strategy=strategy, rounds=2))
    assert state.history[2]["accepted"] == 3
    assert (moved > 0.001).all()


class Counting(Member):
    """Right about 10 of 20 faces, and asked for a histogram, it has 1 of the first class, 2 of the second and so on."""

    asked: TrainRequest

    def train(self, message: Message) -> Message:
        self.asked, weights = decode_request(message.content)
        flat, digest, classes = flatten(self.update()), self.asked.digest(weights), self.asked.counted_classes
        encoding = sum_encoding(len(flat), self.asked.upload, None, True, classes)
        told = np.append(flat, np.array([10, 20, *range(1, classes + 1)]) / MOST_FACES)
        self.sums.keep(self.asked.run, self.asked.round, 0, Waiting(told, digest, encoding, self.key))
        return Message(encode_reply(joining(self.asked, self.key, digest)), reply_to=message)


@pytest.mark.parametrize("loss", ["cross-entropy", "logit-adjusted"])
def test_a_histogram_goes_to_devices_only_for_a_loss_that_takes_it_and_to_the_publisher_always(tmp_path: Path, loss: str) -> None:
    settings = RunConfig.model_validate(
        config(rounds=2).model_dump() | {"train": {"loss": loss}, "evaluation": {"class_histogram": True, "federated": True}}
    )
    public: list[Accepted] = []
    members = [Counting(0.1) for _ in range(3)]
    state, _ = run(tmp_path, members, settings, observers=Observers(publish=public.append))
    counts = state.history[1]["class_counts"]
    assert list(counts.values()) == pytest.approx([3, 6, 9, 12, 15, 18, 21], rel=0.05)
    assert [accepted.histogram for accepted in public] == [None, counts, counts]
    assert [(member.asked.round, member.asked.histogram_noise) for member in members] == [(2, None)] * 3
    assert members[0].asked.train.class_counts == ({} if loss == "cross-entropy" else counts)


def test_a_histogram_that_was_paid_for_is_kept_when_the_mean_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = RunConfig.model_validate(
        config(max_update_norm=1.0).model_dump()
        | {"train": {"loss": "class-balanced"}, "evaluation": {"class_histogram": True, "federated": True}}
    )
    state, moved = run(tmp_path, [Counting(0.5) for _ in range(3)], settings)
    record = state.history[1]
    assert not moved.any()
    assert (record["accepted"], record["left_out"]) == (0, {"no-sum": 3})
    assert list(record["class_counts"].values()) == pytest.approx([3, 6, 9, 12, 15, 18, 21], rel=0.05)
    assert record["federated_accuracy"] == pytest.approx(0.5, rel=0.05)


def test_the_server_keeps_no_masked_vector_after_it_was_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[MaskedInput]] = []
    counts: list[int] = []
    add = Server.add_masked

    def counting(self: Server, message: MaskedInput) -> None:
        alive.append(weakref.ref(message))
        add(self, message)
        gc.collect()
        counts.append(sum(reference() is not None for reference in alive))

    monkeypatch.setattr(Server, "add_masked", counting)
    run(tmp_path, [Member(0.2) for _ in range(8)])
    assert len(counts) == 8
    assert max(counts) <= 2


def test_the_digest_covers_request_and_weights(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def look(message: Message) -> None:
        request, weights = decode_request(message.content)
        seen.append(request.digest(weights))
        assert request.digest(weights + b"x") != seen[-1]
        assert request.model_copy(update={"participations": 99}).digest(weights) != seen[-1]

    Rounds(config(), "run-1", tmp_path, poll=0.001).execute(ScriptedGrid(dict.fromkeys(range(3), look)))
    assert len(seen) == 3
    assert len(set(seen)) == 1
