"""The guard: one process that watches what all workers publish, and throws the kill switch when prices leave their limits.

What needs all users at once reaches workers only as a record on the policies topic. The guard follows the decisions, read
committed: one for every price update, in its transaction, and they say what was feasible and how long the user has been one.
Keeps nothing: it begins a window before now, by the time of publication. A change of what prices (current policy, kill
switch, experiments) begins the windows anew, so that it is judged by its own prices. Not here: windows and limits
(pricing.price_watch), the test of tenure (pricing.tenure).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from kafka import KafkaConsumer, TopicPartition
from prometheus_client import CollectorRegistry, Counter, Gauge

from contracts.decisions import Decision, decode_decision
from contracts.errors import REFUSED, UNREADABLE, BadInput
from contracts.experiments import RunningExperiments
from contracts.policies import CurrentPolicy, KillSwitch, PolicyBook
from pricing.price_watch import JUDGED, Breach, PriceWatch, breaches
from pricing.review import Guarded
from pricing.tenure import Tenure, TenureWatch
from streams.broker import POLL_MS, partitions_of, reading, records_until, require_topics
from streams.kill_switch import throw_kill_switch
from streams.settings import Settings

logger = logging.getLogger(__name__)
REASON_MAX = 512


def read_limits(file: Path | None) -> Guarded:
    """Return the limits in a TOML file, or the default ones.

    Raises:
        BadInput: the file cannot be read, or holds what cannot be.
    """
    if file is None:
        return Guarded()
    try:
        return msgspec.toml.decode(file.read_bytes(), type=Guarded)
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}; name a TOML file with limits") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise BadInput(f"{file} holds no limits for the guard: {error}; correct it") from None


class GuardMetrics:
    """The metrics of a guard, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.decisions = Counter("pricetide_guard_decisions", "Decisions watched.", registry=registry)
        self.late = Gauge(
            "pricetide_guard_late_decisions", "Decisions older than the windows of all partitions.", registry=registry
        )
        self.mean = Gauge(
            "pricetide_guard_mean_multiplier", "Mean price over list price, last window.", registry=registry
        )
        self.lowest = Gauge("pricetide_guard_lowest_share", "Draws at the lowest feasible price.", registry=registry)
        self.changed = Gauge(
            "pricetide_guard_changed_share", "Repeated decisions that changed a price.", registry=registry
        )
        self.breaches = Counter("pricetide_guard_breaches", "Windows beyond a limit.", ("what",), registry=registry)
        for what in JUDGED:  # from 0 on: a series that begins with 1 has not increased, and no alarm would ring
            self.breaches.labels(what)
        self.tenure = Gauge("pricetide_guard_tenure_rise", "Rise of price over list with tenure.", registry=registry)
        self.loyal_pay_more = Gauge(
            "pricetide_guard_loyal_pay_more", "1 if the last period's rise is beyond noise.", registry=registry
        )


