"""contracts.semantics: topics and kinds, and settings that must be equal."""

from __future__ import annotations

import msgspec
import pytest

from contracts.errors import BadSettings
from contracts.semantics import KINDS, Semantics, Topology, require_equal


def test_topics_rank_consents_before_views_before_clicks_before_purchases():
    assert Topology(partitions=1).sources == ("consents", "views", "clicks", "purchases")


def test_a_topic_named_twice_carries_several_kinds_at_the_rank_of_the_first():
    topology = Topology(partitions=1, clicks="shop", consents="shop")
    assert topology.sources == ("shop", "views", "purchases")
    assert topology.kinds_of(0) == {"consent", "click"}
    assert [topology.source_of(kind) for kind in KINDS] == [0, 1, 0, 2]


def test_consent_default_is_required():
    with pytest.raises(TypeError, match="consent_default"):
        Semantics()
    with pytest.raises(msgspec.ValidationError, match="consent_default"):
        msgspec.json.decode(b"{}", type=Semantics)


def test_state_must_outlive_the_longest_window():
    with pytest.raises(ValueError, match="30 days"):
        Semantics(consent_default=False, state_ttl_ms=86_400_000)


def test_a_difference_is_named_with_both_values():
    ours, theirs = Semantics(consent_default=False), Semantics(consent_default=False, epoch=3)
    require_equal(ours, ours, "the manifest")
    with pytest.raises(BadSettings, match="epoch is 0 here and 3 in the manifest"):
        require_equal(ours, theirs, "the manifest")
