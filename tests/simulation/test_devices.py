from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.config import make_config
from common.privacy.accountant import spent_epsilon
from common.privacy.ledger import Ledger
from common.privacy.release import Accountant, Release
from simulation.devices import SimulatedDevices, SpentBudgets

RARE, OFTEN = Release(1.5, 0.02, 10), Release(5.0, 0.5, 1)
"""By RDP the first has spent more, by PRV the second."""


def budgets(folder: Path, accountant: Accountant, *lists: list[Release]) -> SpentBudgets:
    devices = SimulatedDevices(make_config({"privacy": {"accountant": accountant}, "data": {"clients": 4}}), folder)
    for number, releases in enumerate(lists):
        debit(devices, number, *releases)
    return SpentBudgets(devices, 4)


def debit(devices: SimulatedDevices, number: int, *releases: Release) -> None:
    with Ledger(devices.ledger(number)).locked() as ledger:
        for release in releases:
            ledger.debit(release, run="run", round_number=1, now=datetime.now(UTC))


@pytest.mark.parametrize(("accountant", "most"), [("rdp", RARE), ("prv", OFTEN)])
def test_the_largest_epsilon_is_the_largest_by_the_runs_own_accountant(
    tmp_path: Path, accountant: Accountant, most: Release
) -> None:
    spent = {release: spent_epsilon([release], 1e-5, accountant) for release in (RARE, OFTEN)}
    assert max(spent, key=lambda release: spent[release]) == most
    assert budgets(tmp_path, accountant, [RARE], [OFTEN]).largest() == spent[most]


def test_the_slow_accountant_is_asked_only_where_it_may_matter_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def counted(releases: tuple[Release, ...], delta: float, accountant: Accountant = "rdp") -> float:
        asked.append((accountant, len(releases)))
        return len(releases) * (1.0 if accountant == "prv" else 1.4)

    monkeypatch.setattr("simulation.devices.spent_epsilon", counted)
    known = budgets(tmp_path, "prv", [RARE, OFTEN], [OFTEN, RARE], [OFTEN])
    assert known.largest() == 2
    assert sorted(asked) == [("prv", 2), ("rdp", 0), ("rdp", 1), ("rdp", 2)]
    assert known.largest() == 2
    debit(known._devices, 3, RARE)
    assert known.largest() == 2
    assert asked[4:] == [("rdp", 1)]
    debit(known._devices, 2, RARE, RARE)
    assert known.largest() == 3
    assert asked[5:] == [("rdp", 3), ("prv", 3)]
