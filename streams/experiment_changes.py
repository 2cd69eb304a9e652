"""What an operator does to the experiments: publish a version and run it, stop it, promote a variant. Each is rehearsed on the
book that workers keep, so that nothing is published that they would refuse, and read back afterwards. Prints nothing.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from contracts.errors import BadInput, BrokerUnavailable
from contracts.experiments import Experiment, RunningExperiments
from streams.policy_changes import pointer_to, rehearse
from streams.policy_log import PolicyLog
from streams.policy_publisher import Publisher, publishing
from streams.settings import Settings


class Applied(Struct, frozen=True, kw_only=True):
    """What came of a command."""

    experiment: Experiment
    published_at: int | None = None
    """Offset of the version; None: it was on the topic already, or there was none to publish."""
    running_at: int | None = None
    """Offset of the record that says which experiments run; None: nothing changed."""
    current_at: int | None = None
    """Offset of the record that made a variant's policy current; None: it was already, or was not to be."""
    policy: str = ""
    """The variant's policy."""
    running: tuple[str, ...] = ()
    """What runs now."""


def apply_experiment(settings: Settings, draft: Experiment, *, start: bool = True) -> Applied:
    """Publish `draft` as the next number of its name, unless the newest version equals it, and run it.

    Raises:
        BadReference: workers would refuse it; nothing was published.
        BrokerUnavailable: another operator came in between, or the broker went; the message says what was published.
    """
    with publishing(settings) as publisher:
        log = publisher.read()
        newest = next(iter(reversed(log.book.experiments.versions(draft.name))), None)
        one, published_at = newest, None
        if one is None or replace(draft, number=one.number) != one:
            one = replace(draft, number=log.next_number(f"experiment/{draft.name}"))
            rehearse(log.book, one, *([_running(log, one.name, one.version)] if start else []))
            published_at = publisher.publish(one)
            log = publisher.read()
        if one not in log.book.experiments.versions(one.name):
            raise BrokerUnavailable(
                f"Somebody else published {one.version} at the same moment, with other content: apply the file again"
            )
        done = Applied(experiment=one, published_at=published_at, running=_versions(log))
        return _run(publisher, log, done, one.version) if start else done


def stop_experiment(settings: Settings, name: str) -> Applied:
    """Let the experiment `name` run no more: its users are priced by the current policy.

    Raises:
        BadInput: it does not run. BrokerUnavailable: as of `apply_experiment`.
    """
    with publishing(settings) as publisher:
        log = publisher.read()
        return _run(publisher, log, Applied(experiment=_that_runs(log, name)), None)


def promote_variant(settings: Settings, name: str, variant: str) -> Applied:
    """Make the policy of a variant of the running experiment `name` current, for everybody, and stop the experiment.

    Raises:
        BadInput: there is no such variant, or it does not run.
        BrokerUnavailable: as of `apply_experiment`.
    """
    with publishing(settings) as publisher:
        log = publisher.read()
        one = _that_runs(log, name)
        policy = next((arm.policy for arm in one.variants if arm.name == variant), None)
        if policy is None:
            names = ", ".join(arm.name for arm in one.variants)
            raise BadInput(f"{one.version} has no variant {variant!r}: name one of {names}")
        before, current_at = log.book.current.version, None
        if before != policy:
            pointer = pointer_to(log.policy(policy))
            rehearse(log.book, pointer)
            current_at = publisher.publish(pointer, replaces=before)
        done = Applied(experiment=one, policy=policy, current_at=current_at)
        return _run(publisher, publisher.read(), done, None)


def _that_runs(log: PolicyLog, name: str) -> Experiment:
    for one in log.book.experiments.running:
        if one.name == name:
            return one
    running = ", ".join(_versions(log)) or "none"
    raise BadInput(f"Experiment {name} does not run; running: {running}")


def _versions(log: PolicyLog) -> tuple[str, ...]:
    return tuple(one.version for one in log.book.experiments.running)


def _running(log: PolicyLog, name: str, version: str | None) -> RunningExperiments:
    """Return what runs when `version` does in place of what ran of `name`."""
    others = [one.version for one in log.book.experiments.running if one.name != name]
    return RunningExperiments(experiments=tuple(others if version is None else [*others, version]))


def _run(publisher: Publisher, log: PolicyLog, done: Applied, version: str | None) -> Applied:
    """Say that `version` runs, or that nothing of its name does, and see that workers follow."""
    wanted = _running(log, done.experiment.name, version)
    if set(wanted.experiments) == set(_versions(log)):
        return replace(done, running=_versions(log))
    rehearse(log.book, wanted)
    offset = publisher.publish(wanted)
    found = _versions(publisher.read())
    if found != wanted.experiments:
        raise BrokerUnavailable(
            f"What runs was published at offset {offset}, but by now {', '.join(found) or 'nothing'} does: somebody else changed "
            "it at the same moment. Look at `pricetide experiment show`, then try again"
        )
    return replace(done, running_at=offset, running=found)
