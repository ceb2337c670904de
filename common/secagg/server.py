"""The server's side of one secure sum: takes messages as they arrive, closes a phase, and in the end knows the sum.

`fl_server` carries its messages and decides how long a phase waits. Masked vectors are added up on arrival: memory is one vector
and the shares. A message that does not hold is refused and changes nothing; its device counts as dropped out.
"""

import enum
from collections.abc import Callable, Collection, Container, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import IntegrityError, PrivacyError, ReplyError, RunError
from common.secagg import prg
from common.secagg.graph import Graph, plan
from common.secagg.keys import AgreementKey, Session, check_usable, commitment
from common.secagg.roster import check_advertisement, check_directory, check_inputs, check_survivors, make_directory
from common.secagg.shamir import combine, is_share
from common.secagg.wire import (
    Advertisement,
    Confirmation,
    Delivery,
    Directory,
    MaskedInput,
    Quorum,
    Shares,
    Survivors,
    Terms,
    Unmasking,
)

Held = dict[int, dict[int, bytes]]
"""Shares by owner and holder."""
Secrets = tuple[dict[int, bytes], dict[int, bytes]]
"""By member: the survivors' seeds, and the mask keys of those who dropped out."""
RETRY = 16
"""After a secret has come out wrong, it is tried again with a sixteenth more answers, and with the last."""


class Phase(enum.Enum):
    """Which messages the server takes."""

    ADVERTISING = "keys"
    SHARING = "shares"
    MASKING = "masked vectors"
    CONFIRMING = "confirmations"
    UNMASKING = "unmasking shares"
    OVER = "nothing more"


@dataclass(frozen=True)
class Sum:
    """What the round gives.

    Attributes:
        survivors: the members in the sum.
        total: (length,) uint32, the sum of their vectors modulo 2^width.
    """

    survivors: tuple[int, ...]
    total: NDArray[np.uint32]


