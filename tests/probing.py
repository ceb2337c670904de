"""Asks every port of a running server for things, in the name of everybody, and writes down what it answers.

`tests/integration/test_ports.py` runs it; the table in docs/security.md is what it finds, row by row.
"""

import http.client
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import common.device_api  # noqa: F401  (before grpc)

# isort: split
import grpc  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from common.certificates import CertificateAuthority, certificate_pem, key_pem, make_request, new_key, public_der
from common.device_api import device_api_pb2 as pb
from common.device_api import device_api_pb2_grpc as rpc
from common.device_api.proof import enrolment_proof
from common.device_api.refusals import REASON
from fl_client.membership import Membership
from tests.deployed import signed, trusting

HTTPS, ENROL, DEVICES, INSIDE = "8443", "8444", "8445", "loopback"
FLEET, CONTROL, RUNTIME = "/v1/fleet/pull-messages", "/v1/control/list-runs", "/v1/runtime/pull-task-input"
RUNTIME_FILE, PREDICT = "/camera/runtime/ort-wasm-simd-threaded.wasm", "/v1/predict"
LATE = 240.0
"""Seconds after which a busy machine's server has had every chance to cut a connection off."""


@dataclass(frozen=True)
class Target:
    """A running server and those who ask it.

    Attributes:
        ports: by the names above.
        member, revoked: a device that takes part, and one that no longer may.
        node: Flower's id of the member.
        admin: the token of the Control API.
        unused, used: join codes' tokens.
    """

    ports: dict[str, int]
    member: Membership
    revoked: Membership
    node: int
    admin: str
    unused: bytes
    used: bytes
    strangers_key: Any = field(default_factory=new_key)


Probe = Callable[[Target], str]


@dataclass(frozen=True)
class Row:
    """One line of the table: who asks which port for what, and how the answer is found out."""

    port: str
    asked: str
    by: str
    probe: Probe


def table(target: Target) -> str:
    """What the server answers, as Markdown; all is asked at the same time."""
    rows = list(all_rows())
    with ThreadPoolExecutor(len(rows)) as crowd:
        answers = list(crowd.map(lambda row: row.probe(target), rows))
    lines = ["| port | asked for | by | answer |", "| --- | --- | --- | --- |"]
    before = ""
    for row, answer in zip(rows, answers, strict=True):
        lines.append(f"| {row.port if row.port != before else ''} | {row.asked} | {row.by} | {answer} |")
        before = row.port
    return "\n".join(lines) + "\n"


