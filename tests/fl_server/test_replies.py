"""What devices' replies may hold of the server's memory."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_server.replies import KEPT, ROOM, SMALL, UNDERWAY, Busy, Replies, TooMuch

RUN, ANNA, BEN = 1, 10, 20


@dataclass
class Memory:
    """Objects as Flower keeps them: of a reply, until it is dropped."""

    sizes: dict[str, int] = field(default_factory=dict)
    of: dict[str, list[str]] = field(default_factory=dict)
    dropped: list[tuple[int, str]] = field(default_factory=list)

    def drop(self, node: int, name: str) -> None:
        self.dropped.append((node, name))
        for part in self.of.pop(name, []):
            if not any(part in parts for parts in self.of.values()):
                self.sizes.pop(part, None)


@pytest.fixture
def memory() -> Memory:
    return Memory()


def replies_of(memory: Memory, most: int = 100) -> Replies:
    replies = Replies(lambda name: memory.sizes.get(name, 0), memory.drop)
    replies.allow(RUN, lambda: most)
    return replies


def send(memory: Memory, replies: Replies, node: int, name: str, sizes: list[int]) -> None:
    """A whole reply: its root, of one byte, and parts of the given sizes."""
    parts = {f"{name}.{number}": size for number, size in enumerate(sizes)} | {name: 1}
    assert replies.announce(node, RUN, name, parts)
    memory.of[name] = list(parts)
    for part, size in parts.items():
        assert replies.arrived(node, part, size)
        memory.sizes[part] = size


def test_a_reply_may_be_as_large_as_its_run_allows_and_not_a_byte_more(memory: Memory) -> None:
    replies = replies_of(memory)
    send(memory, replies, ANNA, "a", [60, 39])
    with pytest.raises(TooMuch, match="larger than 100 bytes"):
        send(memory, replies, ANNA, "b", [60, 40])
    assert memory.dropped == [(ANNA, "b")]
    assert not replies.arrived(ANNA, "b.0", 1)
    send(memory, replies, BEN, "c", [99])


def test_the_same_part_sent_again_counts_once(memory: Memory) -> None:
    replies = replies_of(memory)
    assert replies.announce(ANNA, RUN, "a", ["a", "x"])
    for _ in range(5):
        assert replies.arrived(ANNA, "x", 99)


def test_to_announce_a_reply_again_changes_nothing_that_was_counted(memory: Memory) -> None:
    replies = replies_of(memory)
    assert replies.announce(ANNA, RUN, "a", ["a", "x", "y"])
    assert replies.arrived(ANNA, "x", 60)
    assert replies.announce(ANNA, RUN, "a", ["y", "x", "a"])
    assert not replies.announce(ANNA, RUN, "a", ["a", "z"])
    with pytest.raises(TooMuch):
        replies.arrived(ANNA, "y", 60)


def test_nothing_is_taken_that_its_sender_has_not_announced(memory: Memory) -> None:
    replies = replies_of(memory)
    assert replies.announce(ANNA, RUN, "a", ["a", "x"])
    assert not replies.arrived(BEN, "x", 1)
    assert not replies.arrived(ANNA, "other", 1)


def test_what_is_in_memory_already_counts_for_whoever_announces_it(memory: Memory) -> None:
    replies = replies_of(memory)
    memory.sizes |= {"x": 60, "y": 60}
    with pytest.raises(TooMuch):
        replies.announce(ANNA, RUN, "a", ["a", "x", "y"])


def test_a_reply_cannot_keep_another_one_in_memory(memory: Memory) -> None:
    replies = replies_of(memory)
    send(memory, replies, ANNA, "a", [5])
    assert not replies.announce(ANNA, RUN, "b", ["b", "a"])
    assert not replies.announce(BEN, RUN, "c", ["c", "a"])
    assert not replies.announce(BEN, RUN, "a", ["a"])


def test_a_device_whose_replies_are_never_read_keeps_the_latest_few(memory: Memory) -> None:
    replies = replies_of(memory)
    for number in range(20):
        send(memory, replies, ANNA, f"r{number}", [90])
    assert len(memory.of) == KEPT
    assert sum(memory.sizes.values()) <= KEPT * 100
    assert memory.dropped[:2] == [(ANNA, "r0"), (ANNA, "r1")]


def test_replies_that_were_read_make_no_other_ones_go(memory: Memory) -> None:
    replies = replies_of(memory)
    for number in range(20):
        send(memory, replies, ANNA, f"r{number}", [90])
        memory.sizes.clear()
    assert memory.dropped == []


def test_after_a_run_nothing_of_it_is_remembered_and_its_names_are_free(memory: Memory) -> None:
    replies = replies_of(memory)
    send(memory, replies, ANNA, "a", [5])
    replies.forget(RUN)
    assert not replies.arrived(ANNA, "a.0", 5)
    assert not replies._runs
    assert not replies._by_node
    assert replies.announce(ANNA, 2, "a", ["a"])


@given(st.lists(st.tuples(st.sampled_from([ANNA, BEN]), st.lists(st.integers(1, 60), max_size=5)), max_size=25))
def test_whatever_devices_send_the_memory_is_bounded(sent: list[tuple[int, list[int]]]) -> None:
    memory = Memory()
    replies = replies_of(memory)
    for number, (node, sizes) in enumerate(sent):
        try:
            send(memory, replies, node, f"r{number}", sizes)
        except TooMuch:
            assert sum(sizes) + 1 > 100
        assert sum(memory.sizes.values()) <= 2 * KEPT * 100


def test_memory_follows_the_model_and_not_the_number_of_devices(memory: Memory) -> None:
    replies = replies_of(memory, most=10 * SMALL)
    for node in range(ROOM):
        send(memory, replies, node, f"reply-{node}", [SMALL, SMALL])
    with pytest.raises(Busy):
        replies.announce(99, RUN, "one-more", ["one-more", "part"])
    assert replies.announce(0, RUN, "reply-0", memory.of["reply-0"])
    for part in memory.of.pop("reply-1"):
        del memory.sizes[part]
    assert replies.announce(99, RUN, "one-more", ["one-more", "part"])


def test_small_replies_take_up_no_room(memory: Memory) -> None:
    replies = replies_of(memory)
    for node in range(10 * ROOM):
        send(memory, replies, node, f"reply-{node}", [20, 20])


def test_a_device_that_stopped_in_the_middle_holds_its_place_for_a_while_only(memory: Memory) -> None:
    clock = [0.0]
    replies = Replies(lambda name: memory.sizes.get(name, 0), memory.drop, lambda: clock[0])
    for node in range(ROOM):
        assert replies.announce(node, RUN, f"reply-{node}", [f"reply-{node}", f"part-{node}"])
    with pytest.raises(Busy):
        replies.announce(99, RUN, "one-more", ["one-more"])
    clock[0] = UNDERWAY + 1
    assert replies.announce(99, RUN, "one-more", ["one-more"])


def test_replies_to_a_run_that_is_over_keep_nobody_out(memory: Memory) -> None:
    replies = replies_of(memory)
    replies.forget(RUN)
    for node in range(10 * ROOM):
        assert replies.announce(node, RUN, f"late-{node}", [f"late-{node}", f"part-{node}"])
        assert not replies.arrived(node, f"part-{node}", 5)
    assert replies.announce(ANNA, 2, "new", ["new", "part"])


def test_one_device_cannot_take_up_all_places(memory: Memory) -> None:
    replies = replies_of(memory)
    for number in range(3 * ROOM):
        replies.announce(ANNA, RUN, f"invented-{number}", [f"invented-{number}", f"part-{number}"])
    assert replies.announce(BEN, RUN, "honest", ["honest", "part"])
