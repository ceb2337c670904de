"""Publishes in child processes that are killed at one step after the other. Run by tests/fl_server/test_hub.py.

`python -m tests.crash_publishing crash FOLDER VERSIONS KEEP` prints one JSON line per step at which the child was killed;
`python -m tests.crash_publishing publish FOLDER COUNT` says `ready`, waits for a line, and publishes COUNT versions.
"""

import json
import os
import shutil
import sys
from itertools import count
from pathlib import Path
from typing import Any

from common.errors import EmoflError
from fl_server.hub import check_registry
from models.published import LATEST, VERSIONS, open_published
from tests.publishing import KEY, publish

STEPS = {"open", "os.rename", "os.link", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "fsync"}


def kill_at(step: int) -> None:
    """Make this process vanish, without any clean-up, before its `step`-th change of the disk."""
    done = 0

    def on(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        if event in STEPS and (event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            if done == step:
                os._exit(9)
            done += 1

    os.fsync = lambda handle: on("fsync", (handle,))
    sys.addaudithook(on)


def sequence(folder: Path) -> int:
    """Number of the latest version, 0 where nothing is published; an error if what is published is not whole."""
    if not (folder / LATEST).exists():
        return 0
    return open_published(folder, KEY.public).manifest.sequence


def examine(folder: Path, before: int, keep: int | None) -> dict[str, object]:
    """What a reader finds after the crash, and what the next publication makes of it."""
    result: dict[str, object] = {"error": None}
    try:
        result["latest"] = sequence(folder) - before
        if sequence(folder):
            list(check_registry(folder, KEY.public))
        publish(folder, 90, keep=keep)
        result["kept"] = len(list(check_registry(folder, KEY.public)))
        result["gained"] = sequence(folder) - before
    except EmoflError as error:
        result["error"] = str(error)
    names = [path.name for path in (*folder.glob(".*"), *(folder / VERSIONS).glob(".*"))]
    result["leftovers"] = [name for name in names if name != ".lock"]
    return result


def crash(root: Path, versions: int, keep: int | None) -> None:
    base = root / "base"
    base.mkdir()
    for number in range(1, versions + 1):
        publish(base, number)
    for step in count():
        folder = root / f"step{step}"
        shutil.copytree(base, folder)
        child = os.fork()  # noqa: TID251 (no thread runs yet)
        if child == 0:
            kill_at(step)
            publish(folder, 50, keep=keep)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"code": code, **examine(folder, versions, keep)}), flush=True)
        if code != 9:
            return


def main() -> None:
    what, folder, number, *rest = sys.argv[1:]
    os.fsync = lambda handle: None  # a killed process loses nothing that it wrote; a power cut is another test
    if what == "crash":
        crash(Path(folder), int(number), int(rest[0]) or None)
    else:
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(int(number)):
            publish(Path(folder), 1)


if __name__ == "__main__":
    main()
