"""JSON as a bundle holds it: canonical bytes out, and a reader that accepts nothing it was not told of.

The reader refuses what JSON leaves open (repeated keys, NaN, lone surrogates) and numbers that not every language
reads exactly, so that a bundle means the same in Python, Swift, Kotlin and JavaScript.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from satchel.runtime.errors import BundleError

T = TypeVar("T")

LARGEST_INTEGER = 2**53 - 1  # beyond it a JavaScript number loses units
OPTIONAL = {"optional": True}
"""Metadata of a dataclass field that may be None, and is then left out."""


def canonical(value: Any) -> bytes:
    """JSON with sorted keys, two spaces of indentation, UTF-8, and a newline at the end: equal values, equal bytes.

    Raises ValueError for NaN and infinities, which JSON cannot say.
    """
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8") + b"\n"


def parse(data: bytes, what: str, *, exact_integers: bool = True) -> Any:
    """Bytes -> JSON value.

    Args:
        data: UTF-8.
        what: name of the file, for messages.
        exact_integers: refuse integers beyond 2**53 - 1. Tokenizers' files, which are not ours, hold such.

    Raises:
        BundleError: not UTF-8, not JSON, or beyond what every language reads alike.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
        _check(value, what, LARGEST_INTEGER if exact_integers else None)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise BundleError(f"{what} is not valid JSON", got=reason, hint="export the bundle again") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key that occurs twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"the number {constant}")


def _check(value: Any, where: str, largest: int | None) -> None:
    if isinstance(value, str):
        value.encode("utf-8")  # a lone surrogate raises UnicodeEncodeError, a ValueError
    elif isinstance(value, int) and largest is not None and abs(value) > largest:
        raise ValueError(f"an integer beyond 2**53 in {where}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a number too large in {where}")
    elif isinstance(value, list):
        for item in value:
            _check(item, where, largest)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(key, where, largest)
            _check(item, key, largest)


def encode(value: Any) -> Any:
    """A dataclass of JSON types -> a JSON value; tuples become lists, and fields with OPTIONAL that are None go."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        present = [f for f in dataclasses.fields(value) if not (_optional(f) and getattr(value, f.name) is None)]
        return {f.name: encode(getattr(value, f.name)) for f in present}
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def decode(kind: type[T], value: Any, where: str) -> T:
    """A JSON value -> a dataclass, strictly: every field present but those with OPTIONAL, of its type, no other key.

    Args:
        kind: a dataclass whose fields are str, int, float, bool, None, Any, Literal, tuple[X, ...], dict[str, X],
            dataclasses, or unions of these.
        value: as parsed.
        where: what the value is, for messages, such as "manifest.json".

    Raises:
        BundleError: says which key, the value got and the type wanted.
    """
    return typing.cast(T, _decode(kind, value, where))


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if kind is Any:
        return value
    if origin is Literal:
        return _expect(value in typing.get_args(kind) and type(value) is str, value, typing.get_args(kind), where)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(typing.get_args(kind), value, where)
    if origin is tuple:
        _expect(isinstance(value, list), value, "a list", where)
        return tuple(_decode(typing.get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        _expect(isinstance(value, dict), value, "an object", where)
        return {key: _decode(typing.get_args(kind)[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_fields(kind, value, where)
    if kind is float and type(value) is int:
        return float(value)
    return _expect(type(value) is kind, value, getattr(kind, "__name__", kind), where)


def _decode_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    others = [kind for kind in kinds if kind is not type(None)]
    if value is None and len(others) < len(kinds):
        return None
    if len(others) == 1 and value is not None:
        return _decode(others[0], value, where)  # with its own message
    for kind in others:
        if value is not None:
            try:
                return _decode(kind, value, where)
            except BundleError:
                continue
    return _expect(False, value, " or ".join(getattr(k, "__name__", str(k)) for k in kinds), where)


def _decode_fields(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), value, "an object", where)
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    required = {f.name for f in dataclasses.fields(kind) if not _optional(f)}
    unknown, missing = sorted(set(value) - set(names)), sorted(required - set(value))
    if unknown or missing:
        what = f"unknown keys in {where}" if unknown else f"keys missing from {where}"
        raise BundleError(what, got=_short(unknown or missing), wanted=names, hint="export the bundle again")
    return kind(**{name: _decode(hints[name], value[name], f"{where}.{name}") for name in names if name in value})


def _optional(field: dataclasses.Field[Any]) -> bool:
    return "optional" in field.metadata


def _expect(good: bool, value: Any, wanted: object, where: str) -> Any:
    if not good:
        raise BundleError(f"{where} is not what it should be", got=_short(value), wanted=wanted)
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
