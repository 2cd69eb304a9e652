"""Closing aiokafka's clients, whatever they make of it.

The trap: a fetcher awaits the tasks that it cancels, and one of them that rests after a failed fetch lets the cancellation out,
into whoever is closing the client. There it looks like a cancellation of one's own, which nobody reports: a session that ends so
is never heard of again, and a rebalance that ends so leaves aiokafka without the routine that would join the group again.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol


class Client(Protocol):
    """A consumer or producer."""

    async def stop(self) -> Any:  # noqa: ANN401 - aiokafka ships no types
        """End it."""


async def stop(*clients: Client | None, timeout_s: float | None = None) -> None:
    """Stop all `clients`, side by side, None among them meaning none. What they raise is of no interest any more.

    One that is not done after `timeout_s` seconds is left to its fate: a producer flushes before it stops, for ever if the broker
    is gone.
    """
    ends = [asyncio.ensure_future(client.stop()) for client in clients if client is not None]
    if not ends:
        return
    together = asyncio.gather(*ends, return_exceptions=True)
    _, late = await asyncio.wait({together}, timeout=timeout_s)
    for one in late:
        one.cancel()
