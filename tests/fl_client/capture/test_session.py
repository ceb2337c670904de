"""The session as a value: whatever is pressed and however time goes, its promises hold."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from common.emotions import EMOTIONS_8
from fl_client.capture.session import Rhythm, Session

EMOTION = st.sampled_from(EMOTIONS_8)
COUNTS = st.dictionaries(EMOTION, st.integers(0, 6))
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.none() | EMOTION),
        st.tuples(st.just("picture"), st.none()),
        st.tuples(st.just("wait"), st.floats(0, 3)),
        st.tuples(st.just("skip"), st.none()),
        st.tuples(st.just("ask"), EMOTION),
    ),
    max_size=60,
)


def play(session: Session, events: list[tuple[str, object]]) -> tuple[Session, list[tuple[float, str]]]:
    """The session after the events, and when which picture was taken."""
    now, taken = 0.0, []
    for what, value in events:
        session = session.tick(now)
        match what:
            case "begin":
                session = session.begin(value, now)
            case "picture" if (emotion := session.wants(now)) is not None:
                session = session.took(now)
                taken.append((now, emotion))
            case "wait":
                now += value
            case "skip":
                session = session.skip()
            case "ask":
                session = session.ask_for(value)
        check(session)
    return session, taken


def check(session: Session) -> None:
    lacking = [name for name, _ in session.targets if session.lacking(name)]
    assert (session.prompted is None) == (not lacking)
    if session.burst is None and session.prompted is not None:
        assert session.prompted in lacking
    if session.burst is not None:
        assert session.burst.taken < session.rhythm.size


@settings(max_examples=40, deadline=None)
@given(targets=COUNTS, counts=COUNTS, events=EVENTS)
def test_the_prompt_always_asks_for_something_that_is_lacking(targets, counts, events):
    session = Session.start(targets, counts)
    check(session)
    play(session, events)


@settings(max_examples=40, deadline=None)
@given(targets=COUNTS, counts=COUNTS, events=EVENTS)
def test_counts_grow_by_exactly_the_pictures_taken(targets, counts, events):
    after, taken = play(Session.start(targets, counts), events)
    for name in EMOTIONS_8:
        assert after.count(name) == counts.get(name, 0) + sum(emotion == name for _, emotion in taken)


@settings(max_examples=40, deadline=None)
@given(events=EVENTS, size=st.integers(1, 5))
def test_pictures_of_a_burst_are_a_gap_apart_and_no_more_than_its_size(events, size):
    rhythm = Rhythm(size=size, gap=0.4, longest=2.0)
    session = Session.start({"fear": 100}, {}, rhythm).begin(None, 0.0)
    kept = [(what, value) for what, value in events if what in ("picture", "wait")]
    _, taken = play(session, kept)
    times = [when for when, _ in taken]
    assert len(times) <= size
    assert all(later - earlier >= 0.4 for earlier, later in pairwise(times))
    assert all(when < 2.0 for when in times)


@settings(max_examples=40, deadline=None)
@given(targets=COUNTS, counts=COUNTS)
def test_following_the_prompts_reaches_every_target_and_takes_no_picture_too_many(targets, counts):
    session, now = Session.start(targets, counts, Rhythm(size=3, gap=0.0)), 0.0
    for _ in range(200):
        if session.done:
            break
        session = session.begin(None, now)
        while session.wants(now):
            session = session.took(now)
    assert session.done
    for name in EMOTIONS_8:
        assert session.count(name) == max(counts.get(name, 0), targets.get(name, 0))


def test_after_a_burst_the_next_lacking_emotion_is_asked_for_in_turn():
    session = Session.start({"neutral": 4, "fear": 4, "anger": 4}, {}, Rhythm(size=2, gap=0.0))
    asked = []
    while not session.done:
        asked.append(session.prompted)
        session = session.begin(None, 0.0)
        while session.burst:
            session = session.took(0.0)
    assert asked == ["neutral", "anger", "fear", "neutral", "anger", "fear"]


def test_a_new_session_goes_on_from_what_there_is():
    session = Session.start({"neutral": 3, "fear": 3}, {"neutral": 3, "fear": 1})
    assert session.prompted == "fear"
    assert session.lacking("fear") == 2
    assert Session.start({"neutral": 3}, {"neutral": 5}).done


def test_a_burst_ends_by_time_even_when_no_picture_was_good():
    session = Session.start({"fear": 3}, {}).begin(None, 10.0)
    assert session.wants(10.0) == "fear"
    assert session.tick(17.9).burst is not None
    assert session.tick(18.0).burst is None


def test_a_number_key_takes_more_than_the_target():
    session = Session.start({"fear": 1}, {"fear": 1}, Rhythm(size=3, gap=0.0))
    assert session.done
    session = session.begin("fear", 0.0)
    for _ in range(5):
        session = session.took(0.0) if session.wants(0.0) else session
    assert session.count("fear") == 4


def test_deleted_pictures_are_asked_for_again():
    session = Session.start({"fear": 2}, {"fear": 2})
    assert session.done
    assert session.with_counts({"fear": 1}).prompted == "fear"
    assert replace(session).with_counts({"fear": 2}).done
