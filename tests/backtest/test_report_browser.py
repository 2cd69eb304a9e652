"""The report in a real browser, without a network, on a laptop's screen: it is all there, and nobody complains."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from msgspec.structs import replace

from backtest.report.figures import Figures
from backtest.report.page import page_of
from tests.backtest.conftest import Reported
from tests.browser import Page, browsing

WIDTH, HEIGHT = 1280, 800
LAPTOP = 1366
"""The width of a common one."""


@pytest_asyncio.fixture
async def page(chromium: str, reported: Reported) -> AsyncIterator[Page]:
    async with browsing(chromium) as opened:
        await opened.open(reported.files.page.as_uri(), WIDTH, HEIGHT)
        yield opened


def visible(selector: str) -> str:
    """An expression: how many elements of `selector` take space on the page, and how many there are."""
    return (
        f"(() => {{ const all = [...document.querySelectorAll({selector!r})];"
        " return [all.filter(one => one.checkVisibility() && one.getBoundingClientRect().height > 5).length, all.length] })()"
    )


async def test_a_browser_opens_the_report_without_a_network(page: Page, reported: Reported) -> None:
    assert page.requests == [reported.files.page.as_uri()]
    assert not page.messages
    assert await page.evaluate("performance.getEntriesByType('resource').length") == 0
    assert await page.evaluate("document.title") == "Backtest: gentle, deep"

    for selector, least in (
        (".card", 2),
        ("section", 12),
        ("figure svg", 6),
        ("nav a", 12),
        ("main > section > .scroll", 12),
    ):
        seen, there = await page.evaluate(visible(selector))
        assert seen == there >= least, selector
    hidden, _ = await page.evaluate(visible("details .scroll"))
    assert hidden == 0

    first = await page.evaluate("document.querySelector('.card .verdict').getBoundingClientRect().bottom")
    assert first < HEIGHT, "the verdict stands on the first screen"
    assert await page.evaluate("document.documentElement.scrollWidth") <= WIDTH, "nothing sticks out to the right"
    lost = "[...document.querySelectorAll('nav a')].filter(one => !document.querySelector(one.getAttribute('href'))).length"
    assert await page.evaluate(lost) == 0
    digits = "getComputedStyle(document.querySelector('td')).fontVariantNumeric"
    assert await page.evaluate(digits) == "tabular-nums"

    await page.evaluate("document.querySelector('details').open = true")
    opened, _ = await page.evaluate(visible("details .scroll"))
    assert opened > 0

    picture = await page.screenshot()
    assert picture.startswith(b"\x89PNG")
    assert struct.unpack(">II", picture[16:24]) == (WIDTH, HEIGHT)
    assert len(picture) > 20_000, "a page with text and colours, not a blank one"


def of_three_policies(figures: Figures) -> Figures:
    """Return figures with a third policy, a twin of another by a longer name, and with remarks in the cells of one diagnostic."""
    twins = [replace(row, policy="gentle-by-a-longer-name") for row in figures if row.policy == "gentle"]
    remark = "not judged: no weight above 10 times the mean"
    return Figures(
        replace(row, value=0.1, text=remark) if row.measure == "Pareto k of the weights" else row
        for row in (*figures, *twins)
    )


async def test_no_table_is_cut_off_on_a_laptop_with_three_policies(
    chromium: str, reported: Reported, tmp_path: Path
) -> None:
    file = tmp_path / "three.html"
    file.write_text(page_of(of_three_policies(reported.figures)))
    wide = (
        "(() => [...document.querySelectorAll('.scroll')].filter(one => one.checkVisibility() && one.scrollWidth > one.clientWidth)"
        ".map(one => [one.closest('section').id, one.innerText.slice(0, 40), one.clientWidth, one.scrollWidth]))()"
    )
    async with browsing(chromium) as opened:
        await opened.open(file.as_uri(), LAPTOP, HEIGHT)
        assert await opened.evaluate("document.querySelectorAll('.card').length") == 3
        assert await opened.evaluate("document.querySelectorAll('td .remark').length") > 50
        assert not await opened.evaluate(wide)
        await opened.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert not await opened.evaluate(wide), "those that are opened"


async def test_the_browser_would_tell_of_a_request_and_of_an_error(chromium: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.error('broken')</script>")
    async with browsing(chromium) as opened:
        await opened.open(file.as_uri(), WIDTH, HEIGHT)
        assert opened.requests == [file.as_uri(), "http://127.0.0.1:9/x.png"]
        assert "broken" in str(opened.messages)
