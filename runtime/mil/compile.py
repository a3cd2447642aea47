"""A function of a package -> steps that run one after the other, with all that is known beforehand resolved."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from satchel.runtime.errors import FormatError
from satchel.runtime.manifest import TensorSpec
from satchel.runtime.mil.aliases import Aliases
from satchel.runtime.mil.constants import Constant, Pool, from_constexpr, from_value
from satchel.runtime.mil.ops import OPS
from satchel.runtime.mil.ops.base import Op, move
from satchel.runtime.mil.ops.binding import bind, check_arguments, signature
from satchel.runtime.mil.ops.movement import identity, slice_update_in_place
from satchel.runtime.mil.package import Package
from satchel.runtime.mil.precision import Precision
from satchel.runtime.mil.values import is_state, spec

NO_VALUE = 0  # the slot that holds None, for optional arrays that are absent
READ_STATE = move(identity)
IN_PLACE = Op(slice_update_in_place, exact=True)
# What numpy and our functions raise when the shapes or types of a program do not fit together.
OP_ERRORS = (ValueError, IndexError, TypeError, AttributeError, KeyError, ZeroDivisionError, MemoryError, OverflowError)
TUPLE_OPS = ("split",)  # whose functions return a tuple even where there is one output
Reference = str | Any  # the name of a value, or the proto of a constant


@dataclass(slots=True)
class Step:
    """One op, ready to run.

    Attributes:
        kernel: called with the values of `inputs`.
        inputs: slots.
        output: slot of its result; for several outputs `outputs` holds them and this is -1.
        outputs: slots of its results.
        free: slots that nobody reads after this step.
        rounds: whether its results must be rounded to fp16.
        contraction: whether it is a matrix product.
        op, name: what it is in the program, for messages.
    """

    kernel: Callable[..., Any]
    inputs: tuple[int, ...]
    output: int
    outputs: tuple[int, ...]
    rounds: bool
    contraction: bool
    op: str
    name: str
    free: tuple[int, ...] = ()


@dataclass(frozen=True)
class Executable:
    """A function, compiled for one precision.

    Attributes:
        name: of the function.
        precision: "fp32" or "fp16".
        steps: in order.
        template: a value for every slot: constants where they are kept, None elsewhere.
        inputs, states: spec -> slot.
        outputs: name -> slot, and the spec where the program says it.
        copied: names of outputs that must be copied, since they may share memory with a state.
    """

    name: str
    precision: Precision
    steps: tuple[Step, ...]
    template: tuple[Any, ...]
    inputs: tuple[tuple[TensorSpec, int], ...]
    states: tuple[tuple[TensorSpec, int], ...]
    outputs: tuple[tuple[TensorSpec, int], ...]
    copied: frozenset[str]


@dataclass
class _Compiler:
    package: Package
    pool: Pool
    precision: Precision
    template: list[Any] = field(default_factory=lambda: [None])
    slots: dict[str, int] = field(default_factory=dict)
    specs: dict[str, TensorSpec] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    unkept: dict[int, Constant] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    state_slots: set[int] = field(default_factory=set)
    in_place: dict[int, Callable[..., Any]] = field(default_factory=dict)

    def new_slot(self, value: Any = None) -> int:
        """A further slot."""
        self.template.append(value)
        return len(self.template) - 1

    def define(self, named: Any) -> int:
        """A slot for an input of the function or an output of an op."""
        if named.name in self.slots or named.name in self.constants:
            raise FormatError("value of the program", got=f"'{named.name}' defined twice", wanted="one definition each")
        self.slots[named.name] = self.new_slot()
        if named.type.WhichOneof("type") in ("tensorType", "stateType"):
            self.specs[named.name] = spec(named)
        return self.slots[named.name]

    def slot(self, name: str) -> int:
        """The slot of a value; a constant is loaded when it is first asked for."""
        if name not in self.slots:
            if name not in self.constants:
                hint = "the program is malformed: an op uses a value before it is defined"
                raise FormatError("value of the program", got=name, wanted="a value defined before", hint=hint)
            self.slots[name] = self._constant_slot(self.constants[name])
        return self.slots[name]

    def _constant_slot(self, constant: Constant) -> int:
        value = self.pool.get(constant)
        slot = self.new_slot(value)
        if value is None:
            self.unkept[slot] = constant
        return slot

    # ---- one op ----------------------------------------------------------------------------------------------

    def add(self, op: Any) -> None:
        """Compiles one op of the block."""
        what = f"{op.type} '{op_name(op)}'"
        if op.type == "const":
            self.constants[_single(op, what).name] = from_value(self.package, op.attributes["val"])
        elif op.type == "read_state":
            self._step(op, READ_STATE, identity, (self._only(op, "input", what),))
        elif op.type == "write_state":
            self._write_state(op, what)
        elif op.type not in OPS or op.blocks:
            raise unknown_op(op.type, what)
        elif op.type.startswith("constexpr_"):
            self._constexpr(op, what)
        else:
            self._plain(op, what)

    def _constexpr(self, op: Any, what: str) -> None:
        arguments = {name: self._constant(refs[0], what) for name, refs in references(op).items()}
        check_arguments(OPS[op.type], what, arguments)
        output = _single(op, what)
        self.constants[output.name] = from_constexpr(op.type, output, arguments, self.precision == "fp16")

    def _constant(self, ref: Reference, what: str) -> Constant:
        if not isinstance(ref, str):
            return from_value(self.package, ref)
        if ref not in self.constants:
            raise FormatError(f"argument of {what}", got=ref, wanted="a constant")
        return self.constants[ref]

    def _plain(self, op: Any, what: str) -> None:
        known, arguments = OPS[op.type], references(op)
        statics = signature(known.run).statics
        constants = {
            n: self._constant(refs[0], what).load() for n, refs in arguments.items() if self._known(n, refs, statics)
        }
        bound = bind(known, what, arguments, constants)
        slots = tuple(NO_VALUE if o is None else self._operand(arguments, o) for o in bound.operands)
        self._step(op, known, bound.kernel, slots)
        if op.type == "slice_update":
            kernel = bind(IN_PLACE, what, arguments, constants).kernel
            self.in_place[self.steps[-1].output] = kernel

    def _known(self, name: str, refs: list[Reference], statics: Mapping[str, Any]) -> bool:
        """Whether an argument is a small constant that the function wants handed over as such."""
        return name in statics and (not isinstance(refs[0], str) or refs[0] in self.constants)

    def _operand(self, arguments: dict[str, list[Reference]], operand: str | tuple[str, int]) -> int:
        name, index = (operand, 0) if isinstance(operand, str) else operand
        ref = arguments[name][index]
        return self.slot(ref) if isinstance(ref, str) else self._constant_slot(from_value(self.package, ref))

    def _only(self, op: Any, name: str, what: str) -> int:
        """The slot of an argument that must be a named value."""
        refs = references(op).get(name, [])
        if len(refs) != 1 or not isinstance(refs[0], str):
            raise FormatError(f"arguments of {what}", got=sorted(op.inputs), wanted=name)
        return self.slot(refs[0])

    def _write_state(self, op: Any, what: str) -> None:
        state, data = self._only(op, "input", what), self._only(op, "data", what)
        if state not in self.state_slots:
            raise FormatError(f"argument input of {what}", got="a plain value", wanted="a state")
        self.steps.append(Step(identity, (data,), state, (state,), False, False, op.type, op_name(op)))

    def _step(self, op: Any, known: Op, kernel: Callable[..., Any], inputs: tuple[int, ...]) -> None:
        outputs = tuple(self.define(o) for o in op.outputs)
        if not outputs:
            raise FormatError(f"{op.type} '{op_name(op)}'", got="no outputs", wanted="at least one")
        halves = any(self.specs[o.name].dtype == "float16" for o in op.outputs if o.name in self.specs)
        rounds = self.precision == "fp16" and halves and not known.exact
        output = outputs[0] if len(outputs) == 1 and op.type not in TUPLE_OPS else -1
        self.steps.append(Step(kernel, inputs, output, outputs, rounds, known.contraction, op.type, op_name(op)))


def references(op: Any) -> dict[str, list[Reference]]:
    """Every argument of an op -> what it refers to: a value by its name, or a constant's proto."""
    found: dict[str, list[Reference]] = {}
    for name, argument in op.inputs.items():
        found[name] = [b.name if b.WhichOneof("binding") == "name" else b.value for b in argument.arguments]
        if not found[name]:
            raise FormatError(f"argument {name} of {op.type} '{op_name(op)}'", got="nothing", wanted="a value")
    return found | {name: [value] for name, value in op.attributes.items() if name != "name"}


