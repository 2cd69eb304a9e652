"""Prometheus metrics of a learner: what of each policy it has gone past, learned and published. Does not serve them
(streams.learner_app).
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from contracts.learned import Learned


class LearnerMetrics:
    """The metrics of one learner process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"pricetide_learner_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"pricetide_learner_{name}", text, ("policy",), registry=registry)

        self.learned = counter("learned_outcomes", "Outcomes learned from.", "policy")
        self.left = counter("left_outcomes", "Outcomes that taught nothing, by why.", "policy", "why")
        self.unreadable = counter(
            "unreadable_outcomes", "Records of the topic that this release cannot read.", "policy"
        )
        self.seconds = counter("learning_seconds", "Seconds spent learning.", "policy")
        self.refused = counter("refused_references", "Policy records refused.", "topic")
        self.version = gauge("version", "The last version published.")
        self.published = gauge("last_version_timestamp_seconds", "Unix time at which it was.")
        self.lag = gauge("lag_records", "Records of the topic outcomes beyond it.")
        self.discount_weight = gauge("discount_weight", "Lambda of the discount budget.")
        self.stragglers = gauge("stragglers", "Outcomes learned after later ones of another partition.")

    def observe(self, record: Learned, published_s: float) -> None:
        """Note a version that was committed at Unix time `published_s`."""
        self.version.labels(record.policy).set(record.version)
        self.published.labels(record.policy).set(published_s)
        self.discount_weight.labels(record.policy).set(record.discount_weight)
        self.stragglers.labels(record.policy).set(record.stragglers)
