"""kafka-python connections for administration, subscribers and captures, with errors of the project's tree.

Everything here is synchronous and outside the consumer group. Not here: the worker's transport, which is aiokafka.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import OffsetSpec

from contracts.errors import BadSettings, BrokerUnavailable
from contracts.prices import SCHEMA_VERSION
from streams.settings import KafkaSettings, Settings

BOOTSTRAP_MS_MAX = 10_000
"""Longest wait for the first answer of a broker."""
SILENCE_MS_MAX = 60_000
"""Longest wait for the next committed record that a log is known to hold."""
POLL_MS = 500
POLL_RECORDS_MAX = 5_000
FETCH_BYTES_MAX = 4 << 20
SCHEMA_HEADER = ("schema-version", SCHEMA_VERSION.encode())

_REFUSED = (
    kafka_errors.AuthorizationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
)

_LOGIN = "knows the user, the password and the mechanism"
_CERTIFICATE = "has a certificate of kafka.ssl_ca_file"
_EXPECTED = {
    "PLAINTEXT": " and takes connections without TLS there",
    "SSL": f" and {_CERTIFICATE}",
    "SASL_PLAINTEXT": f" and {_LOGIN}",
    "SASL_SSL": f", {_LOGIN}, and {_CERTIFICATE}",
}
"""A broker that wants another security protocol does not answer, and neither does an old one that refuses a password."""

_MANAGER = logging.getLogger("kafka.net.manager")


class _Refusal(logging.Handler):
    """Notes with what error a broker has refused a login."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.error: Exception | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Look for such an error in what is logged."""
        for argument in record.args or ():
            if isinstance(argument, _REFUSED):
                self.error = argument


@contextmanager
def _login() -> Iterator[None]:
    """Let a login that is refused be that error: kafka-python 3.0 tries again until its time is over, raises that it is, and
    says to its log only what the broker has answered.
    """
    refusal = _Refusal()
    _MANAGER.addHandler(refusal)
    try:
        yield
    except kafka_errors.KafkaTimeoutError as late:
        if refusal.error is not None:
            raise refusal.error from late
        raise
    finally:
        _MANAGER.removeHandler(refusal)