def _single(op: Any, what: str) -> Any:
    if len(op.outputs) != 1:
        raise FormatError(f"outputs of {what}", got=len(op.outputs), wanted=1)
    return op.outputs[0]


def op_name(op: Any) -> str:
    """The name of an op: its attribute, else that of its first output."""
    if "name" in op.attributes:
        strings = op.attributes["name"].immediateValue.tensor.strings.values
        if strings:
            return str(strings[0])
    return str(op.outputs[0].name) if op.outputs else op.type


def unknown_op(op_type: str, what: str) -> FormatError:
    """The error for an op that the interpreter lacks."""
    close = difflib.get_close_matches(op_type, OPS, 3)
    hint = (
        "add a function to satchel/runtime/mil/ops and a line to its dict, or run the package on a Mac; "
        f"closest known ops: {', '.join(close) or 'none'}"
    )
    return FormatError(
        what, got=f"op '{op_type}'", wanted=f"one of the {len(OPS)} ops that the interpreter has", hint=hint
    )


def compile_function(package: Package, name: str, precision: Precision, pool: Pool) -> Executable:
    """Compiles a function; FormatError names the op where something is wrong with it."""
    compiler = _Compiler(package, pool, precision)
    inputs: list[tuple[TensorSpec, int]] = []
    states: list[tuple[TensorSpec, int]] = []
    for named in package.function(name).inputs:
        slot = compiler.define(named)
        (states if is_state(named.type) else inputs).append((spec(named), slot))
    compiler.state_slots = {slot for _, slot in states}
    block = package.block(name)
    for op in block.operations:
        try:
            compiler.add(op)
        except OP_ERRORS as error:
            hint = "the program is malformed"
            raise FormatError(f"{op.type} '{op_name(op)}' in {name}", got=repr(error), hint=hint) from error
    outputs = tuple((_output_spec(compiler, output), compiler.slot(output)) for output in block.outputs)
    steps, copied = _finish(compiler, [s for _, s in inputs], {s for _, s in states}, [s for _, s in outputs])
    names = frozenset(sp.name for sp, slot in outputs if slot in copied)
    template = tuple(compiler.template)
    return Executable(name, precision, tuple(steps), template, tuple(inputs), tuple(states), outputs, names)


