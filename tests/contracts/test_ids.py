"""contracts.ids: hashes that other implementations must agree with."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from contracts.ids import DecisionIds, murmur2, partition_of, short_hash

JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
"""From the unit tests of Apache Kafka, org.apache.kafka.common.utils.UtilsTest.testMurmur2."""


@pytest.mark.parametrize(("data", "signed"), JAVA.items())
def test_murmur2_is_the_one_of_java(data, signed):
    assert murmur2(data) == signed % 2**32


@given(st.binary(max_size=40))
def test_murmur2_is_the_one_of_aiokafka(data):
    assert murmur2(data) == aiokafka_murmur2(bytearray(data)) % 2**32


@given(st.binary(max_size=40), st.integers(1, 4096))
def test_a_partition_is_one_of_those_there_are(key, partitions):
    assert partition_of(key, partitions) == (aiokafka_murmur2(bytearray(key)) & 0x7FFFFFFF) % partitions


def test_a_decision_id_is_the_hash_of_epoch_topic_partition_offset_and_item():
    expected = blake2b(b"1\x00views\x002\x003\x00item", digest_size=16).hexdigest()
    assert DecisionIds(1, "views", 2).of(3, "item") == expected


def test_decision_ids_differ_in_every_part():
    ids = {
        DecisionIds(epoch, topic, partition).of(offset, item)
        for epoch in (0, 1)
        for topic in ("views", "clicks")
        for partition in (0, 1)
        for offset in (0, 1)
        for item in ("", "i")
    }
    assert len(ids) == 32


def test_a_short_hash_has_eight_bytes():
    assert len(short_hash("event")) == 8
    assert short_hash("event") != short_hash("Event")
