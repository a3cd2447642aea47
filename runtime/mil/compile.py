"""A function of a package -> steps that run one after the other, with all that is known beforehand resolved."""

from __future__ import annotations

import difflib
import math
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from satchel.runtime.errors import FormatError
from satchel.runtime.manifest import TensorSpec
from satchel.runtime.mil.constants import Constant, Pool, from_constexpr, from_value
from satchel.runtime.mil.limits import Limit, checked
from satchel.runtime.mil.ops import OPS
from satchel.runtime.mil.ops.base import Op, move
from satchel.runtime.mil.ops.binding import RNG, bind, check_arguments, signature
from satchel.runtime.mil.ops.control import BLOCK_OPS
from satchel.runtime.mil.ops.movement import identity, slice_update_in_place
from satchel.runtime.mil.package import Package
from satchel.runtime.mil.placement import place
from satchel.runtime.mil.precision import Precision
from satchel.runtime.mil.regions import with_regions
from satchel.runtime.mil.steps import FRAME_SLOT, NO_VALUE, RESERVED, RNG_SLOT, Block, Executable, Step, walk
from satchel.runtime.mil.values import is_state, spec

__all__ = ["OP_ERRORS", "Block", "Executable", "Step", "compile_function"]

READ_STATE = move(identity)
IN_PLACE = Op(slice_update_in_place, exact=True)
# What numpy and our functions raise when the shapes or types of a program do not fit together.
OP_ERRORS = (ValueError, IndexError, TypeError, AttributeError, KeyError, ZeroDivisionError, MemoryError, OverflowError)
LARGE_TABLE = 1 << 20  # bytes of a table from which a gather expands the rows that it needs, and no others
TUPLE_OPS = ("split", *BLOCK_OPS)  # whose functions return a tuple even where there is one output
EMPTY_LISTS = ("make_list", "while_loop")  # ops that may have a list of no arguments
OPSETS = {"CoreML5": 15, "CoreML6": 16, "CoreML7": 17, "CoreML8": 18, "CoreML9": 26}  # -> iOS version
Reference = str | Any  # the name of a value, or the proto of a constant


@dataclass
class _Named:
    """A constant that the program gave a name to; its slot, once somebody needs it as an array."""

    constant: Constant
    spec: TensorSpec
    slot: int | None = None


