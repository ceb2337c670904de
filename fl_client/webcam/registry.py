"""Verified models for the loop: from a registry that may publish newer ones, or from one version's folder.

The camera command makes one `RegistrySource`; `ModelWatcher` asks it for news.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from common.errors import ConfigError, IntegrityError
from common.places import state_home
from fl_client.webcam.badge import badge_of
from fl_client.webcam.model import LoopModel
from models.class_counts import counts_in
from models.published import LATEST, PublishedModel, Trust, newer_than, open_published, trusted

LONGEST_RUN_NAME = 24


class RegistrySource:
    """A `ModelSource` over a registry folder, or over one version's folder, which never has a newer one."""

    def __init__(self, path: Path, trust: Trust | None = None) -> None:
        """Nothing is read yet.

        Args:
            trust: whose signature counts; None trusts the key that the registry shows first, and then no other.
        """
        self._path = path
        self._trust = trust
        self._last: PublishedModel | None = None

    def newest(self) -> LoopModel:
        self._last = open_published(self._path, self._trust, state=state_home())
        return loop_model(self._last)

    def newer(self) -> LoopModel | None:
        found = None if self._last is None else newer_than(self._last)
        if found is None:
            return None
        self._last = found
        return loop_model(found)


def loop_model(published: PublishedModel) -> LoopModel:
    """A verified version as the loop uses it."""
    manifest = published.manifest
    badge = badge_of(manifest)
    statements = [one for one in (manifest.privacy, manifest.client_privacy) if one is not None]
    promises = [one for one in statements if one.private] or statements[:1]
    run = manifest.run if len(manifest.run) <= LONGEST_RUN_NAME else manifest.run[: LONGEST_RUN_NAME - 3] + "..."
    return LoopModel(
        classes=manifest.model.classes,
        preprocessing=manifest.preprocessing,
        onnx=published.onnx_bytes(),
        version=f"run {run} round {manifest.round} #{manifest.sequence}",
        privacy=badge.promise,
        private=badge.private,
        promise=" ".join(text for one in promises for text in (one.statement, *one.non_private)),
        signer=published.fingerprint,
        badge=badge,
        counts=counts_in(manifest.metrics, manifest.model.classes),
    )


def source_of(model: Path | None, registry: Path | None, trust: str | None) -> RegistrySource:
    """The source that the options name.

    Args:
        model: a version's folder, or a registry whose latest version is used and not followed.
        registry: a registry to follow.
        trust: a key file, or a fingerprint as text.

    Raises:
        ConfigError: neither or both are given, or the path cannot hold a published model.
    """
    path = model or registry
    if path is None or (model and registry):
        raise ConfigError(
            "Give one of --registry FOLDER (its newest model, followed as newer ones appear) and "
            "--model FOLDER (one version). `fl-sim run` makes a registry."
        )
    if path.is_file():
        raise ConfigError(f"{path} is one file; a published model is the folder that holds manifest.json beside it.")
    if not path.is_dir():
        raise ConfigError(f"The folder {path} does not exist; `fl-sim run` makes a registry.")
    if registry and not os.path.lexists(path / LATEST) and os.path.lexists(path / "manifest.json"):
        raise ConfigError(f"{path} is one version, not a registry; use --model for it.")
    return RegistrySource(path, trusted(trust))


def wait_for_first(registry: Path, say: Callable[[str], None], pause: float = 0.5) -> None:
    """Return when the registry holds a version; say once that it is being waited for."""
    if not os.path.lexists(registry / LATEST):
        say(f"Waiting for the first model in {registry}; Ctrl-C stops.")
    while not os.path.lexists(registry / LATEST):
        if not registry.is_dir():
            raise IntegrityError(f"The registry {registry} was removed while waiting for its first model.")
        time.sleep(pause)
