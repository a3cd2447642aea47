"""What a converter cannot do, said with the line of the model that asks for it."""

from __future__ import annotations

import re

from satchel.export.module.program import Program, place
from satchel.runtime.errors import FormatError, SatchelError

MARKS = (
    r"Unsupported fx node (?P<node>[\w.]+), kind (?P<op>[\w.]+)",  # coremltools
    r"PyTorch convert function for op '(?P<op>[\w.]+)' not implemented",
    r"No ONNX function found for <OpOverload\(op='(?P<op>[\w.]+)', overload='(?P<overload>\w+)'\)>",  # torch.onnx
    r"Missing out variants: \{(?P<op>[^}]+)\}",  # ExecuTorch
    r"Operator torch\.ops\.(?P<op>[\w.]+) is not",
)
"""How converters name an op that they do not know."""


def unsupported(title: str, error: BaseException, program: Program) -> SatchelError:
    """The error of a format that a program cannot be written in.

    Args:
        title: of the format, such as "Core ML".
        error: what the converter raised.
        program: what it was given, before its own rewriting.
    """
    if isinstance(error, SatchelError):
        return error
    text = " ".join(f"{type(error).__name__}: {error}".split())
    for mark in MARKS:
        found = re.search(mark, text)
        if found:
            return _unknown_op(title, found["op"].strip("'\" "), program)
    where = _line_in(text)
    return FormatError(
        f"{title} cannot express this module", got=(where + text)[:2000],
        hint="see docs/modules.md; other formats may: --skip-format leaves this one out",
    )  # fmt: skip


def _unknown_op(title: str, op: str, program: Program) -> FormatError:
    short = op.removeprefix("aten::").removeprefix("aten.").split(".")[0].replace("'", "")
    nodes = [n for n in program.graph.graph.nodes if n.op == "call_function" and _short(n.target) == short]
    lines = list(dict.fromkeys(filter(None, map(place, nodes))))
    where = "; ".join(lines[:3]) or "an op that stands for others"
    more = f" (and {len(lines) - 3} more lines)" if len(lines) > 3 else ""
    return FormatError(
        f"{title} has no op for {short}", got=f"{where}{more}", wanted="ops that its converter knows",
        hint="write that line with other ops, or leave the format out: --skip-format",
    )  # fmt: skip


def _short(target: object) -> str:
    packet = getattr(target, "overloadpacket", None)
    return str(packet).removeprefix("aten.") if packet else getattr(target, "__name__", "")


def _line_in(text: str) -> str:
    """The user's line, where a converter prints a stack trace in its message."""
    found = re.search(r'File "(?P<file>[^"]+)", line (?P<line>\d+)', text)
    if found is None or "/torch/" in found["file"]:
        return ""
    return f"{found['file'].rsplit('/', 1)[-1]}:{found['line']}: "
