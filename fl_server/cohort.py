"""Which devices a round asks, and how often each should expect to be asked. `fl_server.rounds` draws one cohort per round."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random, SystemRandom

from common.config import RunConfig


@dataclass(frozen=True)
class Cohort:
    """The devices that one round asks.

    Attributes:
        nodes: their node ids, in the order of those that were there.
        participations: how often a device should expect to be asked in the whole run.
        devices: how many were there to choose from.
    """

    nodes: list[int]
    participations: int
    devices: int


def expected_participations(rounds: int, cohort: int, devices: int) -> int:
    """How often a device should expect to be asked: the mean of a binomial plus two standard deviations, at most `rounds`."""
    share = min(1.0, cohort / devices)
    return max(1, min(rounds, math.ceil(rounds * share + 2 * math.sqrt(rounds * share * (1 - share)))))


def draw_cohort(config: RunConfig, number: int, nodes: Sequence[int], secret: bool) -> Cohort:
    """The cohort of round `number`, uniformly at random without replacement.

    Args:
        nodes: who is there, at least one, in an order that a restart does not change.
        secret: from the system's randomness, which nobody can foresee; else the run's seed and the round choose.
    """
    wanted = min(config.server.cohort or len(nodes), len(nodes))
    seed = hashlib.sha256(f"{config.seed}/{number}".encode()).digest()
    random: Random = SystemRandom() if secret else Random(seed)  # noqa: S311
    chosen = sorted(random.sample(nodes, wanted), key=nodes.index)
    return Cohort(chosen, expected_participations(config.server.rounds, wanted, len(nodes)), len(nodes))
