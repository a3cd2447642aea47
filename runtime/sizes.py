"""Sizes in bytes as people write them."""

from __future__ import annotations

import re

from satchel.runtime.errors import UsageError

UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def parse_size(text: str | int, option: str) -> int:
    """A count of bytes such as "2GB", "512 MiB" or "1000000".

    Args:
        text: what was given; an int is a count of bytes already.
        option: what it was given for, named in the error.

    Raises:
        UsageError: it is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", str(text).upper())
    if not found or found[2] not in UNITS or len(found[1]) > 30:
        raise UsageError(option, got=text, wanted="bytes, such as 2GB, 512MiB or 1000000")
    return int(float(found[1]) * UNITS[found[2]])
