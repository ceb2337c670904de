"""What a privacy budget buys, before anyone trains: the noise, what each round costs, and how many rounds fit.

`simulation.plan_commands` shows it. Steps and rates are those that a device would plan; nothing is trained, no ledger is read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

from common.config import TrainConfig
from common.errors import ConfigError, PrivacyError
from common.privacy.accountant import Accountant, Release, calibrate_noise, spent_epsilon
from fl_client.train import coarse_count, make_plan
from fl_server.cohort import expected_participations

EPSILONS = (1.0, 2.0, 4.0, 8.0)
ACCOUNTANTS: tuple[Accountant, ...] = get_args(Accountant)

MOST_ROUNDS = 100_000
"""Beyond that, the answer to how many rounds fit is `MOST_ROUNDS`."""

MOST_EXAMPLES = 10_000_000
"""Faces on one device."""


class IncomputableError(PrivacyError):
    """An accountant cannot compute with the numbers that it was given."""


@contextmanager
def _computed(delta: float, accountant: Accountant) -> Iterator[None]:
    """What an accountant raises where its arithmetic ends, as a sentence."""
    try:
        yield
    except (ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise IncomputableError(
            f"The {accountant.upper()} accountant cannot compute with these numbers at delta {delta:g}: take a larger --delta"
            + (", or --accountant rdp." if accountant == "prv" else ", or numbers that are less extreme.")
        ) from error


@dataclass(frozen=True)
class Campaign:
    """What one device would do in a run.

    Attributes:
        examples: n, its faces.
        train: batch size and local passes.
        rounds: of the run.
        clients, cohort: devices in all and per round; no cohort: the device is asked in every round.
    """

    examples: int
    train: TrainConfig
    rounds: int
    clients: int | None = None
    cohort: int | None = None

    def __post_init__(self) -> None:
        if self.examples > MOST_EXAMPLES:
            raise ConfigError(f"--examples can be at most {MOST_EXAMPLES}, not {self.examples}.")
        if self.examples < 1 or self.rounds < 1:
            raise ConfigError(f"A plan needs at least one face and one round, not {self.examples} and {self.rounds}.")
        if self.cohort is not None and self.clients is None:
            raise ConfigError("--cohort says nothing without --clients: give the number of all devices, too.")
        if self.cohort is not None and self.clients is not None and not 1 <= self.cohort <= self.clients:
            raise ConfigError(f"A cohort of {self.cohort} cannot be drawn from {self.clients} clients.")

    @property
    def counted(self) -> int:
        """The coarse number of faces, which rate and steps follow from."""
        return coarse_count(self.examples)

    @property
    def participations(self) -> int:
        """In how many of the rounds the device spreads its budget over: the number that the server would tell it."""
        if self.clients is None or self.cohort is None:
            return self.rounds
        return expected_participations(self.rounds, self.cohort, self.clients)

    @cached_property
    def steps(self) -> int:
        """Noisy steps in one round."""
        return make_plan(self.train, self.examples, 1, self.rounds).steps

    @cached_property
    def rate(self) -> float:
        """Poisson sampling rate q."""
        return make_plan(self.train, self.examples, 1, self.rounds).sampling.rate

    def released(self, noise_multiplier: float, rounds: int) -> list[Release]:
        """What the device has released after `rounds` rounds that it took part in."""
        return [Release(noise_multiplier, self.rate, self.steps * rounds)] if rounds else []

    def noise_for(self, epsilon: float, delta: float, accountant: Accountant) -> float:
        """The noise multiplier that a device with an empty ledger would take.

        Raises:
            PrivacyError: no useful noise keeps that budget, or the accountant cannot compute with these numbers.
        """
        try:
            with _computed(delta, accountant):
                return calibrate_noise([], self.rate, self.steps * self.participations, epsilon, delta, accountant)
        except IncomputableError:
            raise
        except PrivacyError as error:
            raise PrivacyError(
                f"No useful noise keeps epsilon at {epsilon:g} over {self.participations} rounds of {self.steps} steps at a "
                f"rate of {self.rate:.3g}: plan fewer rounds, smaller batches or a larger epsilon."
            ) from error

    def cost(self, noise_multiplier: float, rounds: int, delta: float, accountant: Accountant) -> float:
        """Epsilon after `rounds` rounds that the device took part in.

        Raises:
            PrivacyError: the accountant cannot compute with these numbers.
        """
        with _computed(delta, accountant):
            return spent_epsilon(self.released(noise_multiplier, rounds), delta, accountant)

    def rounds_that_fit(self, noise_multiplier: float, epsilon: float, delta: float, accountant: Accountant) -> int:
        """In how many rounds the device can take part with this noise; at most `MOST_ROUNDS`."""

        def fits(rounds: int) -> bool:
            return self.cost(noise_multiplier, rounds, delta, accountant) <= epsilon

        low, high = 0, 1
        while high <= MOST_ROUNDS and fits(high):
            low, high = high, 2 * high
        high = min(high, MOST_ROUNDS + 1)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low


@dataclass(frozen=True)
class Cost:
    """Epsilon after so many rounds, and what the last of them added."""

    rounds: int
    epsilon: float
    added: float


@dataclass(frozen=True)
class Offer:
    """What a budget buys under one accountant.

    Attributes:
        noise_multiplier: sigma; None where no useful noise keeps the budget, or the accountant cannot compute it.
        noise_on_mean: sigma / (q n), standard deviation of the noise on each value of a step's mean gradient, in units of the
            clipping norm; the norm of that gradient is at most about 1.
        one_round: epsilon after a single round with that noise.
    """

    epsilon: float
    accountant: Accountant
    noise_multiplier: float | None
    noise_on_mean: float | None = None
    one_round: float | None = None


def milestones(participations: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... and the last."""
    marks = [factor * 10**power for power in range(6) for factor in (1, 2, 5)]
    return [*(mark for mark in marks if mark < participations), participations]


def costs_by_round(campaign: Campaign, noise_multiplier: float, delta: float, accountant: Accountant) -> list[Cost]:
    """What the rounds cost, at `milestones`: the first costs most, since epsilon grows slower than linearly."""
    costs = []
    for rounds in milestones(campaign.participations):
        before, after = (campaign.cost(noise_multiplier, done, delta, accountant) for done in (rounds - 1, rounds))
        costs.append(Cost(rounds, after, after - before))
    return costs


def offers(campaign: Campaign, delta: float, epsilons: Sequence[float] = EPSILONS) -> list[Offer]:
    """What each epsilon buys under each accountant."""
    return [offer(campaign, epsilon, delta, accountant) for epsilon in epsilons for accountant in ACCOUNTANTS]


def offer(campaign: Campaign, epsilon: float, delta: float, accountant: Accountant) -> Offer:
    """What `epsilon` buys under `accountant`."""
    try:
        sigma = campaign.noise_for(epsilon, delta, accountant)
        one_round = campaign.cost(sigma, 1, delta, accountant)
    except PrivacyError:
        return Offer(epsilon, accountant, None)
    expected_batch = campaign.rate * campaign.counted
    return Offer(epsilon, accountant, sigma, sigma / expected_batch, one_round)
