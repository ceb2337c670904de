"""The gRPC API for devices, as `device_api.proto` documents it: enrolment, and published models. `fl-server start` runs it.

Two listeners. The enrolment port asks for no client certificate and serves Enroll. The device port asks for the certificate that
enrolment issued and serves WatchModels and FetchModel. Both speak TLS 1.3 alone and answer the standard health service.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.device_api import device_api_pb2 as pb
from common.device_api import device_api_pb2_grpc as rpc

# isort: split
import grpc  # type: ignore[import-untyped]
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_health.v1.health import aio as health  # type: ignore[import-untyped]

from common.certificates import load_certificate, serial_of
from common.device_api.refusals import (
    REASON,
    ClockWrong,
    DeviceUnknown,
    EnrolmentError,
    RequestMalformed,
    TooManyAttempts,
)
from common.errors import DependencyError, EmoflError, RunError
from fl_server.addresses import with_port
from fl_server.brief_calls import BriefCalls
from fl_server.device_ports import Limits, accepts_old_tls, port_credentials, port_options
from fl_server.enrolment_desk import Attempts, EnrolmentDesk, Members
from fl_server.model_board import ModelBoard, OffsetTooLarge, VersionGone
from fl_server.seats import Seats

__all__ = ["DeviceApi", "Limits", "Members"]

log = logging.getLogger("emofl.server")

STATUS: dict[type[EnrolmentError], grpc.StatusCode] = {
    ClockWrong: grpc.StatusCode.FAILED_PRECONDITION,
    TooManyAttempts: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RequestMalformed: grpc.StatusCode.INVALID_ARGUMENT,
    DeviceUnknown: grpc.StatusCode.UNAUTHENTICATED,
}
"""All other refusals are PERMISSION_DENIED."""
HEALTH_CHECK = health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Check"]


class DeviceApi:
    """The two listeners, in a thread of their own. Usable as a context.

    Args:
        members: who decides about devices.
        registry: the folder of `fl_server.hub.Registry`; it may appear later.
        host: the address to listen on, such as 0.0.0.0 or 127.0.0.1.
        enrol_port, device_port: 0 picks a free one; read `enrol_port` and `device_port` after `start`.
        fleet_port: told to devices that enrol.
    """

    def __init__(
        self,
        members: Members,
        registry: Path,
        *,
        host: str,
        enrol_port: int,
        device_port: int,
        fleet_port: int,
        limits: Limits | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.members, self.registry, self.host = members, registry, host
        self.enrol_port, self.device_port, self.fleet_port = enrol_port, device_port, fleet_port
        self.limits, self.now = limits or Limits(), now
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._grace = 1.0

    def start(self) -> None:
        """Listen.

        Raises:
            RunError: a port is taken, or the address is not this machine's.
            DependencyError: gRPC would accept TLS 1.2, because it was imported before `common.device_api`.
        """
        ready: Future[tuple[int, int]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="device-api", daemon=True)
        self._thread.start()
        try:
            self.enrol_port, self.device_port = ready.result(timeout=30)
        except RuntimeError as error:
            self._thread.join()
            raise RunError(
                f"The device API cannot listen on {self.host}, ports {self.enrol_port} and {self.device_port}: "
                "they are taken, or it is not an address of this machine."
            ) from error
        if accepts_old_tls(self.host, self.device_port):
            self.stop(0)
            raise DependencyError("gRPC would accept TLS 1.2: import common.device_api before grpc and flwr.")

    def stop(self, grace_seconds: float = 1.0) -> None:
        """Stop listening and end every call; to stop twice changes nothing."""
        if self._loop is None or self._stopping is None or self._thread is None:
            return
        self._grace = grace_seconds
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._loop = self._stopping = self._thread = None

    def __enter__(self) -> "DeviceApi":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _serve(self, ready: "Future[tuple[int, int]]") -> None:
        members, limits = self.members, self.limits
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        board = ModelBoard(self.registry, members.publisher, members.roster, chunk_bytes=limits.chunk_bytes)
        desk = aio.server(options=port_options(limits, brief=True), maximum_concurrent_rpcs=limits.calls_at_once)
        models = aio.server(options=port_options(limits, brief=False), maximum_concurrent_rpcs=limits.calls_at_once)
        rpc.add_ModelsServicer_to_server(_Models(board, limits), models)  # type: ignore[no-untyped-call]
        services = pb.DESCRIPTOR.services_by_name
        enrolment = _Enrolment(self, EnrolmentDesk(members, now=self.now))
        calls = BriefCalls(limits.calls_per_address, limits.request_seconds)
        desk.add_generic_rpc_handlers(
            (
                calls.handler(services["Enrolment"].methods_by_name["Enroll"], enrolment.enroll),
                calls.handler(HEALTH_CHECK, (await _health(services["Enrolment"].full_name)).Check),
            )
        )
        health_pb2_grpc.add_HealthServicer_to_server(await _health(services["Models"].full_name), models)
        try:
            ports = (
                desk.add_secure_port(with_port(self.host, self.enrol_port), port_credentials(members.authority, mutual=False)),
                models.add_secure_port(with_port(self.host, self.device_port), port_credentials(members.authority, mutual=True)),
            )
        except RuntimeError as error:
            ready.set_exception(error)
            return
        looking = asyncio.create_task(board.look_forever(limits.look_seconds))
        await desk.start()
        await models.start()
        ready.set_result(ports)
        await self._stopping.wait()
        looking.cancel()
        await asyncio.gather(desk.stop(self._grace), models.stop(self._grace))
        enrolment.close()


class _Enrolment:
    """Decides on enrolments, a few at a time; a request takes a turn only once it is complete."""

    def __init__(self, api: DeviceApi, desk: EnrolmentDesk) -> None:
        self._api, self._desk = api, desk
        self._attempts = Attempts(api.limits.failures_per_minute)
        self._turns = asyncio.Semaphore(api.limits.enrolments_at_once)
        self._threads = ThreadPoolExecutor(api.limits.enrolments_at_once, thread_name_prefix="enrolment")

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    async def enroll(self, request: pb.EnrollRequest, context: Any) -> pb.EnrollReply:
        async with _answering(context), self._turns:
            peer = context.peer()
            self._attempts.check(peer)
            try:
                reply = await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._desk.enrol, request, self._api.fleet_port, self._api.device_port
                )
            except EnrolmentError as error:
                self._attempts.failed(peer)
                log.warning("an enrolment from %s was refused: %s", peer, error)
                raise
            log.info("%s enrolled from %s", reply.device_name, peer)
            return reply


class _Models(rpc.ModelsServicer):
    def __init__(self, board: ModelBoard, limits: Limits) -> None:
        self._board = board
        self._seats = Seats(limits.calls_at_once, limits.calls_per_device)

    async def WatchModels(self, request: pb.WatchModelsRequest, context: Any) -> AsyncIterator[pb.ModelNotice]:
        async with _answering(context), self._seated(context) as serial:
            async for notice in self._board.watch(lambda: self._board.roster.member(serial), request.after_sequence):
                yield notice

    async def FetchModel(self, request: pb.FetchModelRequest, context: Any) -> AsyncIterator[pb.FileChunk]:
        async with _answering(context), self._seated(context) as serial:
            self._board.roster.member(serial)
            for chunk in self._board.read(lambda: self._board.roster.member(serial), request):
                yield chunk

    @asynccontextmanager
    async def _seated(self, context: Any) -> AsyncIterator[str]:
        """The caller's serial, while it has one of its places."""
        serial = _caller(context)
        if not self._seats.take(serial):
            await _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "too-many-calls", "This device has too many calls open.")
        try:
            yield serial
        finally:
            self._seats.leave(serial)