def _output_spec(compiler: _Compiler, name: str) -> TensorSpec:
    compiler.slot(name)
    return compiler.specs.get(name) or TensorSpec(name, (), "float32")


def _finish(
    compiler: _Compiler, inputs: list[int], states: set[int], outputs: list[int]
) -> tuple[list[Step], set[int]]:
    """Loads constants that are not kept before their users, writes states in place, frees values after use."""
    steps = list(_with_loads(compiler))
    last_use = {slot: i for i, step in enumerate(steps) for slot in step.inputs}
    for slot in (*outputs, *states):
        last_use[slot] = len(steps)
    aliases = Aliases(last_use)
    for slot in range(len(compiler.template)):
        aliases.foreign(slot)
    for slot in states:
        aliases.fresh(slot)
    kept = {*inputs, *states, *outputs, NO_VALUE}
    kept |= {i for i, value in enumerate(compiler.template) if value is not None}
    for i, step in enumerate(steps):
        _place(steps, i, states, aliases, compiler.in_place)
        touched = dict.fromkeys((*step.inputs, *step.outputs))
        step.free = tuple(s for s in touched if last_use.get(s, -1) <= i and s not in kept)
    copied = {o for o in outputs if not aliases.owned(o) or aliases.shared(o) & states}
    return steps, copied


def _place(
    steps: list[Step], i: int, states: set[int], aliases: Aliases, in_place: Mapping[int, Callable[..., Any]]
) -> None:
    """Says whose memory the results of step i are, and makes it write in place where nobody would notice."""
    step = steps[i]
    if step.op == "write_state":
        _place_write(step, states, aliases)
    elif step.op == "slice_update" and aliases.free_to_write(step.inputs[0], i, _replaced(steps, i, states)):
        step.kernel = in_place[step.output]
        aliases.view(step.output, step.inputs[:1])
    elif step.op == "read_state" or (step.op in OPS and OPS[step.op].view):
        for slot in step.outputs:
            aliases.view(slot, step.inputs)
    else:
        for slot in step.outputs:
            aliases.fresh(slot)


def _place_write(step: Step, states: set[int], aliases: Aliases) -> None:
    """A state takes the written array itself where it is the program's own and no other state's; else a copy."""
    (data,) = step.inputs
    others = (aliases.shared(data) & states) - {step.output}
    if aliases.owned(data) and not others:
        aliases.view(step.output, (data,))
    else:
        step.kernel = _copy
        aliases.fresh(step.output)


def _copy(x: Any) -> Any:
    return x.copy()


def _replaced(steps: list[Step], i: int, states: set[int]) -> list[int]:
    """The states that are written after step i before anyone reads them: their old content may be lost."""
    replaced = []
    undecided = set(states)
    for step in steps[i + 1 :]:
        if step.op == "write_state" and step.output in undecided:
            undecided.discard(step.output)
            replaced.append(step.output)
        undecided -= set(step.inputs)
        if not undecided:
            break
    return replaced


def _with_loads(compiler: _Compiler) -> Iterator[Step]:
    """The steps, with a load before the first use of each constant that is not kept; it is freed after its last use."""
    loaded: set[int] = set()
    for step in compiler.steps:
        for slot in step.inputs:
            if slot in compiler.unkept and slot not in loaded:
                loaded.add(slot)
                yield Step(compiler.unkept[slot].load, (), slot, (slot,), False, False, "const", step.name)
        yield step
