from pathlib import Path

import pytest

from common.places import state_home
from common.privacy.anchor import state_folder
from fl_server.status_commands import server_home


def test_what_is_remembered_lies_in_the_state_folder_of_the_user_wherever_a_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value, home in ((str(tmp_path), tmp_path), ("", tmp_path / "home/.local/state"), ("rel", tmp_path / "home/.local/state")):
        monkeypatch.setenv("XDG_STATE_HOME", value)
        assert (state_home(), server_home(None), state_folder()) == tuple(
            home / "emofl" / name for name in ("", "server", "ledgers")
        )