@dataclass
class _Compiler:
    """What is known of a function while its ops are gone through.

    Attributes:
        names: of the values that can be seen, innermost block first -> slot, or the constant.
        kernels: output slot of a slice_update -> (kernel that copies, kernel that writes in place).
        steps: of the block that is being compiled.
    """

    package: Package
    pool: Pool
    precision: Precision
    opset: int
    function: str
    limit: Limit
    template: list[Any] = field(default_factory=lambda: [None] * RESERVED)
    names: ChainMap[str, int | _Named] = field(default_factory=ChainMap)
    specs: dict[int, TensorSpec] = field(default_factory=dict)
    unkept: dict[int, Constant] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    state_slots: set[int] = field(default_factory=set)
    kernels: dict[int, tuple[Callable[..., Any], Callable[..., Any]]] = field(default_factory=dict)

    def new_slot(self, value: Any = None) -> int:
        """A further slot."""
        self.template.append(value)
        return len(self.template) - 1

    def define(self, named: Any) -> int:
        """A slot for an input of the function or of a block, or an output of an op."""
        slot = self.new_slot()
        self._name(named.name, slot)
        self.specs[slot] = spec(named)
        return slot

    def _name(self, name: str, value: int | _Named) -> None:
        if name in self.names.maps[0]:
            raise FormatError("value of the program", got=f"'{name}' defined twice", wanted="one definition each")
        self.names[name] = value

    def _name_constant(self, output: Any, constant: Constant) -> None:
        self._name(output.name, _Named(constant, spec(output)))

    def slot(self, name: str) -> int:
        """The slot of a value; a constant is loaded when it is first asked for."""
        found = self.names.get(name)
        if found is None:
            hint = "the program is malformed: an op uses a value before it is defined"
            raise FormatError("value of the program", got=name, wanted="a value defined before", hint=hint)
        if isinstance(found, int):
            return found
        if found.slot is None:
            found.slot = self._constant_slot(found.constant)
        return found.slot

    def _constant_slot(self, constant: Constant) -> int:
        value = self.pool.get(constant)
        slot = self.new_slot(value)
        if value is None:
            self.unkept[slot] = constant
        return slot

    def settle(self) -> dict[int, Any]:
        """Fills in the large constants that the limit allows to keep; slot -> value for those kept in fp16."""
        self.pool.settle(self.unkept.values())
        halves = {}
        for slot, constant in list(self.unkept.items()):
            if (value := self.pool.get(constant)) is not None:
                self.template[slot] = value
                del self.unkept[slot]
            elif (half := self.pool.half(constant)) is not None:
                halves[slot] = half
                self.unkept[slot] = replace(constant, load=partial(_widened, half))
        return halves

    # ---- one op ----------------------------------------------------------------------------------------------

    def add(self, op: Any) -> None:
        """Compiles one op of the block."""
        what = f"{op.type} '{op_name(op)}'"
        if op.type == "const":
            self._name_constant(_single(op, what), from_value(self.package, op.attributes["val"]))
        elif op.type == "read_state":
            self._step(op, READ_STATE, identity, (self._only(op, "input", what),))
        elif op.type == "write_state":
            self._write_state(op, what)
        elif op.type in BLOCK_OPS:
            self._with_blocks(op, what)
        elif op.type not in OPS or op.blocks:
            raise unknown_op(op.type, what)
        elif op.type.startswith("constexpr_"):
            self._constexpr(op, what)
        else:
            self._plain(op, what)

    def _constexpr(self, op: Any, what: str) -> None:
        arguments = {name: self._constant(refs[0], what) for name, refs in references(op).items()}
        check_arguments(OPS[op.type], what, arguments)
        for index, output in enumerate(op.outputs):
            part = index if len(op.outputs) > 1 else None
            rounds = self.precision == "fp16"
            constant = from_constexpr(op.type, output, arguments, rounds, part, self.pool.overflows)
            self.limit.check_constant(what, constant.nbytes)
            self._name_constant(output, constant)

    def _constant(self, ref: Reference, what: str) -> Constant:
        if not isinstance(ref, str):
            return from_value(self.package, ref)
        found = self.names.get(ref)
        if not isinstance(found, _Named):
            raise FormatError(f"argument of {what}", got=ref, wanted="a constant")
        return found.constant

    def _plain(self, op: Any, what: str) -> None:
        known, arguments = OPS[op.type], references(op)
        statics = signature(known.run).statics
        constants = {n: self._static(refs, what) for n, refs in arguments.items() if self._known(n, refs, statics)}
        run = checked(known.run, op.type, what, self.limit)
        bound = bind(known, what, arguments, constants, self.opset, run)
        if op.type == "gather" and self._gathers_rows(op, arguments, bound.statics, what):
            return
        self._step(op, known, bound.kernel, tuple(self._operand(arguments, o) for o in bound.operands))
        self.steps[-1].statics = bound.statics
        if op.type == "slice_update":
            in_place = bind(IN_PLACE, what, arguments, constants).kernel
            self.kernels[self.steps[-1].output] = (bound.kernel, in_place)

    def _gathers_rows(
        self, op: Any, arguments: dict[str, list[Reference]], statics: Mapping[str, Any] | None, what: str
    ) -> bool:
        """Compiles a gather from a large constant, of which only the rows that are asked for are ever expanded."""
        table = self.names.get(arguments["x"][0]) if isinstance(arguments["x"][0], str) else None
        plain = statics is not None and not statics.get("axis", 0) and not statics.get("batch_dims", 0)
        if not isinstance(table, _Named) or table.constant.nbytes < LARGE_TABLE or not plain:
            return False
        rows = table.constant.find_rows()
        if rows is None:
            return False
        kernel = partial(_take_rows, rows, table.spec.shape, self.limit, what)
        self._step(op, OPS["gather"], kernel, (self._operand(arguments, "indices"),))
        return True

    def _known(self, name: str, refs: list[Reference], statics: Mapping[str, Any]) -> bool:
        """Whether an argument is a small constant that the function wants handed over as such."""
        return name in statics and (not isinstance(refs[0], str) or isinstance(self.names.get(refs[0]), _Named))

    def _static(self, refs: list[Reference], what: str) -> Any:
        """The value of a small constant; a list of them makes a list."""
        values = [self._constant(ref, what).load() for ref in refs]
        return values[0] if len(values) == 1 else values

    def _operand(self, arguments: dict[str, list[Reference]], operand: str | tuple[str, int] | None) -> int:
        if operand is None or operand == RNG:
            return NO_VALUE if operand is None else RNG_SLOT
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
        outputs, what = tuple(self.define(o) for o in op.outputs), f"{op.type} '{op_name(op)}'"
        if not outputs:
            raise FormatError(what, got="no outputs", wanted="at least one")
        specs = tuple(self.specs[slot] for slot in outputs)
        for each in specs:
            self.limit.check_spec(what, each)
        rounds = self.precision == "fp16" and any(s.dtype == "float16" for s in specs) and not known.exact
        output = outputs[0] if len(outputs) == 1 and op.type not in TUPLE_OPS else -1
        head = (kernel, inputs, output, outputs, rounds, known.contraction, op.type, op_name(op))
        self.steps.append(Step(*head, specs=specs))

    # ---- blocks ----------------------------------------------------------------------------------------------

    def _with_blocks(self, op: Any, what: str) -> None:
        known, arguments = BLOCK_OPS[op.type], references(op)
        if set(arguments) - {known.argument} or (op.type == "cond" and len(arguments.get("pred", ())) != 1):
            raise FormatError(f"arguments of {what}", got=sorted(arguments), wanted=known.argument)
        count = len(arguments.get(known.argument, ()))
        inputs = tuple(self._operand(arguments, (known.argument, i)) for i in range(count))
        blocks = tuple(self.block(b) for b in op.blocks)
        known.check(what, blocks, count, len(op.outputs))
        outputs = tuple(self.define(o) for o in op.outputs)
        kernel = partial(known.run, blocks=blocks)
        head = (kernel, (FRAME_SLOT, *inputs), -1, outputs, False, False, op.type, op_name(op))
        self.steps.append(Step(*head, specs=tuple(self.specs[slot] for slot in outputs), blocks=blocks))

    def block(self, block: Any) -> Block:
        """Compiles a block inside an op; what it names is forgotten after it."""
        outer, self.steps = self.steps, []
        self.names = self.names.new_child()
        inputs = tuple(self.define(named) for named in block.inputs)
        self.operations(block)
        outputs = tuple(self.slot(name) for name in block.outputs)
        self.names = self.names.parents
        steps, self.steps = tuple(self.steps), outer
        compiled = Block(steps, inputs, outputs)
        own = set(compiled.own())
        read = dict.fromkeys([slot for step in steps for slot in step.reads] + list(outputs))
        compiled.captured = tuple(slot for slot in read if slot not in own and slot >= RESERVED)
        return compiled

    def operations(self, block: Any) -> None:
        """Compiles the ops of a block, one after the other."""
        for op in block.operations:
            try:
                self.add(op)
            except OP_ERRORS as error:
                what, hint = f"{op.type} '{op_name(op)}' in {self.function}", "the program is malformed"
                raise FormatError(what, got=repr(error), hint=hint) from error


