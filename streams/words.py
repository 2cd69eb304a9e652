"""What a worker knows in words, for people: the items whose texts are nearest to a search query or to the profile of a user.

Nothing here is on the path of an event, and no price reads any of it (an import-linter contract holds that). It works in one thread
of its own, on a budget of new texts per second, all askers and the catalogue together, one after another. New and renamed items are
embedded as the catalogue brings them; a profile when somebody asks for it and its text is not one of late (why not earlier:
docs/decisions/0030). Not here: the vectors (features.text_search), the pages (streams.web).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, TypeVar

from contracts.catalogue import Catalogue, CatalogueItem
from contracts.errors import BadInput, BadSettings
from features.text_search import TextSearch, open_text_search, parts_of
from streams.metrics import Metrics
from streams.settings import EncoderSettings

logger = logging.getLogger(__name__)

ASKERS_MAX = 32
"""Who may wait for a turn; more are sent away."""
ITEMS_AT_A_TIME = 512
"""Items looked up in the catalogue, or in the cache of vectors, at a time: half a millisecond of the event loop."""
TEXTS_AT_A_TIME = 8
"""Texts of items embedded in a turn: what an asker waits for at most, beside the budget."""

Asked = Literal["profile", "query"]
_T = TypeVar("_T")


class Words:
    """The text search of a worker; does nothing without the setting encoder.text."""

    def __init__(self, settings: EncoderSettings, catalogue: Catalogue, metrics: Metrics) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._metrics = metrics
        self._search: TextSearch | None = None
        self._thread = ThreadPoolExecutor(1, "words")
        self._turn = asyncio.Lock()
        self._free_at = 0.0
        """When the texts of the last turn are paid for, by the clock of the event loop."""
        self._paid = 0
        """Embedded texts that the budget has seen."""
        self._askers = 0
        self._taken: dict[str, CatalogueItem] = {}
        """The versions whose texts are indexed, or on their way."""
        self._seen = -1
        self._complaint = ""

    @property
    def on(self) -> bool:
        """Whether there is anything to ask."""
        return self._search is not None

    async def load(self) -> None:
        """Read and check the encoder; nothing if none was asked for.

        Raises:
            BadSettings: why it cannot be used.
        """
        directory = self._settings.text
        if directory is None:
            return
        try:
            self._search = await self._in_thread(partial(open_text_search, directory))
        except BadInput as error:  # who can mend it is an operator here
            raise BadSettings(f"encoder.text: {error}") from None
        logger.info("text encoder %s in %s", self._search.digest, directory)

    async def follow(self) -> None:
        """Keep the items of the catalogue indexed, for ever."""
        while self._search is not None:
            seen = self._catalogue.seen
            if seen != self._seen:
                try:
                    await self._take(self._search)
                    self._seen = seen
                except BadInput as error:  # no reason to stop pricing
                    self._complain(error, "it is read again later")
                    self._taken.clear()
            await asyncio.sleep(self._settings.poll_ms / 1000)

    async def nearest(self, text: str, count: int, asked: Asked) -> list[tuple[str, float]] | None:
        """Return at most `count` items by falling cosine with `text`; None if too many wait already, or there is no encoder.

        Only the items that the index has: after a start, or a large change of the catalogue, some may still be on their way.
        """
        search = self._search
        if search is None or self._askers >= ASKERS_MAX:
            return None
        self._askers += 1
        waiting = self._metrics.texts_waiting.labels(asked)
        waiting.inc()
        try:
            return await self._in_turn(search, asked, partial(search.nearest, text, count))
        finally:
            self._askers -= 1
            waiting.dec()

    def close(self) -> None:
        """Let go of the thread; what it does ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _take(self, search: TextSearch) -> None:
        """Index what has come, changed or gone in the catalogue since the last time."""
        unknown: dict[str, str] = {}
        items = list(dict.fromkeys([*self._catalogue, *self._taken]))
        for start in range(0, len(items), ITEMS_AT_A_TIME):
            changed = self._changed(items[start : start + ITEMS_AT_A_TIME])
            if changed:
                unknown |= await self._in_thread(partial(search.take, changed))
            await asyncio.sleep(0)
        waiting = self._metrics.texts_waiting.labels("item")
        waiting.set(len(unknown))
        for part in parts_of(unknown, TEXTS_AT_A_TIME):
            await self._in_turn(search, "item", partial(self._embed, search, part))
            waiting.dec(len(part))

    def _changed(self, items: list[str]) -> dict[str, CatalogueItem | None]:
        """Return the last versions of those of `items` that are not taken, None for one that is gone; note them as taken."""
        changed: dict[str, CatalogueItem | None] = {}
        for item in items:
            version = self._catalogue.last(item)
            if version is None:
                self._taken.pop(item, None)
                changed[item] = None
            elif self._taken.get(item) is not version:
                self._taken[item] = changed[item] = version
        return changed

    def _embed(self, search: TextSearch, texts: dict[str, str]) -> None:
        try:
            search.embed(texts)
        except BadInput as error:
            self._complain(error, "new items are in memory only, and embedded again after a start")

    def _complain(self, error: BadInput, consequence: str) -> None:
        if str(error) != self._complaint:
            logger.warning("%s; %s", error, consequence)
        self._complaint = str(error)

    async def _in_turn(self, search: TextSearch, kind: str, work: Callable[[], _T]) -> _T:
        """Do `work` when the texts before it are paid for, and count what it embeds."""
        async with self._turn:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(0.0, self._free_at - loop.time()))
            done = await self._in_thread(work)
            embedded = search.embedded - self._paid  # and what an asker who has left did not wait for
            self._paid += embedded
            self._free_at = loop.time() + embedded / self._settings.texts_per_second
            self._metrics.texts_embedded.labels(kind).inc(embedded)
            return done

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
