"""Which registry this account used last, so that `fl-client webcam` alone goes on with it."""

from pathlib import Path

from common.errors import IntegrityError
from common.files import read_plain, write_atomic
from common.places import state_home

LIMIT = 1 << 13


def remember(registry: Path) -> None:
    """Keep its absolute path, readable by its owner alone (0600)."""
    folder = state_home()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(_file(), str(registry.resolve()).encode("utf-8", "surrogateescape"), mode=0o600)


def remembered() -> Path | None:
    """The registry that was used last; None if there was none, or it is gone."""
    try:
        path = Path(read_plain(_file(), LIMIT).decode("utf-8", "surrogateescape"))
        return path if path.is_absolute() and path.is_dir() else None
    except (IntegrityError, OSError, ValueError):
        return None


def _file() -> Path:
    return state_home() / "webcam_registry"