def _widened(half: Any) -> Any:
    return half.astype(np.float32)


def _take_rows(rows: Callable[[Any], Any], shape: Sequence[int | str], limit: Limit, what: str, indices: Any) -> Any:
    """The rows of a constant at these places, counted from the end where negative."""
    places, (count, *rest) = np.asarray(indices), (int(n) for n in shape)
    limit.check(what, places.size * math.prod(rest))
    if places.size and not (-count <= places.min() and places.max() < count):
        raise IndexError(f"index {places.max() if places.max() >= count else places.min()} into {count} rows")
    return rows(np.where(places < 0, places + count, places))


def references(op: Any) -> dict[str, list[Reference]]:
    """Every argument of an op -> what it refers to: a value by its name, or a constant's proto."""
    found: dict[str, list[Reference]] = {}
    for name, argument in op.inputs.items():
        found[name] = [b.name if b.WhichOneof("binding") == "name" else b.value for b in argument.arguments]
        if not found[name] and op.type not in EMPTY_LISTS:
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
    close = difflib.get_close_matches(op_type[:64], OPS, 3)
    hint = (
        "add a function to satchel/runtime/mil/ops and a line to its dict, or run the package on a Mac; "
        f"closest known ops: {', '.join(close) or 'none'}"
    )
    return FormatError(
        what, got=f"op '{op_type}'", wanted=f"one of the {len(OPS)} ops that the interpreter has", hint=hint
    )


