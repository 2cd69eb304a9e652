"""Files that people write, as TOML with the fields of a message: what is wrong with one, where, and what to do about it.

msgspec says what it found; here that becomes one sentence with file, line and key, the choices there are, and the key that was
perhaps meant. Knows no kind of file by name. Not here: policies (contracts.policy_files), experiments (contracts.experiment_files).
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct, inspect

from contracts.errors import BadInput

Content = TypeVar("Content", bound=Struct)
Keys = tuple[str, ...]
"""Keys from the root of the file to a value: ("rails", "multipliers[2]")."""

_PROBLEM = re.compile(r"(?P<what>.*?)(?: - at `\$\.(?P<path>[^`]*)`)?", re.DOTALL)
_FIELD = re.compile(r"Object (contains unknown|missing required) field `([^`]*)`")
_VALUE = re.compile(r"Invalid (?:enum )?value (.*)", re.DOTALL)
_HEADER = re.compile(r"\s*\[+([^\[\]]+)\]+\s*(?:#.*)?")
_WORDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "object": "a table",
          "array": "a list"}  # fmt: skip
_KEY = re.compile(r"\s*([\w.\"' -]+?)\s*=")


class Form(Struct, Generic[Content], frozen=True, kw_only=True):
    """A kind of file."""

    of: type[Content]
    """What a file becomes."""
    what: str
    """That, with its article: `a policy`."""
    given: dict[str, Any]
    """Fields that are not for the file, and their values in what it becomes."""
    why_given: str
    """What to do about one of them that stands in a file all the same."""
    also: tuple[str, ...] = ()
    """Keys of the root that are no fields of it, which whoever reads the file has replaced by such."""


class Draft(Struct, frozen=True):
    """The text of a file, and its name for errors."""

    text: str
    source: str

    def refused(self, path: Keys, what: str, remedy: str) -> BadInput:
        """Return the error that says `what` is wrong at `path`, and what to do."""
        number = line_of(self.text, path)
        return BadInput(f"{self.source}{'' if number is None else f', line {number}'}: {what}; {remedy}")


def read_draft(file: Path, what: str) -> Draft:
    """Return the text of `file`, which should hold `what`.

    Raises:
        BadInput: it cannot be read.
    """
    try:
        return Draft(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadInput(f"{file} cannot be read: {reason}; name a TOML file with {what}") from None


def content_of(draft: Draft, form: Form[Any]) -> dict[str, Any]:
    """Return what stands in `draft`, as plain data.

    Raises:
        BadInput: it is not TOML, or has a field that is not for a file.
    """
    try:
        content = tomllib.loads(draft.text, parse_float=_finite)
    except ValueError as error:
        raise BadInput(f"{draft.source} is not TOML for {form.what}: {error}; correct it") from None
    for name in form.given:
        if name in content:
            raise draft.refused((name,), f"{name} is not for the file", form.why_given)
    return content


def convert(draft: Draft, content: dict[str, Any], form: Form[Content]) -> Content:
    """Return what `content`, of `draft`, describes.

    Raises:
        BadInput: it is none; one sentence with file, line, key, what is wrong and what to do.
    """
    try:
        return msgspec.convert(content | form.given, form.of)
    except msgspec.ValidationError as error:
        raise draft.refused(*_explained(str(error), content, form)) from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _explained(problem: str, content: dict[str, Any], form: Form[Any]) -> tuple[Keys, str, str]:
    """Return where the problem is that msgspec found in `content`, what it is, and what to do about it."""
    match = _PROBLEM.fullmatch(problem)
    what, place = (match["what"], match["path"]) if match else (problem, None)
    path: Keys = tuple(place.replace("[...]", "[]").split(".")) if place else ()
    field, value = _FIELD.fullmatch(what), _VALUE.fullmatch(what)
    if field:
        return _explained_field((*path, field[2]), field[1].startswith("missing"), content, form)
    name = ".".join(path)
    if value:
        return path, f"{name} cannot be {value[1]}", "correct it" + _choices(path, content, form)
    if what.startswith("Expected"):
        words = re.sub(r"`(\w+)( \| null)?`", lambda one: _WORDS.get(one[1], one[1]), what.removeprefix("Expected "))
        return path, f"{name} must be {words.replace(', got ', ', is ')}", "correct it"
    return path, what if what.startswith(name) else f"{name}: {what}", "correct it"


def _explained_field(path: Keys, missing: bool, content: dict[str, Any], form: Form[Any]) -> tuple[Keys, str, str]:
    name = ".".join(path)
    if missing:
        return path, f"{name} is missing", "add it" + _choices(path, content, form)
    known = _keys(path[:-1], content, form)
    if len(path) == 1:
        known = [*[key for key in known if key not in form.given], *form.also]
    near = get_close_matches(path[-1], known, 1)
    remedy = f"did you mean {near[0]}?" if near else "remove it."
    return path, f"{name} is unknown", f"{remedy} Known here: {', '.join(known)}"


def _choices(path: Keys, content: dict[str, Any], form: Form[Any]) -> str:
    """Return the values of a key that has a few, or chooses among structs, in words; nothing for any other key."""
    structs = _structs(path[:-1], content, form)
    values = [str(struct.tag) for struct in structs if struct.tag_field == path[-1]]
    for one in _types(path[-1], structs):
        values += [str(value) for value in one.values] if isinstance(one, inspect.LiteralType) else []
    return f": one of {', '.join(values)}" if values else ""


def _keys(path: Keys, content: dict[str, Any], form: Form[Any]) -> list[str]:
    """Return the keys that the table at `path` may have."""
    keys: dict[str, None] = {}
    for struct in _structs(path, content, form):
        keys |= dict.fromkeys([struct.tag_field] if struct.tag_field else [])
        keys |= dict.fromkeys(field.encode_name for field in struct.fields)
    return list(keys)


def _structs(path: Keys, content: Any, form: Form[Any]) -> list[inspect.StructType]:  # noqa: ANN401 - whatever TOML holds
    """Return what the table at `path` may become: several where its tag does not say which."""
    found = [one for one in _members(inspect.type_info(form.of)) if isinstance(one, inspect.StructType)]
    for part in path:
        name, _, number = part.partition("[")
        content = content.get(name, {}) if isinstance(content, dict) else {}
        if isinstance(content, list):
            content = content[int(number.rstrip("]"))] if number.rstrip("]").isdecimal() else {}
        found = [one for one in _types(part, found) if isinstance(one, inspect.StructType)]
        if isinstance(content, dict):
            found = [struct for struct in found if struct.tag == content.get(struct.tag_field or "")] or found
    return found


def _types(part: str, structs: list[inspect.StructType]) -> list[inspect.Type]:
    """Return what may stand under the key `part` of one of `structs`, in a list or not."""
    name = part.partition("[")[0]
    return [
        one
        for struct in structs
        for field in struct.fields
        if field.encode_name == name
        for one in _members(field.type)
    ]


def _members(one: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(one, inspect.UnionType):
        for member in one.types:
            yield from _members(member)
    elif isinstance(one, inspect.VarTupleType):
        yield from _members(one.item_type)
    else:
        yield one


def line_of(text: str, path: Keys) -> int | None:
    """Return the line, from 1, where `path` stands in TOML `text`, or its nearest table that does; None if none does.

    Reads headers and keys line by line: a string of several lines that looks like a key may mislead it.
    """
    wanted = tuple(part.partition("[")[0] for part in path)
    table: Keys = ()
    best: tuple[int, int] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.fullmatch(line), _KEY.match(line)
        if header:
            table = here = _split(header[1])
        elif key:
            here = (*table, *_split(key[1]))
        else:
            continue
        shared = min(len(here), len(wanted))
        if here[:shared] == wanted[:shared] and shared > (best[0] if best else 0):
            best = (shared, number)
    return None if best is None else best[1]


def _split(dotted: str) -> Keys:
    return tuple(part.strip(" \"'") for part in dotted.split("."))
