"""What devices' replies may hold of the server's memory."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_server.replies import KEPT, ROOM, SETTLED, SMALL, UNDERWAY, Busy, Replies, TooMuch

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


def names(replies: Replies) -> dict[int, list[str]]:
    """Of all replies that are remembered, by device."""
    assert not replies._leaving
    return {node: [reply.name for reply in of] for node, of in replies._by_node.items()}


@pytest.fixture
def memory() -> Memory:
    return Memory()


def replies_of(memory: Memory, most: int = 100) -> Replies:
    replies = Replies(memory.sizes.get, memory.drop)
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


def test_a_reply_cannot_be_made_part_of_another_one_before_it_is_announced(memory: Memory) -> None:
    replies = replies_of(memory)
    assert replies.announce(ANNA, RUN, "b", ["b", "a"])
    assert not replies.announce(ANNA, RUN, "a", ["a", "x"])


def test_a_reply_cannot_be_hidden_in_another_one_while_it_is_being_dropped(memory: Memory) -> None:
    hidden: list[bool] = []

    def drop(node: int, name: str) -> None:
        hidden.append(replies.announce(BEN, RUN, "thief", ["thief", name]))

    replies = Replies(memory.sizes.get, drop)
    replies.allow(RUN, lambda: 100)
    for number in range(KEPT + 1):
        send(memory, replies, ANNA, f"r{number}", [5])
    with pytest.raises(TooMuch):
        send(memory, replies, ANNA, "large", [200])
    assert hidden == [False] * 3
    assert replies.announce(BEN, RUN, "thief", ["thief", "r0"])


def test_a_reply_whose_first_object_was_no_good_is_not_taken_for_one_that_was_read(memory: Memory) -> None:
    """Flower refuses what does not match its name; the rest of the reply stays in memory, and counts."""
    replies = replies_of(memory, most=2 * SMALL)
    send(memory, replies, ANNA, "a", [SMALL + 1])
    memory.sizes["a"] = 0
    for name in ("b", "c"):
        send(memory, replies, ANNA, name, [5])
    assert not replies.announce(ANNA, RUN, "d", ["d", "a"])
    for number in range(KEPT):
        send(memory, replies, ANNA, f"r{number}", [5])
    assert (ANNA, "a") in memory.dropped


def test_what_a_reply_that_was_read_is_called_is_forgotten(memory: Memory) -> None:
    replies = replies_of(memory)
    send(memory, replies, ANNA, "a", [5])
    memory.sizes.clear()
    send(memory, replies, ANNA, "b", [5])
    assert names(replies) == {ANNA: ["b"]}


def test_a_reply_that_was_refused_leaves_nothing(memory: Memory) -> None:
    replies = replies_of(memory)
    with pytest.raises(TooMuch):
        send(memory, replies, ANNA, "a", [200])
    memory.sizes["x"] = 200
    with pytest.raises(TooMuch):
        replies.announce(BEN, RUN, "b", ["b", "x"])
    assert not replies._by_node


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
    replies = Replies(memory.sizes.get, memory.drop, lambda: clock[0])
    replies.allow(RUN, lambda: 100)
    for node in range(ROOM):
        assert replies.announce(node, RUN, f"reply-{node}", [f"reply-{node}", f"part-{node}"])
    with pytest.raises(Busy):
        replies.announce(99, RUN, "one-more", ["one-more"])
    clock[0] = UNDERWAY + 1
    assert replies.announce(99, RUN, "one-more", ["one-more"])


def test_a_reply_whose_first_object_was_no_good_holds_its_place_for_a_while_only(memory: Memory) -> None:
    clock = [0.0]
    replies = Replies(memory.sizes.get, memory.drop, lambda: clock[0])
    replies.allow(RUN, lambda: 10 * SMALL)
    for node in range(ROOM):
        send(memory, replies, node, f"reply-{node}", [SMALL])
        memory.sizes[f"reply-{node}"] = 0
    with pytest.raises(Busy):
        replies.announce(99, RUN, "one-more", ["one-more"])
    clock[0] = UNDERWAY + 1
    assert replies.announce(99, RUN, "one-more", ["one-more"])


def test_of_a_device_that_announces_without_end_few_names_are_remembered(memory: Memory) -> None:
    replies = replies_of(memory)
    for number in range(200):
        assert replies.announce(ANNA, RUN, f"r{number}", [f"r{number}", f"p{number}"])
    assert names(replies) == {ANNA: [f"r{number}" for number in range(200 - KEPT, 200)]}


def test_replies_to_a_run_that_is_over_keep_nobody_out(memory: Memory) -> None:
    replies = replies_of(memory)
    replies.forget(RUN)
    for node in range(10 * ROOM):
        assert replies.announce(node, RUN, f"late-{node}", [f"late-{node}", f"part-{node}"])
        assert not replies.arrived(node, f"part-{node}", 5)
    assert replies.announce(ANNA, 2, "new", ["new", "part"])


@pytest.mark.parametrize("over", [False, True])
def test_of_replies_to_a_run_that_never_was_or_is_over_nothing_is_remembered(memory: Memory, over: bool) -> None:
    replies = replies_of(memory)
    if over:
        replies.forget(RUN)
    for number in range(200):
        parts = [f"invented-{number}", *(f"part-{number}-{part}" for part in range(20))]
        assert replies.announce(ANNA, RUN if over else 424242, parts[0], parts)
        assert not replies.arrived(ANNA, parts[1], 5)
    assert names(replies) == {}
    assert len(replies._limits) == (0 if over else 1)


NODES, RUNS, INVENTED = st.sampled_from([ANNA, BEN]), st.sampled_from([RUN, 2]), st.sampled_from([424242, 7, 0])
NAMES, PARTS = (st.sampled_from([f"{letter}{number}" for number in range(30)]) for letter in "rp")
ANNOUNCED = st.tuples(
    st.just("announce"), NODES, st.one_of(st.just(RUN), RUNS, INVENTED), NAMES, st.frozensets(st.one_of(PARTS, NAMES), max_size=3)
)
DONE = st.one_of(
    ANNOUNCED,
    ANNOUNCED,
    st.tuples(st.just("arrived"), NODES, st.one_of(NAMES, PARTS), st.integers(1, 60)),
    st.tuples(st.just("read"), NAMES),
    st.tuples(st.sampled_from(["allow", "forget"]), RUNS),
    st.tuples(st.just("forget"), INVENTED),
)


@given(st.lists(DONE, min_size=30, max_size=100))
def test_whatever_is_announced_few_names_of_a_device_are_remembered_and_none_within_another(done: list[tuple[Any, ...]]) -> None:
    memory = Memory()
    replies = replies_of(memory)
    allowed = {RUN}
    for kind, *what in done:
        if kind == "announce":
            node, run, name, parts = what
            with suppress(Busy, TooMuch):
                replies.announce(node, run, name, parts | {name})
        elif kind == "arrived":
            with suppress(TooMuch):
                if replies.arrived(*what):
                    memory.sizes[what[1]] = what[2]
        elif kind == "read":
            memory.sizes.pop(what[0], None)
        elif kind == "forget":
            replies.forget(*what)
            allowed.discard(what[0])
        else:
            replies.allow(what[0], lambda: 100)
            allowed.add(what[0])
        assert all(0 < len(of) <= KEPT for of in names(replies).values())
        kept = [reply for of in replies._by_node.values() for reply in of]
        assert {reply.run for reply in kept} <= allowed
        assert replies._limits.keys() == allowed
        assert not any(one.name in other.objects for one in kept for other in kept if one is not other)


def test_one_device_cannot_take_up_all_places(memory: Memory) -> None:
    replies = replies_of(memory)
    for number in range(3 * ROOM):
        replies.announce(ANNA, RUN, f"invented-{number}", [f"invented-{number}", f"part-{number}"])
    assert replies.announce(BEN, RUN, "honest", ["honest", "part"])


def test_an_object_that_came_from_another_device_is_not_waited_for(memory: Memory) -> None:
    """All devices send the same header in a step; a few such steps kept everybody out for three minutes."""
    clock = [0.0]
    replies = Replies(memory.sizes.get, memory.drop, lambda: clock[0])
    replies.allow(RUN, lambda: 100 * SMALL)
    for node in range(2 * ROOM):
        clock[0] += SETTLED + 0.1
        memory.sizes["header"] = 0  # another one has announced it, and sends it before Flower looks
        assert replies.announce(node, RUN, f"reply-{node}", [f"reply-{node}", "header"])
        memory.sizes["header"] = 1
        assert replies.arrived(node, f"reply-{node}", 1)
        memory.sizes[f"reply-{node}"] = 1
        for part in (f"reply-{node}", "header"):  # the server fetches it
            del memory.sizes[part]


def test_what_is_announced_and_awaited_holds_its_place(memory: Memory) -> None:
    clock = [0.0]
    replies = Replies(memory.sizes.get, memory.drop, lambda: clock[0])
    replies.allow(RUN, lambda: 100 * SMALL)
    for node in range(ROOM):
        assert replies.announce(node, RUN, f"reply-{node}", [f"reply-{node}", f"part-{node}"])
        memory.sizes |= {f"reply-{node}": 0, f"part-{node}": 0}
    clock[0] = 10 * SETTLED
    with pytest.raises(Busy):
        replies.announce(99, RUN, "one-more", ["one-more"])
