"""Transactions by hand: a producer that holds the floor of its name until somebody else opens one.

Whoever opens a producer with a transactional id fences whoever opened one with it before, and has the broker abort what that one
left open. So a command that reads after opening, and then commits, knows that nobody came in between. Not here: the workers'
producers (streams.producer), what is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread

from kafka import KafkaProducer

from streams.broker import FETCH_BYTES_MAX, bootstrap_ms, broker_errors
from streams.settings import Settings

TRANSACTION_TIMEOUT_MS = 10_000
"""How long a command that died half way may hide later records from readers of committed records."""
CLOSE_S = 2.0


@contextmanager
def fencing(settings: Settings, name: str) -> Iterator[KafkaProducer]:
    """Open the producer with the transactional id `name`, for the length of a block.

    Raises:
        BadSettings: the broker refuses us. BrokerUnavailable: it does not answer.
    """
    with broker_errors(settings.kafka):
        producer = KafkaProducer(
            **settings.kafka.kafka_python(),
            acks="all",
            transactional_id=name,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            bootstrap_timeout_ms=bootstrap_ms(settings.kafka),
            max_block_ms=settings.kafka.request_timeout_ms,
            max_request_size=FETCH_BYTES_MAX,
        )
        try:
            producer.init_transactions()
            yield producer
        finally:
            producer.close(timeout=CLOSE_S)


def within(seconds: float, call: Callable[[], None]) -> None:
    """Call, and wait no longer than `seconds`: kafka-python commits without a timeout. The thread ends with the process.

    Raises:
        TimeoutError: it took longer. And what `call` raises.
    """
    answer: Future[None] = Future()

    def run() -> None:
        try:
            call()
            answer.set_result(None)
        except Exception as error:  # raised where the answer is waited for
            answer.set_exception(error)

    Thread(target=run, daemon=True).start()
    answer.result(seconds)
