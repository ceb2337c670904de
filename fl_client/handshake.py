"""Who answers at an address: reads the certificates of a TLS handshake and compares them with what a join code promised.

`fl_client.enrolment` asks before it sends anything; `fl_client.model_link` asks why a connection fails.
"""

import socket
import ssl
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from common.certificates import fingerprint, names_of, normal_name
from common.device_api.refusals import ClockWrong, ServerUnreachable, WrongAuthority

Result = TypeVar("Result")


def recognise(address: str, port: int, expected: str, now: datetime, timeout_seconds: float = 10.0) -> x509.Certificate:
    """The certificate of the server's authority. Nothing but a TLS greeting is sent. Ctrl-C ends it at once.

    Args:
        expected: SHA-256 of the authority's certificate, 64 hexadecimal digits.

    Raises:
        ServerUnreachable: nobody answers there, or not in TLS 1.3.
        WrongAuthority: somebody else answers.
        ClockWrong: the server's certificate does not hold at `now`.
    """
    chain = _leaving_room_for_signals(lambda: _chain(address, port, timeout_seconds))
    leaf, authority = chain[0], chain[-1]
    if fingerprint(authority) != expected:
        raise WrongAuthority
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise WrongAuthority from error
    if now < leaf.not_valid_before_utc:
        raise ClockWrong(
            f"This device's clock is behind the server's: it says {now:%Y-%m-%d %H:%M} UTC. Set it right and try again."
        )
    if now > leaf.not_valid_after_utc:
        raise ClockWrong(
            f"The server's certificate ended on {leaf.not_valid_after_utc:%Y-%m-%d}, and this device says it is {now:%Y-%m-%d}: "
            "set the clock, or restart the server, which renews its certificate."
        )
    if normal_name(address) not in names_of(leaf):
        raise WrongAuthority(
            f"The server's certificate is for {', '.join(names_of(leaf))} and not for {address}: start the server with the "
            "address that devices use, and make a new join code."
        )
    return authority


def _leaving_room_for_signals(work: Callable[[], Result]) -> Result:
    """`work` in a thread, because looking up a name holds up signals for many seconds; it must write nothing."""
    results: list[Result] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="handshake", daemon=True).start()
    done.wait()
    if errors:
        raise errors[0]
    return results[0]


def _chain(address: str, port: int, timeout_seconds: float) -> list[x509.Certificate]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    where = f"{address}, port {port}"
    try:
        with (
            socket.create_connection((address, port), timeout=timeout_seconds) as plain,
            context.wrap_socket(plain, server_hostname=address) as connection,
        ):
            ders = _unverified(connection)
        chain = [x509.load_der_x509_certificate(der) for der in ders]
    except (ssl.SSLError, ValueError) as error:
        raise ServerUnreachable(f"What answers at {where} is no emofl server: check address and port.") from error
    except TimeoutError as error:
        raise ServerUnreachable(
            f"Nothing answers at {where}: check the address, the network, and that the server runs."
        ) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ServerUnreachable(
            f"The server at {where} cannot be reached ({reason}): check the address and that it runs."
        ) from error
    if not chain:
        raise ServerUnreachable(f"What answers at {where} is no emofl server: check address and port.")
    return chain


def _unverified(connection: ssl.SSLSocket) -> list[bytes]:
    """The chain as sent, DER. Python makes it public in 3.13; before, the same method sits one object deeper."""
    public: Any = getattr(connection, "get_unverified_chain", None)
    if public is not None:
        return list(public())
    hidden: Any = connection._sslobj  # type: ignore[attr-defined]
    return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in hidden.get_unverified_chain() or ()]
