"""The running server: SuperLink, device API, ServerApp process, and what keeps them in step. `fl-server start` calls `serve`.

Whatever ends it, the next `serve` goes on: device ids are in a database, the run in its checkpoint, models in the registry.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from starlette.types import ASGIApp

import common.device_api  # noqa: F401  (before anything that imports grpc)
from common import local_join
from common.errors import EmoflError, RunError
from common.files import no_room, read_token, write_once
from common.identity import PublicKey, SigningKey
from common.join_code import JoinCode
from fl_server.addresses import is_every
from fl_server.authority import Authority
from fl_server.device_api import DeviceApi, Members
from fl_server.gate import Route
from fl_server.invitations import Invitations
from fl_server.pages import Pages
from fl_server.plan import LOG, Plan
from fl_server.predict import Predict, Predictor, load_token
from fl_server.roster import EnrolledDevice, Roster
from fl_server.run_supervisor import ServerAppProcess, State
from fl_server.server_folder import Endpoint, ServerFolder
from fl_server.server_lock import only_server, write_status
from fl_server.superlink import Identity, SuperLink
from models.detector.detectors import make_detector

log = logging.getLogger("emofl.server")

ADMIN, STATE = "admin.token", "state.db"
LOOK, DAY = 0.5, 86_400.0
OFFER = timedelta(minutes=30)


def _clock() -> datetime:
    return datetime.now(UTC)


class Devices:
    """Keeps Flower's nodes the same as the roster, from which enrolment and revocation come."""

    def __init__(self, roster: Roster, link: SuperLink, say: Callable[[str], None]) -> None:
        self._roster, self._link, self._say = roster, link, say
        self._seen: tuple[EnrolledDevice, ...] | None = None
        self._unlisted: set[bytes] = set()

    def synchronise(self) -> bool:
        """Bring the roster's changes to Flower; whether there were any."""
        devices = self._roster.devices()
        if devices == self._seen:
            return False
        wanted = {device.flower_key_bytes: device for device in devices if not device.revoked}
        known = self._link.enrolled()
        revoked = {device.flower_key_bytes for device in devices if device.revoked}
        for key in known.keys() & revoked:
            self._link.revoke(key)
        # Revocation is for good. A list that was moved away, or put back from an old copy, is no reason for it.
        unlisted = known.keys() - wanted.keys() - revoked
        for key in unlisted:
            self._link.suspend(key)
        if unlisted - self._unlisted:
            self._say(f"{len(unlisted)} enrolled devices are not on the list any more and are kept out: put devices.json back.")
        back, self._unlisted = self._unlisted - unlisted, unlisted
        for key in (wanted.keys() - known.keys()) | (wanted.keys() & back):
            try:
                self._link.enrol(key, wanted[key].name)
            except RunError as error:
                log.error("%s", error)
        if self._seen is not None:
            before = {device.flower_key for device in self._seen if not device.revoked}
            for device in devices:
                if device.revoked and device.flower_key in before:
                    self._say(f"{device.name} is revoked.")
                elif not device.revoked and device.flower_key not in before:
                    self._say(f"{device.name} has joined.")
        self._seen = devices
        return True

    def online(self) -> list[str]:
        """Names of the devices that have been heard of within a minute."""
        known = self._link.enrolled()
        present = {key for key, (_, online) in known.items() if online}
        return [device.name for device in self._seen or () if device.flower_key_bytes in present]


class LocalOffer:
    """Keeps a fresh join code where this user's own devices on this machine find it.

    Where there is no safe place for one, as after the end of the session whose folder it was, none is made either.
    """

    def __init__(self, invitations: Invitations, code: Callable[[str], JoinCode]) -> None:
        self._invitations, self._code = invitations, code
        self._token, self._until, self._offered = "", datetime.min.replace(tzinfo=UTC), ""

    def renew(self, used: bool) -> None:
        """Offer another code if this one may be used up, and is, or will soon expire; the same if it has gone."""
        due, gone = _clock() > self._until, local_join.find() is None
        if not (due or gone or used) or not local_join.has_room():
            return
        if due or not self._invitations.is_open(self._token):
            self._token, self._until = self._invitations.create(OFFER), _clock() + OFFER / 2
        elif not gone:
            return
        code = self._code(self._token).encode()
        if local_join.offer(code):
            self._offered = code

    def withdraw(self) -> None:
        """Take the offer back, if it is still this server's."""
        if self._offered:
            local_join.withdraw(self._offered)


