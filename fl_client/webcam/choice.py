"""Which model the loop runs: the one that is named, the registry used last, or the base model that ships with the project.

The camera command calls `choose_model` once, before anything is opened.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError
from fl_client.webcam.base_model import BaseSource
from fl_client.webcam.model import ModelSource
from fl_client.webcam.registry import source_of
from fl_client.webcam.remembered import remember, remembered

BASE = Path("base")
"""`--model base`."""

NO_PUBLISHER = "--trust names the publisher of a --registry or a --model; the base model comes with emofl itself."


@dataclass(frozen=True)
class Choice:
    """Where models come from.

    Attributes:
        follow: the registry whose newer versions are taken over as they appear; None for one model throughout.
    """

    source: ModelSource
    follow: Path | None = None

    def keep_in_mind(self, headless: bool) -> None:
        """Remember a registry that opened, for the next time; what scripts use without a window is not remembered."""
        if self.follow is not None and not headless:
            with suppress(OSError):  # a home that cannot be written costs the memory, not the run
                remember(self.follow)


def choose_model(model: Path | None, registry: Path | None, trust: str | None, say: Callable[[str], None]) -> Choice:
    """What the options name; nothing is read yet.

    Args:
        model: a version's folder, a registry whose latest version is used and not followed, or `BASE`.
        registry: a registry to follow.
        trust: a key file, or a fingerprint as text.
        say: receives a sentence about what was chosen for the person, and why.

    Raises:
        ConfigError: both are given, the path cannot hold a published model, or there is nobody to trust.
    """
    if model is None and registry is None and (registry := remembered()) is not None:
        say(f"The registry used last: {registry} (--model base for the base model).")
    if (model is None or model == BASE) and registry is None:
        if trust is not None:
            raise ConfigError(NO_PUBLISHER)
        return Choice(BaseSource(say))
    return Choice(source_of(model, registry, trust), registry)
