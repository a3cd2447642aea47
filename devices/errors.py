"""The root of Satchel's errors, and those that devices and plans raise.

Every message says four things: what failed, the value got, the value wanted, and the next step.
"""

from __future__ import annotations

LONGEST = 4000  # characters of one part of a message


class SatchelError(Exception):
    """Base of every error that Satchel raises on purpose.

    Args:
        what: What failed, in a few words.
        got: The value that was found, if there is one to show.
        wanted: What would have been accepted.
        hint: The next step for the reader.
    """

    def __init__(self, what: str, *, got: object = None, wanted: object = None, hint: str = "") -> None:
        self.what = what
        self.got = got
        self.wanted = wanted
        self.hint = hint
        parts = [_shortened(what)]
        if got is not None:
            parts.append(f"got: {_shortened(str(got))}")
        if wanted is not None:
            parts.append(f"wanted: {_shortened(str(wanted))}")
        if hint:
            parts.append(f"next: {hint}")
        super().__init__("; ".join(parts))


def _shortened(text: str) -> str:
    """`text` without its middle where a file's content has made it too long to be read."""
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST // 2]} ... ({len(text)} characters) ... {text[-LONGEST // 4 :]}"


class DeviceError(SatchelError):
    """A device that is not known, or a profile that cannot be read."""


class PlanError(SatchelError):
    """A choice that the device cannot carry out."""
