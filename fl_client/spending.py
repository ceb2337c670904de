"""What a device's privacy ledger comes to under its owner's rules: spent, left, and for how many more rounds. Nothing leaves it.

Each face by itself (record level) is this module's; all faces together (client level) are `fl_client.client_spending`'s.

`fl-client privacy` shows it; `node_process` tells its sentence after each round.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from common.privacy.accountant import spent_epsilon
from common.privacy.ledger import Entry, Ledger, LedgerPlace
from common.privacy.release import Accountant, Release
from fl_client.client_spending import ClientSurvey, survey_promises
from fl_client.policy import Policy

NEARLY = 0.9
"""Part of the budget from which on the owner is warned."""

MOST_ROUNDS = 1 << 20


@dataclass(frozen=True)
class Survey:
    """What was spent, record level, add/remove neighbours, and beside it what was promised at client level.

    Attributes:
        entries: all debits.
        epsilons: cumulative epsilon after each of them by the RDP accountant; infinite from a debit without privacy on.
        epsilon: of all together, by `accountant`.
        ceiling, delta: the owner's.
        more: how many more rounds like the last private one fit under the ceiling by RDP; None where there was none.
        whole: the client level.
    """

    entries: tuple[Entry, ...]
    epsilons: tuple[float, ...]
    epsilon: float
    accountant: Accountant
    ceiling: float
    delta: float
    more: int | None
    whole: ClientSurvey

    @property
    def left(self) -> float:
        """How much epsilon is left; composition is no sum, so more may fit than a quotient says."""
        return max(0.0, self.ceiling - self.epsilon)

    @property
    def part(self) -> float:
        """Spent part of the ceiling, 0 and up."""
        return self.epsilon / self.ceiling

    @property
    def sentence(self) -> str:
        """For the owner."""
        if not self.entries:
            return f"Privacy: nothing was ever spent of epsilon {self.ceiling:g}."
        if math.isinf(self.epsilon):
            return (
                "Privacy: these faces were once used without privacy, so no epsilon holds for them; private rounds are refused."
            )
        by = " by PRV" if self.accountant == "prv" else ""
        spent = f"epsilon {self.epsilon:.2f} of {self.ceiling:g} is spent ({self.part:.0%}) at delta {self.delta:g}{by}"
        if not self.more:
            return (
                f"Privacy budget spent: {spent}, and no further round like the last fits. Rounds that would overspend are "
                "refused until you allow more (`fl-client policy --set largest_epsilon=...`)."
            )
        rounds = f"{self.more:,} more round{'' if self.more == 1 else 's'} like the last fit{'s' if self.more == 1 else ''}"
        rounds += " by RDP" if by else ""
        return f"{'Privacy budget nearly spent' if self.part >= NEARLY else 'Privacy'}: {spent}; {rounds}."

    def runs(self) -> Iterator[tuple[str, tuple[Entry, ...], float]]:
        """Each stretch of debits for one run, with cumulative epsilon after it."""
        for run, pairs in groupby(zip(self.entries, self.epsilons, strict=True), key=lambda pair: pair[0].run):
            entries, epsilons = zip(*pairs, strict=True)
            yield run, entries, epsilons[-1]


def survey(place: LedgerPlace, policy: Policy, accountant: Accountant = "rdp") -> Survey:
    """Read the ledger and add it up.

    Raises:
        IntegrityError: the ledger cannot be trusted.
    """
    ledger = Ledger(place)
    releases = ledger.releases
    last = next((entry.release for entry in reversed(ledger.entries) if entry.release), None)
    more = None if last is None or not ledger.all_private else _fitting(releases, last, policy)
    return Survey(
        entries=tuple(ledger.entries),
        epsilons=tuple(_cumulative(ledger.entries, policy.largest_delta)),
        epsilon=ledger.epsilon(policy.largest_delta, accountant),
        accountant=accountant,
        ceiling=policy.largest_epsilon,
        delta=policy.largest_delta,
        more=more,
        whole=survey_promises(ledger.entries, policy.largest_client_epsilon),
    )


def _cumulative(entries: list[Entry], delta: float) -> Iterator[float]:
    releases: list[Release] = []
    held = True
    for entry in entries:
        held = held and entry.release is not None
        if entry.release is not None:
            releases.append(entry.release)
        yield spent_epsilon(releases, delta) if held else math.inf


def _fitting(releases: list[Release], last: Release, policy: Policy) -> int:
    """How often `last` can be repeated: doubled until it no longer fits, then halved in between."""

    def fits(rounds: int) -> bool:
        more = Release(last.noise_multiplier, last.sample_rate, last.steps * rounds)
        return spent_epsilon([*releases, more], policy.largest_delta) <= policy.largest_epsilon

    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= MOST_ROUNDS and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