@asynccontextmanager
async def _answering(context: Any) -> AsyncIterator[None]:
    """Turns errors into statuses; the text of an unexpected one stays in the server's log."""
    try:
        yield
    except EnrolmentError as error:
        await _abort(context, STATUS.get(type(error), grpc.StatusCode.PERMISSION_DENIED), error.code, str(error))
    except VersionGone:
        await _abort(context, grpc.StatusCode.NOT_FOUND, "version-gone", "The server does not keep this version or file.")
    except OffsetTooLarge:
        await _abort(context, grpc.StatusCode.OUT_OF_RANGE, "offset-too-large", "The file ends before this offset: begin at 0.")
    except aio.AbortError:
        raise
    except EmoflError as error:
        log.error("a device's call failed: %s", error)
        await _abort(context, grpc.StatusCode.UNAVAILABLE, "failed", "The server cannot answer at the moment.")
    except Exception:
        log.exception("a device's call failed")
        await _abort(context, grpc.StatusCode.UNAVAILABLE, "failed", "The server cannot answer at the moment.")


async def _abort(context: Any, status: grpc.StatusCode, reason: str, sentence: str) -> None:
    await context.abort(status, sentence, trailing_metadata=((REASON, reason),))


def _caller(context: Any) -> str:
    """The serial of the client certificate, which the handshake verified."""
    pem = context.auth_context().get("x509_pem_cert", [])
    if not pem:
        raise DeviceUnknown
    return serial_of(load_certificate(pem[0]))


class _BriefHealth(health.HealthServicer):  # type: ignore[misc]
    """Health without `Watch`: its streams never end, and a few from a stranger would hold every place."""

    async def Watch(self, request: Any, context: Any) -> None:
        """Refused; ask `Check` again."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Watch is not served; call Check.")


async def _health(service: str) -> _BriefHealth:
    servicer = _BriefHealth()
    for name in ("", service):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    return servicer