def all_rows() -> Iterator[Row]:
    """Everything that is asked."""
    nobody, member = "nobody known", "enrolled device"
    for path in ("/", "/status.json", "/healthz", "/ca.pem", "/models/", "/camera"):
        yield Row(HTTPS, f"`GET {path}`", nobody, http_get(path))
    yield Row(HTTPS, f"`GET {RUNTIME_FILE}`, with `Accept-Encoding: br`", nobody, http_get(RUNTIME_FILE, "gzip, br"))
    yield Row(HTTPS, "the same, without", nobody, http_get(RUNTIME_FILE, "gzip"))
    yield Row(HTTPS, "`GET` of the server's keys, of its folder, of any other path", nobody, no_files)
    yield Row(HTTPS, "`POST /`", nobody, https("POST", "/"))
    yield Row(HTTPS, f"`POST {PREDICT}`, without `--predict`", "nobody, admin token, enrolled device", no_predict)
    yield Row(HTTPS, "`GET /v1/openapi.json`, without `--predict`", nobody, https("GET", "/v1/openapi.json"))
    yield Row(HTTPS, f"`POST {FLEET}`", nobody, https("POST", FLEET))
    yield Row(HTTPS, "the same", "join token, as a bearer", https("POST", FLEET, lambda t: bearer(t.unused.hex())))
    yield Row(HTTPS, "the same", "admin token, as a bearer", https("POST", FLEET, lambda t: bearer(t.admin)))
    yield Row(HTTPS, "the same", "a key that never enrolled", https("POST", FLEET, lambda t: signed(t.strangers_key)))
    yield Row(HTTPS, "the same", "revoked device", https("POST", FLEET, lambda t: signed(t.revoked.flower_keys()[0])))
    yield Row(HTTPS, "the same", "enrolled device, signed ten minutes ahead", https("POST", FLEET, ahead))
    yield Row(HTTPS, "the same, for another device's messages", member, https("POST", FLEET, own, other_devices_messages))
    yield Row(HTTPS, "the same", member, https("POST", FLEET, own, own_messages))
    yield Row(HTTPS, "`POST /v1/fleet/register-node`", member, https("POST", "/v1/fleet/register-node", own))
    yield Row(HTTPS, "a body of 64 KiB and a byte, announced", nobody, https("POST", FLEET, length(2**16 + 1)))
    yield Row(HTTPS, "the same", member, https("POST", FLEET, lambda t: own(t) | length(2**16 + 1)(t)))
    yield Row(HTTPS, "a body without an announced end", member, endless_body)
    yield Row(HTTPS, f"`POST {CONTROL}`, `{RUNTIME}`", "admin token, enrolled device", no_control)
    yield Row(HTTPS, "a connection that says nothing", nobody, silent(HTTPS, 10))
    yield Row(HTTPS, "headers that do not end", nobody, unfinished_headers)
    yield Row(HTTPS, "headers of 1 MiB", nobody, huge_headers)
    yield Row(HTTPS, "a body that does not come", member, unfinished_body)
    yield Row(HTTPS, "TLS 1.2", nobody, old_tls(HTTPS))
    yield Row(HTTPS, "plain HTTP", nobody, plain_http(HTTPS))

    yield Row(ENROL, "`Enroll`", "no token", enroll(lambda t: b""))
    yield Row(ENROL, "the same", "forged token", enroll(lambda t: bytes(16)))
    yield Row(ENROL, "the same", "used token", enroll(lambda t: t.used))
    yield Row(ENROL, "the same", "join token, another's key", enroll(lambda t: t.unused, honest=False))
    yield Row(ENROL, "the same", "join token", enroll(lambda t: t.unused))
    yield Row(ENROL, "`grpc.health.v1.Health/Check`", nobody, health(ENROL, "Check"))
    yield Row(ENROL, "`grpc.health.v1.Health/Watch`", nobody, health(ENROL, "Watch"))
    yield Row(ENROL, "`WatchModels`", member, watch(ENROL, lambda t: t.member))
    yield Row(ENROL, "a message of 65 KiB", nobody, large(ENROL))
    yield Row(ENROL, "a call whose message does not come", nobody, slow_call)
    yield Row(ENROL, "a connection that says nothing", nobody, silent(ENROL, 10))
    yield Row(ENROL, "TLS 1.2", nobody, old_tls(ENROL))
    yield Row(ENROL, "plain HTTP", nobody, plain_http(ENROL))

    yield Row(DEVICES, "`WatchModels`", "no certificate", watch(DEVICES, None))
    yield Row(DEVICES, "the same", "a certificate of another authority", foreign)
    yield Row(DEVICES, "the same", "revoked device", watch(DEVICES, lambda t: t.revoked))
    yield Row(DEVICES, "the same", member, watch(DEVICES, lambda t: t.member))
    yield Row(DEVICES, "`FetchModel` of `../authority/ca.key`", member, fetch)
    yield Row(DEVICES, "`Enroll`", member, enroll_at_devices)
    yield Row(DEVICES, "`grpc.health.v1.Health/Check`", "enrolled device, revoked device", health_of_both)
    yield Row(DEVICES, "a message of 65 KiB", member, large(DEVICES))
    yield Row(DEVICES, "a connection that says nothing", nobody, silent(DEVICES, 10))
    yield Row(DEVICES, "TLS 1.2", nobody, old_tls(DEVICES))
    yield Row(DEVICES, "plain HTTP", nobody, plain_http(DEVICES))

    yield Row(INSIDE, "a connection", "another address, also of this machine", from_outside)
    yield Row(INSIDE, f"`POST {CONTROL}`", nobody, inside(CONTROL))
    yield Row(INSIDE, "the same", "join token, as a bearer", inside(CONTROL, lambda t: bearer(t.unused.hex())))
    yield Row(INSIDE, "the same", "admin token", inside(CONTROL, lambda t: bearer(t.admin)))
    yield Row(INSIDE, f"`POST {RUNTIME}`", nobody, inside(RUNTIME))
    yield Row(INSIDE, "the same", "admin token", inside(RUNTIME, lambda t: bearer(t.admin)))
    yield Row(INSIDE, f"`POST {FLEET}`", member, inside(FLEET, own))
    yield Row(INSIDE, "`GET /`, `/docs`, `/openapi.json`", nobody, no_pages_inside)
    yield Row(INSIDE, "a body of 64 MiB and a byte, announced", nobody, inside(CONTROL, length(2**26 + 1)))
    yield Row(INSIDE, "the same", "admin token", inside(CONTROL, lambda t: bearer(t.admin) | length(2**26 + 1)(t)))


