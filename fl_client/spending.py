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
from fl_client.client_spending import HISTOGRAM, ClientSurvey, run_of, survey_promises
from fl_client.own_home import policy_command
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
        epsilon: of all together, by `accountant`: RDP, but PRV where RDP's is above the ceiling, since servers may ask for either
            and PRV is the tighter.
        ceiling, delta: the owner's.
        more: how many more rounds like the last private one, with its evaluation, without the class histogram, which is not asked
            for again, fit under the ceiling by `by`; None where there was none.
        by: the accountant of `more`.
        whole: the client level.
    """

    entries: tuple[Entry, ...]
    epsilons: tuple[float, ...]
    epsilon: float
    accountant: Accountant
    ceiling: float
    delta: float
    more: int | None
    by: Accountant
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
                f"refused until you allow more (`{self.whole.command} --set largest_epsilon=...`)."
            )
        rounds = f"{self.more:,} more round{'' if self.more == 1 else 's'} like the last fit{'s' if self.more == 1 else ''}"
        rounds += " by RDP" if by and self.by == "rdp" else ""
        return f"{'Privacy budget nearly spent' if self.part >= NEARLY else 'Privacy'}: {spent}; {rounds}."

    def runs(self) -> Iterator[tuple[str, tuple[Entry, ...], float]]:
        """Each stretch of debits for one run, with cumulative epsilon after it."""
        for (_, run), pairs in groupby(zip(self.entries, self.epsilons, strict=True), key=lambda pair: run_of(pair[0])):
            entries, epsilons = zip(*pairs, strict=True)
            yield run, entries, epsilons[-1]


def survey(place: LedgerPlace, policy: Policy, accountant: Accountant = "rdp") -> Survey:
    """Read the ledger and add it up.

    Raises:
        IntegrityError: the ledger cannot be trusted.
    """
    ledger = Ledger(place)
    releases = ledger.releases
    by: Accountant = "rdp"
    epsilon = ledger.epsilon(policy.largest_delta, accountant)
    if policy.largest_epsilon < epsilon < math.inf:
        epsilon, accountant, by = ledger.epsilon(policy.largest_delta, "prv"), "prv", "prv"
    last = _last_round(ledger.entries)
    more = _fitting(releases, last, policy, by) if last and ledger.all_private else None
    return Survey(
        entries=tuple(ledger.entries),
        epsilons=tuple(_cumulative(ledger.entries, policy.largest_delta)),
        epsilon=epsilon,
        accountant=accountant,
        ceiling=policy.largest_epsilon,
        delta=policy.largest_delta,
        more=more,
        by=by,
        whole=survey_promises(ledger.entries, policy.largest_client_epsilon, policy_command(place)),
    )


def _cumulative(entries: list[Entry], delta: float) -> Iterator[float]:
    releases: list[Release] = []
    held = True
    for entry in entries:
        held = held and entry.release is not None
        if entry.release is not None:
            releases.append(entry.release)
        yield spent_epsilon(releases, delta) if held else math.inf


def _last_round(entries: list[Entry]) -> list[Release]:
    """What the last private round released and the next one will, too: its training, and its evaluation where there was one."""
    back = [entry for entry in reversed(entries) if entry.release and not entry.run.endswith(HISTOGRAM)]
    same = [entry for entry in back if (run_of(entry), entry.round) == (run_of(back[0]), back[0].round)]
    latest = {entry.run: entry.release for entry in reversed(same)}  # a repeated round was debited twice
    return [release for release in latest.values() if release is not None]


def _fitting(releases: list[Release], last: list[Release], policy: Policy, by: Accountant) -> int:
    """How often `last` can be repeated: doubled until it no longer fits, then halved in between."""

    def fits(rounds: int) -> bool:
        more = [Release(one.noise_multiplier, one.sample_rate, one.steps * rounds) for one in last]
        return spent_epsilon([*releases, *more], policy.largest_delta, by) <= policy.largest_epsilon

    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= MOST_ROUNDS and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
