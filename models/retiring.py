"""Old versions of a registry go, on the server as in a device's mirror of it."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path


def retire(versions: Path, names: Iterable[str]) -> None:
    """Versions lose their names first, so that no reader meets one of which a part is gone. What a crash left goes too."""
    delete(versions.glob(".old-*"))
    for name in names:
        os.rename(versions / name, versions / f".old-{name}")
    delete(versions.glob(".old-*"))


def delete(paths: Iterable[Path]) -> None:
    """Whatever stands there, folders with all that is in them; no link is followed."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
