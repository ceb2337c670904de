"""`fl-client --data DIR`: join a server if need be, and take part until stopped. `fl_client.cli` makes it the main command.

Faces stay in DIR. What belongs to them, the keys and the privacy ledger, is in DIR/.emofl unless --home says otherwise.
"""

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

import common.device_api  # noqa: F401  (before anything that imports grpc)
from common import local_join
from common.console import err, out
from common.device_api.refusals import (
    DeviceRevoked,
    DeviceUnknown,
    EnrolmentError,
    InvitationExpired,
    InvitationUnknown,
    InvitationUsed,
    NotEnrolled,
    ServerUnreachable,
    WrongAuthority,
)
from common.errors import ConfigError
from common.processes import only_process, stopping_signals

if TYPE_CHECKING:
    from fl_client.enrolment import Membership

HOME, REGISTRY, LOCK = ".emofl", "registry", "lock"
LOCAL_PATIENCE = 15.0
"""Seconds for the server on this machine to offer another code, when two devices took the same one."""


def take_part(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Option(help="Your faces: one folder of pictures per emotion, as my_faces/happiness/1.png.")
    ] = None,
    join: Annotated[
        str | None, typer.Option(help="The code from `fl-server invite`; needed once, and not on the server's machine.")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Where keys and the privacy ledger live (default: .emofl in --data).")] = None,
    name: Annotated[str | None, typer.Option(help="What the server's operator sees as this device's name.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=256, help="CPU threads for training.")] = 1,
    nice: Annotated[int, typer.Option(min=0, max=19, help="Lower the priority of training; 19 is lowest.")] = 5,
    only_when_charging: Annotated[bool, typer.Option("--only-when-charging", help="Take no work on battery.")] = False,
) -> None:
    """Train on this device's own faces under differential privacy, and use the published model.

    fl-client --data ./my_faces takes part; no face leaves the folder.
    """
    if context.invoked_subcommand is not None:
        if data is not None:
            raise ConfigError(f"--data takes part in training; give it without `{context.invoked_subcommand}`.")
        return
    if data is None:
        out.print(context.get_help())
        raise ConfigError("Give --data DIR to take part, or a command.")
    _run(data.expanduser().resolve(), join, home, name, threads, nice, only_when_charging)


def _run(
    data: Path, join: str | None, home: Path | None, name: str | None, threads: int, nice: int, only_when_charging: bool
) -> None:
    _check_faces(data)
    where = home.expanduser().resolve() if home else data / HOME
    try:
        where.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"{where} cannot be made ({error.strerror}): give a folder that can be written with --home.") from error
    stop = threading.Event()
    taken = f"A client takes part with {where} already (process {{process}})."
    with only_process(where / LOCK, taken), stopping_signals(stop):
        membership = become_member(where, join, name or _default_name())
        out.print(f"Member of {membership.address} as {escape(membership.device_name)}.")
        code = _follow_and_train(membership, data, threads, nice, only_when_charging, stop)
    _conclude(code)


def _follow_and_train(
    membership: "Membership", data: Path, threads: int, nice: int, only_when_charging: bool, stop: threading.Event
) -> int | None:
    from fl_client.model_link import ModelLink
    from fl_client.supervisor import Supervisor

    registry = membership.home / REGISTRY
    link = ModelLink(membership, registry, say=_say)
    out.print(f"[bold]fl-client webcam --registry {escape(str(registry))}[/] uses the newest model.", soft_wrap=True)
    settings = {
        "home": str(membership.home),
        "data": str(data),
        "threads": threads,
        "nice": nice,
        "only_when_charging": only_when_charging,
        "parent": os.getpid(),
    }
    supervisor = Supervisor(
        [sys.executable, "-P", "-m", "fl_client.node_process"],
        dict(os.environ) | node_environment(settings),
        FINAL,
        _say,
    )
    link.start()
    try:
        return supervisor.run(stop)
    finally:
        link.stop()


NOT_ENROLLED, REVOKED = 76, 80
"""As `fl_client.supernode.Ending`, which imports Flower: this process stays small."""
FINAL = frozenset({NOT_ENROLLED, REVOKED, ConfigError.exit_code})


def node_environment(settings: dict[str, object]) -> dict[str, str]:
    """As `fl_client.node_process.NodeSettings.environment`, without importing torch."""
    import json

    return {"EMOFL_NODE": json.dumps(settings), "OMP_NUM_THREADS": str(settings["threads"])}


def become_member(home: Path, join: str | None, name: str) -> "Membership":
    """The membership in `home`, or a new one by `join` or by what a server of this user on this machine offers.

    Raises:
        EnrolmentError: the server refuses, cannot be reached, or there is no code.
        ConfigError: the code has a typing error, or the device belongs to another server.
    """
    from fl_client.enrolment import enrol, load_membership

    if join is not None:
        return enrol(join, home, name)
    try:
        return load_membership(home)
    except NotEnrolled:
        pass
    end = time.monotonic() + LOCAL_PATIENCE
    failure: EnrolmentError = NotEnrolled()
    tried: str | None = None
    while (code := local_join.find()) is not None and time.monotonic() < end:
        if code != tried:
            try:
                return enrol(code, home, name)
            except (InvitationUsed, InvitationExpired, InvitationUnknown, ServerUnreachable, WrongAuthority) as error:
                # Used by another device, or left by a server that has ended: a running server soon offers another.
                tried, failure = code, error
        time.sleep(0.2)
    raise failure


def _check_faces(data: Path) -> None:
    from common.emotions import EMOTIONS_8
    from models.faces.folder import require_faces, scan_folder
    from models.preprocess import Preprocessing

    _, report = scan_folder(data, Preprocessing(), EMOTIONS_8)
    require_faces(report)
    out.print(escape(report.sentence), soft_wrap=True)


def _conclude(code: int | None) -> None:
    """Raises what ended the device's part; returns if it was asked to stop."""
    if code is None:
        out.print("Stopped.")
    elif code == REVOKED:
        raise DeviceRevoked
    elif code == NOT_ENROLLED:
        raise DeviceUnknown
    else:
        raise ConfigError("This device cannot take part; the line above says why.")


def _default_name() -> str:
    import socket

    return socket.gethostname() or "device"


def _say(sentence: str) -> None:
    err.print(escape(sentence), soft_wrap=True)
