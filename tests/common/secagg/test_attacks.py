"""What a malicious server, network or member tries. Each attempt recovers nothing or is refused."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import IntegrityError, PrivacyError, ReplyError, RunError
from common.identity import SigningKey
from common.secagg import client as client_module
from common.secagg import prg
from common.secagg import server as server_module
from common.secagg.client import Client, Limits
from common.secagg.keys import AgreementKey
from common.secagg.prg import expand
from common.secagg.roster import Roster, advertise, make_directory
from common.secagg.shamir import combine
from common.secagg.wire import Confirmation, Delivery, Directory, Quorum, Shares, Survivors, Unmasking
from tests.common.secagg.rehearsal import Rehearsal, Stream, identities, make_terms, small_ring


def without(rehearsal: Rehearsal, member: int, gone: int) -> Survivors:
    """The list that a server shows to `member` when it claims that `gone` dropped out."""
    return Survivors(
        tuple(m for m in rehearsal.lists[member].survivors if m != gone),
        tuple((m, signature) for m, signature in rehearsal.lists[member].signatures if m != gone),
    )


def put_together(shares: Iterable[tuple[int, bytes]]) -> bytes | None:
    points, content = zip(*((holder + 1, share) for holder, share in shares), strict=True)
    return combine(np.array([points]), [content])[0]


def pairwise_masks_off(rehearsal: Rehearsal, victim: int, key: AgreementKey) -> NDArray[np.uint32]:
    """The victim's masked vector as a server sees it that has come by the victim's mask key."""
    session, keys = rehearsal.server._session, rehearsal.server._keys
    plus, minus = [], []
    for other in set(keys) - {victim}:
        seed = key.mask_seed(keys[other].mask_key, session, keys[victim].identity, keys[other].identity)
        (minus if victim < other else plus).append(seed)
    vector = rehearsal.inputs[victim].vector.values.copy()
    prg.apply(vector, plus=plus, minus=minus)
    return vector


class TestWeakSeeds:
    """Flower's masks come from 28 to 32 bits, and an update was found by trying them."""

    def test_every_secret_is_drawn_with_256_bits(self) -> None:
        random, keys = Stream(1), identities(3)
        terms = make_terms(keys)
        Client(terms, keys[0], Roster(frozenset(terms.cohort)), Limits(), random)
        assert random.asked == [32, 32, 32]

    def test_a_search_over_all_short_seeds_does_not_find_the_mask(self) -> None:
        rehearsal = Rehearsal(4, length=8)
        rehearsal.vectors[0][:] = 0
        rehearsal.until_masked()
        client = rehearsal.clients[0]
        target = pairwise_masks_off(rehearsal, 0, client._mask_key).tobytes()
        assert expand(client._seed, 8).tobytes() == target, "with the whole seed the mask is found"
        for short in range(2**11):
            for byteorder in ("big", "little"):
                for seed in (short.to_bytes(32, byteorder), short.to_bytes(4, byteorder) * 8):
                    assert expand(seed, 8).tobytes() != target

    @pytest.mark.parametrize("kept", [slice(0, 4), slice(28, 32), slice(0, 28)])
    def test_no_part_of_a_seed_is_enough(self, kept: slice) -> None:
        rehearsal = Rehearsal(4, length=8)
        rehearsal.until_masked()
        seed = rehearsal.clients[0]._seed
        part = bytearray(32)
        part[kept] = seed[kept]
        assert (expand(bytes(part), 8) != expand(seed, 8)).all()


