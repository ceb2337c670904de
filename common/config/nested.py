"""Settings as nested plain values: from a TOML file, from dotted names, merged. Command lines build a run from them."""

import tomllib
from pathlib import Path
from typing import Any

from common.errors import ConfigError


def read_config(path: Path) -> dict[str, Any]:
    """Nested values of a TOML file, for `make_config`.

    Raises:
        ConfigError: the file is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {path} is not valid TOML: {error}.") from error


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
