"""The devices of `benchmarks.transport`: one process each, which answers over TLS with an enrolled key and trains nothing."""

import json
import os
import secrets
import signal
import socket
import ssl
import struct
import time
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING
from weakref import WeakSet

from benchmarks.transport_place import Place, Setup, Usage, Way, be_quiet, resident

if TYPE_CHECKING:
    from flwr.app import RecordDict


def answer(way: Way, content: "RecordDict", setup: Setup) -> "RecordDict":
    """The content of a device's reply to a message's content; no two replies are alike."""
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

    if way == "flower":
        update = setup.model(secrets.randbits(32))
        arrays = ArrayRecord({name: Array(value) for name, value in update.items()})
        return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})
    from common.messages import TrainReply, decode_request, encode_reply

    request, _ = decode_request(content)
    reply = TrainReply(run=request.run, round=request.round, status="trained")
    return encode_reply(reply, setup.model(secrets.randbits(32)), request.upload)


class Meter:
    """Counts the bytes of TCP payload of every TLS connection that this process makes from now on; it asks the kernel."""

    def __init__(self) -> None:
        self._live: WeakSet[ssl.SSLSocket] = WeakSet()
        self._done: list[tuple[int, int]] = []
        meter = self

        class Metered(ssl.SSLSocket):
            def do_handshake(self, block: bool = False) -> None:
                meter._live.add(self)
                super().do_handshake(block)

            def close(self) -> None:
                if self in meter._live:
                    meter._done.append(bytes_of(self))
                    meter._live.discard(self)
                super().close()

        ssl.SSLContext.sslsocket_class = Metered

    def total(self) -> tuple[int, int]:
        """Bytes sent and received."""
        seen = self._done + [bytes_of(one) for one in list(self._live)]
        return sum(sent for sent, _ in seen), sum(received for _, received in seen)


def bytes_of(connection: ssl.SSLSocket) -> tuple[int, int]:
    """tcpi_bytes_acked and tcpi_bytes_received of linux/tcp.h's struct tcp_info."""
    try:
        sent, received = struct.unpack_from("QQ", connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136), 120)
    except OSError:
        return 0, 0
    return sent, received


def take_part(pipe: Connection, way: Way, place: Place, port: int) -> None:
    """All devices: imports once, then forks one process for each. The word to end them is anything on the pipe."""
    be_quiet()
    import fl_client.supernode  # noqa: F401  (once, for all)
    from common.messages import decode_request  # noqa: F401

    ends = []
    for number in range(place.setup.devices):
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:  # noqa: TID251 (before any connection and its threads)
            pipe.close()
            os.close(reader)
            try:
                _one_device(writer, way, place, port, number)
            finally:
                os._exit(1)
        os.close(writer)
        ends.append((child, os.fdopen(reader)))
    for _, said_by in ends:
        said_by.readline()
    pipe.send("ready")
    pipe.recv()
    for child, _ in ends:
        os.kill(child, signal.SIGTERM)
    said = []
    for child, said_by in ends:
        said.append(json.loads(said_by.read() or "null"))
        os.waitpid(child, 0)
    pipe.send(said)
    os._exit(0)


def _one_device(writer: int, way: Way, place: Place, port: int, number: int) -> None:
    """One connection until SIGTERM; writes a line when it is accepted, and what it cost at the end."""
    from flwr.app import Context, Message

    from common.certificates import load_key
    from fl_client.supernode import Server, take_part

    meter, bytes_before, memory_before = Meter(), [(0, 0)], [0.0]
    key = load_key(place.device_key(number).read_bytes())
    server = Server(f"127.0.0.1:{port}", place.ca, (key, key.public_key()))

    def app(message: Message, context: Context) -> Message:
        return Message(answer(way, message.content, place.setup), reply_to=message)

    def ready(node: int) -> None:
        bytes_before[0], memory_before[0] = meter.total(), resident(os.getpid())[0]
        os.write(writer, b"ready\n")

    take_part(server, app, ready)
    sent, received = ((now - then) / place.setup.rounds for now, then in zip(meter.total(), bytes_before[0], strict=True))
    usage = Usage(time.process_time(), memory_before[0], resident(os.getpid())[1])
    os.write(writer, json.dumps({"sent": sent, "received": received, "usage": asdict(usage)}).encode())