Headers = Callable[[Target], dict[str, str]]
Body = Callable[[Target], bytes]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "content-type": "application/protobuf"}


def own(target: Target) -> dict[str, str]:
    return signed(target.member.flower_keys()[0])


def ahead(target: Target) -> dict[str, str]:
    return signed(target.member.flower_keys()[0], timedelta(minutes=10))


def length(size: int) -> Headers:
    return lambda target: {"content-length": str(size)}


def none(target: Target) -> dict[str, str]:
    return {}


def empty(target: Target) -> bytes:
    return b""


def own_messages(target: Target) -> bytes:
    return bytes(PullMessagesRequest(node=Node(node_id=target.node)).SerializeToString())


def other_devices_messages(target: Target) -> bytes:
    return bytes(PullMessagesRequest(node=Node(node_id=target.node ^ 1)).SerializeToString())


def https(method: str, path: str, headers: Headers = none, body: Body = empty) -> Probe:
    def probe(target: Target) -> str:
        context = trusting(target.member.ca_file)
        connection = http.client.HTTPSConnection("127.0.0.1", target.ports[HTTPS], timeout=LATE, context=context)
        return answer(connection, method, path, body(target), headers(target))

    return probe


def http_get(path: str, coding: str = "identity") -> Probe:
    def probe(target: Target) -> str:
        context = trusting(target.member.ca_file)
        connection = http.client.HTTPSConnection("127.0.0.1", target.ports[HTTPS], timeout=LATE, context=context)
        return answer(connection, "GET", path, headers={"accept-encoding": coding}, kind=True)

    return probe


def inside(path: str, headers: Headers = none, method: str = "POST") -> Probe:
    def probe(target: Target) -> str:
        given = {"content-type": "application/protobuf"} | headers(target)
        return answer(http.client.HTTPConnection("127.0.0.1", target.ports[INSIDE], timeout=LATE), method, path, b"", given)

    return probe


def answer(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    kind: bool = False,
) -> str:
    """Status with its reason, or with the kind of content."""
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if kind:
        return f"{response.status}, {(response.getheader('content-type') or '').split(';')[0]}"
    found = re.fullmatch(rb'\{"reason": "([a-z-]+)"\}', content)
    return f"{response.status} `{found[1].decode()}`" if found else str(response.status)


def only(*answers: str) -> str:
    """The one answer to several requests."""
    return ", ".join(sorted(set(answers)))


def no_files(target: Target) -> str:
    paths = ("/authority/ca.key", "/admin.token", "/models/../admin.token", "/models/%2e%2e/admin.token", "/state.db", "/nothing")
    return only(*(https("GET", path)(target) for path in paths))


def no_control(target: Target) -> str:
    return only(*(https("POST", path, who)(target) for path in (CONTROL, RUNTIME) for who in (own, lambda t: bearer(t.admin))))


def no_predict(target: Target) -> str:
    return only(*(https("POST", PREDICT, who)(target) for who in (none, lambda t: bearer(t.admin), own)))


def no_pages_inside(target: Target) -> str:
    return only(*(inside(path, method="GET")(target) for path in ("/", "/docs", "/openapi.json")))


