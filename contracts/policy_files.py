"""A policy as a person writes it: TOML with the fields of contracts.policies.Policy, but for its number, which publishing
gives. Knows no kind of rule by name, but which of them learn. Not here: publishing (streams.policy_changes), what a rule
computes (pricing).
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from contracts.errors import BadInput
from contracts.policies import BUILTIN, Policy
from contracts.rules import LearningRule

_NOT_GIVEN = ("record", "number")
_PROBLEM = re.compile(r"(?P<what>.*?)(?: - at `\$\.(?P<path>[^`]*)`)?", re.DOTALL)
_FIELD = re.compile(r"Object (contains unknown|missing required) field `([^`]*)`")
_HEADER = re.compile(r"\s*\[+([^\[\]]+)\]+\s*(?:#.*)?")
_WORDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "object": "a table",
          "array": "a list"}  # fmt: skip
_KEY = re.compile(r"\s*([\w.\"' -]+?)\s*=")
Keys = tuple[str, ...]
"""Keys from the root of the file to a value: ("rails", "multipliers[2]")."""


def read_policy(file: Path) -> Policy:
    """Return the policy in `file`, with number 1 in the place of the one that publishing gives.

    Raises:
        BadInput: it cannot be read, or is no policy; one sentence with file, line, key, what is wrong and what to do.
    """
    return decode_policy_file(_text_of(file), str(file))


def read_publishable(file: Path) -> Policy:
    """Return the policy in `file`, as `read_policy`, if workers may be given it: it names the model that its features are of.

    Numbers that one model makes of a user mean nothing to what was learned with another. Where no models are exchanged, in a
    simulation or a backtest that names its artifact, a file may leave it open.

    Raises:
        BadInput: as `read_policy`; or features come from a model that the file does not name.
    """
    text = _text_of(file)
    policy = decode_policy_file(text, str(file))
    if not isinstance(policy.rule, LearningRule) or policy.model is not None:
        return policy
    features = policy.rule.features
    if features.of_a_model:
        what = f"the rule reads {' and '.join(features.of_a_model)}, which a model makes, and no model is named"
        others = json.dumps([name for name in features.names if name not in features.of_a_model])
        remedy = (
            'name the digest that it is made for and what prices without it, model = "DIGEST" and fallback = "NAME@NUMBER"; or '
            f"leave features of a model out, rule.features.names = {others}"
        )
        raise BadInput(_sentence(str(file), text, ("rule", "features", "names"), what, remedy))
    return policy


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadInput(f"{file} cannot be read: {reason}; name a TOML file with a policy") from None


def decode_policy_file(text: str, source: str) -> Policy:
    """Return the policy in the TOML `text`; `source` names it in errors. Raises as `read_policy`."""
    try:
        content = tomllib.loads(text, parse_float=_finite)
    except ValueError as error:
        raise BadInput(f"{source} is not TOML for a policy: {error}; correct it") from None
    for name in _NOT_GIVEN:
        if name in content:
            remedy = "remove it: `pricetide policy apply` gives the next number of the name"
            raise BadInput(_sentence(source, text, (name,), f"{name} is not for the file", remedy))
    try:
        policy = msgspec.convert(content | {"record": "policy", "number": 1}, Policy)
    except msgspec.ValidationError as error:
        path, what, remedy = _explained(str(error), content)
        raise BadInput(_sentence(source, text, path, what, remedy)) from None
    if policy.name == BUILTIN.name:
        what = f"name: {policy.name!r} is the policy that holds while none is published"
        raise BadInput(_sentence(source, text, ("name",), what, "choose another name"))
    return policy


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _sentence(source: str, text: str, path: Keys, what: str, remedy: str) -> str:
    number = line_of(text, path)
    return f"{source}{'' if number is None else f', line {number}'}: {what}; {remedy}"


def _explained(problem: str, content: dict[str, Any]) -> tuple[Keys, str, str]:
    """Return where the problem is that msgspec found in `content`, what it is, and what to do about it."""
    match = _PROBLEM.fullmatch(problem)
    what, place = (match["what"], match["path"]) if match else (problem, None)
    path: Keys = tuple(place.replace("[...]", "[]").split(".")) if place else ()
    field = _FIELD.fullmatch(what)
    if field:
        return _explained_field((*path, field[2]), field[1].startswith("missing"), content)
    name = ".".join(path)
    if what.startswith("Invalid value"):
        return path, f"{name} cannot be {what.removeprefix('Invalid value ')}", "correct it" + _choices(path, content)
    if what.startswith("Expected"):
        words = re.sub(r"`(\w+)( \| null)?`", lambda one: _WORDS.get(one[1], one[1]), what.removeprefix("Expected "))
        return path, f"{name} must be {words.replace(', got ', ', is ')}", "correct it"
    return path, what if what.startswith(name) else f"{name}: {what}", "correct it"


def _explained_field(path: Keys, missing: bool, content: dict[str, Any]) -> tuple[Keys, str, str]:
    name = ".".join(path)
    if missing:
        return path, f"{name} is missing", "add it" + _choices(path, content)
    known = [key for key in _keys(path[:-1], content) if len(path) > 1 or key not in _NOT_GIVEN]
    near = get_close_matches(path[-1], known, 1)
    remedy = f"did you mean {near[0]}?" if near else "remove it."
    return path, f"{name} is unknown", f"{remedy} Known here: {', '.join(known)}"


def _choices(path: Keys, content: dict[str, Any]) -> str:
    """Return the values of a key that chooses among structs, in words; nothing for any other key."""
    tags = [str(struct.tag) for struct in _structs(path[:-1], content) if struct.tag_field == path[-1]]
    return f": one of {', '.join(tags)}" if tags else ""


def _keys(path: Keys, content: dict[str, Any]) -> list[str]:
    """Return the keys that the table at `path` may have."""
    keys: dict[str, None] = {}
    for struct in _structs(path, content):
        keys |= dict.fromkeys([struct.tag_field] if struct.tag_field else [])
        keys |= dict.fromkeys(field.encode_name for field in struct.fields)
    return list(keys)


def _structs(path: Keys, content: dict[str, Any]) -> list[inspect.StructType]:
    """Return what the table at `path` may become: several where its tag does not say which."""
    found = list(_members(inspect.type_info(Policy)))
    for part in path:
        content = content.get(part, {}) if isinstance(content, dict) else {}
        types = [field.type for struct in found for field in struct.fields if field.encode_name == part]
        found = [struct for one in types for struct in _members(one)]
        if isinstance(content, dict):
            found = [struct for struct in found if struct.tag == content.get(struct.tag_field or "")] or found
    return found


def _members(one: inspect.Type) -> Iterator[inspect.StructType]:
    if isinstance(one, inspect.UnionType):
        for member in one.types:
            yield from _members(member)
    elif isinstance(one, inspect.StructType):
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
