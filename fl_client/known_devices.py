"""The other devices that this one has added up with, on disk: known_devices.json in its home. `fl_client.folder_device` makes it.

A device cannot tell an honest stranger from one that its server made up. It can remember whom it met, tell its owner who is new,
and, where the owner wants it so, take part with those it knows alone.
"""

import json
import logging
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path

from common.canonical import encode
from common.errors import IntegrityError, PrivacyError
from common.files import locked, write_atomic
from common.secagg.roster import Roster

log = logging.getLogger("emofl.client")

KNOWN = "known_devices.json"


class KnownDevicesFile:
    """Identity keys by when they were first met.

    Args:
        home: the device's.
        accept_new: whether its owner lets new devices in.
        now: the clock, UTC.
    """

    def __init__(self, home: Path, accept_new: bool, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._path, self._accept_new, self._now = home / KNOWN, accept_new, now

    def admit(self, cohort: Collection[bytes], own: bytes) -> Roster:
        """As `fl_client.secure_sum.KnownDevices`; nothing is written yet.

        Raises:
            PrivacyError: the owner wants no new ones, and there are some.
            IntegrityError: the file is damaged.
        """
        known = self._read()
        new = sum(identity != own and identity.hex() not in known for identity in cohort)
        if new and not self._accept_new:
            raise PrivacyError(
                f"{new} of the {len(cohort) - 1} other devices in this sum are new to this one, and its policy accepts none "
                "(accept_new_devices)."
            )
        if new:
            log.info("%d of the %d other devices in this sum are new to this one.", new, len(cohort) - 1)
        return Roster(frozenset(cohort))

    def remember(self, cohort: Collection[bytes], own: bytes) -> None:
        """Keep those who have signed their part in a sum, from the first time on.

        Raises:
            IntegrityError: the file is damaged.
        """
        with locked(self._path.with_suffix(".lock")):
            known = self._read()
            new = [identity.hex() for identity in cohort if identity != own and identity.hex() not in known]
            if new:
                write_atomic(
                    self._path, encode(known | dict.fromkeys(new, self._now().isoformat(timespec="seconds"))), mode=0o600
                )

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self._path.read_bytes())
            if isinstance(found, dict) and all(isinstance(when, str) and len(key) == 64 for key, when in found.items()):
                return found
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            pass
        raise IntegrityError(f"{self._path} is damaged; delete it to forget which devices this one has met.")
