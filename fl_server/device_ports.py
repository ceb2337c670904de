"""How the two gRPC ports for devices listen: TLS 1.3 alone, with bounds. `fl_server.device_api` opens them."""

import ipaddress
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass

import common.device_api  # noqa: F401  (before grpc)

# isort: split
import grpc  # type: ignore[import-untyped]

from common.errors import RunError
from fl_server.authority import Authority

MINUTE = 60_000


@dataclass(frozen=True)
class Limits:
    """What one peer, and all of them together, may ask for.

    Attributes:
        request_bytes: of one message; longer ones are refused before they are parsed.
        request_seconds: until a call's message on the enrolment port must be complete.
        enrolments_at_once: that are decided; more wait their turn.
        calls_per_address: that run on the enrolment port.
        calls_per_device: that run on the device port.
        calls_at_once: calls that run on each port.
        connections: on each port.
        streams_per_connection: calls that run on one connection.
        failures_per_minute: refused enrolments from one address, after which it has to wait.
        chunk_bytes: of a file, in one message.
        handshake_seconds: for TLS; slower peers are cut off.
        look_seconds: between looks at the registry and the roster.
    """

    request_bytes: int = 64 * 1024
    request_seconds: float = 10.0
    enrolments_at_once: int = 32
    calls_per_address: int = 32
    calls_per_device: int = 16
    calls_at_once: int = 4000
    connections: int = 2000
    streams_per_connection: int = 8
    failures_per_minute: int = 10
    chunk_bytes: int = 64 * 1024
    handshake_seconds: float = 10.0
    look_seconds: float = 0.2


def port_options(limits: Limits, *, brief: bool) -> list[tuple[str, int]]:
    """gRPC's settings; a connection to the enrolment port is a brief one, to the device port it lasts as long as it is used."""
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.request_bytes),
        ("grpc.max_send_message_length", 4 << 20),
        ("grpc.max_concurrent_streams", limits.streams_per_connection),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_metadata_size", 16 << 10),
        ("grpc.server_handshake_timeout_ms", int(limits.handshake_seconds * 1000)),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 9_000),
        ("grpc.http2.max_ping_strikes", 2),
    ]
    if not brief:
        return [*options, ("grpc.max_connection_idle_ms", 5 * MINUTE)]
    ages = [("grpc.max_connection_age_ms", MINUTE), ("grpc.max_connection_age_grace_ms", 5_000)]
    return [*options, ("grpc.max_connection_idle_ms", MINUTE // 2), *ages]


def port_credentials(authority: Authority, *, mutual: bool) -> grpc.ServerCredentials:
    """The server's certificate; `mutual` asks for one of this authority in return."""
    pair = (authority.key_file.read_bytes(), authority.certificate_file.read_bytes())
    return grpc.ssl_server_credentials([pair], authority.ca_pem if mutual else None, mutual)


def accepts_old_tls(host: str, port: int) -> bool:
    """Whether the listener would speak TLS 1.2.

    Raises:
        RunError: it cannot be reached.
    """
    hosts = [host]
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_unspecified:
            hosts = ["127.0.0.1"] if address.version == 4 else ["::1", "127.0.0.1"]
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    for one in hosts:
        with suppress(OSError), socket.create_connection((one, port), timeout=5) as plain:
            try:
                with client.wrap_socket(plain):
                    return True
            except OSError:
                return False
    raise RunError(f"Port {port} of this machine cannot be reached from itself, so nobody knows whether it refuses TLS 1.2.")
