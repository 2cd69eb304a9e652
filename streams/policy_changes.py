"""What an operator does to the policies: publish a version, make one current or a shadow, go back. Each is rehearsed on the book
that workers keep, so that nothing is published that they would refuse, and read back afterwards. Prints nothing.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from contracts.errors import BadInput, BrokerUnavailable
from contracts.learned import CurrentLearned
from contracts.policies import (
    CurrentPolicy,
    Policy,
    PolicyBook,
    PolicyRecord,
    ShadowPolicy,
    encode_policy,
    policy_key,
)
from streams.policy_log import PolicyLog
from streams.policy_publisher import Publisher, publishing
from streams.settings import Settings


class Change(Struct, frozen=True, kw_only=True):
    """What came of a command."""

    policy: Policy
    before: Policy
    """What was current until now, whether or not it still is."""
    published_at: int | None = None
    """Offset of the version; None: it was on the topic already."""
    current_at: int | None = None
    """Offset of the record that makes it current; None: it was already, or was not to be."""
    kill_switch: bool = False


def apply_policy(settings: Settings, draft: Policy, *, activate: bool = True) -> Change:
    """Publish `draft` as the next number of its name, unless the newest version equals it, and make it current.

    Raises:
        BadReference: workers would refuse it; nothing was published.
        BrokerUnavailable: another operator came in between, or the broker went; the message says what was published.
    """
    with publishing(settings) as publisher:
        log = publisher.read()
        policy, before, published_at = log.newest(draft.name), log.book.current, None
        if policy is None or replace(draft, number=policy.number) != policy:
            policy = replace(draft, number=log.next_number(draft.name))
            rehearse(log.book, policy, *([pointer_to(policy)] if activate else []))
            published_at = publisher.publish(policy)
            log = publisher.read()
            _require_ours(publisher, log, policy)
        done = Change(policy=policy, before=before, published_at=published_at, kill_switch=log.book.kill_switch)
        return _make_current(publisher, log, done) if activate else done


def rollback(settings: Settings, version: str | None = None) -> Change:
    """Make `version` current, by default the one that was before the current one; `builtin` is one, too.

    Raises:
        BadInput: there is no such version, or none before is known. BadReference, BrokerUnavailable: as of `apply_policy`.
    """
    with publishing(settings) as publisher:
        log = publisher.read()
        wanted = version or log.before()
        if wanted is None:
            raise BadInput(
                "No policy that was current before is left on the topic: name one, as in `pricetide policy history`"
            )
        policy = log.policy(wanted)
        done = Change(policy=policy, before=log.book.current, kill_switch=log.book.kill_switch)
        return _make_current(publisher, log, done)


def set_shadow(settings: Settings, version: str | None) -> tuple[Policy | None, int | None]:
    """Have the policy `version` decide as a shadow from now on, or none.

    Returns:
        The policy, and the offset of the record; None where that held already and nothing was published.

    Raises:
        BadInput: there is no such version. BadReference, BrokerUnavailable: as of `apply_policy`.
    """
    with publishing(settings) as publisher:
        log = publisher.read()
        wanted = None if version is None else log.policy(version)
        if wanted == log.book.shadow:
            return wanted, None
        record = ShadowPolicy(policy=None if wanted is None else wanted.version)
        rehearse(log.book, record)
        return wanted, publisher.publish(record)


def recall(settings: Settings, version: str, learned: int) -> int:
    """Have workers price by version `learned` of what the policy `version` has learned, until its learner publishes the next
    one; return the offset.

    Raises:
        BadInput: there is no such policy. BadReference: workers would refuse it; nothing was published.
        BrokerUnavailable: as of `apply_policy`.
    """
    with publishing(settings) as publisher:
        log = publisher.read()
        policy = log.policy(version)
        record = CurrentLearned(name=policy.name, number=policy.number, version=learned)
        rehearse(log.book, record)
        return publisher.publish(record)


def pointer_to(policy: Policy) -> CurrentPolicy:
    """Return the record that makes `policy` current."""
    return CurrentPolicy(name=policy.name, number=policy.number)


def rehearse(book: PolicyBook, *records: PolicyRecord) -> None:
    """Apply `records` as workers will.

    Raises:
        BadReference: they would refuse one.
    """
    for record in records:
        book.apply(book.seen, policy_key(record), encode_policy(record))


def _make_current(publisher: Publisher, log: PolicyLog, done: Change) -> Change:
    """Point to the policy of `done` and see that workers follow; nothing if they do already."""
    before, policy = log.book.current, done.policy
    if before == policy:
        return done
    rehearse(log.book, pointer_to(policy))
    offset = publisher.publish(pointer_to(policy), replaces=before.version)
    log = publisher.read()
    if log.book.current != policy:
        raise BrokerUnavailable(
            f"{policy.version} was made current at offset {offset}, but by now {log.book.current.version} is: somebody else "
            "changed it at the same moment. Look at `pricetide policy history`, then try again"
        )
    return replace(done, before=before, current_at=offset, kill_switch=log.book.kill_switch)


def _require_ours(publisher: Publisher, log: PolicyLog, ours: Policy) -> None:
    """See that workers took `ours` under its number; else put the one they took behind it, for compaction to keep.

    Raises:
        BrokerUnavailable: somebody published that number first, without the commands' lock.
    """
    theirs = log.versions.get(ours.version)
    if theirs == ours:
        return
    if theirs is not None:
        publisher.publish(theirs)
        if log.book.current == theirs:
            publisher.publish(pointer_to(theirs))
    raise BrokerUnavailable(
        f"Somebody else published {ours.version} at the same moment, with other content: workers keep that one and have "
        f"refused this one, and the other was published again so that the topic keeps it, too. {log.book.current.version} "
        "sets prices. Look at `pricetide policy history`, then try again"
    )
