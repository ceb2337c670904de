"""What was chosen for runs: the main things in a few words, and the settings in which several runs differ."""

from pathlib import Path
from typing import Any

from common.config import RunConfig, Settings

LONGEST = 30
"""Characters of a value; a longer one is cut in the middle where it stays apart from the other runs'."""


def promises(config: RunConfig) -> tuple[str, ...]:
    """What a run promises to each face and to each device as a whole; nothing without privacy."""
    faces, devices = config.privacy, config.client_level
    found = [f"record-level epsilon {faces.epsilon:g}"] if faces.private else []
    if devices.mode != "none":
        found.append(f"client-level epsilon {devices.epsilon:g} ({devices.mode})")
    return tuple(found)


def describe(*configs: RunConfig) -> str:
    """The main choices that all of these runs have in common, in a few words."""
    first, *others = map(_words, configs)
    return ", ".join(word for word in first if all(word in words for words in others))


def _words(config: RunConfig) -> list[str]:
    data, train, server = config.data, config.train, config.server
    words = (
        "drawn faces" if data.path is None else data.path.name,
        f"{data.clients} clients",
        data.scheme,
        f"alpha {data.alpha:g}" if data.scheme in ("dirichlet", "quantity") else "",
        *(promises(config) or ("non-private",)),
        f"{server.rounds} rounds",
        "" if server.cohort is None else f"cohort {server.cohort}",
        server.strategy,
        config.model.trainable,
        "own heads" if train.local_layers == "head" else "",
        "" if train.optimiser == "sgd" else train.optimiser,
        "" if train.loss == "cross-entropy" else train.loss,
        "" if train.augment else "no augmentation",
    )
    return [word for word in words if word]


def differences(configs: dict[str, RunConfig]) -> dict[str, dict[str, str]]:
    """Of each run, the settings in which these runs differ, by dotted name; short, and as different as the values are.

    A run without privacy has no epsilon, delta or clip to show, whatever its configuration holds; the same at the client level.
    """
    settings = {run: _flat(config) for run, config in configs.items()}
    found: dict[str, dict[str, str]] = {run: {} for run in configs}
    for name in {name: None for values in settings.values() for name in values}:
        values = {run: settings[run].get(name) for run in configs}
        plain = {run: _plain(name, value) for run, value in values.items()}
        if len(set(plain.values())) == 1:
            continue
        short = {run: _cut(text) for run, text in plain.items()}
        texts = short if len(set(short.values())) == len(set(plain.values())) else plain
        for run, config in configs.items():
            if _applies(name, config):
                found[run][name] = texts[run]
    return found


def _flat(config: Settings, group: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config:
        found |= _flat(value, f"{group}{name}.") if isinstance(value, Settings) else {group + name: value}
    return found


def _applies(name: str, config: RunConfig) -> bool:
    if name.startswith("privacy."):
        return config.privacy.private or name == "privacy.private"
    if name.startswith("client_level."):
        return config.client_level.mode != "none" or name == "client_level.mode"
    return True


def _plain(name: str, value: Any) -> str:
    if value is None:
        return "scratch" if name == "init" else "unset"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return ",".join(f"{key}={_plain(key, one)}" for key, one in value.items()) or "none"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, Path):
        here = Path.cwd()
        return str(value.relative_to(here) if value.is_relative_to(here) and value != here else value)
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2 - 1]}…{text[-LONGEST // 2 :]}"
