"""Who takes part: ephemeral keys signed by enrolled identity keys, and every other signature of a round.

`client` and `server` verify with it. A device trusts its own roster of enrolled keys, never the server's word.
"""

import hashlib
from dataclasses import dataclass

from common.errors import IntegrityError
from common.identity import PublicKey, SigningKey
from common.secagg.fields import KEY_BYTES, Entries, Ids, Members
from common.secagg.keys import Session
from common.secagg.wire import Advertisement, Directory, Terms

ADVERTISE, SURVIVE, CONFIRM = (f"emofl secagg 1 {purpose}" for purpose in ("advertise", "masked input sent", "survivors"))


@dataclass(frozen=True)
class Keys:
    """A member's ephemeral public keys, with its identity."""

    identity: bytes
    mask_key: bytes
    share_key: bytes


@dataclass(frozen=True)
class Roster:
    """The identity keys (32 bytes each) that a device accepts as enrolled."""

    enrolled: frozenset[bytes]

    def check_cohort(self, terms: Terms) -> None:
        """Raises:
        IntegrityError: somebody in the cohort is not enrolled.
        """
        strangers = sum(identity not in self.enrolled for identity in terms.cohort)
        if strangers:
            raise IntegrityError(f"{strangers} of {len(terms.cohort)} members of this cohort are not enrolled.")


def advertise(terms: Terms, member: int, mask_key: bytes, share_key: bytes, identity: SigningKey) -> Advertisement:
    """A member's ephemeral keys, signed for this run, round and cohort."""
    signature = identity.sign(ADVERTISE, _advertised(terms, member, mask_key, share_key))
    return Advertisement(member, mask_key, share_key, signature)


def check_advertisement(terms: Terms, advertisement: Advertisement) -> Keys:
    """The keys in it.

    Raises:
        IntegrityError: the member is not in the cohort, or its identity did not sign these keys for this run, round and cohort.
    """
    member, mask_key, share_key = advertisement.member, advertisement.mask_key, advertisement.share_key
    content = _advertised(terms, member, mask_key, share_key)
    _verify(terms, member, ADVERTISE, content, advertisement.signature)
    return Keys(terms.cohort[member], mask_key, share_key)


def make_directory(advertisements: dict[int, Advertisement]) -> Directory:
    """All advertisements as the one message that everybody gets."""
    ordered = sorted(advertisements.items())
    return Directory(tuple((member, ad.mask_key + ad.share_key + ad.signature) for member, ad in ordered))


def check_directory(terms: Terms, directory: Directory) -> dict[int, Keys]:
    """Everybody's keys, each verified. Two members may have the same one: identities are bound into whatever follows from it.

    Raises:
        IntegrityError: as `check_advertisement`.
    """
    found = {}
    for member, content in directory.entries:
        mask_key, share_key, signature = content[:KEY_BYTES], content[KEY_BYTES : 2 * KEY_BYTES], content[2 * KEY_BYTES :]
        found[member] = check_advertisement(terms, Advertisement(member, mask_key, share_key, signature))
    return found


def sign_input(session: Session, sharers: Ids, member: int, identity: SigningKey) -> bytes:
    """Member's word that it sent its masked vector, and that it masked it with the neighbours among `sharers`."""
    return identity.sign(SURVIVE, _by(member, _listed(session, sharers)))


def check_inputs(terms: Terms, session: Session, sharers: Ids, signatures: Entries) -> None:
    """Raises:
    IntegrityError: one of `signatures` is not its member's word for that.
    """
    content = _listed(session, sharers)
    for member, signature in signatures:
        _verify(terms, member, SURVIVE, _by(member, content), signature)


def sign_survivors(session: Session, sharers: Ids, survivors: Ids, member: int, identity: SigningKey) -> bytes:
    """Member's word that it saw this list of survivors, and will see no other in this round."""
    return identity.sign(CONFIRM, _by(member, _listed(session, sharers, survivors)))


def check_survivors(terms: Terms, session: Session, sharers: Ids, survivors: Ids, signatures: Entries) -> None:
    """Raises:
    IntegrityError: one of `signatures` is not its member's for this list.
    """
    content = _listed(session, sharers, survivors)
    for member, signature in signatures:
        _verify(terms, member, CONFIRM, _by(member, content), signature)


def _advertised(terms: Terms, member: int, mask_key: bytes, share_key: bytes) -> bytes:
    return _by(member, terms.digest + mask_key + share_key)


def _by(member: int, content: bytes) -> bytes:
    return member.to_bytes(2, "big") + content


def _listed(session: Session, *lists: Ids) -> bytes:
    return session.binding + b"".join(hashlib.sha256(Members().write(members)).digest() for members in lists)


def _verify(terms: Terms, member: int, context: str, content: bytes, signature: bytes) -> None:
    if member >= len(terms.cohort):
        raise IntegrityError(f"Member {member} is not in this cohort of {len(terms.cohort)}.")
    PublicKey(terms.cohort[member]).verify(context, content, signature)
