from typing import Any

import pytest

from common.config import make_config
from simulation.progress import round_line


@pytest.mark.parametrize(
    ("private", "mode", "spent", "said"),
    [
        (True, "none", {"epsilon": 1.5}, "epsilon 1.50  "),
        (False, "none", {"epsilon": None}, "NON-PRIVATE"),
        (False, "central", {"epsilon": None, "client_epsilon": 2.5}, "  client-level 2.50"),
        (False, "central", {"epsilon": None}, "  client-level 0.00"),
        (True, "central", {"epsilon": 1.5, "client_epsilon": 2.5}, "epsilon 1.50  client-level 2.50"),
    ],
)
def test_a_rounds_line_says_non_private_only_where_no_promise_is_made(
    private: bool, mode: str, spent: dict[str, Any], said: str
) -> None:
    config = make_config({"privacy": {"private": private}, "client_level": {"mode": mode}})
    line = round_line({"round": 1, "asked": 3, "accepted": 3, "seconds": 1.0, "left_out": {}} | spent, config)
    assert said in line
    assert ("NON-PRIVATE" in line) == (not private and mode == "none")
