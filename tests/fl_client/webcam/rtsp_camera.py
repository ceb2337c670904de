"""A network camera on loopback for tests: RTSP over TCP with motion JPEG (RFC 2326, RFC 2435), and a password."""

import base64
import itertools
import socket
import struct
import threading
from contextlib import suppress
from typing import BinaryIO

import cv2
import numpy as np

TEXT = "\r\n"


class RtspCamera:
    """Plays flat grey pictures of 64x48, ten a second, of level 60 on the first connection, 120 on the second, and so on.

    Attributes:
        address: its host and port.
        refused: requests that came without the password.
    """

    def __init__(self, user: str = "me", password: str = "s3cret", frames: int = 8) -> None:
        self._token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._frames = frames
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.refused = self.played = 0
        self._stop = threading.Event()
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> "RtspCamera":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for connection in (self._socket, *self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join(5.0)

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as requests:
            self._talk(connection, requests)

    def _talk(self, connection: socket.socket, requests: BinaryIO) -> None:
        while True:
            lines = list(iter(lambda: requests.readline().strip(), b""))
            if not lines:
                return
            method = lines[0].split()[0].decode()
            headers = {
                name.strip().lower(): value.strip() for name, _, value in (line.decode().partition(":") for line in lines[1:])
            }
            reply = [f"CSeq: {headers.get('cseq', '0')}"]
            if method != "OPTIONS" and headers.get("authorization") != f"Basic {self._token}":
                self.refused += 1
                self._send(connection, "401 Unauthorized", [*reply, 'WWW-Authenticate: Basic realm="camera"'])
                continue
            body = ""
            if method == "DESCRIBE":
                body = TEXT.join(
                    ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=camera", "t=0 0", "m=video 0 RTP/AVP 26", "a=control:track", ""]
                )
                reply += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
            elif method == "SETUP":
                reply += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]
            elif method == "OPTIONS":
                reply += ["Public: DESCRIBE, SETUP, PLAY, TEARDOWN"]
            self._send(connection, "200 OK", reply, body)
            if method == "PLAY":
                self.played += 1
                self._play(connection, 60 * self.played)
                return

    @staticmethod
    def _send(connection: socket.socket, status: str, headers: list[str], body: str = "") -> None:
        connection.sendall((TEXT.join([f"RTSP/1.0 {status}", *headers, "", ""]) + body).encode())

    def _play(self, connection: socket.socket, level: int) -> None:
        ok, jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), level, dtype=np.uint8))
        payload = _rtp_jpeg(jpeg.tobytes(), 64, 48)
        for number in itertools.count():
            if number == self._frames or self._stop.wait(0.1) or not ok:
                return
            packet = struct.pack(">BBHII", 0x80, 0x80 | 26, number & 0xFFFF, 9000 * number, 7) + payload
            connection.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)


def _rtp_jpeg(jpeg: bytes, width: int, height: int) -> bytes:
    """A baseline 4:2:0 JPEG as one RTP payload, its quantisation tables with it."""
    tables, at = b"", 2
    while jpeg[at + 1] != 0xDA:
        length = struct.unpack(">H", jpeg[at + 2 : at + 4])[0]
        if jpeg[at + 1] == 0xDB:
            segment = jpeg[at + 4 : at + 2 + length]
            while segment:
                tables, segment = tables + segment[1:65], segment[65:]
        at += 2 + length
    scan = jpeg[at + 2 + struct.unpack(">H", jpeg[at + 2 : at + 4])[0] : -2]
    header = struct.pack(">IBBBB", 0, 1, 255, width // 8, height // 8)
    return header + struct.pack(">BBH", 0, 0, len(tables)) + tables + scan
