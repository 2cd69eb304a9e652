"""Prometheus metrics of a worker: one name per step of the path, base units, no user ids.

The step names are the path of an event (docs/architecture.md), `STEPS`. A clock is read per fetch and per batch, never per event:
so what the engine does per user, as loading a state, is part of `engine`. Gauges are set when somebody reads them. Does not
serve them (streams.web).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from pricing.engine import Step

STEPS = ("decode", "merge", "model", "engine", "commit", "store")
"""What was fetched through the intake into the merge; out of it in order; the batch through the model; states, fold, price and
encoding, the rest of the engine's step; the transaction, waiting for the broker included; RocksDB's write."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_EVENTS = (1, 4, 16, 64, 256, 1_024, 4_096)


_Kind = TypeVar("_Kind", Counter, Gauge)


def _family(registry: CollectorRegistry, kind: type[_Kind], name: str, text: str, *labels: str) -> _Kind:
    return kind(f"pricetide_{name}", text, labels, registry=registry)


class Metrics:
    """The metrics of one worker process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        counter, gauge = partial(_family, registry, Counter), partial(_family, registry, Gauge)

        def histogram(name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(f"pricetide_{name}", text, buckets=buckets, registry=registry)

        self.events = counter("events", "Source records applied, by what they were.", "type")
        self.outcomes = counter("outcomes", "Applied records that led to no decision.", "outcome")
        self.decisions = counter("decisions", "Price decisions.", "status")
        self.binding = counter("binding_rules", "Decisions by the rule that bound.", "rule")
        self.rails = counter("rails_bound", "Decisions in which a rail removed a point of the lattice.", "rail")
        self.resolved = counter("draw_outcomes", "Outcomes of draws, and purchases that reward none.", "kind")
        self.shadows = counter("shadow_draws", "Draws that a shadow decided, by what it would have charged.", "what")
        self.dead = counter("dead_letters", "Records sent to the dead letters.", "code")
        self.isolated = counter("isolated_events", "Events isolated because they crashed the worker.")
        self.refused = counter("refused_references", "Catalogue and policy records refused.", "topic")
        self.dropped = counter("fetched_below_position", "Fetched records below the ledger's position, refused.")
        steps = counter("step_seconds", "Seconds spent in each step of the path.", "step")
        self.seconds = {step: steps.labels(step) for step in STEPS}
        self.changelog_bytes = counter("changelog_bytes", "Bytes of state and pending draws written to the changelog.")
        self.restored = counter("restored_records", "Changelog records applied by recovery.")
        self.restore_seconds = counter("restore_seconds", "Seconds spent in recovery.")
        self.lag = gauge("consumer_lag_records", "Committed records not yet applied.", "topic", "partition")
        self.restoring = gauge("restore_records_remaining", "Changelog offsets still to be restored.", "partition")
        self.users = gauge("users", "Users in state, by the last walk of the expiry sweep.", "partition")
        self.pending_draws = gauge("pending_draws", "Draws whose window is not over.", "partition")
        self.erasures_waiting = gauge(
            "erasures_waiting", "Users to be forgotten whose published records are not taken back yet.", "partition"
        )
        self.kill_switch = gauge("kill_switch", "1 while everybody pays list price.")
        self.last_commit = gauge("last_commit_timestamp_seconds", "Unix time of the last transaction.", "partition")
        self.model = gauge("model_info", "1 for the digest of the model in force.", "digest")
        self.models_refused = counter("refused_models", "Artifacts refused while another one served.")
        self.encoder_users = gauge("encoder_resident_users", "Users whose keys and values are in memory.")
        self.encoder_hits = counter("encoder_hits", "Tokens of users who were resident.")
        self.encoder_rebuilt = counter("encoder_rebuilt_tokens", "Tokens run again to rebuild users who were not.")
        self.texts_embedded = counter("embedded_texts", "Texts that were new and embedded, by whose they are.", "kind")
        self.texts_waiting = gauge(
            "texts_waiting", "Texts that wait for their turn to be embedded or looked up.", "kind"
        )
        self.batch = histogram("batch_events", "Events per batch.", _EVENTS)
        self.commit = histogram("commit_seconds", "Seconds of one transaction.")
        self.waited = histogram(
            "received_to_batch_seconds", "From receiving the oldest event of a batch to its hand-over."
        )
        self.latency = histogram(
            "received_to_price_seconds", "From receiving the oldest event of a batch to its committed price."
        )

    def leave(self, topics: Iterable[str], partition: int) -> None:
        """Forget the gauges of a partition that is given up, `topics` its sources: its next owner has them."""
        for topic in topics:
            self.lag.remove(topic, partition)
        for gauge in (self.restoring, self.users, self.pending_draws, self.erasures_waiting, self.last_commit):
            gauge.remove(partition)

    def committed(self, step: Step, events: int, commit_s: float, store_s: float, latency_s: float) -> None:
        """Note what has happened: a batch of `events` records.

        Args:
            step: what it led to.
            events: how many records it had.
            commit_s: seconds that the commit took.
            store_s: those of them in RocksDB's write.
            latency_s: seconds since the first record of the batch was received.
        """
        self.seconds["commit"].inc(commit_s - store_s)
        self.seconds["store"].inc(store_s)
        self.commit.observe(commit_s)
        self.batch.observe(events)
        self.latency.observe(latency_s)
        pending_bytes = sum([len(value) for value in step.pending.values() if value is not None])
        self.changelog_bytes.inc(sum(map(len, step.states.values())) + pending_bytes)
        self.count(step)

    def count(self, step: Step) -> None:
        """Add the counts of a step; their names are `family:label` (pricing.engine)."""
        families = {
            "event": self.events,
            "outcome": self.outcomes,
            "status": self.decisions,
            "rail": self.rails,
            "binding_rule": self.binding,
            "resolved": self.resolved,
            "shadow": self.shadows,
        }
        for name, amount in step.counts.items():
            family, _, label = name.partition(":")
            if family in families:
                families[family].labels(label).inc(amount)
        for _, error in step.dead:
            self.dead.labels(error.code).inc()
            if error.code == "crashed":
                self.isolated.inc()
