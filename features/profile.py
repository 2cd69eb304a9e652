"""The profile of a user in plain English: what they did in the last day, what they buy, what they like.

Deterministic and pure: a function of the state, the time and the catalogue, of bounded length, equal for equal arguments.
For people (`pricetide users show`) and for a text encoder, off the path of events. It says only what the state holds, so a
profile of a long day is one of its last events, and says "at least". Not here: the encoder (features.texts).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import floor, log10
from statistics import median_low

from contracts.catalogue import Catalogue, CatalogueItem
from contracts.currency import minor_digits
from features.affinities import weights_at
from features.state import UserState
from features.tokens import Kind, Token, tokens
from features.windows import DAY_MS, totals

LookUp = Callable[[str, int], CatalogueItem | None]
"""The version of an item in force at an event time, in ms; None if the catalogue has none."""

PROFILE_CHARS_MAX = 480
NOTHING = "Nothing is known of this user."
_LABEL_CHARS_MAX = 32
_GROUPS_MAX = 3
"""Kinds of items named per verb."""
_LIKED_MAX = 2
_LIKED_WEIGHT_MIN = 0.5
"""Weight of an affinity worth telling: half a view made just now (features.affinities)."""
_MOSTLY_ITEMS_MIN = 2
_ALIKE = (
    "clothing", "furniture", "glasses", "headgear", "jeans", "leggings", "lighting", "pants", "pyjamas", "scales", "scissors",
    "series", "shorts", "sunglasses", "tennis", "tights", "trousers", "underwear",
)  # fmt: skip
_PLURALS = {
    "beanie": "beanies", "child": "children", "cookie": "cookies", "hoodie": "hoodies", "knife": "knives", "lens": "lenses",
    "man": "men", "mouse": "mice", "movie": "movies", "scarf": "scarves", "shelf": "shelves", "woman": "women",
    **dict(zip(_ALIKE, _ALIKE, strict=True)),
}  # fmt: skip
"""Words of shops that the rules would bend wrongly, singular to plural."""
_SINGULARS = {plural: word for word, plural in _PLURALS.items()}
_VERBS: tuple[tuple[Kind, str, str], ...] = (
    ("view", "viewed ", ""),
    ("click", "clicked on ", ""),
    ("cart", "put ", " into the cart"),
    ("purchase", "bought ", ""),
)


def looking_up(catalogue: Catalogue) -> LookUp:
    """Return the look-up in `catalogue`."""

    def look_up(item: str, time_ms: int) -> CatalogueItem | None:
        found = catalogue.at(item, time_ms)
        return None if found is None else found[1]

    return look_up


def profile_of(state: UserState, as_of_ms: int, look_up: LookUp, currency: str) -> str:
    """Return the profile of a user, at most PROFILE_CHARS_MAX characters on one line.

    Args:
        state: of the user.
        as_of_ms: event time that "the last day" ends with; before state.last_ms it is taken as that.
        look_up: the catalogue; items that it does not know are "items".
        currency: of prices, ISO 4217.
    """
    now_ms = max(as_of_ms, state.last_ms)
    kept = list(tokens(state.history))
    recent = [token for token in kept if now_ms - DAY_MS < token.event_time_ms <= now_ms]
    cut = len(recent) == len(kept) and state.tokens > len(kept)
    sentences = [_last_day(recent, cut, look_up, currency), _last_month(state, now_ms, currency), _likes(state, now_ms)]
    text = " ".join(sentence for sentence in sentences if sentence) or NOTHING
    return text if len(text) <= PROFILE_CHARS_MAX else text[: PROFILE_CHARS_MAX - 1] + "…"


def _last_day(recent: Sequence[Token], cut: bool, look_up: LookUp, currency: str) -> str:
    """Return the sentence on what was viewed, clicked, put into the cart and bought; "" if nothing was."""
    clauses = []
    for kind, verb, after in _VERBS:
        of_kind = {token.item: token for token in recent if token.kind == kind}
        if of_kind:
            least = "at least " if cut and kind == "view" else ""
            clauses.append(f"{verb}{least}{_groups(of_kind.values(), look_up, currency, kind == 'view')}{after}")
    return f"In the last day {'; '.join(clauses)}." if clauses else ""


def _groups(of_kind: Iterable[Token], look_up: LookUp, currency: str, detailed: bool) -> str:
    """Return the items by what they are, most first, like "14 smartphones, mostly Xiaomi around 490 USD, and one charger"."""
    groups: dict[str, list[tuple[Token, CatalogueItem | None]]] = {}
    for token in of_kind:
        item = look_up(token.item, token.event_time_ms)
        groups.setdefault(_noun(item.category) if item is not None else "item", []).append((token, item))
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    named = [
        _counted(len(members), noun) + (_detail(members, currency) if detailed else "")
        for noun, members in ordered[:_GROUPS_MAX]
    ]
    others = sum(len(members) for _, members in ordered[_GROUPS_MAX:])
    return _listed([*named, _counted(others, "other")] if others else named)


def _detail(members: Sequence[tuple[Token, CatalogueItem | None]], currency: str) -> str:
    """Return the brand of more than half of the items, if there is one, and their median price."""
    brands = Counter(_label(item.brand) for _, item in members if item is not None and _label(item.brand))
    price = _amount(median_low(token.price for token, _ in members), currency)
    if len(members) < _MOSTLY_ITEMS_MIN:
        return "".join(f" of {brand}" for brand in brands) + f" at {price}"
    brand, count = max(brands.items(), key=lambda pair: (pair[1], pair[0]), default=("", 0))
    return (f", mostly {brand}" if count * 2 > len(members) else "") + f" around {price}"


def _last_month(state: UserState, now_ms: int, currency: str) -> str:
    """Return the sentence on the purchases of 30 days; "" if the last day says it all."""
    _, day, month = totals(state, now_ms)
    if month.purchases <= day.purchases:
        return ""
    times = "once" if month.purchases == 1 else f"{month.purchases:,} times"
    return f"In the last 30 days bought {times}, for about {_amount(month.spend, currency)} in all."


def _likes(state: UserState, now_ms: int) -> str:
    """Return the sentence on the strongest affinities."""
    categories, brands = weights_at(state, now_ms)
    nouns = dict.fromkeys(_plural(_noun(label)) for label in _strongest(categories) if not label.isdigit())
    names = dict.fromkeys(_label(label) for label in _strongest(brands))
    parts = [_listed([name for name in names if name]) for names in (nouns, names)]
    liked = " by ".join(part for part in parts if part)
    return f"Likes {liked}." if liked else ""


def _strongest(weights: dict[str, float]) -> list[str]:
    strong = [(weight, label) for label, weight in weights.items() if weight >= _LIKED_WEIGHT_MIN]
    return [label for _, label in sorted(strong, key=lambda pair: (-pair[0], pair[1]))[:_LIKED_MAX]]


def _label(text: str) -> str:
    """Return a name as it goes into a sentence: on one line, no longer than _LABEL_CHARS_MAX."""
    return " ".join(text.split())[:_LABEL_CHARS_MAX].strip()


def _noun(category: str) -> str:
    """Return what an item of a category is called, in the singular; a category without a word gives "item".

    A plural that no rule and no list here knows stays as it is: better "one tennis" than "one tenni".
    """
    label = _label(category.rpartition(".")[2].replace("_", " "))
    if not label or label.isdigit():
        return "item"
    before, word = _last_word(label)
    if word in _PLURALS or not word.endswith("s"):
        return label
    return before + (_SINGULARS.get(word) or _singular(word))


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > len("ties"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    return word if word.endswith(("ss", "us", "is")) or len(word) <= len("gas") else word[:-1]


def _plural(noun: str) -> str:
    before, word = _last_word(noun)
    if word in _PLURALS:
        return before + _PLURALS[word]
    if word.endswith("is"):
        return noun
    if word.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def _last_word(label: str) -> tuple[str, str]:
    """Return what stands before the last word of a label, and that word."""
    before, space, word = label.rpartition(" ")
    return before + space, word


def _counted(count: int, noun: str) -> str:
    return f"one {noun}" if count == 1 else f"{count:,} {_plural(noun)}"


def _listed(words: Sequence[str]) -> str:
    """Return "a", "a and b", or "a, b and c"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""


def _amount(minor: int, currency: str) -> str:
    """Return an amount to two digits, at least to a whole unit, like "490 USD"."""
    units = minor / 10 ** minor_digits(currency)
    step = 10 ** max(0, floor(log10(units)) - 1) if units >= 1 else 1
    return f"{max(1, round(units / step) * step):,} {currency}"
