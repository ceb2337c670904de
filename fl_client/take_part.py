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
from click.core import Group, ParameterSource
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
from common.join_code import LONGEST, parse_join_code
from common.privacy.ledger import Ledger
from common.processes import only_process, stopping_signals
from fl_client.node_settings import CHUNK_KIB, FINAL, LOCK, POLICY, REGISTRY, Ending, NodeSettings
from fl_client.own_home import own_home, remember_home, strange_rules
from fl_client.own_ledger import own_ledger
from fl_client.policy import Policy
from fl_client.policy_file import read_policy
from fl_client.terminal import plain

if TYPE_CHECKING:
    from fl_client.membership import Membership

LOCAL_PATIENCE = 15.0
"""Seconds for the server on this machine to offer another code, when two devices took the same one."""


def take_part(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Option(help="Your faces: one folder of pictures per emotion, as my_faces/happiness/1.png.")
    ] = None,
    join: Annotated[
        str | None,
        typer.Option(
            help="The code from `fl-server invite`; needed once, and not on the server's machine. - reads it from standard "
            "input, so that no list of processes shows it."
        ),
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Where keys and the privacy ledger live (default: .emofl in --data).")] = None,
    name: Annotated[str | None, typer.Option(help="What the server's operator sees as this device's name.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=256, help="CPU threads for training.")] = 1,
    nice: Annotated[int, typer.Option(min=0, max=19, help="Lower the priority of training; 19 is lowest.")] = 5,
    only_when_charging: Annotated[bool, typer.Option("--only-when-charging", help="Take no work on battery.")] = False,
    chunk_size: Annotated[
        int, typer.Option(min=64, max=5120, help="KiB of the pieces in which an update travels; fewer for slow links.")
    ] = CHUNK_KIB,
) -> None:
    """Train on this device's own faces under differential privacy, and use the published model.

    fl-client --data ./my_faces takes part; no face leaves the folder.
    """
    if context.invoked_subcommand is not None:
        _refuse_options_before(context, context.invoked_subcommand)
        return
    if data is None:
        out.print(context.get_help())
        raise ConfigError("Give --data DIR to take part, or a command.")
    faces = data.expanduser().resolve()
    where = own_home(faces, home)
    if home is None and where.elsewhere:
        _say(f"This device's home is {where.path}, as at its last start.")
    settings = NodeSettings(
        home=where.path,
        data=faces,
        threads=threads,
        nice=nice,
        only_when_charging=only_when_charging,
        chunk_size=chunk_size,
        parent=os.getpid(),
    )
    _run(settings, _typed() if join == "-" else join, name or _default_name())


def _refuse_options_before(context: typer.Context, command: str) -> None:
    """Options of this command, given before another one, would be taken and dropped without a word."""
    given = [
        option.opts[0]
        for option in context.command.params
        if option.name and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    ]
    if not given:
        return
    other = context.command.get_command(context, command) if isinstance(context.command, Group) else None
    if other is not None and any(given[0] in option.opts for option in other.params):
        raise ConfigError(
            f"{given[0]} stands before `{command}`, which would not see it: write fl-client {command} {given[0]} ..."
        )
    raise ConfigError(
        f"{given[0]} stands before `{command}`, which has no such option: it goes with fl-client --data DIR, without `{command}`."
    )


def _run(settings: NodeSettings, join: str | None, name: str) -> None:
    _check_faces(settings.data)
    home = settings.home
    ledger = Ledger(own_ledger(home, settings.data))  # nothing is made, joined or trained with one that was lost, cut or put back
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"{home} cannot be made ({error.strerror}): give a folder that can be written with --home.") from error
    with only_process(home / LOCK, f"A client takes part with {home} already (process {{process}})."):
        rules = read_policy(home)
        with ledger.locked():
            pass  # its anchor is set, if it has none yet
        for strange in strange_rules(settings.data, home):
            _say(f"Not obeyed: {strange}; this device obeys {home / POLICY}.")
        membership = become_member(home, join, name, rules)  # without handlers of ours: Ctrl-C ends it at once
        if objection := rules.strange_server(membership.authority):
            raise ConfigError(objection)
        remember_home(settings.data, home)
        stop = threading.Event()
        with stopping_signals(stop):
            out.print(f"Member of {escape(membership.address)} as {escape(membership.device_name)}.")
            code = _follow_and_train(membership, settings, stop)
    _conclude(code)


def _follow_and_train(membership: "Membership", settings: NodeSettings, stop: threading.Event) -> int | None:
    from fl_client.model_link import ModelLink
    from fl_client.supervisor import Supervisor

    registry = membership.home / REGISTRY
    link = ModelLink(membership, registry, say=_say)
    out.print(f"[bold]fl-client webcam --registry {escape(str(registry))}[/] uses the newest model.", soft_wrap=True)
    supervisor = Supervisor(
        [sys.executable, "-P", "-m", "fl_client.node_process"],
        dict(os.environ) | settings.environment(),
        FINAL,
        _say,
    )
    link.start()
    try:
        return supervisor.run(stop)
    finally:
        link.stop()


def become_member(home: Path, join: str | None, name: str, rules: Policy | None = None) -> "Membership":
    """The membership in `home`, or a new one by `join` or by what a server of this user on this machine offers.

    Args:
        rules: the owner's; a server that they do not allow is told nothing.

    Raises:
        EnrolmentError: the server refuses, cannot be reached, or there is no code.
        ConfigError: the code has a typing error, or the device belongs to another server, or the owner does not allow this one.
    """
    from fl_client.enrolment import enrol
    from fl_client.membership import load_membership

    rules = rules or Policy()
    if join is not None:
        _refuse_strangers(join, rules)
        return enrol(join, home, name, say=_say)
    try:
        return load_membership(home)
    except NotEnrolled:
        pass
    end = time.monotonic() + LOCAL_PATIENCE
    failure: EnrolmentError = NotEnrolled()
    tried: str | None = None
    while (code := local_join.find()) is not None and time.monotonic() < end:
        if code != tried:
            _refuse_strangers(code, rules)
            try:
                return enrol(code, home, name, say=_say)
            except (InvitationUsed, InvitationExpired, InvitationUnknown, ServerUnreachable, WrongAuthority) as error:
                # Used by another device, or left by a server that has ended: a running server soon offers another.
                tried, failure = code, error
        time.sleep(0.2)
    raise failure


def _refuse_strangers(code: str, rules: Policy) -> None:
    if rules.allowed_servers and (objection := rules.strange_server(parse_join_code(code).fingerprint)):
        raise ConfigError(objection)


def _typed() -> str:
    """A join code from standard input: one line from a person, all of it from a file or a pipe."""
    if sys.stdin is None:  # closed, as with <&-
        code = ""
    elif sys.stdin.isatty():
        err.print("Join code: ", end="")
        code = sys.stdin.readline(LONGEST)
    else:
        code = sys.stdin.read(LONGEST)
    if not code.strip():
        raise ConfigError("No join code came from standard input.")
    return code


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
    elif code == Ending.REVOKED:
        raise DeviceRevoked
    elif code == Ending.NOT_ENROLLED:
        raise DeviceUnknown
    else:
        raise ConfigError("This device cannot take part; the line above says why.")


def _default_name() -> str:
    import socket

    return socket.gethostname() or "device"


def _say(sentence: str) -> None:
    err.print(escape(plain(sentence)), soft_wrap=True)
