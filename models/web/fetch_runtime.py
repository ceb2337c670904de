"""Fetches what runs models in a browser: onnxruntime-web, pinned by version and SHA-512. For maintainers:
`python -m models.web.fetch_runtime` (needs npm). Its result is part of this package, so that nobody else has to.
"""

import base64
import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

import brotli  # type: ignore[import-untyped]

from common.canonical import encode, sha256
from common.console import out
from common.errors import DependencyError, IntegrityError
from models.web.site import PARTS, RUNTIME

PACKAGE, VERSION = "onnxruntime-web", "1.22.0"
SHA512 = "Ud/+EBo6mhuaQWt/OjaOk0iNWjXqJoeeMFr6xQEERZdIZH2OWpGzuujz7lfuOBjUa6TEE/sc4nb7Da5dNL34fg=="
"""Of the package's archive, as npm's own `dist.integrity` states it."""

SOURCE = "source.json"
"""Beside the parts: the package, its version, and the SHA-256 of each part before compression."""


def fetch(folder: Path) -> bytes:
    """The package's archive, by npm.

    Raises:
        DependencyError: there is no npm, or it cannot get the package.
        IntegrityError: the archive is not the pinned one.
    """
    command = ["npm", "pack", "--silent", f"{PACKAGE}@{VERSION}"]
    try:
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise DependencyError(f"`{' '.join(command)}` failed; it needs npm and a network.") from error
    content = (folder / f"{PACKAGE}-{VERSION}.tgz").read_bytes()
    found = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != SHA512:
        raise IntegrityError(f"{PACKAGE} {VERSION} has the SHA-512 {found}, not the pinned one; it is not used.")
    return content


def main() -> None:
    """Fetch, check, compress, write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fetch(folder)
        with tarfile.open(folder / f"{PACKAGE}-{VERSION}.tgz") as archive:
            parts = {part: _read(archive, f"package/dist/{part}") for part in PARTS}
    RUNTIME.mkdir(exist_ok=True)
    for part, content in parts.items():
        out.print(f"Compressing {part}; this may take some minutes.")
        (RUNTIME / f"{part}.br").write_bytes(brotli.compress(content, quality=11, lgwin=24))
    hashes = {part: sha256(content) for part, content in parts.items()}
    (RUNTIME / SOURCE).write_bytes(encode({"package": PACKAGE, "version": VERSION, "license": "MIT", "sha256": hashes}))


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise IntegrityError(f"{PACKAGE} {VERSION} holds no {name}.")
    return file.read()


if __name__ == "__main__":
    main()
