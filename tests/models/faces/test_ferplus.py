import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.emotions import EMOTIONS_8
from common.errors import ConfigError, DataError
from models.faces.ferplus import judge, read_ferplus

from .conftest import row

#            neu hap sur sad ang dis fea con unk NF
CLEAR = [0, 9, 1, 0, 0, 0, 0, 0, 0, 0]
SPLIT = [5, 0, 0, 5, 0, 0, 0, 0, 0, 0]
MOSTLY = [6, 0, 0, 3, 1, 0, 0, 0, 0, 0]
LONE = [3, 1, 1, 1, 1, 1, 1, 1, 0, 0]
UNSURE = [4, 0, 0, 2, 0, 0, 0, 0, 4, 0]
UNKNOWN = [2, 0, 0, 0, 0, 0, 0, 0, 8, 0]
NO_FACE = [0, 0, 0, 0, 0, 0, 0, 0, 0, 10]
SCATTERED = [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
HEDGED = [6, 0, 0, 0, 0, 0, 0, 0, 4, 0]
PAIRS = [4, 2, 2, 2, 0, 0, 0, 0, 0, 0]
NOBODY = [0] * 10

any_votes = arrays(np.int64, st.tuples(st.integers(1, 20), st.just(10)), elements=st.integers(0, 10))


def kept(rule, votes):
    targets, verdict = judge(np.array([votes]), rule)
    return targets[0] if verdict[0] == 0 else None


@pytest.mark.parametrize(
    ("votes", "majority", "plurality"),
    [
        (CLEAR, "happiness", "happiness"),
        (SPLIT, None, "neutral"),
        (MOSTLY, "neutral", "neutral"),
        (LONE, "neutral", "neutral"),
        (UNSURE, None, "neutral"),
        (UNKNOWN, None, None),
        (NO_FACE, None, None),
        (SCATTERED, None, "neutral"),
        (HEDGED, "neutral", "neutral"),
        (PAIRS, None, "neutral"),
        (NOBODY, None, None),
    ],
)
def test_each_rule_keeps_the_rows_that_the_protocol_says(votes, majority, plurality):
    for rule, winner in (("majority", majority), ("soft", majority), ("plurality", plurality)):
        target = kept(rule, votes)
        assert (None if target is None else EMOTIONS_8[target.argmax()]) == winner, rule


def test_majority_and_plurality_targets_are_one_hot():
    assert kept("majority", MOSTLY).tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert kept("plurality", CLEAR).tolist() == [0, 1, 0, 0, 0, 0, 0, 0]


def test_soft_targets_are_the_shares_of_votes_without_lone_votes_unknown_and_no_face():
    np.testing.assert_allclose(kept("soft", MOSTLY), [6 / 9, 0, 0, 3 / 9, 0, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(kept("soft", HEDGED), [1, 0, 0, 0, 0, 0, 0, 0])


@given(any_votes)
def test_soft_keeps_the_rows_and_winners_of_majority(votes):
    hard, hard_verdict = judge(votes, "majority")
    soft, soft_verdict = judge(votes, "soft")
    np.testing.assert_array_equal(hard_verdict, soft_verdict)
    used = hard_verdict == 0
    np.testing.assert_array_equal(hard[used].argmax(1), soft[used].argmax(1))
    np.testing.assert_allclose(soft[used].sum(1), 1, rtol=1e-5)


@given(any_votes)
def test_whatever_majority_keeps_plurality_keeps_with_the_same_winner(votes):
    hard, hard_verdict = judge(votes, "majority")
    raw, raw_verdict = judge(votes, "plurality")
    used = hard_verdict == 0
    assert (raw_verdict[used] == 0).all()
    np.testing.assert_array_equal(hard[used], raw[used])


def test_rows_pair_with_the_pictures_of_the_same_row_and_usage(fer2013, fer2013new):
    usages = ["Training", "PublicTest", "Training", "PublicTest"]
    rows = [row(0, seed, usage) for seed, usage in enumerate(usages)]
    votes = [CLEAR, UNKNOWN, NO_FACE, MOSTLY]
    faces, _ = read_ferplus(fer2013(rows), fer2013new(list(zip(usages, votes, strict=True))), "PublicTest", "majority")
    assert faces.classes == EMOTIONS_8
    assert faces.labels.tolist() == [0]
    np.testing.assert_array_equal(faces.images[0], rows[3][1])


def test_what_a_rule_leaves_out_is_counted_by_reason(fer2013, fer2013new):
    votes = [CLEAR, SPLIT, UNKNOWN, NO_FACE, NO_FACE, MOSTLY]
    rows = [row(0, seed) for seed in range(5)] + [(0, np.zeros((48, 48), dtype=np.uint8), "Training")]
    faces, report = read_ferplus(fer2013(rows), fer2013new([("Training", v) for v in votes]), rule="majority")
    assert len(faces) == report.used == 1
    assert report.sentence == (
        "fer2013new.csv (all splits, majority): 1 of 6 faces used; "
        "left out: no label wins: 1, voted unknown: 1, voted not a face: 2, all black: 1."
    )


def test_files_of_different_length_do_not_pair(fer2013, fer2013new):
    with pytest.raises(DataError, match=r"has 2 rows and .* has 1\. They must pair row for row"):
        read_ferplus(fer2013([row(0, 0), row(0, 1)]), fer2013new([("Training", CLEAR)]))


def test_files_whose_usages_differ_do_not_pair(fer2013, fer2013new):
    votes = fer2013new([("Training", CLEAR), ("PublicTest", CLEAR)])
    with pytest.raises(DataError, match=r"Row 2 is Training in .* and PublicTest in .*They must pair row for row"):
        read_ferplus(fer2013([row(0, 0), row(0, 1)]), votes)


@pytest.mark.parametrize(
    "bad", ["Training,a.png,1,2,3", "Training,a.png,1,2,3,4,5,6,7,8,9,x", "Training,a.png,-1,2,3,4,5,6,7,8,9,1", "Training"]
)
def test_a_malformed_row_of_votes_is_named_with_its_line(fer2013, fer2013new, bad):
    with pytest.raises(DataError, match="line 3: a usage, a name and 10 whole numbers"):
        read_ferplus(fer2013([row(0, 0), row(0, 1)]), fer2013new([("Training", CLEAR), bad]))


def test_another_header_is_refused(fer2013, fer2013new):
    with pytest.raises(DataError, match=r"header Usage,Image name.*microsoft/FERPlus"):
        read_ferplus(fer2013([row(0, 0)]), fer2013new([], "emotion,pixels,Usage"))


def test_a_file_that_is_no_text_is_refused(fer2013, tmp_path):
    (tmp_path / "fer2013new.csv").write_bytes(b"\xff\xfe\x00PK\x03\x04")
    with pytest.raises(DataError, match="not FER\\+'s file"):
        read_ferplus(fer2013([row(0, 0)]), tmp_path / "fer2013new.csv")


def test_a_missing_file_is_one_sentence_that_says_where_to_get_it(fer2013, tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*microsoft/FERPlus"):
        read_ferplus(fer2013([row(0, 0)]), tmp_path / "fer2013new.csv")


def test_no_kept_row_and_an_unknown_rule_are_refused(fer2013, fer2013new):
    files = fer2013([row(0, 0)]), fer2013new([("Training", SPLIT)])
    with pytest.raises(DataError, match=r"no usable face.*no label wins: 1"):
        read_ferplus(*files, rule="majority")
    with pytest.raises(ConfigError, match=r"'most'.*plurality"):
        read_ferplus(*files, rule="most")


@pytest.mark.slow
def test_the_official_files_give_the_counts_of_both_protocols(official_csvs):
    files = official_csvs / "fer2013.csv", official_csvs / "fer2013new.csv"
    usages = ("Training", "PublicTest", "PrivateTest")
    assert [len(read_ferplus(*files, usage, "majority")[0]) for usage in usages] == [25_060, 3_199, 3_153]
    assert [len(read_ferplus(*files, usage, "plurality")[0]) for usage in usages] == [28_389, 3_553, 3_546]
    soft, hard = (read_ferplus(*files, "PrivateTest", rule)[0] for rule in ("soft", "majority"))
    np.testing.assert_array_equal(soft.images, hard.images)
    np.testing.assert_array_equal(soft.labels, hard.labels)
    assert 0 < np.count_nonzero(soft.targets.max(1) < 1) < len(soft)
