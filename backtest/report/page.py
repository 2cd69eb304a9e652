"""The page: one HTML file with everything in it, made of figures alone. It loads nothing and runs no script.

Not here: its sections (sections, price_sections), its looks (page.html.jinja, style.css).
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from backtest.report.blocks import Section
from backtest.report.figures import Figures
from backtest.report.price_sections import (
    fairness_section,
    files_section,
    folds_section,
    log_section,
    prices_section,
    quality_section,
    rails_section,
)
from backtest.report.sections import (
    demand_section,
    diagnostics_section,
    estimators_section,
    goals_section,
    parts_section,
    truth_section,
    value_section,
    verdict_section,
)
from contracts.errors import BadInput

_SECTIONS = (
    verdict_section, value_section, truth_section, goals_section, estimators_section, diagnostics_section, parts_section,
    demand_section, prices_section, rails_section, fairness_section, quality_section, folds_section, log_section, files_section,
)  # fmt: skip


def page_of(figures: Figures) -> str:
    """Return the page as HTML; equal figures give equal bytes.

    Raises:
        BadInput: Jinja2 or matplotlib is missing.
    """
    sections: list[Section] = [one for one in (make(figures) for make in _SECTIONS) if one is not None]
    said = {row.measure: row.text for _, row in figures.where("page")}
    here = files("backtest.report")
    template = _environment().from_string((here / "page.html.jinja").read_text(encoding="utf-8"))
    style = (here / "style.css").read_text(encoding="utf-8")
    page: str = template.render(
        title=said["title"], lead=said["lead"], footer=said["footer"], style=_markup(style), sections=sections
    )
    return page + "\n"


def require_jinja2() -> Any:  # noqa: ANN401 - typed by whoever has it installed
    """Return the module jinja2, or raise BadInput that says how to get it."""
    try:
        import jinja2
    except ImportError:
        raise BadInput("A report needs Jinja2: pip install 'pricetide[report]'") from None
    return jinja2


def _environment() -> Any:  # noqa: ANN401 - as above
    jinja2 = require_jinja2()
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False)


def _markup(text: str) -> Any:  # noqa: ANN401 - of markupsafe
    from markupsafe import Markup

    return Markup(text)