class Server:
    """One round. It sees public keys, ciphertexts, masked vectors and, in the end, the sum; no vector of one device.

    Raises:
        PrivacyError: the cohort has fewer than three members.
    """

    def __init__(self, terms: Terms) -> None:
        self.terms, self.phase, self.plan = terms, Phase.ADVERTISING, plan(len(terms.cohort))
        self._advertisements: dict[int, Advertisement] = {}
        self._shares: dict[int, Shares] = {}
        self._inputs: dict[int, bytes] = {}
        self._confirmations: dict[int, bytes] = {}
        self._unmaskings: dict[int, Unmasking] = {}
        self._total = np.zeros(terms.length, dtype=np.uint32)
        self._secrets: Secrets | None = None
        self._next_try = 0

    def add_advertisement(self, message: Advertisement) -> None:
        """Raises:
        ReplyError: out of turn, a second one, or not signed by the member for this round.
        """
        self._take(message.member, Phase.ADVERTISING, self._advertisements, range(len(self.terms.cohort)))
        _refuse_unless_verified(check_advertisement, self.terms, message)
        for key in (message.mask_key, message.share_key):
            _refuse_unless_verified(check_usable, key)
        self._advertisements[message.member] = message

    def close_advertising(self) -> Directory:
        """What every device that advertised is sent next.

        Raises:
            RunError: too few did; the round has failed.
        """
        directory = make_directory(self._advertisements)
        self._graph = Graph(self.plan, directory.digest)
        self._close(Phase.ADVERTISING, Phase.SHARING, self._advertisements)
        self._keys = check_directory(self.terms, directory)
        self._session = Session(self.terms.run, self.terms.round, self.terms.digest, directory.digest)
        return directory

    def add_shares(self, message: Shares) -> None:
        """Raises:
        ReplyError: out of turn, a second one, or not for exactly the member's neighbours.
        """
        self._take(message.member, Phase.SHARING, self._shares, self._keys)
        if {holder for holder, _ in message.sealed} != self._graph.neighbours(message.member) & set(self._keys):
            raise ReplyError(f"Member {message.member} did not seal shares for exactly its neighbours.")
        self._shares[message.member] = message

    def close_sharing(self) -> dict[int, Delivery]:
        """What each device that shared is sent next.

        Raises:
            RunError: too few did; the round has failed.
        """
        self._close(Phase.SHARING, Phase.MASKING, self._shares)
        self._sharers = tuple(sorted(self._shares))
        inbox: dict[int, list[tuple[int, bytes]]] = {member: [] for member in self._sharers}
        for member in self._sharers:
            for holder, sealed in self._shares[member].sealed:
                if holder in inbox:
                    inbox[holder].append((member, sealed))
        self._commitments = {member: shares.commitment for member, shares in self._shares.items()}
        self._shares.clear()
        return {member: Delivery(self._sharers, tuple(sealed)) for member, sealed in inbox.items()}

    def add_masked(self, message: MaskedInput) -> None:
        """Add it up and forget it.

        Raises:
            ReplyError: out of turn, a second one, of a wrong length, or not signed by the member for these sharers.
        """
        self._take(message.member, Phase.MASKING, self._inputs, self._sharers)
        values, width = message.vector.values, message.vector.width
        if (len(values), width) != (self.terms.length, self.terms.width):
            raise ReplyError(
                f"Member {message.member} sent {len(values)} values of {width} bits "
                f"instead of {self.terms.length} of {self.terms.width}."
            )
        signatures = ((message.member, message.signature),)
        _refuse_unless_verified(check_inputs, self.terms, self._session, self._sharers, signatures)
        self._inputs[message.member] = message.signature
        self._total += values

    def close_masking(self) -> dict[int, Survivors]:
        """What each survivor is sent next.

        Raises:
            RunError: too few sent their vector; the round has failed.
        """
        self._close(Phase.MASKING, Phase.CONFIRMING, self._inputs)
        self._survivors = tuple(sorted(self._inputs))
        result = {}
        for member in self._survivors:
            neighbours = sorted(self._graph.neighbours(member) & set(self._survivors))
            result[member] = Survivors(self._survivors, tuple((other, self._inputs[other]) for other in neighbours))
        return result

    def add_confirmation(self, message: Confirmation) -> None:
        """Raises:
        ReplyError: out of turn, a second one, or not a survivor's signature of the list.
        """
        self._take(message.member, Phase.CONFIRMING, self._confirmations, self._survivors)
        signatures = ((message.member, message.signature),)
        _refuse_unless_verified(check_survivors, self.terms, self._session, self._sharers, self._survivors, signatures)
        self._confirmations[message.member] = message.signature

    def close_confirming(self) -> Quorum:
        """What every survivor that confirmed is sent next.

        Raises:
            RunError: too few did; the round has failed.
        """
        self._close(Phase.CONFIRMING, Phase.UNMASKING, self._confirmations)
        return Quorum(tuple(sorted(self._confirmations.items())[: self.plan.quorum]))

    def add_unmasking(self, message: Unmasking) -> None:
        """Raises:
        ReplyError: out of turn, a second one, or with shares that nobody asked for.
        """
        self._take(message.member, Phase.UNMASKING, self._unmaskings, self._confirmations)
        known = (self._graph.neighbours(message.member) | {message.member}) & set(self._sharers)
        alive = set(self._survivors)
        if not ({m for m, _ in message.seeds} <= known & alive and {m for m, _ in message.keys} <= known - alive):
            raise ReplyError(f"Member {message.member} revealed shares that nobody asked for.")
        if not all(is_share(share) for _, share in message.seeds + message.keys):
            raise ReplyError(f"Member {message.member} revealed shares that are no field elements.")
        self._unmaskings[message.member] = message

    def can_finish(self) -> bool:
        """Whether the shares that are here give every secret. Where one comes out wrong, a holder lies, and more are needed."""
        if self.phase is not Phase.UNMASKING:
            return False
        seeds, keys = self._collected()
        if not all(len(held) >= self.plan.threshold for shares in (seeds, keys) for held in shares.values()):
            return False
        here = len(self._unmaskings)
        if self._secrets is None and (here >= self._next_try or here == len(self._confirmations)):
            self._next_try = here + 1 + here // RETRY
            with suppress(RunError):
                self._secrets = self._reveal(seeds, keys)
        return self._secrets is not None

    def finish(self) -> Sum:
        """Take off all masks that do not cancel out.

        Raises:
            RunError: too few shares came, or too many wrong ones; the round has failed, and nothing is known of the sum.
        """
        if self.phase is not Phase.UNMASKING:
            raise RunError(f"The sum cannot be finished while the server takes {self.phase.value}.")
        self.phase = Phase.OVER
        for plus, minus in self._masks_left():
            prg.apply(self._total, plus=plus, minus=minus)
        self._total &= np.uint32(2**self.terms.width - 1)
        return Sum(self._survivors, self._total)

    def _masks_left(self) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Seeds to add and to subtract: the survivors' own, then per dropped member those it shares with survivors."""
        own, dropped = self._secrets or self._reveal(*self._collected())
        yield [], list(own.values())
        for member, secret in dropped.items():
            plus: list[bytes] = []
            minus: list[bytes] = []
            key = AgreementKey.from_raw(secret)
            for other in sorted(self._graph.neighbours(member) & set(self._survivors)):
                peer = self._keys[other]
                seed = key.mask_seed(peer.mask_key, self._session, self._keys[member].identity, peer.identity)
                (minus if other < member else plus).append(seed)
            yield plus, minus

    def _take(self, member: int, phase: Phase, held: Container[int], allowed: Container[int]) -> None:
        if self.phase is not phase:
            raise ReplyError(f"Member {member} sent {phase.value} while the server takes {self.phase.value}.")
        if member not in allowed:
            raise ReplyError(f"Member {member} has no part in this phase.")
        if member in held:
            raise ReplyError(f"Member {member} sent {phase.value} twice.")

    def _close(self, phase: Phase, then: Phase, present: Collection[int]) -> None:
        if self.phase is not phase:
            raise RunError(f"The server takes {self.phase.value}, so {phase.value} cannot be closed.")
        self.phase = Phase.OVER
        try:
            self._graph.check(present)
        except PrivacyError as error:
            raise RunError(f"The secure sum has failed for lack of {phase.value}. {error}") from error
        self.phase = then

    def _collected(self) -> tuple[Held, Held]:
        """Shares of the survivors' seeds, and of the mask keys of those who dropped out."""
        alive = set(self._survivors)
        seeds: Held = {member: {} for member in self._sharers if member in alive}
        keys: Held = {member: {} for member in self._sharers if member not in alive}
        for holder, message in sorted(self._unmaskings.items()):
            for owner, share in message.seeds:
                seeds[owner][holder] = share
            for owner, share in message.keys:
                keys[owner][holder] = share
        return seeds, keys

    def _is_seed(self, member: int, secret: bytes) -> bool:
        return commitment(secret, self._session, self._keys[member].identity) == self._commitments[member]

    def _is_mask_key(self, member: int, secret: bytes) -> bool:
        return AgreementKey.from_raw(secret).public == self._keys[member].mask_key

    def _reveal(self, seeds: Held, keys: Held) -> Secrets:
        return self._reconstruct(seeds, self._is_seed), self._reconstruct(keys, self._is_mask_key)

    def _reconstruct(self, held: Held, is_right: Callable[[int, bytes], bool]) -> dict[int, bytes]:
        """The secret of each owner in `held`, checked. Where it comes out wrong, other choices of holders are tried: one
        holder that lies is found out if one more than the threshold answered."""
        threshold = self.plan.threshold
        short = [member for member, shares in held.items() if len(shares) < threshold]
        if short:
            raise RunError(f"The secure sum has failed: member {short[0]}'s masks need {threshold} shares.")
        found = {}
        for member, secret in zip(held, _combined([list(shares.items())[:threshold] for shares in held.values()]), strict=True):
            if secret is None or not is_right(member, secret):
                shares = list(held[member].items())
                turns = [(shares[start:] + shares[:start])[:threshold] for start in range(1, len(shares))]
                secret = next((other for other in _combined(turns) if other and is_right(member, other)), None)
            if secret is None:
                raise RunError(f"The secure sum has failed: the shares of member {member}'s secret are wrong.")
            found[member] = secret
        return found


def _combined(choices: list[list[tuple[int, bytes]]]) -> list[bytes | None]:
    """The secret that each choice of (holder, share) gives."""
    points = np.array([[holder + 1 for holder, _ in choice] for choice in choices], dtype=np.int64)
    return combine(points, [[share for _, share in choice] for choice in choices])


def _refuse_unless_verified(check: Callable[..., object], *arguments: object) -> None:
    try:
        check(*arguments)
    except IntegrityError as error:
        raise ReplyError(f"A device's message was refused. {error}") from error