class TestBothShares:
    """Whoever gets both secrets of a member reads its vector; Flower gives them out to whoever asks with two lists."""

    def test_a_message_with_both_shares_of_one_member_cannot_exist(self) -> None:
        with pytest.raises(IntegrityError, match="both shares of one member"):
            Unmasking(0, ((1, bytes(36)),), ((1, bytes(36)),))

    def test_a_device_reveals_exactly_one_share_of_each_member(self) -> None:
        rehearsal = Rehearsal(7)
        rehearsal.until_masked({5})
        message = rehearsal.clients[0].unmask(rehearsal.confirmed())
        assert [member for member, _ in message.seeds] == [0, 1, 2, 3, 4, 6]
        assert [member for member, _ in message.keys] == [5]

    def test_a_second_unmasking_with_the_other_list_is_refused(self) -> None:
        rehearsal = Rehearsal(7)
        rehearsal.until_masked()
        quorum = rehearsal.confirmed()
        client = rehearsal.clients[0]
        client.unmask(quorum)
        for again in (lambda: client.confirm(without(rehearsal, 0, 6)), lambda: client.unmask(quorum)):
            with pytest.raises(IntegrityError, match="out of turn"):
                again()

    def test_the_shares_that_a_third_of_the_members_hold_open_nothing(self) -> None:
        rehearsal = Rehearsal(9)
        rehearsal.until_masked()
        rehearsal.confirmed()
        victim, corrupt = 0, (6, 7, 8)
        held = [(member, dict(rehearsal.clients[member]._opened_shares())[victim]) for member in corrupt]
        client = rehearsal.clients[victim]
        assert put_together([(m, both[:36]) for m, both in held]) != client._seed
        assert put_together([(m, both[36:]) for m, both in held]) != client._mask_key.raw
        everybody = [(m, dict(rehearsal.clients[m]._opened_shares())[victim]) for m in range(1, 8)]
        assert put_together([(m, both[:36]) for m, both in everybody]) == client._seed, "seven shares are the threshold"


class TestKeySubstitution:
    def setup_method(self) -> None:
        self.rehearsal = Rehearsal(5)
        self.directory = self.rehearsal.advertised()

    def bent(self, member: int, content: bytes) -> Directory:
        return Directory(tuple((m, content if m == member else old) for m, old in self.directory.entries))

    @pytest.mark.parametrize("at", [0, 32, 64])
    def test_a_replaced_key_or_signature_is_refused(self, at: int) -> None:
        content = bytearray(dict(self.directory.entries)[1])
        content[at : at + 32] = AgreementKey.generate(Stream(99)).public
        with pytest.raises(IntegrityError, match="signature does not hold"):
            self.rehearsal.clients[0].share(self.bent(1, bytes(content)))

    def test_keys_signed_by_another_identity_are_refused(self) -> None:
        public = AgreementKey.generate(Stream(99)).public
        forged = advertise(self.rehearsal.terms, 1, public, public, SigningKey.generate())
        with pytest.raises(IntegrityError, match="signature does not hold"):
            self.rehearsal.clients[0].share(self.bent(1, public + public + forged.signature))

    def test_another_members_entry_is_refused_in_this_place(self) -> None:
        with pytest.raises(IntegrityError, match="signature does not hold"):
            self.rehearsal.clients[0].share(self.bent(1, dict(self.directory.entries)[2]))

    def test_a_device_refuses_a_directory_without_its_own_keys(self) -> None:
        other = Rehearsal(5, seed=1)
        other.advertised()
        bent = [self.bent(0, dict(other.directory.entries)[0]), Directory(self.directory.entries[1:])]
        for directory in bent:
            device = Rehearsal(5).clients[0]
            device.advertise()
            with pytest.raises(IntegrityError, match="keys that this device advertised"):
                device.share(directory)

    def test_members_that_the_device_does_not_know_are_refused(self) -> None:
        keys = identities(5)
        known = Roster(frozenset(key.public.raw for key in keys[:3]))
        with pytest.raises(IntegrityError, match="2 of 5 members"):
            Client(make_terms(keys), keys[0], known, Limits())

    def test_a_member_beyond_the_cohort_is_refused(self) -> None:
        content = dict(self.directory.entries)[1]
        with pytest.raises(IntegrityError, match="not in this cohort"):
            self.rehearsal.clients[0].share(Directory((*self.directory.entries, (5, content))))

    def test_a_member_that_copies_anothers_keys_gets_another_mask(self) -> None:
        """Its own signature is under them, so they hold; but it cannot agree on anything with them."""
        victim = self.rehearsal.advertisements[2]
        copied = advertise(self.rehearsal.terms, 1, victim.mask_key, victim.share_key, self.rehearsal.keys[1])
        device = self.rehearsal.clients[0]
        device.share(self.bent(1, copied.mask_key + copied.share_key + copied.signature))
        one, two = (
            device._mask_key.mask_seed(victim.mask_key, device._session, device._own, device._keys[m].identity) for m in (1, 2)
        )
        assert one != two

    @pytest.mark.parametrize("low", [0, 1])
    def test_a_key_with_which_every_agreement_fails_does_not_get_into_the_directory(self, low: int) -> None:
        rehearsal = Rehearsal(5)
        keys = [AgreementKey.generate(Stream(99)).public, bytes(32)]
        bad = advertise(rehearsal.terms, 1, keys[low - 1], keys[-low], rehearsal.keys[1])
        with pytest.raises(ReplyError, match="no usable X25519 key"):
            rehearsal.server.add_advertisement(bad)

    def test_the_server_refuses_them_too(self) -> None:
        rehearsal = Rehearsal(5)
        forged = advertise(rehearsal.terms, 1, bytes(32), bytes(32), SigningKey.generate())
        with pytest.raises(ReplyError, match="refused"):
            rehearsal.server.add_advertisement(forged)