@contextmanager
def talking(target: Target, port: str) -> Iterator[ssl.SSLSocket]:
    context = trusting(target.member.ca_file)
    with (
        socket.create_connection(("127.0.0.1", target.ports[port]), timeout=LATE) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        yield connection


def until_closed(connection: socket.socket, seconds: int, began: float) -> str:
    """When the other side closes, having said nothing."""
    try:
        said = connection.recv(4096)
    except TimeoutError:
        return "left open"
    except OSError:
        said = b""
    if said:
        return f"answered {said[:40]!r}"
    return f"cut off after {seconds} s" if time.monotonic() - began > 0.8 * seconds else "cut off at once"


def silent(port: str, seconds: int) -> Probe:
    def probe(target: Target) -> str:
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", target.ports[port]), timeout=LATE) as connection:
            return until_closed(connection, seconds, began)

    return probe


def unfinished_headers(target: Target) -> str:
    with talking(target, HTTPS) as connection:
        began = time.monotonic()
        connection.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: ")
        return until_closed(connection, 20, began)


def huge_headers(target: Target) -> str:
    with talking(target, HTTPS) as connection:
        began = time.monotonic()
        with suppress(OSError):
            connection.sendall(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx-large: " + b"a" * 2**20)
        return until_closed(connection, 20, began)


def unfinished_body(target: Target) -> str:
    with talking(target, HTTPS) as connection:
        began = time.monotonic()
        connection.sendall(head(own(target) | {"content-length": "100"}))
        status = connection.recv(12)
        waited = "after 20 s" if time.monotonic() - began > 16 else "at once"
        return f"{status[-3:].decode()} `too-slow` {waited}" if b"too-slow" in rest(connection) else f"{status!r}"


def endless_body(target: Target) -> str:
    with talking(target, HTTPS) as connection:
        connection.sendall(head(own(target) | {"transfer-encoding": "chunked"}))
        with suppress(OSError):
            for _ in range(2**10):
                connection.sendall(b"1000\r\n" + bytes(0x1000) + b"\r\n")
        said = rest(connection)
        found = re.search(rb'HTTP/1.1 (\d+).*"reason": "([a-z-]+)"', said, re.DOTALL)
        return f"{found[1].decode()} `{found[2].decode()}`" if found else "cut off at once" if not said else f"{said[:40]!r}"


def head(headers: dict[str, str]) -> bytes:
    lines = [f"POST {FLEET} HTTP/1.1", "host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()


def rest(connection: ssl.SSLSocket) -> bytes:
    said = b""
    with suppress(OSError):
        while part := connection.recv(4096):
            said += part
            if b'"}' in said:
                break
    return said


def old_tls(port: str) -> Probe:
    def probe(target: Target) -> str:
        context = trusting(target.member.ca_file)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        try:
            with (
                socket.create_connection(("127.0.0.1", target.ports[port]), timeout=LATE) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
            ):
                return f"{connection.version()}"
        except (ssl.SSLError, ConnectionError):
            return "no handshake"

    return probe


def plain_http(port: str) -> Probe:
    def probe(target: Target) -> str:
        try:
            with socket.create_connection(("127.0.0.1", target.ports[port]), timeout=LATE) as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
                said = connection.recv(4096)
        except ConnectionError:
            said = b""
        return "answered" if b"HTTP/" in said or b"ok" in said else "cut off, no HTTP answer"

    return probe


def from_outside(target: Target) -> str:
    try:
        with socket.create_connection(("127.0.0.2", target.ports[INSIDE]), timeout=LATE):
            return "open"
    except ConnectionRefusedError:
        return "connection refused"


def called(work: Callable[[], str]) -> str:
    """What a gRPC call gives, or its status with our reason."""
    try:
        return work()
    except grpc.RpcError as error:
        code, metadata = error.code(), dict(error.trailing_metadata() or ())
        if code is grpc.StatusCode.UNAVAILABLE and REASON not in metadata:
            return "no handshake"
        return f"{code.name} `{metadata[REASON]}`" if REASON in metadata else str(code.name)


@contextmanager
def channel(target: Target, port: str, who: Membership | None = None) -> Iterator[grpc.Channel]:
    trusted = grpc.ssl_channel_credentials(target.member.ca_file.read_bytes())
    credentials = trusted if who is None else who.channel_credentials()
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(f"127.0.0.1:{target.ports[port]}", credentials, options) as found:
        yield found


def enroll_with(target: Target, found: grpc.Channel, token: bytes, honest: bool = True) -> str:
    device, flower, another = new_key(), new_key(), new_key()
    request = make_request(device)
    call = pb.EnrollRequest(
        token=token,
        device_name="probe",
        certificate_request=request,
        flower_key=public_der((flower if honest else another).public_key()),
        flower_proof=flower.sign(enrolment_proof(token, request), ECDSA(hashes.SHA384())),
        clock_ms=int(datetime.now(UTC).timestamp() * 1000),
    )
    stub = rpc.EnrolmentStub(found)  # type: ignore[no-untyped-call]
    return f"OK, a certificate for {stub.Enroll(call, timeout=LATE).device_name}"


def enroll(token: Callable[[Target], bytes], honest: bool = True) -> Probe:
    def probe(target: Target) -> str:
        if honest and token(target) == target.unused:
            time.sleep(5)  # the dishonest one comes first
        with channel(target, ENROL) as found:
            return called(lambda: enroll_with(target, found, token(target), honest))

    return probe


def enroll_at_devices(target: Target) -> str:
    with channel(target, DEVICES, target.member) as found:
        return called(lambda: enroll_with(target, found, bytes(16)))


def health_of_both(target: Target) -> str:
    return only(*(health(DEVICES, "Check", who)(target) for who in (target.member, target.revoked)))


def health(port: str, method: str, who: Membership | None = None) -> Probe:
    def probe(target: Target) -> str:
        with channel(target, port, who) as found:
            stub, request = health_pb2_grpc.HealthStub(found), health_pb2.HealthCheckRequest()
            if method == "Watch":
                return called(lambda: str(next(iter(stub.Watch(request, timeout=LATE)))))
            status = health_pb2.HealthCheckResponse.ServingStatus
            return called(lambda: f"OK, {status.Name(stub.Check(request, timeout=LATE).status)}")

    return probe


def watch(port: str, who: Callable[[Target], Membership] | None) -> Probe:
    def probe(target: Target) -> str:
        with channel(target, port, None if who is None else who(target)) as found:
            stub = rpc.ModelsStub(found)  # type: ignore[no-untyped-call]
            return called(lambda: f"OK, {next(stub.WatchModels(pb.WatchModelsRequest(), timeout=LATE)).version[:6]}…, then waits")

    return probe


def foreign(target: Target) -> str:
    key, now = new_key(), datetime.now(UTC)
    certificate = CertificateAuthority.create(now).issue_device(key.public_key(), "anna", now)
    credentials = grpc.ssl_channel_credentials(target.member.ca_file.read_bytes(), key_pem(key), certificate_pem(certificate))
    with grpc.secure_channel(f"127.0.0.1:{target.ports[DEVICES]}", credentials) as found:
        stub = rpc.ModelsStub(found)  # type: ignore[no-untyped-call]
        return called(lambda: str(next(stub.WatchModels(pb.WatchModelsRequest(), timeout=LATE))))


def fetch(target: Target) -> str:
    with channel(target, DEVICES, target.member) as found:
        stub = rpc.ModelsStub(found)  # type: ignore[no-untyped-call]
        tried = [("..", "authority/ca.key"), ("../authority", "ca.key"), ("", "../../authority/ca.key")]
        requests = [pb.FetchModelRequest(version=version, file=file) for version, file in tried]
        return only(*(called(lambda r=request: str(next(stub.FetchModel(r, timeout=LATE)))) for request in requests))  # type: ignore[misc]


def large(port: str) -> Probe:
    def probe(target: Target) -> str:
        with channel(target, port, target.member if port == DEVICES else None) as found:
            if port == ENROL:
                stub = rpc.EnrolmentStub(found)  # type: ignore[no-untyped-call]
                return called(lambda: str(stub.Enroll(pb.EnrollRequest(token=bytes(65 * 1024)), timeout=LATE)))
            models = rpc.ModelsStub(found)  # type: ignore[no-untyped-call]
            request = pb.FetchModelRequest(version="a" * 65 * 1024)
            return called(lambda: str(next(models.FetchModel(request, timeout=LATE))))

    return probe


def slow_call(target: Target) -> str:
    began = time.monotonic()

    with channel(target, ENROL) as found:
        call = found.stream_unary(f"/{pb.DESCRIPTOR.services_by_name['Enrolment'].full_name}/Enroll")
        said = called(lambda: str(call(wait_for_nothing(), timeout=LATE)))
        return f"{said} after 10 s" if time.monotonic() - began > 8 else said


def wait_for_nothing() -> Iterator[bytes]:
    """A message that does not come as long as anybody waits."""
    time.sleep(25)
    yield from ()


def listening(pid: int) -> set[int]:
    """Ports on which a process or a child of it listens, as the system knows."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    inodes = set()
    for process in (pid, *map(int, children)):
        for link in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                if found := re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink())):
                    inodes.add(found[1])
    ports = set()
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            words = line.split()
            if words[9] in inodes and (words[3] == "0A" or kind.startswith("udp")):
                ports.add(int(words[1].rpartition(":")[2], 16))
    return ports
