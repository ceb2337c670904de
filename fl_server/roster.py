"""The devices that enrolled, and those revoked since. `fl-server devices|revoke`, the device API and Flower's Fleet API ask it.

The file holds public keys and names only. It is read anew whenever it changed, so a revocation by another process holds at once.
"""

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from common.canonical import encode
from common.device_api.refusals import DeviceRevoked, DeviceUnknown, RequestMalformed
from common.errors import ConfigError, IntegrityError
from common.files import locked, read_plain, write_atomic

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
LONGEST_NAME = 40
FILE_LIMIT = 1 << 26

Signature = tuple[int, int, int]


class EnrolledDevice(BaseModel):
    """One device.

    Attributes:
        name: unique among all devices, also the revoked.
        flower_key: public key of its requests to Flower, EC P-384, PEM (SubjectPublicKeyInfo).
        serial: of its device certificate, hexadecimal.
        enrolled_at, revoked_at: ISO 8601, UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    flower_key: str
    serial: str
    enrolled_at: str
    revoked_at: str | None = None

    @property
    def revoked(self) -> bool:
        """Whether it may no longer take part. It is for good: the device enrols anew with new keys."""
        return self.revoked_at is not None

    @property
    def flower_key_bytes(self) -> bytes:
        """As Flower's `public_key_to_bytes` gives it, for `LinkState.create_node`."""
        return self.flower_key.encode()


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    devices: tuple[EnrolledDevice, ...] = ()


class Roster:
    """The devices in one file (0600). Threads and processes may share it.

    Args:
        path: the file; it is made with the first device.
        now: the clock, UTC.
    """

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        self.path, self.now = path, now
        self._seen: tuple[Signature | None, tuple[EnrolledDevice, ...], dict[str, EnrolledDevice]] = (None, (), {})

    def devices(self) -> tuple[EnrolledDevice, ...]:
        """All devices, in the order they enrolled, the revoked among them.

        Raises:
            IntegrityError: the file is damaged.
        """
        return self._current()[0]

    def add(self, name: str, flower_key: bytes, serial: str) -> EnrolledDevice:
        """Enrol a device. A taken name gets a number; the same key again keeps its name and gets the new serial.

        Args:
            flower_key: PEM (SubjectPublicKeyInfo).

        Raises:
            DeviceRevoked: this key was revoked.
            RequestMalformed: the name is not one.
        """
        if not NAME.fullmatch(name):
            raise RequestMalformed(
                f"{name!r} is no device name: use up to {LONGEST_NAME} letters, digits, dots, dashes and underscores, and "
                "begin with a letter or a digit."
            )
        key = flower_key.decode("ascii")
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self.path.with_suffix(".lock")):
            devices = list(self.devices())
            for place, known in enumerate(devices):
                if known.flower_key == key:
                    if known.revoked:
                        raise DeviceRevoked
                    devices[place] = known.model_copy(update={"serial": serial})
                    self._write(devices)
                    return devices[place]
            device = EnrolledDevice(
                name=_free(name, {device.name.lower() for device in devices}),
                flower_key=key,
                serial=serial,
                enrolled_at=self._time(),
            )
            self._write([*devices, device])
            return device

    def revoke(self, name: str) -> EnrolledDevice:
        """Revoke a device for good; to revoke it again changes nothing.

        Raises:
            ConfigError: there is no such device.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self.path.with_suffix(".lock")):
            devices = list(self.devices())
            for place, device in enumerate(devices):
                if device.name == name:
                    if not device.revoked:
                        devices[place] = device.model_copy(update={"revoked_at": self._time()})
                        self._write(devices)
                    return devices[place]
        raise ConfigError(f"No device is called {name!r}: `fl-server devices` lists them.")

    def refuse_revoked(self, flower_key: bytes) -> None:
        """Raises:
        DeviceRevoked: the device with this key was revoked.
        """
        key = flower_key.decode("ascii")
        if any(device.revoked and device.flower_key == key for device in self.devices()):
            raise DeviceRevoked

    def member(self, serial: str) -> EnrolledDevice:
        """The device of a certificate.

        Raises:
            DeviceUnknown: no device has this certificate (any more).
            DeviceRevoked: it was revoked.
            IntegrityError: the file is damaged.
        """
        _, by_serial = self._current()
        device = by_serial.get(serial)
        if device is None:
            raise DeviceUnknown
        if device.revoked:
            raise DeviceRevoked
        return device

    def _current(self) -> tuple[tuple[EnrolledDevice, ...], dict[str, EnrolledDevice]]:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return (), {}
        signature = (found.st_ino, found.st_mtime_ns, found.st_size)
        seen, devices, by_serial = self._seen
        if seen != signature:
            devices = self._read()
            by_serial = {device.serial: device for device in devices}
            self._seen = (signature, devices, by_serial)
        return devices, by_serial

    def _read(self) -> tuple[EnrolledDevice, ...]:
        try:
            return _File.model_validate_json(read_plain(self.path, FILE_LIMIT)).devices
        except ValidationError as error:
            raise IntegrityError(f"{self.path} is damaged, so no device is let in: restore it from a backup.") from error

    def _write(self, devices: list[EnrolledDevice]) -> None:
        write_atomic(self.path, encode(_File(devices=tuple(devices)).model_dump(mode="json")), mode=0o600)

    def _time(self) -> str:
        return self.now().isoformat(timespec="seconds")


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free.lower() in taken:
        number += 1
        free = f"{name[: LONGEST_NAME - len(str(number)) - 1]}-{number}"
    return free
