import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from common.errors import PrivacyError
from common.secagg.graph import COMPLETE_UP_TO, Graph, Plan, is_unlikely_below, least_unlikely, plan


@pytest.mark.parametrize(("members", "quorum"), [(3, 3), (4, 3), (8, 6), (10, 7), (100, 67), (256, 171)])
def test_small_cohorts_are_complete_with_two_thirds_and_one_more(members: int, quorum: int) -> None:
    assert plan(members) == Plan(members, members - 1, quorum, 0, quorum)


@pytest.mark.parametrize("members", [0, 1, 2])
def test_fewer_than_three_devices_make_no_secure_sum(members: int) -> None:
    with pytest.raises(PrivacyError, match="at least 3"):
        plan(members)


@given(st.integers(3, 2**15), st.data())
def test_two_quorums_share_an_honest_device_while_fewer_than_a_third_lie(members: int, data: st.DataObject) -> None:
    corrupt = data.draw(st.integers(0, math.ceil(members / 3) - 1))
    assert 2 * (2 * members // 3 + 1) - members > corrupt


@pytest.mark.parametrize("members", [COMPLETE_UP_TO + 1, 500, 1000, 3000])
def test_large_cohorts_get_a_sparse_graph_whose_bad_events_are_rare_by_an_independent_computation(members: int) -> None:
    found, corrupt, alive = plan(members), members // 10, members - math.ceil(3 * members / 10)
    half = found.degree // 2
    assert found.degree < members / 1.9
    assert found.quorum == 2 * members // 3 + 1
    unsafe = members * hypergeom.sf(found.window - 1, members, corrupt, half)
    unsafe += members * hypergeom.sf(found.threshold - 1, members - 1, corrupt, found.degree)
    failing = members * hypergeom.cdf(found.window - 1, members, alive, half)
    failing += members * hypergeom.cdf(found.threshold - 1, members - 1, alive - 1, found.degree)
    assert unsafe <= 2.0**-80 * (1 + 1e-6)
    assert failing <= 2.0**-20 * (1 + 1e-6)
    tighter = members * hypergeom.sf(found.window - 2, members, corrupt, half)
    assert tighter > 2.0**-81, "the window is no larger than it must be"


# Of the published implementation of Bell et al. 2020 (google-parfait/federated-compute, fcp/secagg/server/
# graph_parameter_finder_test.cc): semi-honest server, 2^-40, 2^-20; members, corrupt, dropouts in percent, degree, threshold.
PUBLISHED = [
    (100, 5, 33, 28, 6),
    (1000, 5, 33, 72, 24),
    (1000, 33, 5, 78, 60),
    (1000, 33, 33, 286, 150),
    (10000, 5, 33, 86, 29),
]


@pytest.mark.parametrize(("members", "corrupt", "dropped", "degree", "threshold"), PUBLISHED)
def test_the_bounds_give_the_published_degrees(members: int, corrupt: int, dropped: int, degree: int, threshold: int) -> None:
    bad, left, gone = corrupt * members // 100, -(-(100 - dropped) * members // 100), dropped * members // 100

    def suffices(k: int) -> bool:
        pairs = math.log2(members) + math.log2(members - k - 1) - 1
        cut = -math.inf
        if k <= bad + gone:
            cut = pairs + (math.lgamma(bad + gone + 1) + math.lgamma(members - k + 1)) / math.log(2)
            cut -= (math.lgamma(members + 1) + math.lgamma(bad + gone - k + 1)) / math.log(2)
        t = least_unlikely(members, bad, k, members, 41)
        return cut < -41 and is_unlikely_below(t, members, left, k, members, 20)

    found = next(k for k in range(2, members - 1, 2) if suffices(k))
    assert found == degree
    assert least_unlikely(members, bad, found, members, 41) <= threshold


@given(st.integers(2, 60), st.data())
def test_tails_are_those_of_the_hypergeometric_distribution(population: int, data: st.DataObject) -> None:
    marked, drawn = data.draw(st.integers(0, population)), data.draw(st.integers(1, population))
    x = least_unlikely(population, marked, drawn, 1, 10)
    assert hypergeom.sf(x - 1, population, marked, drawn) <= 2**-10 * (1 + 1e-9)
    assert x == 0 or hypergeom.sf(x - 2, population, marked, drawn) > 2**-10 * (1 - 1e-9)
    below = data.draw(st.integers(0, drawn))
    chance = hypergeom.cdf(below - 1, population, marked, drawn)
    if abs(chance - 2**-10) > 1e-12:
        assert is_unlikely_below(below, population, marked, drawn, 1, 10) == (chance <= 2**-10)


def test_everybody_is_a_neighbour_in_a_complete_graph() -> None:
    graph = Graph(plan(5), bytes(32))
    assert [graph.neighbours(member) for member in range(5)] == [frozenset(range(5)) - {member} for member in range(5)]


@settings(max_examples=4, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_a_sparse_graph_is_regular_symmetric_and_follows_from_the_seed(seed: bytes) -> None:
    numbers = plan(300)
    graph, same, other = Graph(numbers, seed), Graph(numbers, seed), Graph(numbers, seed[::-1] + b"x")
    edges = [graph.neighbours(member) for member in range(300)]
    assert all(len(found) == numbers.degree and member not in found for member, found in enumerate(edges))
    assert all(member in edges[other_member] for member in range(300) for other_member in edges[member])
    assert edges == [same.neighbours(member) for member in range(300)]
    assert edges != [other.neighbours(member) for member in range(300)]


def reached(edges: dict[int, frozenset[int]], start: int) -> set[int]:
    found, todo = {start}, [start]
    while todo:
        new = (edges[todo.pop()] & set(edges)) - found
        found |= new
        todo += new
    return found


def test_survivors_that_pass_the_check_leave_all_honest_ones_connected() -> None:
    numbers = plan(300)
    passed = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        graph = Graph(numbers, seed.to_bytes(32, "big"))
        corrupt = set(rng.choice(300, 30, replace=False).tolist())
        alive = set(rng.choice(300, 212, replace=False).tolist()) | corrupt
        try:
            graph.check(alive)
        except PrivacyError:
            continue
        honest = alive - corrupt
        edges = {member: graph.neighbours(member) for member in honest}
        assert reached(edges, min(honest)) == honest
        passed += 1
    assert passed >= 7


def test_a_server_that_drops_one_devices_neighbours_is_refused() -> None:
    graph = Graph(plan(1000), bytes(32))
    victim = 17
    alive = set(range(1000)) - graph.neighbours(victim)
    assert len(alive) >= graph.plan.quorum, "the number alone would do"
    with pytest.raises(PrivacyError, match="in a row"):
        graph.check(alive)


def test_too_few_survivors_are_refused_by_the_plan_and_by_the_device() -> None:
    graph = Graph(plan(10), bytes(32))
    graph.check(range(7))
    with pytest.raises(PrivacyError, match="6 of 10"):
        graph.check(range(6))
    with pytest.raises(PrivacyError, match="fewer than 9"):
        graph.check(range(8), 9)