class TestReplay:
    @pytest.mark.parametrize("change", [{"number": 2}, {"run": "other"}, {"length": 17}])
    def test_keys_of_another_round_run_or_vector_are_refused(self, change: dict[str, int | str]) -> None:
        old, new = Rehearsal(5), Rehearsal(5, **change)  # type: ignore[arg-type]
        old.advertised()
        fresh = new.clients[0].advertise()
        with pytest.raises(IntegrityError, match="signature does not hold"):
            new.clients[0].share(make_directory({**old.advertisements, 0: fresh}))

    def test_keys_of_another_cohort_are_refused(self) -> None:
        old, new = Rehearsal(5), Rehearsal(6)
        messages = {new.terms.cohort.index(old.terms.cohort[m]): c.advertise() for m, c in old.clients.items()}
        moved = {member: replace(message, member=member) for member, message in messages.items()}
        with pytest.raises(IntegrityError, match="signature does not hold"):
            new.clients[0].share(make_directory({**moved, 0: new.clients[0].advertise()}))

    def test_sealed_shares_of_another_round_do_not_open(self) -> None:
        old, new = Rehearsal(4, seed=1), Rehearsal(4, number=2, seed=1)
        for rehearsal in (old, new):
            rehearsal.advertised()
            rehearsal.shared()
        assert old.clients[0]._mask_key.raw == new.clients[0]._mask_key.raw, "even with the very same secrets"
        new.clients[0].mask(old.deliveries[0], new.vectors[0])
        assert dict(new.clients[0]._opened_shares()) == {}

    def test_confirmations_and_input_signatures_of_another_round_are_refused(self) -> None:
        old, new = Rehearsal(4, seed=1), Rehearsal(4, number=2, seed=1)
        old.until_masked()
        new.until_masked()
        with pytest.raises(IntegrityError, match="signature does not hold"):
            new.clients[0].confirm(old.lists[0])
        stale = old.confirmed()
        new.clients[1].confirm(new.lists[1])
        with pytest.raises(IntegrityError, match="signature does not hold"):
            new.clients[1].unmask(stale)

    def test_a_device_that_is_replayed_into_a_repeated_round_cannot_be_listed_as_a_survivor(self) -> None:
        """In the first attempt the server learned the mask key of a device that dropped out, and plays its keys again."""
        first, again = Rehearsal(7, seed=1), Rehearsal(7, seed=2)
        first.advertised()
        again.advertisements = {m: c.advertise() for m, c in again.clients.items()}
        stale = {**again.advertisements, 6: first.advertisements[6]}
        for message in stale.values():
            again.server.add_advertisement(message)
        again.directory = again.server.close_advertising()
        first.shared()
        first.masked()
        for member in range(6):
            again.server.add_shares(again.clients[member].share(again.directory))
        replayed = Shares(6, first.shares[6].commitment, first.shares[6].sealed)
        again.server.add_shares(replayed)
        again.deliveries = again.server.close_sharing()
        again.deliveries.pop(6)
        again.masked()
        forged = Survivors(tuple(range(7)), (*again.lists[0].signatures, (6, first.inputs[6].signature)))
        with pytest.raises(IntegrityError, match="signature does not hold"):
            again.clients[0].confirm(forged)


