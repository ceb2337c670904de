"""Settings as nested plain values: from a TOML file, from dotted names, merged. Command lines build a run from them."""

import tomllib
from pathlib import Path
from typing import Any

from common.errors import ConfigError

MOST_BYTES = 2**20
"""Of a configuration file."""


def read_config(path: Path) -> dict[str, Any]:
    """Nested values of a TOML file, for `make_config`.

    Raises:
        ConfigError: the file is missing, too large or not TOML, or holds what no setting can be.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read: {error.strerror}.") from error
    if len(content) > MOST_BYTES:
        raise ConfigError(f"The configuration {path} is larger than {MOST_BYTES >> 20} MiB: give a TOML file of settings.")
    try:
        values = tomllib.loads(content.decode())
        nul = _holds_nul(values)
    except RecursionError as error:
        raise ConfigError(f"The configuration {path} is nested too deeply: settings are in groups of one level.") from error
    except ValueError as error:
        raise ConfigError(f"The configuration {path} is not valid TOML: {error}.") from error
    if nul:
        raise ConfigError(f"The configuration {path} holds a NUL character (\\u0000): take it out, no setting has one.")
    return values


def _holds_nul(value: Any) -> bool:
    """Whether a NUL, which no path can hold, is in a text or name of `value`."""
    if isinstance(value, dict):
        return any("\0" in name or _holds_nul(inner) for name, inner in value.items())
    return any(_holds_nul(inner) for inner in value) if isinstance(value, list) else isinstance(value, str) and "\0" in value


def nest_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Groups of settings from dotted names, such as `server.rounds`; None means not given and is left out."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if value is not None:
            *groups, last = name.split(".")
            target = nested
            for group in groups:
                target = target.setdefault(group, {})
            target[last] = value
    return nested


def merge_settings(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Nested settings of `base`, with those of `over` in their place.

    Raises:
        ConfigError: `base` gives one value where `over` has a group.
    """
    merged = dict(base)
    for name, value in over.items():
        known = merged.get(name)
        if isinstance(value, dict) and known is not None and not isinstance(known, dict):
            raise ConfigError(f"{name} is wrong: it is a group of settings, not {known!r}.")
        merged[name] = merge_settings(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged
