"""Finding one decision, and what stands behind it: on Kafka's topics, or in the files of a backtest and its log.

A decision id is a hash: the topic is read from its end backwards until the record comes, of one partition if the user is known.
Not here: what a decision means (pricing.explanation), how it is shown (streams.explain_pages).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
from kafka import KafkaConsumer, TopicPartition
from msgspec import Struct

from contracts.catalogue import CatalogueItem, decode_item
from contracts.decisions import Applied, Decision, DecisionRecord, decode_decision
from contracts.errors import REFUSED, UNREADABLE, BadInput
from contracts.ids import partition_of
from contracts.learned import Learned
from contracts.log import Log, ReferenceRecord, catalogue_records, open_log, policy_records
from contracts.log_files import require_pyarrow
from contracts.policies import PolicyBook, PolicyRecord
from pricing.recomputing import Background, known_by
from streams.broker import committed_records, reading, records_until, require_topics
from streams.settings import Settings

BLOCK = 10_000
"""Offsets per partition that are read first, from its end."""


class Case(Struct, frozen=True, kw_only=True):
    """A decision with all that was found of it."""

    record: DecisionRecord
    background: Background = Background()
    behind_draw: Background | None = None
    """The same of the draw, for a held price."""


def on_topics(settings: Settings, decision_id: str, user: str | None = None, *, shadow: bool = False) -> Case:
    """Return the decision `decision_id` from its topic, and what the topics of policies and catalogue hold of it.

    Args:
        settings: where.
        decision_id: of a decision or an applied record.
        user: whose it is, so that only one partition is read.
        shadow: what a shadow policy decided of the draw with that id.

    Raises:
        BadInput: there is none, or it was erased. BadSettings, BrokerUnavailable: as of streams.broker.
    """
    topic = settings.topics.shadow_decisions if shadow else settings.topics.decisions
    count = require_topics(settings, [topic])[topic]
    partitions = range(count) if user is None else [partition_of(user.encode(), count)]
    where = f"topic {topic!r}" if user is None else f"partition {partitions[0]} of topic {topic!r}, which has this user"
    with reading(settings) as consumer:
        places = [TopicPartition(topic, partition) for partition in partitions]
        found = _newest(consumer, consumer.end_offsets(places), decision_id)
        if found is None:
            raise BadInput(f"There is no decision {decision_id!r} on {where}: check the id, and whether it is too old")
        if found.value is None:
            raise BadInput(f"Decision {decision_id!r} was erased: its shopper asked to be forgotten")
        record, draw = decode_decision(found.value), None
        draw_id = _draw_of(record)
        if draw_id is not None:
            draw = _newest(consumer, {TopicPartition(topic, found.partition): found.offset}, draw_id)
    return _case(
        record,
        None if draw is None or draw.value is None else decode_decision(draw.value),
        committed_records(settings, [settings.topics.policies]),
        committed_records(settings, [settings.topics.catalogue]),
    )


def _newest(consumer: KafkaConsumer, ends: dict[TopicPartition, int], decision_id: str) -> Any:  # noqa: ANN401 - as below
    """Return the last committed record of `decision_id` below `ends`, as kafka-python gives it, or None.

    Reads blocks from the end backwards, each twice as long as the one after it: what is asked for is seldom old.
    """
    ending, block = msgspec.json.encode(decision_id) + b"]", BLOCK
    places = list(ends)
    consumer.assign(places)
    begins = consumer.beginning_offsets(places)
    while any(ends[place] > begins[place] for place in places):
        starts = {place: max(begins[place], ends[place] - block) for place in places}
        for place, start in starts.items():
            consumer.seek(place, start)
        consumer.resume(*places)  # whatever the block before has paused
        found = None
        for record in records_until(consumer, ends):
            if record.key is not None and record.key.endswith(ending):
                found = record
        if found is not None:
            return found
        ends, block = starts, 2 * block
    return None


def in_files(file: Path, log: Path | None, decision_id: str) -> Case:
    """Return the decision `decision_id` from a file of decisions, and what the log that it was made from holds of it.

    Args:
        file: what `pricetide backtest --decisions` wrote, or JSON lines of decision records.
        log: directory of the log; None: nothing stands behind the decision.
        decision_id: of a decision or an applied record.

    Raises:
        BadInput: there is none, or a file is none of these.
    """
    record = _in_file(file, decision_id)
    if record is None:
        raise BadInput(f"There is no decision {decision_id!r} in {file}: check the id and the file")
    draw_id = _draw_of(record)
    draw = None if draw_id is None else _in_file(file, draw_id)
    opened: Log | None = None if log is None else open_log(log, verify=False)
    policies: Iterable[ReferenceRecord] = () if opened is None else policy_records(opened)
    items: Iterable[ReferenceRecord] = () if opened is None else catalogue_records(opened)
    return _case(record, draw, policies, items)


def policies_of(log: Path | None) -> PolicyBook:
    """Return the policies of the log in a directory, an empty book for None.

    Raises:
        BadInput: there is no log.
    """
    book = PolicyBook()
    for record in () if log is None else policy_records(open_log(log, verify=False)):
        _fold(book, record)
    return book


def decisions_in(file: Path) -> Iterator[DecisionRecord]:
    """Stream the records of a file of decisions, in its order.

    Raises:
        BadInput: the file is missing, or no such file.
    """
    return map(decode_decision, _values(file, None))


def _in_file(file: Path, decision_id: str) -> DecisionRecord | None:
    return next(
        (one for one in map(decode_decision, _values(file, decision_id)) if one.decision_id == decision_id), None
    )


def _values(file: Path, decision_id: str | None) -> Iterator[bytes]:
    """Yield the bytes of the records, or of those that may be `decision_id`."""
    if not file.is_file():
        raise BadInput(f"There is no file {file}: name what `pricetide backtest --decisions` wrote")
    if file.suffix == ".parquet":
        yield from _parquet_values(require_pyarrow(), file, decision_id)
        return
    wanted = b"" if decision_id is None else decision_id.encode()
    with file.open("rb") as lines:
        for line in lines:
            if wanted in line and line.strip():
                yield line


def _parquet_values(pa: Any, file: Path, decision_id: str | None) -> Iterator[bytes]:  # noqa: ANN401 - pyarrow ships no types
    try:
        if decision_id is not None:
            table = pa.parquet.read_table(file, columns=["record"], filters=[("decision_id", "=", decision_id)])
            yield from table.column("record").to_pylist()
            return
        for batch in pa.parquet.ParquetFile(file).iter_batches(columns=["record"]):
            yield from batch.column(0).to_pylist()
    except (LookupError, pa.ArrowInvalid) as error:
        raise BadInput(
            f"{file} is no file of decisions ({error}): name what `pricetide backtest --decisions` wrote"
        ) from None


def _draw_of(record: DecisionRecord) -> str | None:
    return record.draw_id if isinstance(record, Decision) and record.status == "held" else None


def _case(record: DecisionRecord, draw: DecisionRecord | None, policies: Iterable[Any], items: Iterable[Any]) -> Case:
    """Fold the records of policies and catalogue as far as the decision names them."""
    if isinstance(record, Applied):
        return Case(record=record)
    drawn = draw if isinstance(draw, Decision) else None
    book, wanted = PolicyBook(), {one.catalogue_version for one in (record, drawn) if one is not None}
    digests = {one.learned for one in (record, drawn) if one is not None}
    learned: dict[tuple[str, str], Learned] = {}
    for one in policies:
        folded = _fold(book, one)
        if isinstance(folded, Learned) and folded.digest in digests:
            learned[folded.policy, folded.digest] = folded
    found = dict(chain.from_iterable(_item_of(one) for one in items if one.offset in wanted))
    return Case(
        record=record,
        background=_background(record, drawn, book, found, learned),
        behind_draw=None if drawn is None else _background(drawn, None, book, found, learned),
    )


def _fold(book: PolicyBook, record: Any) -> PolicyRecord | None:  # noqa: ANN401 - of Kafka, or of a log
    try:
        return book.apply(record.offset, record.key, record.value)
    except REFUSED:
        return None  # no worker took it


def _item_of(record: Any) -> list[tuple[int, CatalogueItem]]:  # noqa: ANN401 - of Kafka, or of a log
    try:
        return [] if record.value is None else [(record.offset, decode_item(record.value))]
    except UNREADABLE:
        return []


def _background(
    decision: Decision,
    draw: Decision | None,
    book: PolicyBook,
    items: dict[int, CatalogueItem],
    learned: dict[tuple[str, str], Learned],
) -> Background:
    policy = book.find(decision.policy)
    experiments = {one.version: one for one in book.experiments.versions()}
    experiment = experiments.get(decision.experiment or "")
    return Background(
        policy=policy,
        item=items.get(decision.catalogue_version),
        known=known_by(policy, decision.learned, learned.get((decision.policy, decision.learned or ""))),
        holdout=None if experiment is None else experiment.holdout,
        draw=draw,
    )