class TestMaliciousShares:
    def finished(self, rehearsal: Rehearsal, liars: dict[int, int]) -> None:
        quorum = rehearsal.confirmed()
        for member in rehearsal.confirmers:
            message = rehearsal.clients[member].unmask(quorum)
            if member in liars:
                wrong = bytes([0, 0, 0, liars[member]]) * 9
                message = Unmasking(
                    member, tuple((m, wrong) for m, _ in message.seeds), tuple((m, wrong) for m, _ in message.keys)
                )
            rehearsal.server.add_unmasking(message)

    @pytest.mark.parametrize("liar", [0, 3, 8])
    def test_one_member_that_reveals_wrong_shares_does_not_change_the_sum(self, liar: int) -> None:
        rehearsal = Rehearsal(9, seed=2)
        rehearsal.until_masked({5})
        self.finished(rehearsal, {liar: 7})
        assert (rehearsal.server.finish().total == rehearsal.sum_of({0, 1, 2, 3, 4, 6, 7, 8})).all()

    @pytest.mark.parametrize(("members", "liar"), [(9, 0), (9, 3), (10, 0), (40, 0), (40, 20)])
    def test_a_liar_among_the_first_to_answer_makes_the_server_wait_for_one_more(self, members: int, liar: int) -> None:
        rehearsal = Rehearsal(members, seed=2)
        rehearsal.until_masked({5})
        quorum, answered = rehearsal.confirmed(), 0
        for member in rehearsal.confirmers:
            message = rehearsal.clients[member].unmask(quorum)
            if member == liar:
                message = Unmasking(member, tuple((m, bytes(36)) for m, _ in message.seeds), message.keys)
            rehearsal.server.add_unmasking(message)
            answered += 1
            if rehearsal.server.can_finish():
                break
        assert rehearsal.server.plan.threshold < answered <= len(rehearsal.confirmers)
        assert answered < len(rehearsal.confirmers) or members < 10
        assert (rehearsal.server.finish().total == rehearsal.sum_of(set(range(members)) - {5})).all()

    def test_too_many_wrong_shares_fail_the_round_instead_of_giving_a_wrong_sum(self) -> None:
        rehearsal = Rehearsal(7, seed=2)
        rehearsal.until_masked()
        self.finished(rehearsal, {0: 1, 2: 2, 4: 3})
        with pytest.raises(RunError, match="shares of member 0's secret are wrong"):
            rehearsal.server.finish()

    def test_shares_that_are_no_field_elements_are_refused_on_arrival(self) -> None:
        rehearsal = Rehearsal(4)
        rehearsal.until_masked()
        quorum = rehearsal.confirmed()
        seeds = rehearsal.clients[0].unmask(quorum).seeds
        with pytest.raises(ReplyError, match="no field elements"):
            rehearsal.server.add_unmasking(Unmasking(0, tuple((m, b"\xff" * 36) for m, _ in seeds), ()))

    def test_a_sealed_share_that_does_not_open_is_left_out_and_the_others_are_enough(self) -> None:
        rehearsal = Rehearsal(7, seed=3)
        rehearsal.advertised()
        deliveries = rehearsal.shared()
        bent = tuple((m, sealed[:-1] + bytes([sealed[-1] ^ 1]) if m == 3 else sealed) for m, sealed in deliveries[0].sealed)
        deliveries[0] = Delivery(deliveries[0].sharers, bent)
        rehearsal.masked({3})
        result = rehearsal.confirmed()
        assert rehearsal.clients[0].unmask(result).keys == ()
        for member in rehearsal.confirmers[1:]:
            rehearsal.server.add_unmasking(rehearsal.clients[member].unmask(result))
        rehearsal.server.add_unmasking(Unmasking(0, (), ()))
        assert rehearsal.server.can_finish()

    def test_a_member_that_shares_out_another_secret_than_it_committed_to_fails_the_round(self) -> None:
        rehearsal = Rehearsal(4, seed=2)
        rehearsal.advertised()
        rehearsal.shares = {m: c.share(rehearsal.directory) for m, c in rehearsal.clients.items()}
        for message in rehearsal.shares.values():
            commitment = bytes(32) if message.member == 1 else message.commitment
            rehearsal.server.add_shares(Shares(message.member, commitment, message.sealed))
        rehearsal.deliveries = rehearsal.server.close_sharing()
        rehearsal.masked()
        rehearsal.confirmed()
        with pytest.raises(RunError, match="member 1's secret"):
            rehearsal.unmasked()

    def test_shares_for_others_than_the_neighbours_are_refused(self) -> None:
        rehearsal = Rehearsal(5)
        rehearsal.advertised()
        message = rehearsal.clients[0].share(rehearsal.directory)
        with pytest.raises(ReplyError, match="exactly its neighbours"):
            rehearsal.server.add_shares(replace(message, sealed=message.sealed[1:]))


