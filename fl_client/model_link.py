"""Keeps a local registry the same as the server's newest model, so that `fl-client webcam --registry` uses it within a second.

Every version is verified (signature, size, hash) before it is named by `LATEST`. Server sees: when the device is connected, and
which versions it fetches.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.device_api import device_api_pb2 as pb
from common.device_api import device_api_pb2_grpc as rpc

# isort: split
import grpc  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from common.certificates import fingerprint, load_certificate
from common.device_api.refusals import DeviceRevoked, DeviceUnknown, EnrolmentError, ServerUnreachable
from common.errors import ConfigError, EmoflError, IntegrityError
from fl_client.enrolment import refused
from fl_client.handshake import recognise
from fl_client.membership import Membership, target_of
from fl_client.mirror import Announced, Mirror

STEADY_SECONDS = 10.0
"""A connection that held so long was a good one: the next wait is short again."""

log = logging.getLogger("emofl.client")


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds.

    Attributes:
        first, longest: between attempts to connect; the wait doubles from one to the other.
        connect: for a connection.
        silence: until a connection without a sign of life counts as dead.
    """

    first: float = 0.5
    longest: float = 30.0
    connect: float = 10.0
    silence: float = 40.0


class ModelLink:
    """Follows the server of `membership` and mirrors its newest version into the registry folder.

    Args:
        registry: a folder with the layout of docs/registry.md; made when needed. It belongs to the link alone.
        say: gets one sentence when the link goes down, or a version was refused or has arrived.

    Attributes:
        failure: what ended the thread that `start` began; None while it runs, or when it was stopped.
    """

    def __init__(
        self,
        membership: Membership,
        registry: Path,
        *,
        say: Callable[[str], None] = lambda sentence: None,
        patience: Patience | None = None,
    ) -> None:
        self.membership, self.registry, self.say = membership, registry, say
        self.patience = patience or Patience()
        self.failure: EmoflError | None = None
        self._said = ""
        self._wait = self.patience.first
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, stop: threading.Event) -> None:
        """Until `stop` is set: watch, fetch, and connect anew after every failure.

        Raises:
            DeviceRevoked, DeviceUnknown: the server no longer serves this device; connecting anew is no use.
            ConfigError: the folder belongs to another publisher, or the membership's files are damaged.
        """
        try:
            mirror = Mirror(self.registry, self.membership.publisher)
        except OSError as error:
            raise ConfigError(f"The folder {self.registry} cannot be used: {error.strerror or error}.") from error
        while not stop.is_set():
            try:
                with self._connected(stop) as session:
                    self._watch(session, mirror)
            except grpc.RpcError as error:
                if stop.is_set():
                    return
                reason = refused(error, target_of(self.membership.address, self.membership.device_port))
                if isinstance(reason, DeviceRevoked | DeviceUnknown):
                    raise reason from error
                self._down(self._diagnosis() if type(reason) is ServerUnreachable else reason)
            except (IntegrityError, EnrolmentError) as error:
                self._down(error)
            except grpc.FutureCancelledError:
                return
            except OSError as error:
                self._tell("disk", f"The newest model cannot be kept in {self.registry}: {error.strerror or error}.")
            except MemoryError:
                self._tell("memory", "No news of models: this machine has too little free memory; trying again.")
            stop.wait(self._wait * random.uniform(0.5, 1.0))  # noqa: S311
            self._wait = min(2 * self._wait, self.patience.longest)

    def start(self) -> None:
        """`follow` in a thread of its own; its error is kept in `failure`."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="model-link", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread within about a second."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
            self._thread = None

    def _run(self) -> None:
        try:
            self.follow(self._stop)
        except EmoflError as error:
            self.failure = error
            self.say(str(error))

    @contextmanager
    def _connected(self, stop: threading.Event) -> Iterator["_Session"]:
        membership = self.membership
        ping = int(self.patience.silence * 500)
        options = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.keepalive_time_ms", max(ping, 10_000)),
            ("grpc.keepalive_timeout_ms", ping),
            ("grpc.http2.max_pings_without_data", 0),
        ]
        target = target_of(membership.address, membership.device_port)
        began = float("inf")
        with (
            grpc.secure_channel(target, membership.channel_credentials(), options) as channel,
            _Session(channel, stop) as session,
        ):
            session.greet(self.patience.connect)
            began = time.monotonic()
            try:
                yield session
            finally:
                if time.monotonic() - began > STEADY_SECONDS:
                    self._wait, self._said = self.patience.first, ""

    def _watch(self, session: "_Session", mirror: Mirror) -> None:
        after, _ = mirror.newest()
        for notice in session.watch(after):
            announced = mirror.verify(notice.version, notice.manifest, notice.signature)
            if announced is not None:
                self._fetch(session, mirror, announced)

    def _fetch(self, session: "_Session", mirror: Mirror, announced: Announced) -> None:
        version = announced.manifest.version
        for download in mirror.missing(announced):
            if download.offset >= download.entry.bytes:
                download.discard()
            log.info("fetching %s of %s from byte %d", download.name, version, download.offset)
            try:
                download.write(session.fetch(version, download.name, download.offset))
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.OUT_OF_RANGE:
                    download.discard()
                raise
            if not download.whole():
                raise ServerUnreachable(f"The server ended {download.name} too early.")
        mirror.accept(announced)
        self._said = ""
        self.say(f"Model {version} has arrived.")

    def _down(self, error: EmoflError) -> None:
        self._tell(type(error).__name__, f"No news of models: {error}")

    def _tell(self, kind: str, sentence: str) -> None:
        """Say it, unless the last thing that was said was of this kind."""
        if kind != self._said:
            self._said = kind
            self.say(sentence)

    def _diagnosis(self) -> EnrolmentError:
        """Why the device port does not serve: a network, clock or certificate trouble, each with its sentence."""
        membership = self.membership
        expected = fingerprint(load_certificate(membership.ca_file.read_bytes()))
        try:
            recognise(membership.address, membership.device_port, expected, datetime.now(UTC), self.patience.connect)
        except EnrolmentError as error:
            return error
        certificate = load_certificate(membership.device_certificate_file.read_bytes())
        if certificate.not_valid_after_utc < datetime.now(UTC):
            return DeviceUnknown("This device's certificate has ended: enrol it again with a new join code (`fl-server invite`).")
        return ServerUnreachable("the server answers, but ended the connection; trying again.")


class _Session:
    """The calls on one connection. As a context it cancels them at most a quarter of a second after `stop` is set."""

    def __init__(self, channel: grpc.Channel, stop: threading.Event) -> None:
        self._stub = rpc.ModelsStub(channel)  # type: ignore[no-untyped-call]
        self._health = health_pb2_grpc.HealthStub(channel)
        self._stop, self._over = stop, threading.Event()
        self._calls: list[Any] = []
        self._canceller = threading.Thread(target=self._cancel_on_stop, name="model-link-stop", daemon=True)

    def __enter__(self) -> "_Session":
        self._canceller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._canceller.join()

    def greet(self, seconds: float) -> None:
        """Connect, and hear that the server is well.

        Raises:
            grpc.RpcError: it is not, or not within `seconds`.
        """
        with self._tracked(self._health.Check.future(health_pb2.HealthCheckRequest(), timeout=seconds)) as call:
            call.result()

    def watch(self, after: int) -> Iterator[pb.ModelNotice]:
        """WatchModels."""
        with self._tracked(self._stub.WatchModels(pb.WatchModelsRequest(after_sequence=after))) as call:
            yield from call

    def fetch(self, version: str, name: str, offset: int) -> Iterator[tuple[int, bytes]]:
        """FetchModel, as (offset, data)."""
        request = pb.FetchModelRequest(version=version, file=name, offset=offset)
        with self._tracked(self._stub.FetchModel(request)) as call:
            for chunk in call:
                yield chunk.offset, chunk.data

    @contextmanager
    def _tracked(self, call: Any) -> Iterator[Any]:
        self._calls.append(call)
        try:
            yield call
        finally:
            self._calls.remove(call)
            call.cancel()

    def _cancel_on_stop(self) -> None:
        while not self._over.wait(0.25):
            if self._stop.is_set():
                for call in tuple(self._calls):
                    call.cancel()
