from pathlib import Path

import pytest
from sqlalchemy import text

from fl_server.link_state import LOCK_SECONDS, LinkState

pytestmark = [
    pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
]


def test_on_a_busy_machine_a_request_waits_for_its_turn_to_write(tmp_path: Path) -> None:
    state, _ = LinkState.open(tmp_path / "state.db")
    with state.session() as session:
        assert session.scalar(text("PRAGMA busy_timeout")) == LOCK_SECONDS * 1000
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
