"""The device's side of one secure sum: advertise, share, mask, confirm, unmask, each once and in this order.

`fl_client` carries its messages. It trusts its own roster, its own limits and its own random source; the server's messages are
checked, and whatever does not hold ends the round for this device with nothing more revealed.
"""

import enum
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, IntegrityError, PrivacyError
from common.identity import SigningKey
from common.secagg import prg
from common.secagg.fields import Entries, RingVector
from common.secagg.graph import SMALLEST, Graph, plan
from common.secagg.keys import AgreementKey, Session, commitment, seal, unseal
from common.secagg.prg import SEED_BYTES, Random
from common.secagg.roster import (
    Keys,
    Roster,
    advertise,
    check_directory,
    check_inputs,
    check_survivors,
    sign_input,
    sign_survivors,
)
from common.secagg.shamir import SHARE_BYTES, split
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


class Stage(enum.Enum):
    """What the device does next; `OVER` after the last step and after any refusal."""

    ADVERTISE = "advertise"
    SHARE = "share"
    MASK = "mask"
    CONFIRM = "confirm"
    UNMASK = "unmask"
    OVER = "over"


@dataclass(frozen=True)
class Limits:
    """What the device's owner demands, whatever the server says.

    Attributes:
        smallest_cohort: devices whose vectors a sum must hold at least.
    """

    smallest_cohort: int = SMALLEST

    def __post_init__(self) -> None:
        if self.smallest_cohort < SMALLEST:
            raise ConfigError(f"The smallest cohort is at least {SMALLEST}, not {self.smallest_cohort}: use a larger number.")