def compile_function(
    package: Package, name: str, precision: Precision, pool: Pool, limit: Limit | None = None, threads: int = 0
) -> Executable:
    """Compiles a function; FormatError names the op where something is wrong with it.

    With a number of threads, runs of fp32 ops go to onnxruntime where that pays (see regions/).
    """
    limit = limit or Limit()
    compiler = _Compiler(package, pool, precision, _opset(package, name), name, limit)
    inputs: list[tuple[TensorSpec, int]] = []
    states: list[tuple[TensorSpec, int]] = []
    for named in package.function(name).inputs:
        slot = compiler.define(named)
        (states if is_state(named.type) else inputs).append((spec(named), slot))
        if is_state(named.type):
            limit.check_spec(f"state {named.name}", spec(named))
    compiler.state_slots = {slot for _, slot in states}
    block = package.block(name)
    compiler.operations(block)
    outputs = tuple((_output_spec(compiler, output), compiler.slot(output)) for output in block.outputs)
    halves = compiler.settle()
    if threads and precision == "fp32":
        template = [halves.get(i, value) for i, value in enumerate(compiler.template)]
        returned = [slot for _, slot in outputs]
        known = (template, compiler.specs, returned, compiler.unkept.keys() - halves.keys())
        compiler.steps = with_regions(compiler.steps, *known, threads)
    steps = tuple(_with_loads(compiler))
    kept, returned = {slot for _, slot in (*inputs, *states, *outputs)}, [slot for _, slot in outputs]
    copied = place(steps, compiler.kernels, len(compiler.template), [s for _, s in states], returned, kept)
    names = frozenset(sp.name for sp, slot in outputs if slot in copied)
    random = any(RNG_SLOT in step.inputs for step in walk(steps))
    ends = (tuple(inputs), tuple(states), outputs, names, random, limit)
    return Executable(name, precision, steps, tuple(compiler.template), *ends)


def _opset(package: Package, name: str) -> int:
    opset = package.function(name).opset
    if opset not in OPSETS:
        raise FormatError(f"opset of function {name}", got=opset, wanted=list(OPSETS))
    return OPSETS[opset]


def _output_spec(compiler: _Compiler, name: str) -> TensorSpec:
    compiler.slot(name)
    found = compiler.names[name]
    return found.spec if isinstance(found, _Named) else compiler.specs[found]


def _with_loads(compiler: _Compiler) -> Iterator[Step]:
    """The steps, with a load before the first use of each constant that is not kept; it is freed after its last use."""
    loaded: set[int] = set()
    for step in compiler.steps:
        for slot in step.reads:
            if slot in compiler.unkept and slot not in loaded:
                loaded.add(slot)
                yield Step(compiler.unkept[slot].load, (), slot, (slot,), False, False, "const", step.name)
        yield step