class TestSmallCohorts:
    def test_a_cohort_below_the_owners_limit_is_refused_before_anything_is_sent(self) -> None:
        with pytest.raises(PrivacyError, match="takes part from 10 on"):
            Rehearsal(9, smallest=10)

    def test_two_devices_are_refused(self) -> None:
        with pytest.raises(PrivacyError, match="takes part from 3 on"):
            Rehearsal(2)

    @pytest.mark.parametrize("phase", range(3))
    def test_a_list_below_the_owners_limit_is_refused_in_every_phase(self, phase: int) -> None:
        rehearsal = Rehearsal(10, smallest=9)
        steps = [rehearsal.advertised, rehearsal.shared, rehearsal.masked]
        for step in steps[:phase]:
            step()
        steps[phase]({8, 9})
        with pytest.raises(PrivacyError, match="fewer than 9 is refused"):
            [*steps, rehearsal.confirmed][phase + 1]()

    def test_no_message_of_the_server_lowers_the_threshold(self) -> None:
        rehearsal = Rehearsal(9)
        rehearsal.until_masked()
        few = Survivors(tuple(range(6)), rehearsal.lists[0].signatures[:5])
        with pytest.raises(PrivacyError, match="6 of 9"):
            rehearsal.clients[0].confirm(few)

    def test_too_few_confirmations_reveal_nothing(self) -> None:
        rehearsal = Rehearsal(9)
        rehearsal.until_masked()
        quorum = rehearsal.confirmed()
        with pytest.raises(PrivacyError, match="6 devices confirmed"):
            rehearsal.clients[0].unmask(Quorum(quorum.signatures[:6]))


class TestLyingSurvivorLists:
    def setup_method(self) -> None:
        self.rehearsal = Rehearsal(9, seed=4)

    def test_a_device_that_sent_nothing_cannot_be_listed(self) -> None:
        self.rehearsal.until_masked({8})
        list_ = self.rehearsal.lists[0]
        for signatures in (list_.signatures, (*list_.signatures, (8, list_.signatures[0][1]))):
            with pytest.raises(IntegrityError):
                self.rehearsal.clients[0].confirm(Survivors(tuple(range(9)), signatures))
            self.rehearsal.clients[0].stage = client_module.Stage.CONFIRM

    def test_a_device_that_did_not_share_cannot_be_listed(self) -> None:
        self.rehearsal.advertised()
        self.rehearsal.shared({8})
        self.rehearsal.masked()
        list_ = self.rehearsal.lists[0]
        with pytest.raises(IntegrityError, match="did not share"):
            self.rehearsal.clients[0].confirm(Survivors((*list_.survivors, 8), list_.signatures))

    def test_a_device_confirms_no_list_without_itself(self) -> None:
        self.rehearsal.until_masked()
        with pytest.raises(IntegrityError, match="leaves this device out"):
            self.rehearsal.clients[0].confirm(Survivors(tuple(range(1, 9)), self.rehearsal.lists[1].signatures))

    @pytest.mark.parametrize("kept", [slice(1, None), slice(0, 0)])
    def test_a_delivery_without_a_sharing_neighbours_shares_is_refused(self, kept: slice) -> None:
        self.rehearsal.advertised()
        delivery = self.rehearsal.shared()[0]
        with pytest.raises(IntegrityError, match="exactly the shares"):
            self.rehearsal.clients[0].mask(Delivery(delivery.sharers, delivery.sealed[kept]), self.rehearsal.vectors[0])

    def test_a_survivor_that_the_server_calls_dropped_stays_hidden(self) -> None:
        """The server gets the victim's mask key, and the sum without the victim; the victim's vector stays under its own seed."""
        victim, rehearsal = 8, self.rehearsal
        rehearsal.until_masked()
        confirmations = [rehearsal.clients[m].confirm(without(rehearsal, m, victim)) for m in range(8)]
        quorum = Quorum(tuple((c.member, c.signature) for c in confirmations))
        messages = [rehearsal.clients[m].unmask(quorum) for m in range(8)]
        assert not any(member == victim for message in messages for member, _ in message.seeds)
        raw = put_together([(message.member, dict(message.keys)[victim]) for message in messages[:7]])
        assert raw == rehearsal.clients[victim]._mask_key.raw
        left = pairwise_masks_off(rehearsal, victim, rehearsal.clients[victim]._mask_key)
        assert (left != rehearsal.vectors[victim]).all()
        assert (left - expand(rehearsal.clients[victim]._seed, 16) == rehearsal.vectors[victim]).all(), "only the seed is missing"

    def test_a_victim_that_was_shown_other_sharers_is_not_unmasked(self) -> None:
        """Shown half of its neighbours as sharers, then the other half as survivors, a victim would share no mask with them."""
        rehearsal, victim = self.rehearsal, 8
        rehearsal.advertised()
        deliveries = rehearsal.shared()
        shown = (0, 1, 2, 3, 4, 5, victim)
        deliveries[victim] = Delivery(shown, tuple((m, s) for m, s in deliveries[victim].sealed if m in shown))
        inputs = {m: c.mask(deliveries[m], rehearsal.vectors[m]) for m, c in rehearsal.clients.items()}
        with pytest.raises(ReplyError, match="refused"):
            rehearsal.server.add_masked(inputs[victim])
        signatures = tuple((m, message.signature) for m, message in inputs.items() if m not in (0, 1))
        with pytest.raises(IntegrityError, match="signature does not hold"):
            rehearsal.clients[7].confirm(Survivors((2, 3, 4, 5, 6, 7, 8), tuple(s for s in signatures if s[0] != 7)))


