"""The owner's rules on disk: policy.toml in the device's home. `node_process` obeys it, `fl-client policy` changes it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.config import read_config
from common.errors import ConfigError
from common.files import write_atomic
from fl_client.node_settings import POLICY
from fl_client.policy import Policy

HEADER = "# This device's own rules. `fl-client policy` shows and changes them.\n"


def read_policy(home: Path) -> Policy:
    """The rules in `home`, or the defaults where there are none.

    Raises:
        ConfigError: the file is malformed; nothing runs then, because a rule could be lost.
    """
    path = home / POLICY
    return _policy(read_config(path), f"{path}: ") if path.exists() else Policy()


def change_policy(home: Path, changes: Mapping[str, str]) -> Policy:
    """Write the rules with `changes`, texts by name, made to them: whole or not at all.

    Raises:
        ConfigError: a name or a value is wrong; the file stays as it is.
    """
    values = read_policy(home).model_dump(exclude_unset=True)
    for name, text in changes.items():
        field = Policy.model_fields.get(name)
        several = field is not None and isinstance(field.default, tuple)
        values[name] = tuple(part.strip() for part in text.split(",") if part.strip()) if several else text.strip()
    policy = _policy(values)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = policy.model_dump(mode="json", exclude_unset=True)
    write_atomic(home / POLICY, (HEADER + "".join(f"{name} = {_toml(value)}\n" for name, value in kept.items())).encode())
    return policy


class PolicyFile:
    """The rules in a home, read anew when the file changes.

    Raises:
        ConfigError: as `read_policy`, here and from `policy`.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._seen, self._policy = self._look(), read_policy(home)

    @property
    def policy(self) -> Policy:
        """The rules of this moment."""
        seen = self._look()
        if seen != self._seen:
            self._seen, self._policy = seen, read_policy(self._home)
        return self._policy

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = (self._home / POLICY).stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _policy(values: Mapping[str, Any], where: str = "") -> Policy:
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "the policy"
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{where}{name} is not a rule; there are {', '.join(Policy.model_fields)}.") from error
        raise ConfigError(f"{where}{name} is wrong: {first['msg'].removeprefix('Value error, ')}.") from error


def _toml(value: object) -> str:
    # JSON writes numbers, booleans, and lists of our plain texts as TOML does.
    return json.dumps(value)
