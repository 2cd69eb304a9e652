"""`pricetide learn`: run the learner, the one process beside the workers that turns outcomes into what policies know."""

from __future__ import annotations

import click

from contracts.errors import BadSettings
from streams.broker import require_topics
from streams.options import with_settings
from streams.settings import Settings


@click.command()
@click.option("--policy", "only", multiple=True, metavar="NAME@N", help="Learn for this one only. Repeatable.")
@with_settings
def learn(settings: Settings, only: tuple[str, ...]) -> None:
    """Learn from outcomes for the policies that set prices, publish versions that workers follow; run until SIGTERM.

    Exit codes: 0 stopped by a signal, 2 no such policy, 70 a bug, 75 worth another try (broker gone, fenced), 78 settings.
    """
    from streams.app import run_app
    from streams.learner_app import build_learner

    topics = settings.topics
    count = require_topics(settings, [topics.outcomes, topics.policies])[topics.outcomes]
    if count != topics.partitions:
        raise BadSettings(
            f"Topic {topics.outcomes} has {count} partitions, the settings say {topics.partitions}: set topics.partitions "
            "to what the workers have"
        )
    run_app(build_learner(settings, only), settings)
