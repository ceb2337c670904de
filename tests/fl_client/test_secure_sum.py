"""What a device lets go of in a secure sum, driven through its ClientApp as a server would."""

import json
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from common.arrays import Arrays, pack
from common.config import ModelConfig, PrivacyConfig, TrainConfig, UploadConfig
from common.emotions import EMOTIONS_7
from common.errors import IntegrityError
from common.identity import SigningKey
from common.messages import SumHeader, TrainRequest, decode_sum, encode_request, encode_sum
from common.parameters import read_parameters
from common.privacy.ledger import Ledger
from common.secagg.ring import Ring
from common.secagg.server import Server
from common.secagg.wire import Advertisement, Confirmation, MaskedInput, Shares, Terms, Unmasking
from common.sum_encoding import FixedPoint
from fl_client.app import build_client_app
from fl_client.device import Device
from fl_client.model_cache import ModelCache
from fl_client.policy import Policy
from fl_client.secure_sum import SecureSums, Waiting
from models.faces.faceset import FaceSet, one_hot
from models.mobilenet import build_model
from models.preprocess import Preprocessing

MODEL = ModelConfig(name="mobilenet_v2_025", stem_stride=2, trainable="head")
WEIGHTS = pack(read_parameters(build_model(MODEL)))
LENGTH = 7 * 1281
STEPS = ("advertise", "share", "mask", "confirm", "unmask")
KINDS = {"advertise": Advertisement, "share": Shares, "mask": MaskedInput, "confirm": Confirmation, "unmask": Unmasking}

REPLY_FIELDS = {"version", "run", "round", "status", "reason", "identity", "proof"}
SUM_FIELDS = {"version", "run", "round", "step", "reason"}


def faces(n: int) -> FaceSet:
    random = np.random.default_rng(n)
    return FaceSet(random.integers(0, 256, (n, 48, 48), dtype=np.uint8), one_hot(random.integers(0, 7, n), 7), EMOTIONS_7)


class Owner:
    """A device behind its ClientApp, and all that it has sent."""

    def __init__(self, folder: Path, number: int, examples: int = 40, **policy: object) -> None:
        folder.mkdir(exist_ok=True)
        self.device = Device(
            faces=lambda preprocessing: faces(examples),
            ledger=folder / f"{number}.jsonl",
            policy=Policy.model_validate(policy),
            models=ModelCache(),
        )
        self.app = build_client_app(lambda context: self.device)
        self.sent: list[Message] = []

    def ask(self, content: RecordDict) -> RecordDict:
        message = Message(content, dst_node_id=2, message_type="train")
        message.metadata.__dict__["_message_id"] = "m"
        context = Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})
        self.sent.append(self.app(message=message, context=context))
        return self.sent[-1].content

    def step(self, step: Any, content: bytes, number: int = 1) -> tuple[SumHeader, bytes]:
        return decode_sum(self.ask(encode_sum(SumHeader(run="run-1", round=number, step=step), content)))


def request(**upload: object) -> TrainRequest:
    return TrainRequest(
        run="run-1",
        round=1,
        rounds=3,
        participations=3,
        model=MODEL,
        train=TrainConfig(batch_size=8, local_steps=2),
        privacy=PrivacyConfig(),
        upload=UploadConfig.model_validate(upload),
        preprocessing=Preprocessing().model_dump(),
    )


def trained(owners: list[Owner]) -> list[bytes]:
    """Their identities, after all have trained."""
    replies = [json.loads(str(owner.ask(encode_request(request(), WEIGHTS))["reply"]["json"])) for owner in owners]
    assert [reply["status"] for reply in replies] == ["trained"] * len(owners)
    return [bytes.fromhex(reply["identity"]) for reply in replies]


def terms(identities: list[bytes]) -> Terms:
    return Terms("run-1", 1, LENGTH, request().digest(WEIGHTS), tuple(sorted(identities)))


def take_all_steps(server: Server, order: list[Owner]) -> None:
    """From advertising to unmasking; `order` is by member number."""
    for owner in order:
        server.add_advertisement(Advertisement.decode(owner.step("advertise", server.terms.encode())[1]))
    directory = server.close_advertising().encode()
    for owner in order:
        server.add_shares(Shares.decode(owner.step("share", directory)[1]))
    for member, delivery in server.close_sharing().items():
        server.add_masked(MaskedInput.decode(order[member].step("mask", delivery.encode())[1]))
    for member, listed in server.close_masking().items():
        server.add_confirmation(Confirmation.decode(order[member].step("confirm", listed.encode())[1]))
    quorum = server.close_confirming().encode()
    for owner in order:
        server.add_unmasking(Unmasking.decode(owner.step("unmask", quorum)[1]))


