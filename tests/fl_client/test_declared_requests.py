"""All that a device tells by gRPC: enrolment, the model link, its headers; and what federated evaluation adds to a secure sum.

Messages of rounds are looked at in `test_secure_sum.py`, Flower's envelopes in `test_supernode.py`. What is sent and on none of
these lists fails a test.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_public_key
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from common.device_api import device_api_pb2 as pb
from common.messages import TrainRequest, encode_request
from common.secagg.server import Server as SumServer
from common.secagg.wire import Terms
from common.sum_encoding import sum_encoding
from fl_client.enrolment import enrol
from fl_client.model_link import ModelLink, Patience
from fl_server import device_api
from fl_server.device_api import Limits
from models.manifest import ONNX
from tests.fl_client.test_secure_sum import LENGTH, STEPS, WEIGHTS, Owner, check_declared, request, take_all_steps
from tests.membership import Server, serving
from tests.publishing import publish

DECLARED: dict[type[Message], set[str]] = {
    pb.EnrollRequest: {"token", "device_name", "certificate_request", "flower_key", "flower_proof", "clock_ms"},
    pb.WatchModelsRequest: {"after_sequence"},
    pb.FetchModelRequest: {"version", "file", "offset"},
    health_pb2.HealthCheckRequest: set(),
}
"""Fields of the requests of the device API."""
HEADERS = {"user-agent"}
"""gRPC's own: its version, and the kind of system it was built for."""


class Recorder(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):  # type: ignore[misc]
    """Notes what goes out on a channel."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Message]] = []
        self.metadata: list[Any] = []

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return self._note(continuation, details, request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return self._note(continuation, details, request)

    def _note(self, continuation: Any, details: Any, request: Any) -> Any:
        self.sent.append((details.method, request))
        self.metadata += details.metadata or []
        return continuation(details, request)


@pytest.fixture
def server(tmp_path: Path, headers: set[str]) -> Iterator[Server]:
    with serving(tmp_path / "server", limits=Limits(look_seconds=0.05)) as running:
        yield running


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """On every channel that the device opens."""
    found, real = Recorder(), grpc.secure_channel
    monkeypatch.setattr(grpc, "secure_channel", lambda *given, **more: grpc.intercept_channel(real(*given, **more), found))
    return found


@pytest.fixture
def headers(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the headers that arrive with enrolments."""
    found: set[str] = set()
    real = device_api._Enrolment.enroll

    async def note(self: Any, request: Any, context: Any) -> Any:
        found.update(key for key, _ in context.invocation_metadata())
        return await real(self, request, context)

    monkeypatch.setattr(device_api._Enrolment, "enroll", note)
    return found


@pytest.mark.network
def test_every_byte_of_enrolment_and_model_link_is_on_the_declared_list(
    server: Server, recorder: Recorder, headers: set[str], tmp_path: Path
) -> None:
    code, before = server.code(), time.time()
    member = enrol(code, tmp_path / "home", "Anna's laptop, 12 faces")
    published = publish(server.folder.registry, 1)
    said: list[str] = []
    link = ModelLink(member, tmp_path / "local", say=said.append, patience=Patience(first=0.05, longest=0.2, connect=5.0))
    link.start()
    end = time.monotonic() + 60
    while not any("has arrived" in sentence for sentence in said):
        assert time.monotonic() < end, said
        time.sleep(0.05)
    link.stop()

    methods = {method.rsplit("/", 1)[1] for method, _ in recorder.sent}
    assert methods == {"Enroll", "Check", "WatchModels", "FetchModel"}
    assert recorder.metadata == []
    assert headers == HEADERS
    for _, sent in recorder.sent:
        # Nothing but declared fields, and no byte that they do not account for.
        assert {field.name for field, _ in sent.ListFields()} <= DECLARED[type(sent)]
        rebuilt = type(sent)(**{field.name: value for field, value in sent.ListFields()})
        assert rebuilt.SerializeToString(deterministic=True) == sent.SerializeToString(deterministic=True)
    check_enrolment(next(sent for method, sent in recorder.sent if method.endswith("Enroll")), code.token, before)
    for method, sent in recorder.sent:
        if method.endswith("WatchModels"):
            assert isinstance(sent, pb.WatchModelsRequest)
            assert sent.after_sequence in (0, 1)
        elif method.endswith("FetchModel"):
            assert isinstance(sent, pb.FetchModelRequest)
            assert (sent.version, sent.offset) == (published.folder.name, 0)
            assert sent.file in (ONNX, "model.safetensors")


def check_enrolment(sent: Message, token: str, before: float) -> None:
    """Each field is what it is declared to be, and tells nothing else: of people, machine, or faces."""
    assert isinstance(sent, pb.EnrollRequest)
    assert sent.token == bytes.fromhex(token)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", sent.device_name)
    asked = x509.load_der_x509_csr(sent.certificate_request)
    assert (list(asked.subject), list(asked.extensions), list(asked.attributes)) == ([], [], [])
    own, flower = asked.public_key(), load_der_public_key(sent.flower_key)
    assert own != flower
    assert len(sent.flower_key) == 120
    assert len(sent.certificate_request) < 300
    assert len(sent.flower_proof) <= 104
    assert abs(sent.clock_ms / 1000 - before) < 60


def scored(owners: list[Owner], wish: TrainRequest) -> tuple[float, float] | None:
    """What a server learns of the counts, after the whole sum."""
    replies = [owner.ask(encode_request(wish, WEIGHTS)) for owner in owners]
    identities = [bytes.fromhex(re.findall(r'"identity":"([0-9a-f]{64})"', str(reply["reply"]["json"]))[0]) for reply in replies]
    order = [owners[identities.index(identity)] for identity in sorted(identities)]
    encoding = sum_encoding(LENGTH, wish.upload, None, wish.evaluation_noise is not None)
    terms = Terms(
        "run-1", 1, encoding.vector_length, wish.digest(WEIGHTS), tuple(sorted(identities)), encoding.width(len(identities))
    )
    server = SumServer(terms)
    take_all_steps(server, order)
    return encoding.decode(server.finish().total, terms).scored


def test_federated_evaluation_adds_two_masked_values_to_what_a_device_sends_and_nothing_else(tmp_path: Path) -> None:
    sizes = {}
    for noise in (None, 8.0):
        owners = [Owner(tmp_path / str(noise), number, examples) for number, examples in enumerate((8, 40, 300))]
        found = scored(owners, request().model_copy(update={"evaluation_noise": noise}))
        for owner in owners:
            assert len(owner.sent) == 1 + len(STEPS)
            for message in owner.sent:
                assert not message.has_error()
                check_declared(message.content)
        sent = [[record["content"].shape[0] for record in m.content.array_records.values()] for m in owners[1].sent]
        sizes[noise] = np.array([sum(part) for part in sent])
    assert found is not None
    assert abs(found[1] - 348) < 120  # the sum of all faces, under noise
    assert list(sizes[8.0] - sizes[None]) == [0, 0, 0, 8, 0, 0]
