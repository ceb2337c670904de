"""What this device remembers about registries: whose key it met there first, and the newest version it has seen.

`models.published` asks it, so that a registry can neither change hands nor go back to an old version unnoticed.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from common.canonical import encode
from common.errors import IntegrityError
from common.files import locked, read_plain, write_atomic
from common.identity import grouped

STATE_LIMIT = 1 << 22


class Pin(BaseModel):
    """One registry as last seen.

    Attributes:
        fingerprint: of the publisher's key.
        sequence, manifest: the newest version's number and its manifest's SHA-256; 0 and "" before any was read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    sequence: int = 0
    manifest: str = ""


class _Pins(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    registries: dict[str, Pin] = {}


class KnownPublishers:
    """The pins in `<state folder>/known_publishers.json`, by the registry's absolute path. It is readable by its owner alone."""

    def __init__(self, state: Path) -> None:
        self.path = state / "known_publishers.json"

    def check(self, registry: Path, pin: Pin) -> None:
        """Raises:
        IntegrityError: `pin` names another key than the first one, or an older or a second version of the newest.
        """
        self._compare(self._read().get(_name(registry)), registry, pin)

    def remember(self, registry: Path, pin: Pin) -> None:
        """Check `pin`, then keep it where it is news. The same errors as `check`."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self.path.with_suffix(".lock")):
            pins = self._read()
            old = pins.get(_name(registry))
            self._compare(old, registry, pin)
            if old is None or pin.sequence > old.sequence:
                content = _Pins(registries=pins | {_name(registry): pin}).model_dump(mode="json")
                write_atomic(self.path, encode(content), mode=0o600)

    def adopt(self, registry: Path, fingerprint: str) -> None:
        """Forget what was known of `registry` under another key: its owner now names this one explicitly."""
        if not self.path.exists():
            return
        with locked(self.path.with_suffix(".lock")):
            pins = self._read()
            old = pins.get(_name(registry))
            if old is not None and old.fingerprint != fingerprint:
                kept = {name: pin for name, pin in pins.items() if name != _name(registry)}
                write_atomic(self.path, encode(_Pins(registries=kept).model_dump(mode="json")), mode=0o600)

    def _compare(self, old: Pin | None, registry: Path, new: Pin) -> None:
        if old is None:
            return
        remedy = f"If the publisher confirms it, delete this registry's entry from {self.path} and open it again."
        if new.fingerprint != old.fingerprint:
            raise IntegrityError(
                f"The registry {registry} is now signed by another key: {grouped(new.fingerprint)} instead of "
                f"{grouped(old.fingerprint)}. {remedy}"
            )
        if 0 < new.sequence < old.sequence:
            raise IntegrityError(
                f"The registry {registry} was rolled back: its latest version is number {new.sequence}, and number "
                f"{old.sequence} was here before. {remedy}"
            )
        if new.sequence and new.sequence == old.sequence and new.manifest != old.manifest:
            raise IntegrityError(
                f"The registry {registry} published two different versions with the number {new.sequence}. {remedy}"
            )

    def _read(self) -> dict[str, Pin]:
        if not self.path.exists():
            return {}
        try:
            return _Pins.model_validate_json(read_plain(self.path, STATE_LIMIT)).registries
        except ValidationError as error:
            raise IntegrityError(
                f"{self.path} is damaged, so known publishers cannot be told from new ones. Restore it, or delete it "
                "to trust each registry's key anew."
            ) from error


def _name(registry: Path) -> str:
    return str(registry.resolve())