def whole_sum(owners: list[Owner]) -> tuple[np.ndarray, Arrays]:
    """The sum that a server learns, and what the devices held before (by identity)."""
    identities = trained(owners)
    order = [owners[identities.index(identity)] for identity in sorted(identities)]
    held = {str(n): owner.device.sums.take("run-1", 1, 0).update for n, owner in enumerate(owners)}
    server = Server(terms(identities))
    take_all_steps(server, order)
    return Ring(len(owners), 2.0).decode(server.finish().total), {name: v for name, v in held.items() if v is not None}


def test_the_sum_is_that_of_the_updates_to_rounding(tmp_path: Path) -> None:
    owners = [Owner(tmp_path, number) for number in range(4)]
    total, held = whole_sum(owners)
    assert len(held) == 4
    assert np.abs(total - np.sum(list(held.values()), axis=0, dtype=np.float64)).max() < 4 * Ring(4, 2.0).step + 1e-7


def test_every_byte_that_a_device_sends_is_on_the_declared_list(tmp_path: Path) -> None:
    owners = [Owner(tmp_path, number) for number in range(3)]
    whole_sum(owners)
    for owner in owners:
        assert len(owner.sent) == 1 + len(STEPS)
        for message in owner.sent:
            assert not message.has_error()
            check_declared(message.content)


def check_declared(content: RecordDict) -> None:
    for name, record in content.items():
        if name in ("reply", "sum"):
            assert isinstance(record, ConfigRecord)
            assert set(record) == {"json"}
            fields = json.loads(str(record["json"]))
            assert set(fields) == (REPLY_FIELDS if name == "reply" else SUM_FIELDS)
            assert fields["reason"] in (None, "budget-spent", "no-data", "policy", "bad-request", "failed")
            assert (fields["run"], fields["version"]) == ("run-1", 1)
        else:
            assert name == "message"
            assert isinstance(record, ArrayRecord)
            assert set(record) == {"content"}
            header, sent = decode_sum(content)
            assert KINDS[header.step].decode(sent).encode() == sent
            assert record["content"].shape == (len(sent),)


def test_messages_do_not_show_how_many_faces_a_device_has(tmp_path: Path) -> None:
    owners = [Owner(tmp_path, number, examples) for number, examples in enumerate((8, 40, 300))]
    whole_sum(owners)

    def sizes(owner: Owner) -> list[int]:
        return [len(str(message.content.config_records)) + len(decoded(message)) for message in owner.sent[1:]]

    def decoded(message: Message) -> bytes:
        return decode_sum(message.content)[1]

    assert sizes(owners[0]) == sizes(owners[1]) == sizes(owners[2])


def test_an_owners_smallest_cohort_is_refused_before_a_key_is_shown(tmp_path: Path) -> None:
    owners = [Owner(tmp_path, number, smallest_cohort=5 if number == 0 else 3) for number in range(4)]
    invited = terms(trained(owners)).encode()
    assert owners[0].step("advertise", invited)[0].reason == "policy"
    assert owners[1].step("advertise", invited)[0].reason is None
    assert owners[0].step("advertise", invited)[0].reason == "bad-request"


@pytest.mark.parametrize("step", STEPS)
def test_a_step_out_of_turn_ends_the_sum_for_the_device(tmp_path: Path, step: str) -> None:
    owners = [Owner(tmp_path, number) for number in range(3)]
    invited = terms(trained(owners)).encode()
    if step == "advertise":
        owners[0].step("advertise", invited)
    assert owners[0].step(step, invited)[0].reason == "bad-request"
    assert owners[0].step("share", invited)[0].reason == "bad-request"
    with pytest.raises(IntegrityError):
        owners[0].device.sums.take("run-1", 1, 0)


@pytest.mark.parametrize("change", ["run", "round", "length", "request", "width", "stranger"])
def test_an_invitation_to_another_sum_than_was_trained_for_is_refused(tmp_path: Path, change: str) -> None:
    owners = [Owner(tmp_path, number) for number in range(3)]
    identities = trained(owners)
    if change == "stranger":
        identities = [SigningKey.generate().public.raw for _ in range(3)]
    known = {"run": "run-1", "round": 1, "length": LENGTH, "request": request().digest(WEIGHTS), "width": 32}
    other = {"run": "run-2", "round": 2, "length": LENGTH - 1, "request": request().digest(WEIGHTS + b"x"), "width": 20}
    known |= {name: value for name, value in other.items() if name == change}
    invited = Terms(**known, cohort=tuple(sorted(identities)))  # type: ignore[arg-type]
    assert owners[0].step("advertise", invited.encode())[0].reason == "bad-request"


