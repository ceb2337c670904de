"""The process that takes part: `python -m fl_client.node_process`, started and watched by `fl_client.supervisor` alone.

It holds the connection, and from the first message on the one ClientApp that this device runs.
"""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from flwr.app import Context, Message

from common.allocator import keep_freed_memory, return_freed_memory
from common.errors import ConfigError, EmoflError, RunError
from common.flower_log import log_to
from common.privacy.ledger import LedgerPlace
from common.processes import end_with_parent
from fl_client.membership import load_membership, target_of
from fl_client.node_settings import Ending, NodeSettings
from fl_client.own_ledger import own_ledger
from fl_client.policy import Policy
from fl_client.policy_file import PolicyFile
from fl_client.supernode import Answers, Server, take_part
from fl_client.terminal import PlainFormatter

log = logging.getLogger("emofl.client")

POWER = Path("/sys/class/power_supply")
FORM, DATES = "%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"


class LateApp:
    """The installed ClientApp, imported with the first message: a device that waits needs no torch.

    After each message it tells the owner what the privacy budget has come to. A change of the rules makes the app anew.
    """

    def __init__(self, settings: NodeSettings, ledger: LedgerPlace, rules: Callable[[], Policy]) -> None:
        self._settings, self._ledger, self._rules = settings, ledger, rules
        self._made: tuple[Policy, Answers] | None = None
        self._told: tuple[int, Policy] | None = None

    def __call__(self, message: Message, context: Context) -> Message:
        """As the ClientApp."""
        rules = self._rules()
        if self._made is None or self._made[0] != rules:
            from fl_client.folder_device import folder_app

            settings = self._settings
            self._made = rules, folder_app(settings.data, settings.home, self._ledger, rules, settings.threads)
        try:
            return self._made[1](message=message, context=context)
        finally:
            self._tell(rules)

    def _tell(self, rules: Policy) -> None:
        from fl_client.spending import survey

        with contextlib.suppress(EmoflError, OSError):  # the app has said what is wrong with the ledger
            now = self._ledger.path.stat().st_size, rules
            if now != self._told:
                self._told = now
                found = survey(self._ledger, rules)
                log.info("%s", found.sentence)
                if found.whole.runs:
                    log.info("%s", found.whole.sentence)


class Hours:
    """Whether the device asks for work: by its owner's hours, and on mains where that is wanted. Says when that changes.

    Args:
        authority: fingerprint of the server's, which the owner's rules may come to exclude.
    """

    def __init__(
        self,
        rules: Callable[[], Policy],
        only_when_charging: bool,
        authority: str,
        now: Callable[[], datetime] = datetime.now,
        unplugged: Callable[[], bool] | None = None,
    ) -> None:
        self._rules, self._only_when_charging, self._authority, self._now = rules, only_when_charging, authority, now
        self._unplugged = unplugged or on_battery
        self._said: str | None = None

    def __call__(self) -> bool:
        """Asked before each look for a message.

        Raises:
            ConfigError: the rules' file was damaged, or does not allow the server any more.
        """
        rules = self._rules()
        if strange := rules.strange_server(self._authority):
            raise ConfigError(strange)
        objection = rules.out_of_hours(self._now())
        reason = "hours" if objection else None
        if objection is None and self._only_when_charging and self._unplugged():
            reason, objection = "battery", "On battery."
        if reason != self._said:
            log.info("%s", f"{objection} No work is asked for." if objection else "Asking for work again.")
            self._said = reason
        return objection is None


def on_battery(power: Path = POWER) -> bool:
    """Whether this machine has a battery and no mains; False where the system does not tell."""
    mains, battery = [], False
    for supply in power.glob("*"):
        with contextlib.suppress(OSError):
            kind = (supply / "type").read_text().strip()
            if kind == "Battery":
                battery = True
            elif kind in ("Mains", "USB"):
                mains.append((supply / "online").read_text().strip() == "1")
    return battery and not any(mains)


def main() -> NoReturn:
    """Entry point; the exit code is an `Ending`, or that of an `EmoflError`."""
    keep_freed_memory()
    log_to(sys.stderr, flower=logging.CRITICAL, form=FORM)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(PlainFormatter(FORM, DATES))
    # Flower's heartbeat thread dies of a refusal that `take_part` reads, too; what it prints tells nobody anything.
    threading.excepthook = lambda what: log.debug("a thread ended", exc_info=what.exc_value)
    try:
        settings = NodeSettings.take(os.environ)
        if settings.parent is not None:
            if os.getppid() != settings.parent:
                raise RunError("The process that watched over this one is gone.")
            end_with_parent(settings.parent, int(Ending.STOPPED))
        os.nice(settings.nice)
        membership = load_membership(settings.home)
        rules = PolicyFile(settings.home)
        if objection := rules.policy.strange_server(membership.authority):
            raise ConfigError(objection)
        server = Server(
            target_of(membership.address, membership.fleet_port), membership.ca_file, membership.flower_keys(), settings.poll
        )
        ending = take_part(
            server,
            LateApp(settings, own_ledger(settings.home, settings.data, membership.authority), lambda: rules.policy),
            on_ready=lambda node: log.info("Connected to %s as %s.", server.address, membership.device_name),
            may_work=Hours(lambda: rules.policy, settings.only_when_charging, membership.authority),
            chunk_bytes=settings.chunk_size * 1024,
            after_message=return_freed_memory,
        )
    except EmoflError as error:
        log.error("%s", error)
        sys.exit(error.exit_code)
    sys.exit(int(ending))


if __name__ == "__main__":
    main()
