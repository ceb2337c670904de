"""Whether what federated runs should reach (`CLAIMS`) holds for those that are finished."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.accuracy_cells import CLAIMS, START, Claim
from benchmarks.accuracy_results import Line


@dataclass(frozen=True)
class Verdict:
    """One claim whose run is finished.

    Attributes:
        line: of the claim's own cell.
        above: points of accuracy above what it is held against; None where that is from another base or not there.
    """

    claim: Claim
    line: Line
    above: float | None

    @property
    def met(self) -> bool:
        return self.above is not None and round(self.above, 9) >= -self.claim.points

    @property
    def wanted(self) -> str:
        points = abs(self.claim.points)
        number = f"{points:g} point" + ("" if points == 1 else "s")
        return f"at most {number} below" if self.claim.points > 0 else f"at least {number} above"

    @property
    def measured(self) -> str:
        if self.above is None:
            return "not comparable: from another base"
        return f"{abs(self.above):.1f} points {'above' if self.above >= 0 else 'below'}"


def judge_claims(lines: Sequence[Line]) -> list[Verdict]:
    """A verdict on each claim for which both runs are there."""
    known = {line.name: line for line in lines}
    found = []
    for claim in CLAIMS:
        line, other = known.get(claim.cell), known.get(claim.against)
        if line is None or (other is None and claim.against != START):
            continue
        comparable = other is None or other.base == line.base
        against = line.start if other is None else other.accuracy
        found.append(Verdict(claim, line, 100 * (line.accuracy - against) if comparable and against is not None else None))
    return found


def missed_claims(lines: Sequence[Line]) -> list[str]:
    """The claims that do not hold, in words."""
    return [
        f"{one.claim.cell}: {one.measured} {one.claim.against} instead of {one.wanted}"
        for one in judge_claims(lines)
        if not one.met
    ]