class Guard:
    """Watches, judges, and acts once. `watch` until it returns the sentence of a breach."""

    def __init__(
        self,
        settings: Settings,
        guarded: Guarded,
        *,
        alarm_only: bool = False,
        tenure_kills: bool = False,
    ) -> None:
        """Begin.

        Args:
            settings: where Kafka is.
            guarded: what to judge by.
            alarm_only: never throw the kill switch; say and count, and go on.
            tenure_kills: an alarm of the tenure test throws it, too.
        """
        self.metrics = GuardMetrics()
        self._settings = settings
        self._guarded = guarded
        self._alarm_only = alarm_only
        self._tenure_kills = tenure_kills
        self._prices = PriceWatch(guarded.prices)
        self._tenure = TenureWatch(guarded.tenure)
        self._book = PolicyBook()
        self._watermark_ms = 0

    def watch(self, idle_s: float | None = None) -> str | None:
        """Follow the decisions; return why the kill switch was thrown, or None after `idle_s` seconds without a record.

        Raises:
            BadSettings: a topic is missing. BrokerUnavailable: the broker went; starting again is safe.
        """
        topics = self._settings.topics
        counts = require_topics(self._settings, [topics.decisions, topics.policies])
        with reading(self._settings) as consumer:
            self._begin(consumer, partitions_of({topics.decisions: counts[topics.decisions]}))
            heard = time.monotonic()
            while True:
                polled = consumer.poll(timeout_ms=POLL_MS)
                reason = self.apply(polled)
                if reason is not None:
                    return reason
                heard = time.monotonic() if polled else heard
                if idle_s is not None and time.monotonic() - heard > idle_s:
                    return None

    def _begin(self, consumer: KafkaConsumer, decisions: list[TopicPartition]) -> None:
        """Read the policies whole, then stand a window before now on every partition of decisions."""
        policies = TopicPartition(self._settings.topics.policies, 0)
        consumer.assign([policies])
        consumer.seek_to_beginning(policies)
        self._follow(records_until(consumer, consumer.end_offsets([policies])))
        position = consumer.position(policies)
        consumer.assign([policies, *decisions])
        consumer.resume(policies)
        consumer.seek(policies, position)
        since_ms = time.time_ns() // 1_000_000 - self._guarded.prices.window_ms
        for place, found in consumer.offsets_for_times(dict.fromkeys(decisions, since_ms)).items():
            if found is None:
                consumer.seek_to_end(place)
                consumer.position(place)  # looks the offset up now: what is published from here on will be read
            else:
                consumer.seek(place, found.offset)

    def apply(self, polled: Mapping[TopicPartition, Iterable[Any]]) -> str | None:
        """Take what a fetch has brought, then judge; return why the kill switch was thrown, None if it was not."""
        for place, records in polled.items():
            if place.topic == self._settings.topics.policies:
                self._follow(records)
        for place, records in polled.items():
            if place.topic != self._settings.topics.policies:
                self._count(place, records)
        return self._judge()

    def _follow(self, records: Iterable[Any]) -> None:
        for record in records:
            try:
                change = self._book.apply(record.offset, record.key, record.value)
            except REFUSED:
                continue  # workers refuse it, too, and say so
            if isinstance(change, CurrentPolicy | KillSwitch | RunningExperiments):
                self._prices.begin_anew(self._book.seen)

    def _count(self, place: TopicPartition, records: Iterable[Any]) -> None:
        for record in records:
            if record.value is None:
                continue  # erased
            try:
                decision = decode_decision(record.value)
            except UNREADABLE as error:  # raised, it would end the guard again at every start, and nobody would watch
                logger.error("%s/%d offset %d is no decision: %s", *place, record.offset, error)
                continue
            if isinstance(decision, Decision):
                self._watermark_ms = max(self._watermark_ms, decision.event_time_ms)
                self._prices.add(decision, self._book.find(decision.policy), place.partition)
                self._tenure.add(decision)
                self.metrics.decisions.inc()

    def _judge(self) -> str | None:
        """Act on the windows and periods that have ended; return why the kill switch was thrown."""
        found: list[Breach] = []
        for window in self._prices.ended():
            if window.partition is None:
                self.metrics.mean.set(window.mean_permille / 1000)
                self.metrics.lowest.set(window.lowest_share)
                self.metrics.changed.set(window.changed_share)
            found += breaches(window, self._guarded.prices)
        self.metrics.late.set(self._prices.late)
        for breach in found:
            self.metrics.breaches.labels(breach.what).inc()
            logger.error("prices are beyond their limits: %s", breach.sentence)
        alarms = [verdict for verdict in self._tenure.ended(self._watermark_ms) if self._tell(verdict)]
        reasons = [breach.sentence for breach in found]
        if self._tenure_kills:
            reasons += [alarm.sentence for alarm in alarms]
        return self._trip("; ".join(reasons)) if reasons else None

    def _tell(self, verdict: Tenure) -> bool:
        """Say what the test of tenure found; return whether it is an alarm."""
        self.metrics.tenure.set((verdict.rise_permille or 0.0) / 1000)
        self.metrics.loyal_pay_more.set(verdict.alarm)
        logger.log(logging.ERROR if verdict.alarm else logging.INFO, "%s", verdict.sentence)
        return verdict.alarm

    def _trip(self, sentence: str) -> str | None:
        """Throw the kill switch, unless it is on or nobody wants that."""
        if self._alarm_only or self._book.kill_switch:
            return None
        reason = f"guard: {sentence}"[:REASON_MAX]
        throw_kill_switch(self._settings, KillSwitch(on=True, reason=reason))
        logger.critical("the kill switch is on: %s", reason)
        return reason
