"""A device API that really listens on loopback, and everything it decides with, for the tests of server and client."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from common.join_code import JoinCode
from fl_server.authority import Authority
from fl_server.device_api import DeviceApi, Limits, Members
from fl_server.invitations import Invitations
from fl_server.roster import Roster
from fl_server.server_folder import ServerFolder
from tests.publishing import KEY

FLEET_PORT = 18443


@dataclass
class Clock:
    """A clock that a test can set; it runs with the real one."""

    offset: timedelta = field(default=timedelta(0))

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset


@dataclass(frozen=True)
class Server:
    """A running device API."""

    folder: ServerFolder
    members: Members
    api: DeviceApi

    def code(self, lifetime: timedelta = timedelta(hours=1)) -> JoinCode:
        """A fresh join code."""
        token = self.members.invitations.create(lifetime)
        return JoinCode("127.0.0.1", self.api.enrol_port, self.members.authority.fingerprint, token)


@contextmanager
def serving(
    path: Path,
    clock: Clock | None = None,
    limits: Limits | None = None,
    names: tuple[str, ...] = ("127.0.0.1",),
    ports: tuple[int, int] = (0, 0),
) -> Iterator[Server]:
    """A device API on free ports of 127.0.0.1, over the server's folder `path`."""
    now = clock or Clock()
    folder = ServerFolder.prepare(path)
    members = Members(
        Authority.load_or_create(folder.authority, names, now),
        Invitations(folder.invitations, now),
        Roster(folder.roster, now),
        KEY.public,
    )
    api = DeviceApi(
        members,
        folder.registry,
        host="127.0.0.1",
        enrol_port=ports[0],
        device_port=ports[1],
        fleet_port=FLEET_PORT,
        limits=limits,
        now=now,
    )
    with only_here(), api:
        yield Server(folder, members, api)


@contextmanager
def only_here() -> Iterator[None]:
    """Let the API start where Flower was imported before `common`, as pytest's own set-up does.

    That TLS 1.2 is refused is shown by a process of its own.
    """
    with patch("fl_server.device_api.accepts_old_tls", return_value=False):
        yield
