"""contracts.catalogue: which version of an item holds when."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.catalogue import VERSIONS_MAX, Catalogue, CatalogueItem, encode_item, item_key
from contracts.errors import BadReference


def version(valid_from_ms, list_price=100, item="i"):
    return CatalogueItem(
        item=item,
        valid_from_ms=valid_from_ms,
        title="t",
        category="c",
        brand="b",
        currency="USD",
        list_price=list_price,
    )


def filled(*times):
    catalogue = Catalogue()
    for offset, time in enumerate(times):
        found = version(time, list_price=offset + 1)
        catalogue.apply(offset, item_key("i", time), encode_item(found))
    return catalogue


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(0, 35))
def test_the_version_in_force_is_the_latest_that_is_valid_by_then(times, now):
    catalogue = filled(*times)
    valid = [(time, offset) for offset, time in enumerate(times) if time <= now]
    found = catalogue.at("i", now)
    if not valid:
        assert found is None
    else:
        assert found is not None
        assert found[0] == max(valid)[1], "of equal valid_from the later record holds"
        assert found[1].valid_from_ms == max(valid)[0]


def test_a_null_value_removes_the_version_that_its_key_names():
    catalogue = filled(10, 20)
    catalogue.apply(2, item_key("i", 20), None)
    assert catalogue.at("i", 25)[0] == 0
    catalogue.apply(3, item_key("i", 10), None)
    assert catalogue.at("i", 25) is None


def test_the_earliest_versions_go_when_there_are_too_many():
    catalogue = filled(*range(VERSIONS_MAX + 1))
    assert catalogue.at("i", 0) is None
    assert catalogue.at("i", 1)[0] == 1


def test_a_record_that_is_no_item_changes_nothing_but_what_was_seen():
    catalogue = filled(10)
    with pytest.raises(msgspec.ValidationError):
        catalogue.apply(1, b"k", b'{"item":"i","list_price":-5}')
    assert catalogue.seen == 2
    assert catalogue.at("i", 10)[0] == 0


@pytest.mark.parametrize("field", ["valid_from_ms", "cost"])
@pytest.mark.parametrize("value", [-1, 1 << 63, (1 << 64) - 1])
def test_what_no_log_could_hold_is_no_item(field, value):
    item = msgspec.to_builtins(version(5)) | {field: value}
    with pytest.raises(msgspec.ValidationError, match=field):
        Catalogue().apply(0, b"k", msgspec.json.encode(item))


def test_an_item_in_another_currency_is_refused_and_the_version_before_it_holds_on():
    catalogue = Catalogue("USD")
    catalogue.apply(0, None, encode_item(version(5)))
    foreign = msgspec.structs.replace(version(7), currency="EUR")
    with pytest.raises(BadReference, match="Item i is in EUR, prices here are in USD"):
        catalogue.apply(1, None, encode_item(foreign))
    assert catalogue.seen == 2
    assert catalogue.at("i", 9) == (0, version(5))
    catalogue.apply(2, item_key("i", 5), None)
    assert catalogue.at("i", 9) is None


def test_items_do_not_mix():
    catalogue = filled(10)
    catalogue.apply(1, None, encode_item(version(5, item="j")))
    assert len(catalogue) == 2
    assert catalogue.at("j", 5)[1].item == "j"
    assert catalogue.at("nobody", 5) is None