class Troubles:
    """Runs the parts of the loop: what goes wrong in one ends neither the server nor another part, and is said once.

    Args:
        folder: the server's, for the sentence that its disk is full.
        say: gets what goes wrong; nothing of a full disk, which `told` has said.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], told: bool) -> None:
        self._folder, self._say, self._told = folder, say, told
        self._known: dict[str, str] = {}

    def meet(self, part: str, act: Callable[[], None]) -> None:
        """Do `act`; an error that this part had the last time, too, is not said again."""
        try:
            act()
        except Exception as error:
            full, plain = no_room(error), isinstance(error, EmoflError | OSError)
            why = f"There is no room left on the disk of {self._folder}." if full else str(error)
            known = f"{type(error).__name__} {error.errno}" if isinstance(error, OSError) else why  # files have random names
            if known != self._known.get(part):
                self._known[part] = known
                log.error("%s The server goes on.", why, exc_info=None if plain else error)
                if not (full and self._told):
                    self._say(f"{why if plain else f'{type(error).__name__}; see {LOG}.'} The server goes on.")
        else:
            self._known.pop(part, None)


def serve(
    plan: Plan,
    say: Callable[[str], None],
    stop: threading.Event,
    *,
    pages: ASGIApp | None = None,
    page_posts: Mapping[str, Route] | None = None,
) -> State:
    """Serve until `stop` is set, or until the run is finished if the plan says so.

    Args:
        say: gets one sentence for the operator at a time.
        pages, page_posts: what people see on the HTTPS port, as `fl_server.gate.Gate` takes them.

    Returns:
        What became of the run.

    Raises:
        RunError: a port is taken, or another server runs with this folder.
        ConfigError, IntegrityError: a key or certificate cannot be used.
    """
    folder = ServerFolder.prepare(plan.folder)
    with ExitStack() as stack:
        stack.enter_context(only_server(folder.path))
        authority = Authority.load_or_create(folder.authority, (plan.address, *plan.names), _clock)
        publisher = SigningKey.load_or_create(folder.publisher_key).public
        roster, invitations = Roster(folder.roster, _clock), Invitations(folder.invitations, _clock)
        predict = _predict(plan, folder, publisher)
        if predict is not None:
            page_posts = {**(page_posts or {}), **predict.posts()}
        link = SuperLink(
            folder.path / STATE,
            Identity(authority.certificate_file, authority.key_file),
            plan.host,
            plan.port,
            _admin_token(folder.path),
            pages or Pages(folder, publisher, authority.ca_pem, predict=predict),
            page_posts,
        )
        devices = Devices(roster, link, say)
        devices.synchronise()  # who was revoked while no server ran is not let in for a moment
        link.start()
        stack.callback(link.stop)
        api = stack.enter_context(
            DeviceApi(
                Members(authority, invitations, roster, publisher),
                folder.registry,
                host=plan.host,
                enrol_port=plan.enrol_port,
                device_port=plan.device_port,
                fleet_port=link.port,
            )
        )
        endpoint = Endpoint(address=plan.address, fleet_port=link.port, enrol_port=api.enrol_port, device_port=api.device_port)
        folder.write_endpoint(endpoint)
        offer = LocalOffer(invitations, lambda token: JoinCode(_near(plan), api.enrol_port, authority.fingerprint, token))
        stack.callback(offer.withdraw)
        rounds = None
        if plan.run is not None:
            plan.run.become_latest()
            rounds = ServerAppProcess(folder, plan.run, link, folder.path / LOG, say)
            stack.callback(rounds.stop)
        devices.synchronise()
        say(f"Listening on {plan.host}: devices {link.port}, joining {api.enrol_port}, models {api.device_port}.")
        state: State = "no-run"
        written, looked, troubles = 0.0, time.monotonic(), Troubles(folder.path, say, told=rounds is not None)
        while not stop.wait(LOOK):
            # A full disk or a file that somebody damages must not end what still works.
            if rounds is not None:
                troubles.meet("run", rounds.look)
                state = rounds.state
            troubles.meet("devices", lambda: offer.renew(used=devices.synchronise()))
            if time.monotonic() - written > 2:
                written = time.monotonic()
                troubles.meet("status", partial(_tell_status, plan, endpoint, state, devices))
            if time.monotonic() - looked > DAY:
                looked = time.monotonic()
                troubles.meet("certificate", lambda: _tell(authority, say))
            if plan.until_finished and state in ("finished", "failed"):
                break
        with suppress(OSError):
            _write_status(plan, endpoint, state, [])
    return state


def _tell_status(plan: Plan, endpoint: Endpoint, state: State, devices: Devices) -> None:
    _write_status(plan, endpoint, state, devices.online())


def _tell(authority: Authority, say: Callable[[str], None]) -> None:
    if warning := authority.warning():
        say(warning)


def _near(plan: Plan) -> str:
    """How this machine reaches itself, under a name that its certificate holds."""
    here = "127.0.0.1"
    return here if (is_every(plan.host) or plan.host == here) and here in (plan.address, *plan.names) else plan.address


def _predict(plan: Plan, folder: ServerFolder, publisher: PublicKey) -> Predict | None:
    if plan.predict == "nobody":
        return None
    predictor = Predictor(folder.registry, publisher, make_detector(say=log.warning))
    return Predict(predictor, load_token(folder.path) if plan.predict == "token" else None)


def _admin_token(folder: Path) -> str:
    path = folder / ADMIN
    write_once(path, secrets.token_hex(32).encode(), mode=0o600)
    return read_token(path)


def _write_status(plan: Plan, endpoint: Endpoint, state: State, online: list[str]) -> None:
    known = {
        "address": endpoint.address,
        "port": endpoint.fleet_port,
        "state": state,
        "run": plan.run.name if plan.run else None,
        "online": online,
        "time": _clock().isoformat(timespec="seconds"),
    }
    write_status(plan.folder, known)
