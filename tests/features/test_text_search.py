"""A catalogue asked in words: the index against sorting everything, and what is embedded again and what is not."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from contracts.errors import BadInput
from features.text_cache import TextCache
from features.text_search import TextIndex, TextSearch, parts_of
from tests.features.letters import Letters, item


@pytest.fixture
def encoder() -> Letters:
    return Letters()


@pytest.fixture
def search(encoder, tmp_path):
    with TextCache(tmp_path / "texts.sqlite") as cache:
        yield TextSearch(encoder, "digest", cache)


def test_the_index_finds_what_sorting_all_items_finds_whatever_was_put_replaced_and_removed():
    random, generator = Random(3), np.random.default_rng(3)
    index, plain = TextIndex(4), {}
    few = generator.standard_normal((5, 4)).astype(np.float32)  # so that many items have equal vectors
    for _ in range(900):
        name = f"item-{random.randrange(200)}"
        if random.random() < 0.3:
            index.remove(name)
            plain.pop(name, None)
        else:
            plain[name] = few[random.randrange(5)]
            index.put(name, plain[name])
    assert len(index) == len(plain) > 64
    query = generator.standard_normal(4).astype(np.float32)
    wanted = sorted(plain, key=lambda name: (-round(float(plain[name] @ query), 5), name))
    for count in (1, 30, 1_000):
        found = index.nearest(query, count)
        assert [name for name, _ in found] == wanted[:count]
        assert [cosine for _, cosine in found] == pytest.approx([float(plain[name] @ query) for name, _ in found])


def test_an_empty_index_has_no_nearest_items():
    assert TextIndex(4).nearest(np.zeros(4, np.float32), 3) == []


def test_an_item_is_embedded_once_and_again_only_when_its_text_changes(search, encoder):
    unknown = search.take({"a": item("a", "kettle"), "b": item("b", "red boots"), "c": item("c", "")})
    assert unknown == {"a": "kettle", "b": "red boots"}
    search.embed(unknown)
    assert search.take({"a": item("a", "kettle", price=90), "b": item("b", "blue phone")}) == {"b": "blue phone"}
    assert [name for name, _ in search.nearest("boots", 5)] == ["a"], "an old text must not stand for a new one"
    search.embed({"b": "blue phone"})
    assert search.nearest("phone", 1)[0] == ("b", pytest.approx(1.0))
    assert encoder.asked == ["kettle", "red boots", "boots", "blue phone", "phone"]
    assert search.embedded == 5


def test_what_is_cached_is_not_embedded_again_by_another_process(search, encoder, tmp_path):
    search.embed({"a": "kettle", "b": "kettle", "c": "grill"})
    assert encoder.asked == ["kettle", "grill"]
    with TextCache(tmp_path / "texts.sqlite") as cache:
        other = TextSearch(encoder, "digest", cache)
        assert other.take({"x": item("x", "grill"), "y": item("y", "phone")}) == {"y": "phone"}
        assert [name for name, _ in other.nearest("grill", 5)] == ["x"]
        assert TextSearch(encoder, "another", cache).take({"x": item("x", "grill")}) == {"x": "grill"}


def test_an_item_that_is_gone_is_not_found(search):
    search.embed({"a": "kettle", "b": "grill"})
    assert search.take({"a": None, "nobody": None}) == {}
    assert [name for name, _ in search.nearest("kettle", 5)] == ["b"]


def test_a_cache_that_cannot_be_written_says_so_and_the_items_are_found_all_the_same(encoder, tmp_path):
    with TextCache(tmp_path / "texts.sqlite") as cache:
        cache._database.execute("PRAGMA query_only = ON")
        search = TextSearch(encoder, "digest", cache)
        with pytest.raises(BadInput, match=r"texts\.sqlite cannot be used .*make it writable"):
            search.embed({"a": "kettle"})
        assert search.nearest("kettle", 1) == [("a", pytest.approx(1.0))]


def test_parts_hold_every_text_once_and_neighbours_in_length():
    texts = {f"{number}": "x" * (number * 7 % 10) for number in range(23)}
    parts = parts_of(texts, 5)
    assert [len(part) for part in parts] == [5, 5, 5, 5, 3]
    lengths = [len(text) for part in parts for text in part.values()]
    assert lengths == sorted(lengths)
    assert {name: text for part in parts for name, text in part.items()} == texts
