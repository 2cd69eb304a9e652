"""The page of a report: it shows figures and nothing else, loads nothing, and is the same for equal figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from backtest.estimates import Settings
from backtest.evaluation import evaluate
from backtest.feedback import feedback_of
from backtest.report import plots
from backtest.report.blocks import cell
from backtest.report.figures import STAYS_AWAY, Figure, Figures, format_value, read_figures
from backtest.report.page import page_of
from backtest.report.scope import describe_page
from backtest.report.targets import BEST_UNIFORM
from backtest.report.values import add_judged
from contracts.log import open_log
from tests.backtest.conftest import POLICIES, Reported
from tests.backtest.report_shop import TITLE


class Reader(HTMLParser):
    """What a page says: the texts of its figures by number, its bare table cells, what it would load, its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.figures: list[tuple[int, str, str]] = []
        """Number, value, and what stands below: its interval, or a remark."""
        self.bare: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self._cell: dict[str, str] | None = None
        self._number: int | None = None
        self._part = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.loads += [f"{tag} {name}={found[name]}" for name in ("src", "srcset", "action", "data") if name in found]
        if tag in ("link", "script", "iframe", "object", "embed", "img", "base", "form", "video", "audio"):
            self.loads.append(tag)
        for name in ("href", "xlink:href"):
            if found.get(name) is not None:
                self.links.add(str(found[name]))
        if found.get("id"):
            self.anchors.add(str(found["id"]))
        if tag == "td" or "data-figure" in found:
            self._cell = {"value": "", "interval": ""}
            self._number = int(found["data-figure"] or 0) if "data-figure" in found else None
        if tag == "span":
            self._part = str(found.get("class")).replace("remark", "interval")

    def handle_data(self, data: str) -> None:
        if self._cell is not None and self._part in self._cell:
            self._cell[self._part] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "span":
            self._part = ""
        if tag in ("td", "div") and self._cell is not None:
            if self._number is not None:
                self.figures.append((self._number, self._cell["value"], self._cell["interval"]))
            elif self._cell["value"]:
                self.bare.append(self._cell["value"])
            self._cell = self._number = None


@pytest.fixture(scope="module")
def read(reported: Reported) -> Reader:
    return Reader(reported.files.page.read_text())


def test_every_number_in_a_table_is_a_figure_beside_the_page(reported: Reported, read: Reader) -> None:
    rows = {row["number"]: row for row in pq.read_table(reported.files.figures_parquet).to_pylist()}
    assert len(read.figures) > 500
    for number, value, interval in read.figures:
        row = rows[number]
        ends = [one for one in (row["low"], row["high"]) if one is not None]
        size = max((abs(one) for one in (row["value"], *ends) if one is not None), default=None)
        said = row["text"] if row["unit"] == "text" or (row["value"] is None and row["text"]) else "–"
        assert value == (said if row["value"] is None else format_value(row["value"], row["unit"], size)), row
        if interval and "passed" not in interval and "failed" not in interval:
            below = " to ".join(format_value(one, row["unit"], size) for one in ends)
            assert interval == (below or row["text"]), row
    assert not [text for text in read.bare if re.search(r"\d", text)]


def test_the_page_is_made_of_its_figures_alone(reported: Reported) -> None:
    assert page_of(read_figures(reported.files.figures_json)) == reported.files.page.read_text()


def test_json_and_parquet_hold_the_same_figures(reported: Reported) -> None:
    rows = pq.read_table(reported.files.figures_parquet).to_pylist()
    assert [row.pop("number") for row in rows] == list(range(len(rows)))
    assert [msgspec.convert(row, Figure) for row in rows] == read_figures(reported.files.figures_json).rows


def test_the_page_loads_nothing_and_runs_no_script(reported: Reported, read: Reader) -> None:
    text = reported.files.page.read_text()
    assert not read.loads
    assert not [link for link in read.links if not link.startswith("#")]
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"\son[a-z]+=", text)


def test_every_entry_of_the_contents_leads_to_a_section(reported: Reported, read: Reader) -> None:
    text = reported.files.page.read_text()
    contents = set(re.findall(r'<a href="#([^"]+)"', text[text.index("<nav") : text.index("</nav>")]))
    assert {"verdict", "value", "parts", "prices", "fairness", "files"} <= contents <= read.anchors


