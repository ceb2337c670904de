"""`fl-server invite | devices | revoke`: who may take part. `fl_server.cli` mounts these commands.

They work on the server's folder, whether the server runs or not; a running one notices within a second.
"""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from common.console import err, out, print_json
from common.errors import ConfigError
from common.join_code import JoinCode
from fl_server.authority import Authority
from fl_server.invitations import Invitations
from fl_server.roster import EnrolledDevice, Roster
from fl_server.server_folder import ServerFolder
from fl_server.status_commands import Folder, server_home

UNITS = {"m": "minutes", "h": "hours", "d": "days"}

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]
Name = Annotated[str, typer.Argument(help="The device's name, as `fl-server devices` shows it.", show_default=False)]


def invite(
    folder: Folder = None,
    lifetime: Annotated[str, typer.Option(help="How long it holds: minutes, hours or days, as in 30m, 12h, 7d.")] = "24h",
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many codes, one for each device.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Print a join code, good for one device.

    Give it to the device's owner over a channel you trust: it says where the server is and how to recognise it, and lets one
    device in.
    """
    place = _place(folder)
    endpoint = place.read_endpoint()
    fingerprint = Authority.load(place.authority, _clock).fingerprint
    time = parse_lifetime(lifetime)
    invitations = Invitations(place.invitations, _clock)
    codes = [
        JoinCode(endpoint.address, endpoint.enrol_port, fingerprint, invitations.create(time)).encode() for _ in range(count)
    ]
    expires = (_clock() + time).isoformat(timespec="seconds")
    if as_json:
        print_json([{"code": code, "expires": expires, "server": endpoint.address} for code in codes])
        return
    for code in codes:
        out.print(code, soft_wrap=True, markup=False)
    each = "It lets" if count == 1 else "Each lets"
    err.print(f"{each} one device join {escape(endpoint.address)} until {expires[:16].replace('T', ' ')} UTC:", soft_wrap=True)
    err.print("  fl-client --data FOLDER --join CODE", soft_wrap=True)


def devices(folder: Folder = None, as_json: AsJson = False) -> None:
    """List the devices that enrolled, the revoked among them."""
    place = _place(folder)
    place.read_endpoint()
    found = Roster(place.roster, _clock).devices()
    waiting = len(Invitations(place.invitations, _clock).open_invitations())
    if as_json:
        print_json({"devices": [_as_json(device) for device in found], "open_invitations": waiting})
        return
    if found:
        out.print(_table(found))
    active = sum(not device.revoked for device in found)
    out.print(
        f"{active} device{'' if active == 1 else 's'} may take part, {len(found) - active} revoked, "
        f"{waiting} join code{'' if waiting == 1 else 's'} open.",
        style="dim",
    )


def revoke(name: Name, folder: Folder = None, as_json: AsJson = False) -> None:
    """Shut a device out for good; it can join again only with new keys and a new code."""
    place = _place(folder)
    place.read_endpoint()
    device = Roster(place.roster, _clock).revoke(name)
    if as_json:
        print_json(_as_json(device))
    else:
        out.print(f"{escape(device.name)} is revoked since {_short(device.revoked_at)} UTC: it takes no further part.")


def parse_lifetime(text: str) -> timedelta:
    """A time such as 30m, 12h or 7d.

    Raises:
        ConfigError: it is something else.
    """
    found = re.fullmatch(r"([0-9]{1,5})([mhd])", text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is no lifetime: write a number and m, h or d, as in 30m, 12h or 7d.")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def _place(folder: Path | None) -> ServerFolder:
    return ServerFolder(server_home(folder))


def _clock() -> datetime:
    return datetime.now(UTC)


def _table(found: tuple[EnrolledDevice, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Device", "Enrolled (UTC)", "State", "Certificate"):
        table.add_column(title, no_wrap=title != "State")
    for device in found:
        state = f"[bold red]revoked[/] {_short(device.revoked_at)}" if device.revoked else "[green]member[/]"
        table.add_row(escape(device.name), _short(device.enrolled_at), state, f"{device.serial[:16]}…")
    return table


def _as_json(device: EnrolledDevice) -> dict[str, Any]:
    return device.model_dump(mode="json") | {"revoked": device.revoked}


def _short(time: str | None) -> str:
    return (time or "")[:16].replace("T", " ")