class TestEquivocation:
    def test_two_lists_cannot_both_get_a_quorum(self) -> None:
        rehearsal = Rehearsal(9, seed=4)
        rehearsal.until_masked()
        victim, corrupt = 8, (6, 7)
        with_victim = {m: rehearsal.clients[m].confirm(rehearsal.lists[m]) for m in (0, 1, 2)}
        without_victim = {m: rehearsal.clients[m].confirm(without(rehearsal, m, victim)) for m in (3, 4, 5)}
        twice = Rehearsal(9, seed=4)
        twice.until_masked()
        for member in corrupt:
            with_victim[member] = rehearsal.clients[member].confirm(rehearsal.lists[member])
            without_victim[member] = twice.clients[member].confirm(without(twice, member, victim))
        for signed in (with_victim, without_victim):
            quorum = Quorum(tuple(sorted((m, c.signature) for m, c in signed.items())))
            with pytest.raises(PrivacyError, match="7 are needed"):
                rehearsal.clients[min(signed)].unmask(quorum)

    def test_confirmations_of_another_list_do_not_count(self) -> None:
        rehearsal = Rehearsal(9, seed=4)
        rehearsal.until_masked()
        mixed: list[Confirmation] = []
        for member in range(8):
            shown = rehearsal.lists[member] if member < 4 else without(rehearsal, member, 8)
            mixed.append(rehearsal.clients[member].confirm(shown))
        for member in (0, 5):
            with pytest.raises(IntegrityError, match="signature does not hold"):
                rehearsal.clients[member].unmask(Quorum(tuple((c.member, c.signature) for c in mixed)))

    def test_only_survivors_may_confirm(self) -> None:
        rehearsal = Rehearsal(9, seed=4)
        rehearsal.until_masked({8})
        quorum = rehearsal.confirmed()
        outsider = (*quorum.signatures, (8, quorum.signatures[0][1]))
        with pytest.raises(IntegrityError, match="not on it"):
            rehearsal.clients[0].unmask(Quorum(outsider))

    def test_devices_with_different_directories_hold_no_common_masks(self) -> None:
        rehearsal = Rehearsal(7, seed=4)
        full = rehearsal.advertised()
        part = Directory(full.entries[:6])
        one, other = rehearsal.clients[0], rehearsal.clients[1]
        one.share(full)
        other.share(part)
        peer = one._keys[1]
        assert one._mask_key.mask_seed(peer.mask_key, one._session, one._own, other._own) != other._mask_key.mask_seed(
            other._keys[0].mask_key, other._session, one._own, other._own
        )


def test_a_server_that_cuts_a_device_off_in_a_sparse_graph_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "plan", small_ring)
    monkeypatch.setattr(server_module, "plan", small_ring)
    rehearsal = Rehearsal(24, seed=6)
    rehearsal.until_masked()
    victim = 5
    cut = rehearsal.server._graph.neighbours(victim)
    survivors = tuple(m for m in range(24) if m not in cut)
    assert len(survivors) >= rehearsal.server.plan.quorum
    witness = next(m for m in survivors if m != victim)
    signatures = tuple(entry for entry in rehearsal.lists[witness].signatures if entry[0] not in cut)
    with pytest.raises(PrivacyError, match="in a row"):
        rehearsal.clients[witness].confirm(Survivors(survivors, signatures))
