"""A worker's words, with a stand-in for the language model: what is embedded, when, how often, and who waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from contracts.catalogue import Catalogue, encode_item, item_key
from contracts.errors import BadInput, BadSettings
from features.text_cache import TextCache
from features.text_search import TextSearch
from streams import words
from streams.metrics import Metrics
from streams.settings import EncoderSettings
from tests.features.letters import Letters, item

PLENTY = 2_000
"""Texts per second, where the budget is not what is looked at."""


class Shop:
    """A catalogue, and the words of a worker over it."""

    def __init__(self, encoder: Letters, texts_per_second: float) -> None:
        self.encoder = encoder
        self.catalogue = Catalogue()
        self.metrics = Metrics()
        settings = EncoderSettings(text=Path("text"), texts_per_second=texts_per_second, poll_ms=100)
        self.words = words.Words(settings, self.catalogue, self.metrics)

    def publish(self, name: str, title: str, price: int = 100) -> None:
        value = encode_item(item(name, title, price))
        self.catalogue.apply(self.catalogue.seen, item_key(name, 0), value)

    async def nearest(self, text: str, asked: words.Asked = "profile") -> list[str] | None:
        found = await self.words.nearest(text, 8, asked)
        return None if found is None else [name for name, _ in found]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds():  # noqa: ASYNC110 - metrics set no event
                await asyncio.sleep(0.01)

    def embedded(self, kind: str) -> float | None:
        return self.metrics.registry.get_sample_value("pricetide_embedded_texts_total", {"kind": kind})

    def waiting(self, kind: str) -> float | None:
        return self.metrics.registry.get_sample_value("pricetide_texts_waiting", {"kind": kind})


@pytest.fixture
def opened(monkeypatch, tmp_path) -> Letters:
    """The stand-in that a worker finds where its settings say."""
    encoder = Letters()
    monkeypatch.setattr(
        words, "open_text_search", lambda directory: TextSearch(encoder, "digest", TextCache(tmp_path / "texts.sqlite"))
    )
    return encoder


@asynccontextmanager
async def running(encoder: Letters, texts_per_second: float = PLENTY) -> AsyncIterator[Shop]:
    shop = Shop(encoder, texts_per_second)
    await shop.words.load()
    following = asyncio.create_task(shop.words.follow())
    yield shop
    following.cancel()
    shop.words.close()


async def test_items_are_embedded_as_the_catalogue_brings_them_and_again_only_with_another_text(opened):
    async with running(opened) as shop:
        shop.publish("a", "kettle")
        shop.publish("b", "boots")
        await shop.until(lambda: shop.embedded("item") == 2)
        shop.publish("a", "kettle", price=90)
        shop.publish("b", "phone")
        await shop.until(lambda: shop.embedded("item") == 3)
        assert opened.asked == ["boots", "kettle", "phone"]
        assert await shop.nearest("phone") == ["b", "a"]
        shop.catalogue.apply(shop.catalogue.seen, item_key("b", 0), None)
        await shop.until(lambda: shop.words._seen == shop.catalogue.seen)
        assert await shop.nearest("phone") == ["a"]
        assert shop.waiting("item") == 0


async def test_a_profile_is_embedded_when_its_text_changes_and_not_before(opened):
    async with running(opened) as shop:
        for said in ("viewed one kettle", "viewed one kettle", "viewed 2 kettles", "viewed one kettle"):
            assert await shop.nearest(said) == []
        assert await shop.nearest("kettle", "query") == []
        assert opened.asked == ["viewed one kettle", "viewed 2 kettles", "kettle"]
        assert (shop.embedded("profile"), shop.embedded("query")) == (2, 1)
        assert (shop.waiting("profile"), shop.waiting("query")) == (0, 0)


async def test_a_text_beyond_the_budget_waits_and_is_counted(opened):
    async with running(opened, texts_per_second=0.001) as shop:
        await shop.nearest("first")
        second = asyncio.create_task(shop.nearest("second"))
        await asyncio.wait({second}, timeout=0.2)
        assert not second.done()
        assert opened.asked == ["first"]
        assert shop.waiting("profile") == 1
        second.cancel()


async def test_who_leaves_while_a_text_is_embedded_does_not_spare_the_budget(opened, monkeypatch):
    entered, let_go, embed = threading.Event(), threading.Event(), opened.embed

    def slow(texts: Any) -> Any:
        entered.set()
        assert let_go.wait(30)
        return embed(texts)

    monkeypatch.setattr(opened, "embed", slow)
    async with running(opened, texts_per_second=0.001) as shop:
        asked = asyncio.create_task(shop.nearest("first"))
        await shop.until(entered.is_set)
        asked.cancel()
        await asyncio.wait({asked})
        let_go.set()
        await shop.nearest("second")
        assert shop.embedded("profile") == 2
        third = asyncio.create_task(shop.nearest("third"))
        await asyncio.wait({third}, timeout=0.2)
        assert opened.asked == ["first", "second"]
        third.cancel()


async def test_who_asks_while_too_many_wait_is_sent_away(opened):
    async with running(opened, texts_per_second=0.001) as shop:
        await shop.nearest("first")
        waiting = [asyncio.create_task(shop.nearest(f"text {number}")) for number in range(words.ASKERS_MAX)]
        await asyncio.sleep(0)
        assert await shop.nearest("one too many") is None
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert shop.waiting("profile") == 0


async def test_the_event_loop_goes_on_while_a_text_is_embedded(opened, monkeypatch):
    entered, let_go, embed = threading.Event(), threading.Event(), opened.embed

    def slow(texts: Any) -> Any:
        entered.set()
        assert let_go.wait(30), "the loop stood still"
        return embed(texts)

    monkeypatch.setattr(opened, "embed", slow)
    async with running(opened) as shop:
        asked = asyncio.create_task(shop.nearest("kettle"))
        await shop.until(entered.is_set)
        let_go.set()  # by the very loop that would have waited
        assert await asked == []


async def test_a_cache_that_breaks_is_complained_of_once_and_the_worker_goes_on(opened, monkeypatch, caplog):
    def broken(*_: object) -> None:
        raise BadInput("texts.sqlite cannot be used (disk is full)")

    with monkeypatch.context() as patch:
        patch.setattr(TextCache, "put", broken)
        async with running(opened) as shop:
            for name in ("a", "b"):
                shop.publish(name, f"kettle {name}")
                await shop.until(lambda: shop.words._seen == shop.catalogue.seen)
            assert await shop.nearest("kettle") == ["a", "b"]
    assert sum("disk is full" in record.message for record in caplog.records) == 1


async def test_a_catalogue_whose_cache_could_not_be_read_is_taken_when_it_can(opened, monkeypatch, caplog):
    get, calls = TextCache.get, []

    def locked_at_first(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 1:
            raise BadInput("texts.sqlite cannot be used (database is locked)")
        return get(*given)

    monkeypatch.setattr(TextCache, "get", locked_at_first)
    async with running(opened) as shop:
        shop.publish("a", "kettle")
        await shop.until(lambda: shop.embedded("item") == 1)
        assert await shop.nearest("kettle") == ["a"]
    assert "database is locked" in caplog.text


async def test_a_worker_does_not_start_with_a_directory_that_holds_no_encoder(tmp_path):
    shop = words.Words(EncoderSettings(text=tmp_path), Catalogue(), Metrics())
    with pytest.raises(BadSettings, match=r"text_encoder\.json cannot be read"):
        await shop.load()


async def test_a_worker_does_not_start_with_an_encoder_whose_manifest_is_damaged(tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "text_encoder.json").write_bytes(b'{"name": "caf\xe9"}')
    shop = words.Words(EncoderSettings(text=tmp_path), Catalogue(), Metrics())
    with pytest.raises(BadSettings, match=r"text_encoder\.json is no manifest of this release") as caught:
        await shop.load()
    assert caught.value.exit_code == 78


async def test_without_the_setting_there_is_nothing_to_load_to_follow_or_to_ask():
    shop = words.Words(EncoderSettings(), Catalogue(), Metrics())
    await shop.load()
    await shop.follow()
    assert await shop.nearest("kettle", 3, "query") is None