def test_what_a_log_says_stands_on_the_page_as_text(reported: Reported) -> None:
    text = reported.files.page.read_text()
    assert TITLE not in text
    assert "&lt;b&gt;item&lt;/b&gt; &amp; friends, $5 to $9" in text


def test_the_verdict_comes_first_and_names_the_estimand(reported: Reported) -> None:
    text = reported.files.page.read_text()
    first = text[text.index("<section") : text.index("</section>")]
    assert 'id="verdict"' in first
    assert "ADOPT_TO_AB" in first
    assert "REJECT" in first
    assert "not long-run value" in first


def test_more_of_what_is_wanted_is_good_and_more_people_who_stay_away_are_bad() -> None:
    def tone(measure: str, group: str) -> str:
        risen = Figure(
            section="goals", measure=measure, group=group, value=0.1, low=0.05, high=0.15, unit="change of share"
        )
        return cell(0, risen).tone

    assert tone("lift", "share of draws that sell") == "good"
    assert (tone("lift", STAYS_AWAY), tone(f"lift of {STAYS_AWAY}", "shoes")) == ("bad", "bad")


def test_numbers_of_a_refused_policy_say_so_in_tables_and_plots(reported: Reported) -> None:
    of_gentle = ("verdict", "verdict", "gentle")
    rows = [
        msgspec.structs.replace(row, text="REFUSE") if (row.section, row.measure, row.policy) == of_gentle else row
        for row in reported.figures
    ]
    pages = reported.files.page.read_text(), page_of(Figures(rows))
    before, after = (text.count("(REFUSE: no evidence)") for text in pages)
    assert after - before == 5, "lifts and estimators: a plot each, two tables and one"


def test_prices_that_policies_are_held_against_say_so_where_the_log_cannot_support_them(reported: Reported) -> None:
    refused = [row.policy for _, row in reported.figures.where("targets", measure="refused")]
    assert refused == ["list price", "best uniform price, as chosen from the log"]
    assert reported.files.page.read_text().count("(REFUSE: no evidence)") == 6, "a row in two tables and a bar each"


VALUES = ("value", "logged value", "lift over logged policy", "lift over list price", f"lift over {BEST_UNIFORM}")


def test_values_and_lifts_have_both_intervals_and_stand_with_the_one_that_judges(reported: Reported) -> None:
    figures = reported.figures
    for policy in POLICIES:
        ((_, judge),) = figures.where("verdict", policy=policy, measure="judged by")
        assert judge.text == "bootstrap", "no policy of this log learns"
        for measure in VALUES:
            one, resampled, anytime = (
                next((row for _, row in figures.where("value", policy=policy, measure=name)), None)
                for name in (measure, f"{measure}, users resampled", f"{measure}, anytime-valid")
            )
            assert one is not None
            if one.value is None:
                assert one.text == "the log cannot support it"
                assert " over " in measure and "logged" not in measure
                assert resampled is anytime is None, "what is not known has no interval"
                continue
            assert resampled is not None and anytime is not None
            assert (one.value, one.low, one.high) == (resampled.value, resampled.low, resampled.high), measure
            assert anytime.low < one.value < anytime.high, measure  # type: ignore[operator]  # has all three


