"""The process that takes part: `python -m fl_client.node_process`, started and watched by `fl_client.supervisor` alone.

It holds the connection, and from the first message on the one ClientApp that this device runs.
"""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from flwr.app import Context, Message
from flwr.supercore.app_utils import start_parent_process_monitor

from common.config import Settings, read_config
from common.errors import ConfigError, EmoflError, RunError
from common.flower_log import log_to
from fl_client.enrolment import load_membership
from fl_client.policy import Policy
from fl_client.supernode import Answers, Server, take_part

log = logging.getLogger("emofl.client")

VARIABLE = "EMOFL_NODE"
LEDGER, POLICY = "ledger.jsonl", "policy.toml"
POWER = Path("/sys/class/power_supply")


class NodeSettings(Settings):
    """What the process is told.

    Attributes:
        home: membership, ledger and policy.
        data: the folder of faces.
        threads: for training.
        nice: how much lower its priority is.
        only_when_charging: ask for no work on battery.
        poll: seconds between questions for work.
        parent: process id of the supervisor, with which this process ends; None for none.
    """

    home: Path
    data: Path
    threads: int = 1
    nice: int = 0
    only_when_charging: bool = False
    poll: float = 3.0
    parent: int | None = None

    def environment(self) -> dict[str, str]:
        """Variables that hand the settings to the process."""
        return {VARIABLE: self.model_dump_json(), "OMP_NUM_THREADS": str(self.threads)}

    @classmethod
    def take(cls, environment: Mapping[str, str]) -> "NodeSettings":
        """As `environment` wrote it.

        Raises:
            RunError: this process was started by somebody else.
        """
        try:
            return cls.model_validate_json(environment[VARIABLE])
        except (KeyError, ValueError) as error:
            raise RunError("This program is started by `fl-client --data DIR` alone.") from error


class LateApp:
    """The installed ClientApp, imported with the first message: a device that waits needs no torch."""

    def __init__(self, settings: NodeSettings, policy: Policy) -> None:
        self._settings, self._policy = settings, policy
        self._app: Answers | None = None

    def __call__(self, message: Message, context: Context) -> Message:
        """As the ClientApp."""
        if self._app is None:
            from fl_client.folder_device import folder_app

            settings = self._settings
            self._app = folder_app(settings.data, settings.home / LEDGER, self._policy, settings.threads)
        return self._app(message=message, context=context)


def read_policy(home: Path) -> Policy:
    """The owner's rules in policy.toml, or the defaults where there is none.

    Raises:
        ConfigError: the file is malformed; nothing runs then, because a rule could be lost.
    """
    path = home / POLICY
    if not path.exists():
        return Policy()
    try:
        return Policy.model_validate(read_config(path))
    except ValueError as error:
        raise ConfigError(f"{path} is not a policy: {error}.") from error


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
    """Entry point; the exit code is a `fl_client.supernode.Ending`, or that of an `EmoflError`."""
    log_to(sys.stderr, flower=logging.CRITICAL, form="%(asctime)s %(message)s")
    # Flower's heartbeat thread dies of a refusal that `take_part` reads, too; what it prints tells nobody anything.
    threading.excepthook = lambda what: log.debug("a thread ended", exc_info=what.exc_value)
    try:
        settings = NodeSettings.take(os.environ)
        if settings.parent is not None:
            if os.getppid() != settings.parent:
                raise RunError("The process that watched over this one is gone.")
            start_parent_process_monitor(settings.parent)
        os.nice(settings.nice)
        membership = load_membership(settings.home)
        server = Server(
            f"{membership.address}:{membership.fleet_port}", membership.ca_file, membership.flower_keys(), settings.poll
        )
        app = LateApp(settings, read_policy(settings.home))
        ending = take_part(
            server,
            app,
            on_ready=lambda node: log.info("Connected to %s as %s.", server.address, membership.device_name),
            may_work=lambda: not (settings.only_when_charging and on_battery()),
        )
    except EmoflError as error:
        log.error("%s", error)
        sys.exit(error.exit_code)
    sys.exit(int(ending))


if __name__ == "__main__":
    main()
