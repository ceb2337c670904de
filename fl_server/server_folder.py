"""Where a server keeps its things, and how it is reached. `fl-server start` writes it; the other commands read it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.canonical import encode
from common.errors import ConfigError, IntegrityError, RunError
from common.files import read_plain, write_atomic
from fl_server.run_folder import RUNS

ENDPOINT = "endpoint.json"
ENDPOINT_LIMIT = 4096
AUTHORITY = "authority"
NOBODYS = {"lost+found"}
"""What a file system puts into a folder that is a volume of its own."""


class Endpoint(BaseModel):
    """How devices reach the server.

    Attributes:
        address: host name or IP address as devices see it; it stands in every join code and in the server's certificate.
        fleet_port: HTTPS: Flower's Fleet API and the people's pages.
        enrol_port: gRPC, TLS without a client certificate: Enroll and health only.
        device_port: gRPC, mutual TLS: WatchModels, FetchModel and health.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field(min_length=1, max_length=253)
    fleet_port: int = Field(ge=1, le=65535)
    enrol_port: int = Field(ge=1, le=65535)
    device_port: int = Field(ge=1, le=65535)


@dataclass(frozen=True)
class ServerFolder:
    """A server's folder, `--dir`."""

    path: Path

    @classmethod
    def prepare(cls, path: Path) -> Self:
        """Make the folder, readable by its owner alone, unless it exists.

        Raises:
            ConfigError: it cannot be made, or holds other things than a server's, such as somebody's faces.
        """
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            found = {name for name in os.listdir(path) if not name.startswith(".")} - NOBODYS
        except OSError as error:
            raise ConfigError(f"The server's folder {path} cannot be made: {error.strerror}.") from error
        if found and found.isdisjoint({RUNS, AUTHORITY, ENDPOINT}):
            raise ConfigError(f"{path} is not a server's folder and not empty: name a new or an empty one with --dir.")
        return cls(path)

    @property
    def authority(self) -> Path:
        """Folder of `fl_server.authority.Authority`."""
        return self.path / AUTHORITY

    @property
    def invitations(self) -> Path:
        """File of `fl_server.invitations.Invitations`."""
        return self.path / "invitations.json"

    @property
    def roster(self) -> Path:
        """File of `fl_server.roster.Roster`."""
        return self.path / "devices.json"

    @property
    def registry(self) -> Path:
        """Folder of `fl_server.hub.Registry`."""
        return self.path / "registry"

    @property
    def publisher_key(self) -> Path:
        """The registry's signing key, for `common.identity.SigningKey.load_or_create`."""
        return self.path / "publisher.key"

    def write_endpoint(self, endpoint: Endpoint) -> None:
        """Tell `fl-server invite` and the others how devices reach the server."""
        write_atomic(self.path / ENDPOINT, encode(endpoint.model_dump(mode="json")), mode=0o600)

    def read_endpoint(self) -> Endpoint:
        """As `write_endpoint` wrote it.

        Raises:
            RunError: no server was ever started with this folder.
            ConfigError: the file is damaged.
        """
        path = self.path / ENDPOINT
        if not path.exists():
            raise RunError(f"There is no server in {self.path}: start one with `fl-server start --dir {self.path}`.")
        try:
            return Endpoint.model_validate_json(read_plain(path, ENDPOINT_LIMIT))
        except (ValidationError, IntegrityError) as error:
            raise ConfigError(f"{path} is damaged: delete it and start the server again.") from error