def test_where_the_logged_policy_learned_the_judging_interval_is_the_anytime_valid_one() -> None:
    random = np.random.default_rng(4)
    arm = random.integers(0, 2, 3_000)
    reward = (random.random(3_000) < np.array([0.2, 0.3])[arm]) * 1.0
    log = feedback_of(reward, np.full(3_000, 0.5), np.array([0.2, 0.8])[arm], users=np.arange(3_000) // 3)
    for adaptive, kind in ((True, "anytime-valid"), (False, "users resampled")):
        found, figures = evaluate(replace(log, adaptive=adaptive), Settings(resamples=200)), Figures()
        assert found.lift is not None
        add_judged(figures, "value", "lift", found.lift, found.judged_by, "change of money", {"policy": "p"})
        ((_, lift),), ((_, beside),) = (figures.where("value", measure=name) for name in ("lift", f"lift, {kind}"))
        assert lift.value == found.lift.value
        assert (lift.low, lift.high) == (beside.low, beside.high)
        assert len(figures.rows) == 3


def test_an_anytime_valid_interval_stands_around_the_number_beside_it(reported: Reported) -> None:
    rows = [row for row in reported.figures if row.measure.endswith(", anytime-valid") and row.low is not None]
    assert len(rows) > 10
    for row in rows:
        assert row.value == pytest.approx((row.low + row.high) / 2.0), row  # type: ignore[operator]  # has both


def test_a_page_of_an_earlier_time_says_so_at_its_top(reported: Reported) -> None:
    figures, log = Figures(), open_log(reported.log)
    describe_page(figures, log, [], reported.files, as_of=1_762_300_000_000.0)
    ((_, lead),) = figures.where("page", measure="lead")
    assert lead.text.endswith("Only what was known by 2025-11-04 23:46:40 UTC.")
    assert "Only what was known" not in reported.files.page.read_text()


def true_values(days: float, policies: Sequence[str]) -> Figures:
    """Return figures of a truth of seven periods in so many days."""
    figures = Figures()
    for policy in policies:
        for number in range(7):
            x = 1_762_160_400_000.0 + number / 6 * days * 86_400_000
            figures.add("truth", "true value of the period", number * 0.1, policy=policy, period=str(number), x=x)
    return figures


@pytest.mark.parametrize("days", [0.5, 1.0, 1.2, 3.0, 6.9, 7.0, 40.0])
def test_no_two_ticks_of_a_time_axis_have_one_label(days: float) -> None:
    texts = re.findall(r">([^<>]+)</text>", plots.truth(true_values(days, ["oracle"])))
    dates = [text for text in texts if re.fullmatch(r"\d\d-\d\d", text)]
    times = [text for text in texts if re.fullmatch(r"\d\d:\d\d", text)]
    labels = list(zip(dates, times, strict=True)) if dates and times else dates or times
    assert len(labels) == len(set(labels)) == 7
    assert bool(dates) == (days >= 1.0)
    assert bool(times) == (days < 7.0)


def test_what_the_truth_is_held_against_is_told_apart_without_colour() -> None:
    yardsticks = (
        "logged policy", "list price", "best uniform price, as chosen from the log", "best fixed price, in hindsight", "oracle",
    )  # fmt: skip
    drawn = set()
    for policy in yardsticks:
        lines = re.findall(r'clip-path[^>]*style="fill: none; ([^"]*)"', plots.truth(true_values(3.0, [policy])))
        drawn.add(re.sub(r"stroke: #\w+", "", lines[-1]))
    assert len(drawn) == len(yardsticks)


def test_a_gate_says_which_side_of_its_limit_passes(reported: Reported) -> None:
    text = reported.files.page.read_text()
    for words in (
        "at least 500: passed", "at least 1\u202f%: passed", "less than 5\u202f%: passed", "less than 3: passed",
        "equal the replay, to the last bit: passed", "none may be: passed", "at least 30: passed",
    ):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize(
    ("value", "unit", "size", "text"),
    [
        (0.1234, "share", None, "12.3\u202f%"),
        (-0.0512, "change", 0.12, "−5.1\u202f%"),
        (-0.0968, "change of share", None, "−9.68\u202fpoints"),
        (1234.5, "money", None, "1,234.50"),
        (0.01234, "change of money", None, "+0.0123"),
        (875.0, "permille", None, "87.5\u202f%"),
        (-0.4, "permille", 1.2, "−0.040\u202f%"),
        (12_345.0, "count", None, "12,345"),
        (0.0, "number", None, "0"),
        (1.0, "number", None, "1"),
        (0.98765, "number", None, "0.988"),
    ],
)
def test_numbers_are_shown_to_three_digits_of_what_stands_beside_them(
    value: float, unit: str, size: float | None, text: str
) -> None:
    assert format_value(value, unit, size) == text  # type: ignore[arg-type]  # a unit is checked by the parameters above


def test_what_is_not_finite_is_not_available() -> None:
    figures = Figures()
    figures.add("s", "m", float("nan"), float("-inf"), 1.0)
    assert (figures.rows[0].value, figures.rows[0].low, figures.rows[0].high) == (None, None, 1.0)
