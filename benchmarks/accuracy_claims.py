"""Whether what federated runs should reach (`CLAIMS`) holds for those that are finished."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.accuracy_cells import CLAIMS, START, Claim
from benchmarks.accuracy_results import Line, Spread


@dataclass(frozen=True)
class Verdict:
    """One claim whose run is finished.

    Attributes:
        line: of the claim's own cell.
        above: accuracy above what it is held against, in [-1, 1]; None where that is from another base or not there. The mean
            of the differences between runs of one seed, whose devices hold the same faces; of the means where no seed is in both.
    """

    claim: Claim
    line: Line
    above: Spread | None

    @property
    def met(self) -> bool:
        return self.above is not None and round(100 * self.above.mean, 9) >= -self.claim.points

    @property
    def wanted(self) -> str:
        points = abs(self.claim.points)
        number = f"{points:g} point" + ("" if points == 1 else "s")
        return f"at most {number} below" if self.claim.points > 0 else f"at least {number} above"

    @property
    def measured(self) -> str:
        if self.above is None:
            return "not comparable: from another base"
        margin = "" if self.above.margin is None else f" ± {100 * self.above.margin:.1f}"
        return f"{abs(100 * self.above.mean):.1f}{margin} points {'above' if self.above.mean >= 0 else 'below'}"


def judge_claims(lines: Sequence[Line]) -> list[Verdict]:
    """A verdict on each claim for which both runs are there."""
    known = {line.name: line for line in lines}
    found = []
    for claim in CLAIMS:
        line, other = known.get(claim.cell), known.get(claim.against)
        if line is None or (other is None and claim.against != START):
            continue
        found.append(Verdict(claim, line, _above(line, other)))
    return found


def _above(line: Line, other: Line | None) -> Spread | None:
    if other is None:
        return None if line.start is None else Spread(line.accuracy.mean - line.start.accuracy, line.accuracy.margin)
    if other.base != line.base:
        return None
    paired = Spread.of(accuracy - other.seeds[seed] for seed, accuracy in line.seeds.items() if seed in other.seeds)
    return paired or Spread(line.accuracy.mean - other.accuracy.mean, None)


def missed_claims(lines: Sequence[Line]) -> list[str]:
    """The claims that do not hold, in words."""
    return [
        f"{one.claim.cell}: {one.measured} {one.claim.against} instead of {one.wanted}"
        for one in judge_claims(lines)
        if not one.met
    ]
