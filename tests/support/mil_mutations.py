"""Ways of altering a package: fields of its proto, bytes of its files.

The places of a proto that can be altered are sorted into kinds, so that the few numbers which decide shapes are met as
often as the many names.
"""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as F
from google.protobuf.message import Message

INTEGERS = {
    F.TYPE_INT32: (-(2**31), 2**31 - 1), F.TYPE_INT64: (-(2**63), 2**63 - 1), F.TYPE_SINT32: (-(2**31), 2**31 - 1),
    F.TYPE_UINT32: (0, 2**32 - 1), F.TYPE_UINT64: (0, 2**64 - 1), F.TYPE_SINT64: (-(2**63), 2**63 - 1),
    F.TYPE_ENUM: (-(2**31), 2**31 - 1),
}  # fmt: skip
EXTREMES = (
    -1, 0, 1, 2, 3, 5, 7, 16, 63, 64, 255, 1000, 4096, 65535, 10**6, 2**24, 2**26, 2**28, 2**30, 2**31 - 1, 2**31,
    2**32, 2**40, 2**53, 2**62, 2**63 - 1, -2, -(2**31), -(2**40), -(2**63),
)  # fmt: skip
FLOATS = (
    0.0, -0.0, 0.5, 1.0, -1.0, 1e-30, 1e6, 2.0**20, 1e30, -1e30, 3.4e38, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
WORDS = (
    "", "x", "main", "CoreML9", "same", "valid", "fp16", "int4", "\0", "/", "@model_path/../x", "é" * 50, "n" * 10**6,
)  # fmt: skip
IN_USE = ("offset", "opset", "axis")  # fields that mean something where they are 0 too
SIZES = ("Ints.values", "Ints.values", "Floats.values", "Constant.size")  # the kinds of places that decide sizes
Site = tuple[Message, Any, str]  # a message, the descriptor of one of its fields, the type of the op that it lies in


class Sites:
    """Everything in a model that can be altered, by kind."""

    def __init__(self, model: Message) -> None:
        self.kinds: dict[str, dict[str, list[Site]]] = defaultdict(lambda: defaultdict(list))
        self.words: list[str] = [*WORDS]
        self.op_types: list[str] = []
        self.users = _users(model)
        self._walk(model, "")
        self.words = sorted(set(self.words))
        self.names = sorted(self.kinds)

    def _walk(self, message: Message, op: str) -> None:
        name = message.DESCRIPTOR.name
        if name == "Operation":
            op = self.users.get(message.outputs[0].name, message.type) if message.outputs else message.type
            self.op_types.append(message.type)
        for field in message.DESCRIPTOR.fields:
            value = getattr(message, field.name)
            if is_map(field):
                self._add("map", message, field, op)
                if is_message(field.message_type.fields_by_name["value"]):
                    for key in value:
                        self._walk(value[key], op)
            elif is_message(field):
                self._messages(message, field, value, op)
            elif message.HasField(field.name) if field.has_presence else value or field.name in IN_USE:
                self._scalar(message, field, value, op)

    def _messages(self, message: Message, field: Any, value: Any, op: str) -> None:
        if field.is_repeated:
            self._add(f"{field.name}[]", message, field, op)
            for each in value:
                self._walk(each, op)
        elif message.HasField(field.name):
            self._add("submessage", message, field, op)
            self._walk(value, op)

    def _scalar(self, message: Message, field: Any, value: Any, op: str) -> None:
        self._add(f"{message.DESCRIPTOR.name}.{field.name}", message, field, op)
        if field.type == F.TYPE_STRING:
            self.words += list(value) if field.is_repeated else [value]

    def _add(self, kind: str, message: Message, field: Any, op: str) -> None:
        self.kinds[kind if op else f"{kind} of the description"][op].append((message, field, op))

    def choose(self, rng: random.Random) -> tuple[str, Site]:
        """A place: first what kind, mostly of the program itself, then whose, then which."""
        among, sizes = rng.random(), [n for n in SIZES if n in self.kinds]
        if among < 0.4 and sizes:
            kind = rng.choice(sizes)
        else:
            kind = rng.choice([n for n in self.names if n.endswith("description") != (among < 0.9)])
        groups = self.kinds[kind]
        return kind, rng.choice(groups[rng.choice(sorted(groups))])


def _users(model: Any) -> dict[str, str]:
    """Name of each constant -> which argument of which op it is."""
    blocks = [b for f in model.mlProgram.functions.values() for b in f.blockSpecializations.values()]
    found: dict[str, str] = {}
    for block in blocks:
        for op in block.operations:
            blocks.extend(op.blocks)
            for name, argument in op.inputs.items():
                found |= {a.name: f"{op.type}.{name}" for a in argument.arguments if a.name}
    constants = {o.name for b in blocks for op in b.operations if op.type == "const" for o in op.outputs}
    return {n: user for n, user in found.items() if n in constants}


def is_message(field: Any) -> bool:
    """Whether a field holds messages."""
    return bool(field.type == F.TYPE_MESSAGE)


def is_map(field: Any) -> bool:
    """Whether a field is a map."""
    return is_message(field) and field.message_type.GetOptions().map_entry


def mutate_proto(sites: Sites, rng: random.Random) -> str:
    """Alters one place of the model that `sites` was made of; says what it did."""
    kind, (message, field, op) = sites.choose(rng)
    if is_map(field):
        done = _mutate_map(getattr(message, field.name), field, sites, rng)
    elif is_message(field) and field.is_repeated:
        done = _mutate_list(getattr(message, field.name), rng)
    elif is_message(field):
        message.ClearField(field.name)
        done = "cleared"
    elif field.is_repeated:
        done = _mutate_numbers(getattr(message, field.name), field, sites, rng)
    else:
        value = _other(getattr(message, field.name), field, sites, rng)
        setattr(message, field.name, value)
        done = f"{value!r:.60}"
    return f"{kind} of {op or 'the model'}.{field.name}: {done}"


def _other(value: Any, field: Any, sites: Sites, rng: random.Random) -> Any:
    """Another value for a scalar."""
    if field.type in INTEGERS:
        low, high = INTEGERS[field.type]
        choices = (
            rng.choice(EXTREMES),
            value + rng.choice((-1, 1)),
            value * 2,
            -value,
            value * 1000,
            rng.randrange(64),
        )
        return min(high, max(low, rng.choice(choices)))
    if field.type in (F.TYPE_FLOAT, F.TYPE_DOUBLE):
        return rng.choice((*FLOATS, value * 2, -value, value + 1))
    if field.type == F.TYPE_BOOL:
        return not value
    if field.type == F.TYPE_BYTES:
        return _damaged(bytes(value), rng)
    if field.name == "type":
        return rng.choice(sites.op_types)
    return rng.choice(sites.words)


def _mutate_numbers(values: Any, field: Any, sites: Sites, rng: random.Random) -> str:
    """Alters a repeated field of scalars."""
    if not len(values):  # an earlier alteration has emptied it
        return "nothing"
    act = rng.choice(("change", "change", "change", "delete", "double", "swap"))
    at = rng.randrange(len(values))
    if act == "delete":
        del values[at]
    elif act == "double":
        values.extend([values[at]] * rng.choice((1, 3, 70)))
    elif act == "swap":
        other = rng.randrange(len(values))
        values[at], values[other] = values[other], values[at]
    else:
        values[at] = _other(values[at], field, sites, rng)
    return f"{act} {at}: {list(values)[:8]}"[:90]


def _mutate_list(values: Any, rng: random.Random) -> str:
    """Alters a repeated field of messages."""
    act = rng.choice(("delete", "double", "swap", "copy", "append")) if len(values) else "append"
    if act == "append":
        values.add()
        return act
    at, other = rng.randrange(len(values)), rng.randrange(len(values))
    if act == "delete":
        del values[at]
    elif act == "double":
        for _ in range(rng.choice((1, 2, 300))):
            values.add().CopyFrom(values[at])
    elif act == "copy":
        values[at].CopyFrom(values[other])
    else:
        kept = type(values[at])()
        kept.CopyFrom(values[at])
        values[at].CopyFrom(values[other])
        values[other].CopyFrom(kept)
    return f"{act} {at} {other}"


def _mutate_map(values: Any, field: Any, sites: Sites, rng: random.Random) -> str:
    """Deletes an entry, gives it another name, or the content of another."""
    if not values:
        return "empty"
    holds_messages = is_message(field.message_type.fields_by_name["value"])
    keys = sorted(values)
    key, other = rng.choice(keys), rng.choice([*keys, rng.choice(sites.words)])
    if not holds_messages:
        del values[key]
        return f"delete {key}"
    act = rng.choice(("delete", "copy", "rename"))
    if act != "delete" and other != key:
        values[other].CopyFrom(values[key])
    if act != "copy":
        del values[key]
    return f"{act} {key} {other}"[:90]


def _damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes with some changed, lost or repeated."""
    if not data:
        return rng.randbytes(9)
    act, at = rng.randrange(4), rng.randrange(len(data))
    if act == 0:
        return data[:at]
    if act == 1:
        return data[:at] + data[at + rng.randrange(1, 64) :]
    if act == 2:
        return data[:at] + data[at : at + 40] * rng.choice((2, 9)) + data[at:]
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        changed[rng.randrange(len(data))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return bytes(changed)


def damage_file(path: Path, rng: random.Random) -> str:
    """Damages a file, more often near its beginning, where headers are."""
    data = path.read_bytes()
    head = min(len(data), rng.choice((160, 2000, len(data))))
    path.unlink()  # it may be a hard link
    path.write_bytes(_damaged(data[:head], rng) + data[head:])
    return f"damaged {path.name} within {head} bytes"
