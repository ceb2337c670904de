"""Compiles kernels.c on this machine, once, into the user's cache. `common.privacy.dpsgd.native.kernels` calls `library`.

Nothing is fetched: the source is the one of this package, the compiler the machine's own. Without one, or with
EMOFL_NATIVE=0, everything runs in torch alone.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import threading
from functools import lru_cache
from pathlib import Path

log = logging.getLogger("emofl.native")

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi")
SWITCH = "EMOFL_NATIVE"
"""Environment variable; 0 turns the kernels off."""
COMPILE_TIME = 120.0
_GUARD = threading.Lock()


def cache_folder() -> Path:
    """Where compiled kernels are kept, for this user alone."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emofl" / "native"


def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where they are turned off or cannot be built or trusted, which is logged at debug level.

    All threads of a process get the same answer, from its first question on.
    """
    with _GUARD:
        return _library()


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    if os.environ.get(SWITCH, "1").strip().lower() in ("0", "false", "no", "off"):
        return None
    try:
        return ctypes.CDLL(str(_compiled(cache_folder())))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        log.debug("no native kernels, torch does their work: %s", str(error).strip().splitlines()[0] if str(error) else error)
        return None


def _compiled(folder: Path) -> Path:
    if not hasattr(os, "getuid"):
        raise RuntimeError("this system does not say whose a file is")
    compiler = shutil.which(os.environ.get("CC", "cc").split(" ")[0]) or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("there is no C compiler")
    target = folder / f"kernels-{_fingerprint(compiler)}.so"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_strangers(folder)
    if not target.exists():
        handle, made = tempfile.mkstemp(dir=folder, suffix=".so")
        os.close(handle)
        try:
            command = [compiler, *FLAGS, str(SOURCE), "-o", made, "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIME, check=False)
            if done.returncode != 0:
                raise RuntimeError(done.stderr or f"{compiler} failed")
            os.chmod(made, 0o700)
            os.replace(made, target)
        finally:
            Path(made).unlink(missing_ok=True)
    _refuse_strangers(target)
    return target


def _fingerprint(compiler: str) -> str:
    """Of all that the compiled file depends on: another source, compiler or processor gives another file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = "".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
    except OSError:
        processor = platform.processor()
    made = Path(compiler).resolve().stat()
    parts = (SOURCE.read_text(), *FLAGS, compiler, str(made.st_size), str(made.st_mtime_ns), platform.machine(), processor)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _refuse_strangers(path: Path) -> None:
    """What another user could have written is not loaded.

    Raises:
        RuntimeError: the path is a link, is not ours, or others may write to it.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise RuntimeError(f"{path} is not this user's alone")
