"""Sizes as Kubernetes writes them: `1Gi`, `500M`, `1.5Ti`, or plain bytes.

Source: the grammar of `resource.Quantity` in the Kubernetes API reference, without exponents and
without the parts of a whole that make no sense for a size.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from csi.errors import InvalidRequest

_GRAMMAR = re.compile(r"(\d{1,19}(?:\.\d{1,9})?)(|[KMGTPE]i|[kMGTPE])", re.ASCII)
_LARGEST_BYTES = (1 << 63) - 1


def _factors() -> dict[str, int]:
    factors = {"": 1}
    for power, letter in enumerate("KMGTPE", start=1):
        factors[f"{letter}i"] = 1024**power
        factors["k" if letter == "K" else letter] = 1000**power
    return factors


_FACTORS = _factors()


def parse_size(text: str, where: str) -> int:
    """Returns a size in bytes; a fraction of a byte counts as one.

    Raises:
        InvalidRequest: The text is no size, or it is zero or beyond what a file can have.
    """
    size = find_quantity(text)
    if size is None:
        raise InvalidRequest(
            f"{where} is {text[:64]!r}; it must be a size such as 1Gi, 500M or 1073741824"
        )
    if not 0 < size <= _LARGEST_BYTES:
        raise InvalidRequest(f"{where} is {text}; it must be above 0 and at most 8Ei")
    return size


def find_quantity(text: str) -> int | None:
    """Returns a whole number, a fraction rounded up; None where the text is no quantity."""
    match = _GRAMMAR.fullmatch(text)
    return None if match is None else math.ceil(Fraction(match[1]) * _FACTORS[match[2]])
