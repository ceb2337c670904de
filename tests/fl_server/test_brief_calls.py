"""Strangers on the enrolment port: calls that never say what they want hold no place for long, and nobody else's."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.device_api import device_api_pb2 as pb
from fl_client.enrolment import enrol
from fl_server.device_api import Limits
from tests.membership import Server, serving

pytestmark = pytest.mark.network

ENROLL = "/emofl.device.v1.Enrolment/Enroll"
CHECK = "/grpc.health.v1.Health/Check"


@contextmanager
def channel(server: Server) -> Iterator[Any]:
    credentials = grpc.ssl_channel_credentials(server.members.authority.ca_pem)
    with grpc.secure_channel(f"127.0.0.1:{server.api.enrol_port}", credentials, [("grpc.use_local_subchannel_pool", 1)]) as found:
        yield found


@contextmanager
def held(server: Server, method: str, calls: int) -> Iterator[list[Any]]:
    """Calls of a stranger that begin and whose messages never come, each over a connection of its own."""
    stop = threading.Event()

    def nothing() -> Iterator[bytes]:
        stop.wait(20)
        yield from ()

    with ExitStack() as stack:
        futures = []
        for _ in range(calls):
            found = stack.enter_context(channel(server))
            grpc.channel_ready_future(found).result(10)
            futures.append(found.stream_unary(method).future(nothing(), timeout=20))
        time.sleep(0.3)
        stack.callback(stop.set)
        yield futures


@pytest.mark.parametrize("method", [ENROLL, CHECK])
def test_calls_whose_message_does_not_come_hold_no_turn_of_those_who_enrol(tmp_path: Any, method: str) -> None:
    limits = Limits(enrolments_at_once=1, request_seconds=20)
    with serving(tmp_path / "s", limits=limits) as server, held(server, method, 6) as calls:
        assert enrol(server.code(), tmp_path / "d", "laptop").device_name == "laptop"
        assert not any(call.done() for call in calls)


@pytest.mark.parametrize("method", [ENROLL, CHECK])
def test_an_address_has_only_so_many_calls_and_has_them_back_when_they_are_cut_off(tmp_path: Any, method: str) -> None:
    with serving(tmp_path / "s", limits=Limits(calls_per_address=2, request_seconds=1.0)) as server, channel(server) as found:
        health = health_pb2_grpc.HealthStub(found)
        with held(server, method, 2) as calls:
            with pytest.raises(grpc.RpcError) as error:
                health.Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert [call.exception(10).code() for call in calls] == [grpc.StatusCode.DEADLINE_EXCEEDED] * 2
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=10).status == health_pb2.HealthCheckResponse.SERVING


def test_a_call_without_a_message_is_refused_at_once(tmp_path: Any) -> None:
    with serving(tmp_path / "s") as server, channel(server) as found:
        with pytest.raises(grpc.RpcError) as error:
            found.stream_unary(ENROLL)(iter(()), timeout=5)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_many_devices_enrol_at_once(tmp_path: Any) -> None:
    with serving(tmp_path / "s") as server:
        threads = [
            threading.Thread(target=enrol, args=(server.code(), tmp_path / f"d{number}", f"d{number}")) for number in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {device.name for device in server.members.roster.devices()} == {f"d{number}" for number in range(12)}


def test_what_is_no_request_is_refused_and_harms_nobody(tmp_path: Any) -> None:
    with serving(tmp_path / "s") as server, channel(server) as found:
        with pytest.raises(grpc.RpcError):
            found.unary_unary(ENROLL)(b"\xff" * 100, timeout=5)
        with pytest.raises(grpc.RpcError) as error:
            found.unary_unary(ENROLL, request_serializer=pb.EnrollRequest.SerializeToString)(pb.EnrollRequest(), timeout=5)
        assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION
