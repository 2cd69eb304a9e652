"""contracts.merge against a naive twin: however records come in and are taken out, the order is that of the heads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.intake import Inbound
from contracts.merge import Merge

TOPICS = 3


def record(source: int, offset: int, order_ms: int, received: float = 0.0) -> Inbound:
    return Inbound(order_ms, source, offset, None, None, b"k", b"v", 0, received)


def place(inbound: Inbound) -> tuple[int, int]:
    return inbound.source, inbound.offset


def naive_order(topics: list[list[Inbound]]) -> list[Inbound]:
    """Sort by heads: among the first records of the topics, the smallest (event time, rank, offset) goes first."""
    left = [list(topic) for topic in topics]
    order = []
    while any(left):
        head = min((topic[0] for topic in left if topic), key=lambda r: (r.order_ms, r.source, r.offset))
        order.append(left[head.source].pop(0))
    return order


@st.composite
def topics_of_records(draw: st.DrawFn) -> list[list[Inbound]]:
    times = st.lists(st.integers(-1, 12), max_size=15)
    return [[record(source, offset, ms) for offset, ms in enumerate(draw(times))] for source in range(TOPICS)]


@given(topics_of_records(), st.data())
def test_any_schedule_of_pushes_and_takes_gives_the_order_of_the_heads(topics, data):
    merge = Merge(TOPICS)
    pushed = [0] * TOPICS
    taken: list[Inbound] = []
    total = sum(map(len, topics))
    while len(taken) < total:
        source = data.draw(st.integers(0, TOPICS - 1))
        upto = data.draw(st.integers(pushed[source], len(topics[source])))
        merge.push(source, topics[source][pushed[source] : upto])
        pushed[source] = upto
        exhausted = [source for source in range(TOPICS) if pushed[source] == len(topics[source])]
        taken += merge.take(data.draw(st.integers(1, 7)), exhausted)
        assert merge.size == sum(pushed) - len(taken)
    assert list(map(place, taken)) == list(map(place, naive_order(topics)))


def test_consent_goes_before_view_before_click_before_purchase_at_the_same_time():
    merge = Merge(4)
    for source in (3, 1, 0, 2):
        merge.push(source, [record(source, 0, 1_000)])
    assert [inbound.source for inbound in merge.take(10, range(4))] == [0, 1, 2, 3]


def test_an_empty_topic_holds_the_others_back_until_it_is_idle():
    merge = Merge(2)
    merge.push(1, [record(1, 0, 5)])
    assert merge.take(10) == []
    assert merge.empty_sources() == [0]
    assert [place(inbound) for inbound in merge.take(10, idle=[0])] == [(1, 0)]
    assert merge.empty_sources() == [0, 1]


def test_a_record_passes_an_idle_topic_only_when_it_was_received_by_the_due_time():
    merge = Merge(2)
    merge.push(1, [record(1, 0, 5, received=10.0), record(1, 1, 6, received=11.0)])
    assert merge.first_received() == 10.0
    assert merge.take(10, idle=[0], due=9.9) == []
    assert [place(inbound) for inbound in merge.take(10, idle=[0], due=10.0)] == [(1, 0)]
    assert merge.first_received() == 11.0


def test_a_topic_keeps_its_own_order_even_when_its_events_are_late():
    merge = Merge(2)
    merge.push(0, [record(0, 0, 50), record(0, 1, 10)])
    merge.push(1, [record(1, 0, 40), record(1, 1, 60)])
    assert list(map(place, merge.take(10, idle=[0, 1]))) == [(1, 0), (0, 0), (0, 1), (1, 1)]


def test_what_is_no_event_goes_as_soon_as_it_is_a_head():
    merge = Merge(2)
    merge.push(0, [record(0, 0, 50)])
    merge.push(1, [record(1, 0, -1), record(1, 1, 70)])
    assert list(map(place, merge.take(10, idle=[0, 1]))) == [(1, 0), (0, 0), (1, 1)]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_take_returns_at_most_its_limit_and_the_rest_stays(limit):
    merge = Merge(1)
    merge.push(0, [record(0, offset, offset) for offset in range(5)])
    assert len(merge.take(limit, idle=[0])) == limit
    assert merge.buffered(0) == merge.size == 5 - limit
