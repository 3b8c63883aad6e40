"""Canonical JSON: the bytes JavaScript's JSON.stringify gives when the keys of every object are sorted by code unit.

Numbers follow ECMAScript's Number::toString, so a float64 prints the same on both sides: 1e-06 is 0.000001 and 2e21 is
2e+21. There is no white space and nothing but control characters, quotes, backslashes and lone surrogates is escaped.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SAFE_INTEGER = 2**53


def canonical_bytes(value: Any) -> bytes:
    """UTF-8 of the canonical JSON of parsed JSON. Raises ValueError for NaN and infinities, TypeError for no JSON."""
    return canonical_text(value).encode()


def canonical_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return js_string(value)
    if isinstance(value, int | float):
        return js_number(value)
    if isinstance(value, Mapping):
        items = sorted(value.items(), key=lambda item: _code_units(item[0]))
        return "{" + ",".join(f"{js_string(key)}:{canonical_text(item)}" for key, item in items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(canonical_text, value)) + "]"
    raise TypeError(f"{type(value).__name__} has no JSON form")


def js_string(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)


def js_number(value: float) -> str:
    """The number as JavaScript prints it; both sides use the shortest digits that read back as the same float64."""
    if isinstance(value, int) and abs(value) <= _SAFE_INTEGER:
        return str(value)
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} has no JSON form")
    if number == 0:
        return "0"
    sign = "-" if number < 0 else ""
    return sign + _place_point(*_shortest_digits(abs(number)))


def _shortest_digits(number: float) -> tuple[str, int]:
    """Digits without zeros at either end, and the place of the point counted from their left."""
    _, digits, exponent = Decimal(repr(number)).as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    return text.rstrip("0"), len(text) + int(exponent)


def _place_point(digits: str, point: int) -> str:
    """ECMAScript Number::toString, steps 6 to 10."""
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"


def _code_units(key: str) -> bytes:
    return key.encode("utf-16-be", "surrogatepass")
