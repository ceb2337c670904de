"""What a ledger says of the device as a whole (client level): what runs promised for all its faces together, and what is left.

`fl_client.device` debits by it, `fl_client.spending` shows it. These epsilons protect something else than record-level ones do,
and are never added to them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError

from common.config import Settings
from common.errors import IntegrityError
from common.privacy.ledger import Entry
from fl_client.own_home import POLICY_COMMAND

EVALUATION = ".evaluation"
"""Added to a run's name in the ledger for what its federated evaluation costs."""
HISTOGRAM = ".histogram"
"""Added to it for what its class histogram costs, which is asked for once and not in every round."""
COUNTS = EVALUATION, HISTOGRAM

Run = tuple[str | None, str]
"""Fingerprint of the server's authority, and the run's name: two servers may use one name."""


class Promise(Settings):
    """Client-level privacy of a whole run, zero-out neighbours.

    Attributes:
        mode: who adds the noise: `central`: the server, which is believed; `distributed`: the devices, so that it holds against
            the server, too.
        epsilon, delta: of all rounds together.
        rounds: at most so many.
    """

    mode: Literal["central", "distributed"]
    epsilon: float = Field(gt=0)
    delta: float = Field(gt=0, lt=1)
    rounds: int = Field(ge=1)


@dataclass(frozen=True)
class PromisedRun:
    """A run and its promise.

    Attributes:
        taken: rounds that were debited so far.
        since: time of the first, ISO 8601.
    """

    authority: str | None
    name: str
    promise: Promise
    taken: int
    since: str


@dataclass(frozen=True)
class ClientSurvey:
    """All promises in a ledger. A promise counts in full from its first round on, and epsilons and deltas of runs add up.

    Attributes:
        runs: those with a promise, in the order in which they began.
        without: names of the runs that released something without a promise.
        ceiling: the owner's `largest_client_epsilon`, None where there is none.
        command: what the owner types to see the rules.
    """

    runs: tuple[PromisedRun, ...]
    without: tuple[str, ...]
    ceiling: float | None
    command: str = POLICY_COMMAND

    @property
    def promised(self) -> float:
        """Epsilon of all promises together."""
        return sum(run.promise.epsilon for run in self.runs)

    @property
    def delta(self) -> float:
        """Of all promises together."""
        return sum(run.promise.delta for run in self.runs)

    @property
    def holds(self) -> bool:
        """Whether `promised` covers all that this device ever released."""
        return not self.without

    @property
    def left(self) -> float | None:
        """What further runs may promise; None without a ceiling."""
        return None if self.ceiling is None else max(0.0, self.ceiling - self.promised)

    @property
    def sentence(self) -> str:
        """For the owner; empty where there is nothing to say."""
        if not self.runs and not self.without:
            return ""
        rest = ""
        if self.ceiling is None:
            rest = f" No ceiling is set (`{self.command} --set largest_client_epsilon=...`)."
        elif self.promised > self.ceiling:
            rest = " That is more than you allow now, so all their rounds are refused until you allow more."
        elif not self.left:
            rest = " Runs that promise anew are refused until you allow more; runs that have begun go on."
        elif self.runs:
            rest = f" Further runs may promise {self.left:g}."
        if not self.runs:
            return f"All faces together: no run has promised them anything; what holds is each face's own privacy.{rest}"
        of = "" if self.ceiling is None else f" of {self.ceiling:g} ({self.promised / self.ceiling:.0%})"
        told = (
            f"All faces together: epsilon {self.promised:g}{of} is promised at delta {self.delta:.3g}, by {_runs(len(self.runs))}"
        )
        if self.without:
            told += f"; {_runs(len(self.without))} released something without such a promise, which no epsilon covers"
        return f"{told}.{rest}"


def promise_of(entry: Entry) -> Promise | None:
    """The client-level part of a debit.

    Raises:
        IntegrityError: it makes no sense.
    """
    if entry.client_level is None:
        return None
    try:
        return Promise.model_validate(entry.client_level)
    except ValidationError as error:
        raise IntegrityError(
            f"The privacy ledger's debit {entry.sequence + 1} has a client-level promise that makes no sense. Nothing is trained "
            "until you restore the ledger."
        ) from error


def run_of(entry: Entry) -> Run:
    """Whom a debit is for; evaluations and histograms belong to their run."""
    return entry.authority, entry.run.removesuffix(EVALUATION).removesuffix(HISTOGRAM)


def survey_promises(entries: Iterable[Entry], ceiling: float | None, command: str = POLICY_COMMAND) -> ClientSurvey:
    """Read the client-level part of a ledger's debits.

    Args:
        ceiling, command: as `ClientSurvey` has them.

    Raises:
        IntegrityError: a promise makes no sense, or one run has two.
    """
    begun: dict[Run, dict[str, Any]] = {}
    bare: dict[Run, None] = {}
    for entry in entries:
        run, promise = run_of(entry), promise_of(entry)
        if promise is None:
            bare[run] = None
            continue
        found = begun.setdefault(run, {"promise": promise, "taken": 0, "since": entry.time})
        if found["promise"] != promise:
            raise IntegrityError(
                f"The privacy ledger has two client-level promises of the run {run[1]}; one of them is not true."
            )
        found["taken"] += 1
    runs = tuple(PromisedRun(*run, **found) for run, found in begun.items())
    return ClientSurvey(runs, tuple(name for _, name in bare), ceiling, command)


def _runs(count: int) -> str:
    return f"{count:,} run{'' if count == 1 else 's'}"
