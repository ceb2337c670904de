"""A device's part in a secure sum over Flower: between training and the last step it keeps its update, in memory alone.

`fl_client.device` hands it the trained update and then the server's messages. What a step reveals is `common.secagg.client`'s.
"""

import secrets
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import IntegrityError
from common.identity import SigningKey
from common.messages import SumHeader
from common.secagg.client import Client, Limits
from common.secagg.roster import Roster
from common.secagg.wire import Delivery, Directory, Quorum, Survivors, Terms
from common.sum_encoding import SumEncoding


class KnownDevices(Protocol):
    """The other devices that this one has met."""

    def admit(self, cohort: Collection[bytes], own: bytes) -> Roster:
        """The identities that this device accepts, given whom the server invites.

        Raises:
            PrivacyError: its owner does not want those who are new.
        """

    def remember(self, cohort: Collection[bytes], own: bytes) -> None:
        """They have shown that the keys are theirs."""


class AnyDevice:
    """Accepts whomever the server invites: for simulations, where all devices are the researcher's."""

    def admit(self, cohort: Collection[bytes], own: bytes) -> Roster:
        """Everybody."""
        return Roster(frozenset(cohort))

    def remember(self, cohort: Collection[bytes], own: bytes) -> None:
        """Nobody."""


@dataclass
class Waiting:
    """An update that waits for its sum.

    Attributes:
        update: flat; None once it was masked.
        digest: what the cohort must agree on.
        encoding: how it becomes a vector of the sum.
        identity: signs this device's part.
    """

    update: NDArray[np.float32] | None
    digest: bytes
    encoding: SumEncoding
    identity: SigningKey
    client: Client | None = None
    terms: Terms | None = None


class SecureSums:
    """What devices keep between the messages of a round, by device: the last thing that each has trained.

    A simulation's devices share one, so that a device that dropped out of a sum leaves nothing behind: what waits is forgotten
    once anybody has trained for a later round. An earlier one may be a straggler's, or be asked again of a run that was restored.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[str, int, Waiting]] = {}
        self._guard = threading.Lock()

    def keep(self, run: str, number: int, device: int, waiting: Waiting) -> None:
        """The update of a round, until its sum."""
        with self._guard:
            kept = {who: entry for who, entry in self._waiting.items() if entry[0] == run and entry[1] >= number}
            self._waiting = kept | {device: (run, number, waiting)}

    def take(self, run: str, number: int, device: int) -> Waiting:
        """What waits for the round.

        Raises:
            IntegrityError: nothing does.
        """
        with self._guard:
            found = self._waiting.get(device)
            if found is None or found[:2] != (run, number):
                raise IntegrityError("The server asks for a step of a sum that this device has no part in.")
            return found[2]

    def drop(self, device: int) -> None:
        """The sum is over for this device."""
        with self._guard:
            self._waiting.pop(device, None)


def take_step(
    waiting: Waiting,
    header: SumHeader,
    message: bytes,
    known: KnownDevices,
    smallest_cohort: int,
    rounding: Callable[[int], bytes] = secrets.token_bytes,
) -> bytes:
    """Answer one step of the sum that `waiting` is for.

    Args:
        smallest_cohort: as this device's owner demands.
        rounding: the key by which values are rounded at random; all secrets come from the system.

    Returns:
        What `common.secagg.client` lets the server see in this step.

    Raises:
        IntegrityError, PrivacyError: the device goes no further; nothing more of it is revealed.
    """
    if header.step == "advertise":
        terms = Terms.decode(message)
        if waiting.client is not None or waiting.update is None:
            raise IntegrityError("The server invites to the same sum twice.")
        if (terms.run, terms.round, terms.length) != (header.run, header.round, waiting.encoding.vector_length):
            raise IntegrityError("The server invites to a sum of something else than what was trained.")
        if terms.request != waiting.digest:
            raise IntegrityError("The server gave other members of this sum another request, or other weights.")
        if terms.width != waiting.encoding.width(len(terms.cohort)):
            raise IntegrityError("The server invites to a sum of integers of another width than was asked for.")
        client = Client(terms, waiting.identity, known.admit(terms.cohort, waiting.identity.public.raw), Limits(smallest_cohort))
        waiting.encoding.check(terms)
        waiting.client, waiting.terms = client, terms
        return client.advertise().encode()
    if waiting.client is None or waiting.terms is None:
        raise IntegrityError("The server asks for a step of a sum that it has not invited to.")
    client = waiting.client
    if header.step == "share":
        directory = Directory.decode(message)
        shares = client.share(directory)
        known.remember([waiting.terms.cohort[member] for member, _ in directory.entries], waiting.identity.public.raw)
        return shares.encode()
    if header.step == "mask":
        update, waiting.update = waiting.update, None
        if update is None:
            raise IntegrityError("The server asks for the masked update twice.")
        return client.mask(Delivery.decode(message), waiting.encoding.encode(update, waiting.terms, rounding)).encode()
    if header.step == "confirm":
        return client.confirm(Survivors.decode(message)).encode()
    return client.unmask(Quorum.decode(message)).encode()