def test_the_update_is_never_masked_twice(tmp_path: Path) -> None:
    owners = [Owner(tmp_path, number) for number in range(3)]
    whole_sum(owners)
    sent = len(owners[0].sent)
    assert owners[0].step("mask", decode_sum(owners[0].sent[3].content)[1])[0].reason == "bad-request"
    assert "message" not in owners[0].sent[sent].content


def test_a_server_that_wants_the_update_in_the_clear_is_refused_and_nothing_is_spent(tmp_path: Path) -> None:
    owner = Owner(tmp_path, 0)
    content = owner.ask(encode_request(request(secure=False), WEIGHTS))
    assert json.loads(str(content["reply"]["json"]))["reason"] == "policy"
    assert set(content) == {"reply"}
    assert not Ledger(owner.device.ledger).entries


def test_nonsense_is_refused_without_a_word_of_what_went_wrong(tmp_path: Path) -> None:
    owner = Owner(tmp_path, 0)
    for content in (
        RecordDict({"sum": ConfigRecord({"json": "{}"})}),
        RecordDict({"sum": ConfigRecord({"json": 7})}),
        encode_sum(SumHeader(run="run-1", round=1, step="mask"), b"no sum is going on"),
    ):
        answer = owner.ask(content)
        assert set(answer) in ({"reply"}, {"sum"})
        assert "Error" not in str(answer)
        assert "bad-request" in str(answer)


def test_what_waits_for_a_sum_is_forgotten_with_the_next_round() -> None:
    sums = SecureSums()
    for device in range(3):
        sums.keep("run-1", 1, device, Waiting(np.zeros(1, np.float32), b"", FixedPoint(1, 8.0), SigningKey.generate()))
    sums.keep("run-1", 2, 0, Waiting(np.zeros(1, np.float32), b"", FixedPoint(1, 8.0), SigningKey.generate()))
    assert sums.take("run-1", 2, 0).update is not None
    for device in (1, 2):
        with pytest.raises(IntegrityError, match="no part"):
            sums.take("run-1", 1, device)


def test_a_straggler_of_an_older_round_disturbs_nobody() -> None:
    sums = SecureSums()
    for device, number in ((0, 2), (1, 1)):
        sums.keep("run-1", number, device, Waiting(np.zeros(1, np.float32), b"", FixedPoint(1, 8.0), SigningKey.generate()))
    assert sums.take("run-1", 2, 0).update is not None
    with pytest.raises(IntegrityError):
        sums.take("run-1", 2, 1)


def test_a_run_that_was_restored_to_an_earlier_round_gets_what_was_debited_for_it() -> None:
    sums = SecureSums()
    for number in (7, 3, 4):
        sums.keep("run-1", number, 0, Waiting(np.zeros(1, np.float32), b"", FixedPoint(1, 8.0), SigningKey.generate()))
        assert sums.take("run-1", number, 0).update is not None
    with pytest.raises(IntegrityError):
        sums.take("run-1", 7, 0)


def test_an_update_that_is_not_finite_counts_as_zero_and_is_not_told() -> None:
    """A refusal after training would answer the server's question how large this one update is."""
    invited = Terms("run-1", 1, 4, bytes(32), tuple(bytes([n]) * 32 for n in range(3)))
    encoding = FixedPoint(4, 2.0)
    for value in (np.nan, np.inf, -np.inf):
        vector = encoding.encode(np.array([1.0, value, 0.5, 0.0]), invited, secrets.token_bytes)
        assert not encoding.decode(vector, invited).total.any()


def probed(owner: Owner, classes: tuple[str, ...], **train: object) -> str:
    wish = request().model_copy(
        update={"model": MODEL.model_copy(update={"classes": classes}), "train": TrainConfig.model_validate(train)}
    )
    return str(json.loads(str(owner.ask(encode_request(wish, WEIGHTS))["reply"]["json"]))["reason"])


def test_a_server_cannot_ask_around_which_emotions_a_device_holds(tmp_path: Path) -> None:
    owner = Owner(tmp_path, 0)
    for pair in (("happiness", "sadness"), ("anger", "fear"), EMOTIONS_7[:6]):
        assert probed(owner, pair) == "bad-request"
    assert not Ledger(owner.device.ledger).entries
