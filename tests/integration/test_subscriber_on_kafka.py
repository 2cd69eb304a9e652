"""A downstream service on a real broker: committed prices only, followed live, the kill switch honoured."""

from __future__ import annotations

import time

import msgspec
import pytest
from click.testing import CliRunner
from kafka import KafkaProducer

from contracts.errors import BadSettings
from contracts.policies import KillSwitch
from contracts.prices import PriceUpdate, encode_price, price_key
from pricetide import command_line
from streams.kill_switch import throw_kill_switch
from streams.subscriber import PriceSubscriber, Removal
from streams.topics import create_topics


def update(version: int, item: str, price: int = 900, **fields) -> PriceUpdate:
    filled = {
        "decision_id": f"d{version}", "user": "u", "item": item, "market": None, "currency": "USD", "price": price,
        "list_price": 1_000, "valid_from_ms": 1_000, "valid_until_ms": None, "version": version,
        "reasons": ("session_intent",), "status": "drawn", "draw_id": f"d{version}",
    }  # fmt: skip
    return PriceUpdate(**filled | fields)


class Worker:
    """Publishes as a worker does: in transactions, a partition at a time."""

    def __init__(self, settings) -> None:
        self.topic = settings.topics.price_updates
        self.producer = KafkaProducer(
            bootstrap_servers=settings.kafka.bootstrap_servers, transactional_id=settings.group + "-0", acks="all"
        )
        self.producer.init_transactions()

    def publish(self, *updates: PriceUpdate, partition: int = 0, commit: bool = True) -> None:
        self.producer.begin_transaction()
        for one in updates:
            self.producer.send(self.topic, encode_price(one), price_key(one.user, one.item), partition=partition)
        self.end(commit)

    def remove(self, user: str, item: str) -> None:
        self.producer.begin_transaction()
        self.producer.send(self.topic, None, price_key(user, item), partition=0)
        self.end(commit=True)

    def end(self, commit: bool) -> None:
        self.producer.flush()
        if commit:
            self.producer.commit_transaction()
        else:
            self.producer.abort_transaction()


@pytest.fixture
def settings(deploy):
    made = deploy()
    create_topics(made)
    return made


@pytest.fixture
def worker(settings):
    started = Worker(settings)
    yield started
    started.producer.close()


def poll_until(prices: PriceSubscriber, holds) -> list:
    changes, ends = [], time.monotonic() + 30
    while not holds() and time.monotonic() < ends:
        changes += prices.poll(timeout_ms=200)
    assert holds()
    return changes


def test_it_catches_up_with_what_was_committed_and_sees_nothing_of_what_was_not(settings, worker):
    worker.publish(update(1, "a", 900), update(2, "a", 800))
    worker.publish(update(1, "b", 700), partition=1)
    worker.publish(update(3, "a", 1), commit=False)
    with PriceSubscriber(settings) as prices:
        assert prices.catch_up() == 2
        assert [prices.price("u", item).price for item in "ab"] == [800, 700]
        assert prices.price("u", "c") is None


def test_it_follows_live_updates_and_removals(settings, worker):
    with PriceSubscriber(settings) as prices:
        assert prices.catch_up() == 0
        worker.publish(update(1, "a"))
        assert poll_until(prices, lambda: prices.price("u", "a") is not None) == [update(1, "a")]
        worker.remove("u", "a")
        assert poll_until(prices, lambda: prices.price("u", "a") is None) == [Removal("u", "a")]


def test_the_kill_switch_is_known_at_once_and_followed_live(settings, worker):
    worker.publish(update(1, "a", 900))
    assert throw_kill_switch(settings, KillSwitch(on=True, reason="drill")).kill_switch
    with PriceSubscriber(settings) as prices:
        prices.catch_up()
        assert prices.price("u", "a").price == 1_000
        assert not throw_kill_switch(settings, KillSwitch(on=False)).kill_switch
        poll_until(prices, lambda: not prices.book.kill_switch)
        assert prices.price("u", "a").price == 900


def test_from_the_end_it_sees_only_what_comes(settings, worker):
    worker.publish(update(1, "a"))
    with PriceSubscriber(settings, start="end") as prices:
        worker.publish(update(2, "b"))
        poll_until(prices, lambda: prices.price("u", "b") is not None)
        assert prices.price("u", "a") is None


def test_a_missing_topic_is_a_sentence(deploy):
    with pytest.raises(BadSettings, match="pricetide topics create"):
        PriceSubscriber(deploy()).__enter__()


def test_tail_prints_prices_with_reasons_in_words(settings, worker, flags):
    worker.publish(update(1, "a", 900), update(2, "b", 800), update(3, "a", 700, user="v"))
    run = CliRunner()
    words = run.invoke(command_line, ["tail", "--from-beginning", "--limit", "1", "--user", "v", *flags(settings)])
    assert words.output.startswith("v · a · v3 drawn: 7.00 USD, 30.0 % below the list price of 10.00 USD: ")
    lines = run.invoke(command_line, ["tail", "--from-beginning", "--limit", "3", "--json", *flags(settings)])
    read = [msgspec.json.decode(line, type=PriceUpdate) for line in lines.output.splitlines()]
    assert [one.version for one in read] == [1, 2, 3]


def test_tail_shows_what_holds_unless_it_is_asked_for_what_was_published(settings, worker, flags):
    worker.publish(update(1, "a", 900, valid_until_ms=2_000), update(2, "b", 800, valid_from_ms=1_500))
    run = CliRunner()

    def tailed(limit: int, *arguments: str) -> list[tuple[str, int]]:
        said = run.invoke(
            command_line,
            ["tail", "--from-beginning", "--limit", str(limit), "--json", *arguments, *flags(settings)],
            catch_exceptions=False,
        )
        found.append(said.stderr)
        return [(one["item"], one["price"]) for one in map(msgspec.json.decode, said.stdout.splitlines())]

    found: list[str] = []
    assert tailed(1) == [("b", 800)]
    assert "--clock stream" in found[-1]
    assert tailed(2, "--clock", "stream") == tailed(2, "--as-published") == [("a", 900), ("b", 800)]
    throw_kill_switch(settings, KillSwitch(on=True))
    assert tailed(2, "--clock", "stream") == [("a", 1_000), ("b", 1_000)]
    assert "The kill switch is on" in found[-1]


def test_the_kill_switch_command_says_what_holds(settings, flags):
    run = CliRunner()
    on = run.invoke(command_line, ["killswitch", "on", "--reason", "drill", *flags(settings)])
    assert (on.exit_code, "is on" in on.output) == (0, True)
    off = run.invoke(command_line, ["killswitch", "off", *flags(settings)])
    assert (off.exit_code, off.output) == (0, "The kill switch is off: builtin sets prices.\n")
