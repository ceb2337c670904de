"""Gets the network of the detector `blaze` out of a published MediaPipe wheel, when the owner asks for it and never else.

`fl-client webcam --get-detector` calls it. The package index learns that this machine downloads MediaPipe, and no more.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from common.errors import DependencyError, IntegrityError
from common.files import write_atomic
from models.detector.blaze import NETWORK, NETWORK_SHA256, network_path

WHEEL = "mediapipe==0.10.21"
WHEEL_SHA256 = "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3"
TAGS = ("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--platform", "manylinux_2_28_x86_64")
"""The network is the same in the wheels of every platform; always the same wheel means one hash to check."""

INSIDE = f"mediapipe/modules/face_detection/{NETWORK}"
LICENCE = "mediapipe-0.10.21.dist-info/LICENSE"
LARGEST = 1_000_000


def fetch_blaze(say: Callable[[str], None] = lambda sentence: None) -> Path:
    """Download the wheel with pip (35 MB, as this machine's pip is set up), keep the network of it, and say where it lies.

    Nothing of the wheel is installed or run. What is there already stays.

    Raises:
        DependencyError: pip cannot get the wheel.
        IntegrityError: wheel or network are not the ones whose hashes are written here.
    """
    path = network_path()
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == NETWORK_SHA256:
        say(f"The network is here already: {path}.")
        return path
    say(f"Downloading {WHEEL} (35 MB) from this machine's package index; only its face detector is kept.")
    with tempfile.TemporaryDirectory() as folder:
        network, licence = extracted(_downloaded(Path(folder)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path.with_name("LICENSE-mediapipe.txt"), licence)
    write_atomic(path, network)
    say(f"The detector 'blaze' is ready: {path} (BlazeFace by Google, Apache License 2.0). From now on it is used.")
    return path


def extracted(wheel: Path) -> tuple[bytes, bytes]:
    """The network and its licence.

    Raises:
        IntegrityError: the wheel is damaged, or the network another one.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(INSIDE).file_size > LARGEST or archive.getinfo(LICENCE).file_size > LARGEST:
                raise IntegrityError(f"{wheel.name} holds larger files than expected; nothing of it is kept.")
            network, licence = archive.read(INSIDE), archive.read(LICENCE)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise IntegrityError(f"{wheel.name} is not the wheel that is expected; nothing of it is kept.") from error
    if hashlib.sha256(network).hexdigest() != NETWORK_SHA256:
        raise IntegrityError(f"The network in {wheel.name} is not the one that is expected; nothing of it is kept.")
    return network, licence


def _downloaded(folder: Path) -> Path:
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
    ask = [*pip, "--only-binary=:all:", "--require-hashes", *TAGS, "--dest", str(folder), "-r", str(wanted)]
    try:
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=900, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DependencyError(f"pip could not run ({type(error).__name__}); the detector 'blaze' was not fetched.") from error
    wheels = sorted(folder.glob("*.whl"))
    if answer.returncode or len(wheels) != 1:
        said = [line for line in answer.stderr.splitlines() if line.strip()]
        lines = [line for line in said if line.startswith("ERROR")] or said[-1:]
        why = lines[-1].removeprefix("ERROR: ").rstrip(".") if lines else "it gave no reason"
        raise DependencyError(f"pip could not get {WHEEL}: {why}. The detector 'blaze' was not fetched.")
    return wheels[0]