@contextmanager
def broker_errors(kafka: KafkaSettings) -> Iterator[None]:
    """Turn errors of kafka-python into ours.

    Raises:
        BrokerUnavailable: no answer in time, or no leader: another try may help.
        BadSettings: the broker refused who we are, what we asked for, or knows no such topic.
    """
    where = kafka.bootstrap_servers
    try:
        yield
    except _REFUSED as error:
        raise BadSettings(
            f"The broker at {where} refused: {_first_line(error)}. Check security_protocol, the SASL settings and the ACLs"
        ) from error
    except kafka_errors.UnknownTopicOrPartitionError as error:
        raise BadSettings(
            f"A topic is missing at {where}: {_first_line(error)}. Run `pricetide topics create`"
        ) from error
    except (kafka_errors.RetriableError, kafka_errors.KafkaConnectionError, OSError) as error:
        raise BrokerUnavailable(
            f"No usable answer from Kafka at {where}: {_first_line(error)}. Check that kafka.bootstrap_servers is "
            f"right and that the broker runs{_EXPECTED[kafka.security_protocol]}, then try again"
        ) from error
    except kafka_errors.KafkaError as error:
        raise BadSettings(f"Kafka at {where} refused: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def bootstrap_ms(kafka: KafkaSettings) -> int:
    """Return how long to wait for the first answer of a broker."""
    return min(BOOTSTRAP_MS_MAX, kafka.request_timeout_ms)


@contextmanager
def administering(settings: Settings) -> Iterator[KafkaAdminClient]:
    """Open an admin client; the errors of its use become ours (`broker_errors`)."""
    with broker_errors(settings.kafka):
        with _login():
            client = KafkaAdminClient(
                **settings.kafka.kafka_python(),
                request_timeout_ms=settings.kafka.request_timeout_ms,
                bootstrap_timeout_ms=bootstrap_ms(settings.kafka),
            )
        try:
            yield client
        finally:
            client.close()


@contextmanager
def producing(settings: Settings) -> Iterator[KafkaProducer]:
    """Open an idempotent producer with acks=all, for single records by hand."""
    with broker_errors(settings.kafka):
        with _login():
            producer = KafkaProducer(
                **settings.kafka.kafka_python(),
                acks="all",
                enable_idempotence=True,
                bootstrap_timeout_ms=bootstrap_ms(settings.kafka),
                max_block_ms=settings.kafka.request_timeout_ms,
                max_request_size=FETCH_BYTES_MAX,
            )
        try:
            yield producer
        finally:
            producer.close()


@_login()
def open_reader(settings: Settings) -> KafkaConsumer:
    """Return a consumer of committed records without a group; the caller assigns partitions and closes it."""
    return KafkaConsumer(
        **settings.kafka.kafka_python(),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        allow_auto_create_topics=False,
        bootstrap_timeout_ms=bootstrap_ms(settings.kafka),
        max_poll_records=POLL_RECORDS_MAX,
        max_partition_fetch_bytes=FETCH_BYTES_MAX,
        check_crcs=False,  # without a C library they cost four times the rest; the broker has checked every batch
    )


@contextmanager
def reading(settings: Settings) -> Iterator[KafkaConsumer]:
    """`open_reader` for the length of a block."""
    with broker_errors(settings.kafka):
        consumer = open_reader(settings)
        try:
            yield consumer
        finally:
            consumer.close()


def partition_counts(admin: KafkaAdminClient, topics: Iterable[str]) -> dict[str, int]:
    """Return the partition count of each of `topics` that exists."""
    answers = admin.describe_topics(list(dict.fromkeys(topics)))
    return {answer["name"]: len(answer["partitions"]) for answer in answers if answer["error_code"] == 0}


def require_topics(settings: Settings, topics: Iterable[str]) -> dict[str, int]:
    """Return the partition counts of `topics`.

    Raises:
        BadSettings: one does not exist; the message names it.
    """
    wanted = list(dict.fromkeys(topics))
    with administering(settings) as admin:
        counts = partition_counts(admin, wanted)
    missing = [topic for topic in wanted if topic not in counts]
    if missing:
        raise BadSettings(
            f"There is no topic {', '.join(repr(topic) for topic in missing)} at {settings.kafka.bootstrap_servers}: "
            "run `pricetide topics create`, or correct the settings under `topics`"
        )
    return counts


def partitions_of(counts: dict[str, int]) -> list[TopicPartition]:
    """Return every partition of the topics in `counts`."""
    return [TopicPartition(topic, partition) for topic, count in counts.items() for partition in range(count)]


def stable_ends(admin: KafkaAdminClient, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """Return the last stable offset of each partition: what a reader of committed records can reach now."""
    answers = admin.list_partition_offsets(
        dict.fromkeys(partitions, OffsetSpec.LATEST), isolation_level="read_committed"
    )
    return {partition: answer.offset for partition, answer in answers.items()}


def committed_records(settings: Settings, topics: Iterable[str]) -> Iterator[Any]:
    """Yield every committed record of `topics` that lies there now, in offset order within a partition.

    Raises:
        BadSettings: a topic is missing. BrokerUnavailable: the broker fell silent before the end.
    """
    counts = require_topics(settings, topics)
    with reading(settings) as consumer:
        partitions = partitions_of(counts)
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        yield from records_until(consumer, consumer.end_offsets(partitions))


def records_until(consumer: KafkaConsumer, ends: dict[TopicPartition, int]) -> Iterator[Any]:
    """Yield the records of an assigned consumer that lie below `ends`."""
    for chunk in chunks_until(consumer, ends):
        for records in chunk.values():
            yield from records


def chunks_until(consumer: KafkaConsumer, ends: dict[TopicPartition, int]) -> Iterator[dict[TopicPartition, list[Any]]]:
    """Yield what each fetch brings of the records below `ends`. A log may end in control records that no one sees."""
    unfinished = {partition for partition, end in ends.items() if consumer.position(partition) < end}
    consumer.pause(*(set(ends) - unfinished))
    while unfinished:
        polled = _next_records(consumer, unfinished, ends)
        chunk = {
            partition: [record for record in records if record.offset < ends[partition]]
            for partition, records in polled.items()
        }
        yield {partition: records for partition, records in chunk.items() if records}
        finished = {partition for partition in unfinished if consumer.position(partition) >= ends[partition]}
        unfinished -= finished
        consumer.pause(*finished)


def _next_records(
    consumer: KafkaConsumer, partitions: Iterable[TopicPartition], ends: dict[TopicPartition, int]
) -> dict[TopicPartition, list[Any]]:
    """Poll until there are records or a position has reached its end."""
    for _ in range(SILENCE_MS_MAX // POLL_MS):
        polled: dict[TopicPartition, list[Any]] = consumer.poll(timeout_ms=POLL_MS)
        if polled or any(consumer.position(partition) >= ends[partition] for partition in partitions):
            return polled
    raise kafka_errors.KafkaTimeoutError(f"no record for {SILENCE_MS_MAX // 1000} s before the end of the log")
