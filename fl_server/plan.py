"""What a server is to serve. `start_commands` makes it, `service_process` hands it on, `service` does it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fl_server.run_folder import RunFolder

LOG = "server.log"
"""In the server's folder."""


@dataclass(frozen=True)
class Plan:
    """What to serve.

    Attributes:
        folder: the server's own.
        host: address to listen on.
        address: how devices reach the server; it stands in join codes.
        names: further names and addresses for its certificate.
        port, enrol_port, device_port: 0 takes a free one.
        run: to bring to its end; None only serves models and enrols.
        until_finished: end with the run.
        predict: who may send pictures to /v1/predict.
    """

    folder: Path
    host: str = "127.0.0.1"
    address: str = "127.0.0.1"
    names: tuple[str, ...] = ("localhost", "127.0.0.1")
    port: int = 8443
    enrol_port: int = 8444
    device_port: int = 8445
    run: RunFolder | None = None
    until_finished: bool = False
    predict: Literal["nobody", "token", "anybody"] = "nobody"
