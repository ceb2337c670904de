"""Where this account keeps what the programs remember: the server's folder, ledger anchors and known publishers lie in it."""

import os
from pathlib import Path


def state_home() -> Path:
    """`$XDG_STATE_HOME/emofl`, or `~/.local/state/emofl`; as the specification asks, a relative path is ignored."""
    home = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".local" / "state") / "emofl"