class Client:
    """One device in one round. All its secrets are fresh and live in this object alone.

    Args:
        terms: the round, as the server invited; its `request` digest is the caller's to compare.
        identity: the device's enrolled key.
        roster: the identity keys it accepts as enrolled.
        limits: its owner's demands.
        random: where its secrets come from.

    Raises:
        PrivacyError: the cohort is too small for the limits.
        IntegrityError: this device or somebody else in the cohort is not enrolled.
    """

    def __init__(
        self, terms: Terms, identity: SigningKey, roster: Roster, limits: Limits, random: Random = secrets.token_bytes
    ) -> None:
        own = identity.public.raw
        if own not in terms.cohort:
            raise IntegrityError("This device is not in the cohort that it was invited to.")
        roster.check_cohort(terms)
        if len(terms.cohort) < limits.smallest_cohort:
            raise PrivacyError(
                f"The cohort has {len(terms.cohort)} devices; this device takes part from {limits.smallest_cohort} on."
            )
        self._terms, self._identity, self._limits, self._random = terms, identity, limits, random
        self._plan, self.member, self._own = plan(len(terms.cohort)), terms.cohort.index(own), own
        self._mask_key, self._share_key = AgreementKey.generate(random), AgreementKey.generate(random)
        self._seed = random(SEED_BYTES)
        self.stage = Stage.ADVERTISE

    def advertise(self) -> Advertisement:
        """Server sees: two public keys for this round, signed by the device's identity."""
        with self._step(Stage.ADVERTISE, Stage.SHARE):
            return advertise(self._terms, self.member, self._mask_key.public, self._share_key.public, self._identity)

    def share(self, directory: Directory) -> Shares:
        """Split both secrets among the neighbours. Server sees: ciphertexts that only they open.

        Raises:
            IntegrityError: a key in the directory is not its member's for this round, or this device's own was replaced.
            PrivacyError: too few members advertised.
        """
        with self._step(Stage.SHARE, Stage.MASK):
            self._keys = check_directory(self._terms, directory)
            if self._keys.get(self.member) != Keys(self._own, self._mask_key.public, self._share_key.public):
                raise IntegrityError("The directory does not have the keys that this device advertised.")
            self._session = Session(self._terms.run, self._terms.round, self._terms.digest, directory.digest)
            self._graph = Graph(self._plan, directory.digest)
            self._graph.check(self._keys, self._limits.smallest_cohort)
            self._neighbours = self._graph.neighbours(self.member) & set(self._keys)
            holders = sorted(self._neighbours | {self.member})
            self._check_holders(holders)
            points = [holder + 1 for holder in holders]
            seeds, keys = split([self._seed, self._mask_key.raw], points, self._plan.threshold, self._random)
            self._own_share = seeds[holders.index(self.member)]
            sealed = tuple(
                (holder, self._seal(holder, seed + key))
                for holder, seed, key in zip(holders, seeds, keys, strict=True)
                if holder != self.member
            )
            return Shares(self.member, commitment(self._seed, self._session, self._own), sealed)

    def mask(self, delivery: Delivery, vector: NDArray[np.uint32]) -> MaskedInput:
        """Hide `vector` (`terms.length` ring integers, see `ring`). Server sees: a vector that is uniform to it.

        Raises:
            IntegrityError: the delivery names strangers or lacks a neighbour's shares; the vector does not fit the terms.
            PrivacyError: too few members shared.
        """
        with self._step(Stage.MASK, Stage.CONFIRM):
            if vector.dtype != np.uint32 or vector.shape != (self._terms.length,):
                raise IntegrityError(f"This round sums flat uint32 vectors of {self._terms.length} values.")
            if int(vector.max(initial=0)) >> self._terms.width:
                raise IntegrityError(f"This round sums integers of {self._terms.width} bits.")
            if not {self.member} <= set(delivery.sharers) <= set(self._keys):
                raise IntegrityError("The delivery names members who did not advertise, or leaves this device out.")
            self._graph.check(delivery.sharers, self._limits.smallest_cohort)
            self._sharers, self._sealed = delivery.sharers, dict(delivery.sealed)
            self._neighbours &= set(self._sharers)
            if set(self._sealed) != self._neighbours:
                raise IntegrityError("The delivery does not hold exactly the shares of this device's neighbours.")
            self._check_holders(sorted(self._neighbours | {self.member}))
            plus, minus = self._pairwise_seeds()
            masked = vector.copy()
            prg.apply(masked, plus=[self._seed, *plus], minus=minus)
            masked &= np.uint32(2**self._terms.width - 1)
            signature = sign_input(self._session, self._sharers, self.member, self._identity)
            return MaskedInput(self.member, signature, RingVector(masked, self._terms.width))

    def confirm(self, survivors: Survivors) -> Confirmation:
        """Sign the list of survivors, the only one that this device will sign in this round.

        Everybody who shared and is not on it counts as dropped out: the two sets are disjoint and cover all by construction.

        Raises:
            IntegrityError: somebody on the list did not share, this device is not on it, or a neighbour did not sign that it
                sent its vector masked for this round and these members.
            PrivacyError: too few are left, here or in some stretch of the graph.
        """
        with self._step(Stage.CONFIRM, Stage.UNMASK):
            listed = set(survivors.survivors)
            if not {self.member} <= listed <= set(self._sharers):
                raise IntegrityError("The list of survivors names members who did not share, or leaves this device out.")
            self._graph.check(listed, self._limits.smallest_cohort)
            if {member for member, _ in survivors.signatures} != self._neighbours & listed:
                raise IntegrityError("The list of survivors does not hold exactly the signatures of this device's neighbours.")
            check_inputs(self._terms, self._session, self._sharers, survivors.signatures)
            self._survivors = survivors.survivors
            signature = sign_survivors(self._session, self._sharers, self._survivors, self.member, self._identity)
            return Confirmation(self.member, signature)

    def unmask(self, quorum: Quorum) -> Unmasking:
        """Reveal, per neighbour, the share of its seed if it survived and of its mask key if not.

        A neighbour's sealed share that does not open is left out; the others' are enough.

        Raises:
            IntegrityError: a confirmation is not of a survivor, or not of the list that this device signed.
            PrivacyError: too few confirmed it.
        """
        with self._step(Stage.UNMASK, Stage.OVER):
            signers = {member for member, _ in quorum.signatures}
            if not signers <= set(self._survivors):
                raise IntegrityError("The list of survivors is confirmed by members who are not on it.")
            if len(signers) < self._plan.quorum:
                raise PrivacyError(f"{len(signers)} devices confirmed the list of survivors; {self._plan.quorum} are needed.")
            check_survivors(self._terms, self._session, self._sharers, self._survivors, quorum.signatures)
            survived = set(self._survivors)
            opened = dict(self._opened_shares())
            seeds = {member: shares[:SHARE_BYTES] for member, shares in opened.items() if member in survived}
            seeds[self.member] = self._own_share
            keys = {member: shares[SHARE_BYTES:] for member, shares in opened.items() if member not in survived}
            return Unmasking(self.member, _entries(seeds), _entries(keys))

    @contextmanager
    def _step(self, now: Stage, then: Stage) -> Iterator[None]:
        """Whatever goes wrong on the way, the round is over for this device: its stage is `OVER` until the step is done."""
        expected, self.stage = self.stage, Stage.OVER
        if expected is not now:
            raise IntegrityError(f"This device was asked to {now.value} out of turn, so the round is over for it.")
        yield
        self.stage = then

    def _check_holders(self, holders: list[int]) -> None:
        if len(holders) < self._plan.threshold:
            raise PrivacyError(f"{len(holders)} devices would hold this device's shares; {self._plan.threshold} are needed.")

    def _seal(self, holder: int, shares: bytes) -> bytes:
        peer = self._keys[holder]
        key = self._share_key.sealing_key(peer.share_key, self._session, self._own, peer.identity)
        return seal(key, shares, self._session, self._own, peer.identity, self._random)

    def _opened_shares(self) -> Iterator[tuple[int, bytes]]:
        for member, sealed in self._sealed.items():
            peer = self._keys[member]
            key = self._share_key.sealing_key(peer.share_key, self._session, peer.identity, self._own)
            try:
                shares = unseal(key, sealed, self._session, peer.identity, self._own)
            except IntegrityError:
                continue
            yield member, shares

    def _pairwise_seeds(self) -> tuple[list[bytes], list[bytes]]:
        """Seeds of the masks to add and of those to subtract: of two neighbours, the one with the lower number adds."""
        plus: list[bytes] = []
        minus: list[bytes] = []
        for member in sorted(self._neighbours):
            peer = self._keys[member]
            seed = self._mask_key.mask_seed(peer.mask_key, self._session, self._own, peer.identity)
            (plus if self.member < member else minus).append(seed)
        return plus, minus


def _entries(content: dict[int, bytes]) -> Entries:
    return tuple(sorted(content.items()))
