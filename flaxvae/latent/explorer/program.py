"""A JAX function as a small program that a web page can run.

The function is traced, and its equations are translated to a closed set of steps on
arrays of float32: products, convolutions, element-wise functions, strided copies,
reductions, gathers, scans. What depends on constants alone is computed beforehand, what
the result does not depend on is left out, and large constants are stored in float16.
``src/engine.js`` runs the steps.
"""

import base64
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import (
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    Literal,
    Var,
    jaxpr_as_fun,
)

from flaxvae.checks import InputError
from flaxvae.nn.conv_primitives import NATIVE
from flaxvae.types import Json

Shape = tuple[int, ...]

SMALL = 256  # numbers; constants of fewer are stored in float32
LARGEST_HALF = 6e4
FOLDED = 4096  # numbers; a constant result of more must not exceed what it depends on

ELEMENTWISE = {  # primitives that map numbers to numbers under the same name
    *("add", "sub", "mul", "div", "max", "min", "pow", "rem", "atan2", "neg", "abs"),
    *("sign", "exp", "exp2", "log", "log1p", "expm1", "tanh", "logistic", "erf", "sin"),
    *("cos", "tan", "sinh", "cosh", "sqrt", "rsqrt", "cbrt", "square", "floor"),
    *(
        "ceil",
        "is_finite",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "clamp",
        "erfc",
        "asinh",
    ),
    *("acosh", "atanh", "asin", "acos", "atan", "and", "or", "xor"),
}
COPIES = {  # the same numbers in the same order
    *("reshape", "squeeze", "expand_dims", "copy", "copy_p", "stop_gradient"),
    *("reduce_precision", "optimization_barrier", "pvary", "sharding_constraint"),
}
REDUCTIONS = {
    "reduce_sum": "sum",
    "reduce_max": "max",
    "reduce_min": "min",
    "reduce_prod": "prod",
    "reduce_and": "min",
    "reduce_or": "max",
    "argmax": "argmax",
    "argmin": "argmin",
}
CUMULATIVE = {"cumsum": "sum", "cumprod": "prod", "cummax": "max", "cummin": "min"}
INLINED = {  # primitives that call a function: the name of the parameter with it
    **dict.fromkeys(("jit", "pjit", "closed_call", "core_call", "remat2"), "jaxpr"),
    **dict.fromkeys(("checkpoint", "custom_vjp_call_jaxpr"), "jaxpr"),
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


def translate(
    function: Callable[..., object],
    inputs: Mapping[str, jax.ShapeDtypeStruct],
    outputs: Sequence[str],
    *,
    key: jax.Array | None = None,
) -> dict[str, Json]:
    """The program of a function of arrays, as JSON.

    Args:
      function: called with ``inputs`` by position, and with ``key`` after them where
        there is one; returns an array or a sequence of arrays.
      inputs: names, shapes and types.
      outputs: a name for each array that it returns.
      key: of draws from standard normal distributions. Each becomes an input of its own
        in place of a constant, so that the page can draw again.

    Returns:
      ``values``: shape of each value; ``inputs``, ``outputs``: values by name;
      ``noise``: values that hold standard normal numbers; ``constants``: ``[value,
      offset in bytes, type]``; ``steps``: ``[operation, results, operands, parameters,
      whether it is the same for all inputs]``; ``data``: the constants in base64.

    Raises:
      InputError: a primitive that the page cannot run.
    """
    given = [jnp.zeros(s.shape, s.dtype) for s in inputs.values()]
    more = [] if key is None else [key]
    closed = jax.make_jaxpr(lambda *a: jax.tree.leaves(function(*a)))(*given, *more)
    builder = _Builder()
    known = [builder.add_input(v) for v in closed.jaxpr.invars[: len(given)]]
    keys = [builder.add_value((), True) for _ in more]
    builder.keys.update(keys)
    found = builder.inline(closed, [*known, *keys])
    named = dict(zip(inputs, known, strict=True))
    return builder.finish(named, dict(zip(outputs, found, strict=True)))


@dataclass
class _Step:
    """One step: an equation, whose primitive is ``operation``, or one of the page."""

    operation: str
    results: list[int]
    operands: list[int]
    params: dict[str, Json] = field(default_factory=dict)
    equation: JaxprEqn | None = None
    body: "_Body | None" = None
    module: str = ""  # that has called the primitive, as far as it is known

    @property
    def known_equation(self) -> JaxprEqn:
        """The equation of a step that has one."""
        assert self.equation is not None
        return self.equation

    @property
    def given(self) -> dict[str, Any]:
        """The parameters of its primitive."""
        return self.known_equation.params


@dataclass
class _Body:
    """The steps of a scan: values of its operands, steps, values of its results."""

    operands: list[int]
    steps: list[_Step]
    results: list[int]


class _Builder:
    """Collects values, constants and steps."""

    def __init__(self) -> None:
        self.shapes: list[Shape] = []
        self.is_integer: list[bool] = []
        self.constants: dict[int, np.ndarray | jax.Array] = {}
        self.keys: set[int] = set()  # values that depend on nothing but the key
        self.noise: set[int] = set()
        self.varying: set[int] = set()  # values that depend on the inputs
        self.steps: list[_Step] = []
        self.body = 0  # depth of scans
        self.modules: list[str] = []  # that have called the function that is inlined

    def add_value(self, shape: Shape, is_integer: bool = False) -> int:
        self.shapes.append(tuple(int(n) for n in shape))
        self.is_integer.append(is_integer)
        return len(self.shapes) - 1

    def add_input(self, variable: Var) -> int:
        value = self._of(variable)
        self.varying.add(value)
        return value

    def add_constant(self, array: np.ndarray | jax.Array) -> int:
        kind = np.dtype(array.dtype).kind
        value = self.add_value(array.shape, kind in "iub")
        self.constants[value] = array
        return value

    def _of(self, variable: Var) -> int:
        form = _shape_of(variable)
        is_key = jax.dtypes.issubdtype(form.dtype, jax.dtypes.extended)
        is_real = is_key or jnp.issubdtype(form.dtype, jnp.floating)
        return self.add_value(form.shape, not is_real)

    def inline(self, closed: ClosedJaxpr, operands: Sequence[int]) -> list[int]:
        """The values that a traced function returns; its steps are added."""
        constants = [self.add_constant(c) for c in closed.consts]
        return self._inline(closed.jaxpr, constants, operands)

    def _inline(
        self, jaxpr: Jaxpr, constants: Sequence[int], operands: Sequence[int]
    ) -> list[int]:
        env: dict[Var, int] = dict(zip(jaxpr.constvars, constants, strict=True))
        env |= dict(zip(jaxpr.invars, operands, strict=True))

        def read(atom: Var | Literal) -> int:
            if isinstance(atom, Literal):
                return self.add_constant(np.asarray(atom.val))
            return env[atom]

        for equation in jaxpr.eqns:
            found = self._add(equation, [read(atom) for atom in equation.invars])
            env |= dict(zip(equation.outvars, found, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _add(self, equation: JaxprEqn, operands: list[int]) -> list[int]:
        name, params = equation.primitive.name, equation.params
        if name in INLINED:
            inner = params[INLINED[name]]
            self.modules.append(str(equation.source_info.name_stack))
            if not isinstance(inner, ClosedJaxpr):
                inner = ClosedJaxpr(inner, [])
            found = self.inline(inner, operands)
            self.modules.pop()
            return found
        platforms = params.get("branches_platforms")
        if name == "cond" and platforms is not None:
            branch = next(i for i, p in enumerate(platforms) if p is None)
            return self.inline(params["branches"][branch], operands[1:])
        if equation.primitive in NATIVE:
            native = functools.partial(NATIVE[equation.primitive], **params)
            shapes = [_shape_of(v) for v in equation.invars]
            return self.inline(jax.make_jaxpr(native)(*shapes), operands)
        results = [self._of(v) for v in equation.outvars]
        if any(v in self.varying for v in operands) or self.body:
            self.varying.update(results)
        elif any(v in self.keys for v in operands):
            self.keys.update(results)
        parts = (*self.modules, str(equation.source_info.name_stack))
        module = "/".join(part for part in parts if part)
        step = _Step(name, results, operands, equation=equation, module=module)
        if name == "scan":
            if any(v in self.keys for v in operands):
                return self._unroll(equation, operands)
            step.body = self._trace_body(params["jaxpr"])
        self.steps.append(step)
        return results

    def _unroll(self, equation: JaxprEqn, operands: list[int]) -> list[int]:
        """A scan that draws, as its steps one after the other."""
        params = equation.params
        first, count = params["num_consts"], params["num_carry"]
        body = jaxpr_as_fun(params["jaxpr"])
        numbers = range(params["length"])

        def run(*values: jax.Array) -> list[jax.Array]:
            fixed, carry = values[:first], list(values[first : first + count])
            rows = []
            for i in reversed(numbers) if params["reverse"] else numbers:
                found = body(*fixed, *carry, *(x[i] for x in values[first + count :]))
                carry, row = found[:count], found[count:]
                rows.append(row)
            rows = rows[::-1] if params["reverse"] else rows
            return [*carry, *(jnp.stack(row) for row in zip(*rows, strict=True))]

        shapes = [_shape_of(v) for v in equation.invars]
        return self.inline(jax.make_jaxpr(run)(*shapes), operands)

    def _trace_body(self, closed: ClosedJaxpr) -> _Body:
        outer, self.steps = self.steps, []
        self.body += 1
        operands = [self._of(v) for v in closed.jaxpr.invars]
        results = self.inline(closed, operands)
        self.body -= 1
        body = _Body(operands, self.steps, results)
        self.steps = outer
        return body

    def finish(
        self, inputs: Mapping[str, int], outputs: Mapping[str, int]
    ) -> dict[str, Json]:
        """The program: what the outputs depend on, translated and numbered."""
        needed = _needed(self.steps, list(outputs.values()))
        needed = self._fold([step for step in needed if self._is_run(step)])
        lowered = _Lowering(self)
        for step in needed:
            lowered.add(step)
        steps = _needed(lowered.steps, list(outputs.values()))
        return self._describe(steps, inputs, outputs)

    def _is_run(self, step: _Step) -> bool:
        """Whether the page runs it; draws of the key become noise instead."""
        if self.keys.issuperset(step.results):
            return False
        self.noise.update(v for v in step.operands if v in self.keys)
        return True

    def _fold(self, steps: list[_Step]) -> list[_Step]:
        """Computes what depends on constants alone; the steps that remain."""
        known, folded, rest = set(self.constants), [], []
        for step in steps:
            size = sum(map(self.size, step.results))
            most = max(FOLDED, sum(map(self.size, step.operands)))
            if known.issuperset(step.operands) and size <= most:
                folded.append(step)
                known.update(step.results)
            else:
                rest.append(step)
        used = {v for step in rest for v in _operands(step)}
        wanted = [v for step in folded for v in step.results if v in used]
        # Outputs that are constants are kept, too: they are no operand of any step.
        wanted += [v for step in folded for v in step.results if v not in used]
        sources = sorted({v for s in folded for v in s.operands} & set(self.constants))

        @jax.jit
        def compute(*values: jax.Array) -> list[jax.Array]:
            env: dict[int, jax.Array] = dict(zip(sources, values, strict=True))
            for step in folded:
                assert step.equation is not None
                primitive, params = step.equation.primitive, step.equation.params
                found = primitive.bind(*(env[v] for v in step.operands), **params)
                found = found if primitive.multiple_results else [found]
                env |= dict(zip(step.results, found, strict=True))
            return [env[v] for v in wanted]

        if folded:
            found = compute(*(jnp.asarray(self.constants[v]) for v in sources))
            self.constants |= dict(zip(wanted, found, strict=True))
        return rest

    def size(self, value: int) -> int:
        return math.prod(self.shapes[value])

    def _describe(
        self,
        steps: list[_Step],
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
    ) -> dict[str, Json]:
        numbers: dict[int, int] = {}

        def number(value: int) -> int:
            return numbers.setdefault(value, len(numbers))

        def describe(step: _Step, depth: int = 0) -> list[Json]:
            params = dict(step.params)
            if step.body is not None:
                body = step.body
                params["operands"] = [number(v) for v in body.operands]
                params["steps"] = [describe(s, depth + 1) for s in body.steps]
                params["results"] = [number(v) for v in body.results]
            is_fixed = not depth and not self.varying.intersection(step.results)
            return [
                step.operation,
                [number(v) for v in step.results],
                [number(v) for v in step.operands],
                params,
                int(is_fixed),
            ]

        for value in (*inputs.values(), *outputs.values()):
            number(value)
        described: list[Json] = [describe(step) for step in steps]
        data, constants = bytearray(), list[Json]()
        for value, own in numbers.items():
            if value in self.constants:
                kind, part = _pack(np.asarray(self.constants[value]))
                constants.append([own, len(data), kind])
                data += part + bytes(-len(part) % 4)
        return {
            "values": [list(self.shapes[v]) for v in numbers],
            "inputs": {name: numbers[v] for name, v in inputs.items()},
            "outputs": {name: numbers[v] for name, v in outputs.items()},
            "noise": [numbers[v] for v in sorted(self.noise) if v in numbers],
            "constants": constants,
            "steps": described,
            "data": base64.b64encode(data).decode(),
        }


def _operands(step: _Step) -> list[int]:
    """The values that a step reads, those inside a scan too."""
    inner = [] if step.body is None else step.body.steps
    own = [] if step.body is None else step.body.results
    return [*step.operands, *own, *(v for each in inner for v in _operands(each))]


def _needed(steps: Sequence[_Step], outputs: Sequence[int]) -> list[_Step]:
    """The steps that the outputs depend on, in their order."""
    wanted, kept = set(outputs), []
    for step in reversed(steps):
        if wanted.intersection(step.results):
            if step.body is not None:
                step.body.steps = _needed(step.body.steps, step.body.results)
            wanted.update(_operands(step))
            kept.append(step)
    return kept[::-1]


def _pack(array: np.ndarray) -> tuple[str, bytes]:
    """The type and the bytes of a constant: ``h`` float16, ``f`` float32, ``i``."""
    if array.dtype.kind in "iub":
        return "i", array.astype("<i4").tobytes()
    numbers = np.asarray(array, np.float32)
    is_large = array.size >= SMALL and np.isfinite(numbers).all()
    if is_large and np.abs(numbers).max() < LARGEST_HALF:
        return "h", numbers.astype("<f2").tobytes()
    return "f", numbers.astype("<f4").tobytes()


class _Lowering:
    """From equations to the operations of the page."""

    def __init__(self, builder: _Builder) -> None:
        self.builder = builder
        self.steps: list[_Step] = []

    def emit(
        self, operation: str, results: list[int], operands: list[int], **params: Json
    ) -> None:
        self.steps.append(_Step(operation, results, operands, params))

    def value(self, shape: Shape, like: int) -> int:
        """A new value that varies as another one."""
        own = self.builder
        value = own.add_value(shape, own.is_integer[like])
        if like in own.varying:
            own.varying.add(value)
        return value

    def view(
        self,
        source: int,
        shape: Shape,
        strides: Sequence[int],
        offset: int = 0,
        result: int | None = None,
    ) -> int:
        """A strided copy of a value."""
        found = self.value(shape, source) if result is None else result
        self.emit("view", [found], [source], strides=[*strides], offset=offset)
        return found

    def copy(self, source: int, shape: Shape, result: int | None = None) -> int:
        """The same numbers in another shape."""
        found = self.value(shape, source) if result is None else result
        self.emit("copy", [found], [source])
        return found

    def permute(
        self, source: int, order: Sequence[int], result: int | None = None
    ) -> int:
        """A transposed value."""
        shape = self.builder.shapes[source]
        turned = tuple(shape[axis] for axis in order)
        moved = [axis for axis in order if shape[axis] > 1]
        if moved == sorted(moved):
            return self.copy(source, turned, result)
        strides = _strides(shape)
        return self.view(source, turned, [strides[a] for a in order], 0, result)

    def add(self, step: _Step) -> None:
        """Translates one equation.

        Raises:
          InputError: a primitive that the page cannot run.
        """
        if step.operation in ELEMENTWISE:
            self._elementwise(step)
        elif step.operation in COPIES:
            for source, result in zip(step.operands, step.results, strict=False):
                self.emit("copy", [result], [source])
        elif step.operation in TRANSLATIONS:
            TRANSLATIONS[step.operation](self, step)
        else:
            raise InputError(_refusal(step))

    def _elementwise(self, step: _Step) -> None:
        (out,) = step.results
        shape = self.builder.shapes[out]
        whole = self.builder.is_integer[out] and step.operation == "div"
        operation = "idiv" if whole else step.operation
        self.emit(operation, [out], [self._spread(v, shape) for v in step.operands])

    def _convert(self, step: _Step) -> None:
        to = np.dtype(step.given["new_dtype"]).kind
        is_real = not self.builder.is_integer[step.operands[0]]
        how = "bool" if to == "b" else "trunc" if to in "iu" and is_real else "copy"
        self.emit(how, step.results, step.operands)

    def _not(self, step: _Step) -> None:
        is_bool = _shape_of(step.known_equation.outvars[0]).dtype == np.bool_
        self.emit("not" if is_bool else "invert", step.results, step.operands)

    def _round(self, step: _Step) -> None:
        is_even = "EVEN" in str(step.given["rounding_method"])
        operation = "round_even" if is_even else "round"
        self.emit(operation, step.results, step.operands)

    def _select(self, step: _Step) -> None:
        if len(step.operands) != 3:  # of more than two cases
            raise InputError(_refusal(step))
        shape = self.builder.shapes[step.results[0]]
        spread = [self._spread(v, shape) for v in step.operands]
        self.emit("select", step.results, spread)

    def _split(self, step: _Step) -> None:
        (x,), axis, at = step.operands, step.given["axis"], 0
        shape = self.builder.shapes[x]
        for result, size in zip(step.results, step.given["sizes"], strict=True):
            first = [0] * len(shape)
            first[axis], at = at, at + int(size)
            self._slice(x, result, first, [1] * len(first))

    def _slice_by_strides(self, step: _Step) -> None:
        start, strides = step.given["start_indices"], step.given["strides"]
        strides = strides or (1,) * len(start)
        self._slice(step.operands[0], step.results[0], start, strides)

    def _reverse(self, step: _Step) -> None:
        (x,), axes = step.operands, step.given["dimensions"]
        shape = self.builder.shapes[x]
        first = [n - 1 if i in axes else 0 for i, n in enumerate(shape)]
        steps = [-1 if i in axes else 1 for i in range(len(first))]
        self._slice(x, step.results[0], first, steps)

    def _join(self, step: _Step, axis: int) -> None:
        shapes = [self.builder.shapes[v] for v in step.operands]
        inner = [math.prod(shape[axis:]) for shape in shapes]
        self.emit("concat", step.results, step.operands, sizes=list[Json](inner))

    def _count_up(self, step: _Step) -> None:
        (out,), axis = step.results, step.given["dimension"]
        shape = self.builder.shapes[out]
        line = self.builder.add_constant(np.arange(shape[axis]))
        self._broadcast(line, out, (axis,))

    def _cumulate(self, step: _Step) -> None:
        axis, shape = step.given["axis"], self.builder.shapes[step.operands[0]]
        self.emit(
            "cumulate",
            step.results,
            step.operands,
            kind=CUMULATIVE[step.operation],
            size=shape[axis],
            inner=math.prod(shape[axis + 1 :]),
            reverse=bool(step.given["reverse"]),
        )

    def _transpose(self, step: _Step) -> None:
        self.permute(step.operands[0], step.given["permutation"], step.results[0])

    def _reduce_axes(self, step: _Step) -> None:
        kind = REDUCTIONS[step.operation]
        self._reduce(kind, step.operands[0], step.results[0], step.given["axes"])

    def _keep(self, step: _Step) -> None:
        """An operation of the same name in the page."""
        self.emit(step.operation, step.results, step.operands)

    def _spread(self, x: int, shape: Shape) -> int:
        """A value in a shape in which its axes of length 1 may be longer.

        Single numbers stay: element-wise steps repeat them.
        """
        if self.builder.size(x) == 1 or self.builder.shapes[x] == shape:
            return x
        spread = self.value(shape, x)
        self._broadcast(x, spread, range(len(shape)))
        return spread

    def _broadcast(self, x: int, out: int, axes: Sequence[int]) -> None:
        shape, target = self.builder.shapes[x], self.builder.shapes[out]
        if math.prod(shape) == math.prod(target):
            self.copy(x, target, out)
            return
        own, strides = _strides(shape), [0] * len(target)
        for axis, n, stride in zip(axes, shape, own, strict=True):
            strides[axis] = stride if n > 1 else 0
        self.view(x, target, strides, 0, out)

    def _slice(
        self, x: int, out: int, start: Sequence[int], steps: Sequence[int]
    ) -> None:
        own = _strides(self.builder.shapes[x])
        offset = sum(int(s) * n for s, n in zip(start, own, strict=True))
        strides = [int(s) * n for s, n in zip(steps, own, strict=True)]
        self.view(x, self.builder.shapes[out], strides, offset, out)

    def _pad(
        self, operands: list[int], out: int, config: Sequence[tuple[int, int, int]]
    ) -> None:
        x, fill = operands
        shape, target = self.builder.shapes[x], self.builder.shapes[out]
        own, whole = _strides(shape), _strides(target)
        kept, first, offset = [], 0, 0
        config = [(int(low), int(high), int(inner)) for low, high, inner in config]
        for axis, (low, _, inner) in enumerate(config):
            step = inner + 1
            skipped = -(min(low, 0) // step)  # rows that a negative pad removes
            at = low + skipped * step
            last = (target[axis] - 1 - at) // step
            count = max(min(shape[axis] - skipped, last + 1), 0)
            kept.append(count)
            first += skipped * own[axis]
            offset += at * whole[axis]
        part = self.view(x, tuple(kept), own, first)
        strides = [n * (c[2] + 1) for n, c in zip(whole, config, strict=True)]
        self.emit(
            "place", [out], [part, fill], strides=list[Json](strides), offset=offset
        )

    def _reduce(self, kind: str, x: int, out: int, axes: Sequence[int]) -> None:
        shape = self.builder.shapes[x]
        rest = [axis for axis in range(len(shape)) if axis not in axes]
        turned = self.permute(x, [*rest, *axes])
        size = math.prod(shape[axis] for axis in axes)
        self.emit("reduce", [out], [turned], kind=kind, size=size)

    def _dot(
        self,
        operands: list[int],
        out: int,
        numbers: tuple[tuple[Sequence[int], ...], tuple[Sequence[int], ...]],
    ) -> None:
        (left_sum, right_sum), (left_batch, right_batch) = numbers
        left, right = operands
        a, b = self.builder.shapes[left], self.builder.shapes[right]
        rows = [i for i in range(len(a)) if i not in (*left_sum, *left_batch)]
        columns = [i for i in range(len(b)) if i not in (*right_sum, *right_batch)]
        # Of constants, transposed once: (batch, rows, sum) and (batch, sum, columns).
        turned = [
            self.permute(left, [*left_batch, *rows, *left_sum]),
            self.permute(right, [*right_batch, *right_sum, *columns]),
        ]
        self.emit(
            "dot",
            [out],
            turned,
            batch=math.prod(a[i] for i in left_batch),
            rows=math.prod(a[i] for i in rows),
            sum=math.prod(a[i] for i in left_sum),
            columns=math.prod(b[i] for i in columns),
        )

    def _convolve(self, step: _Step) -> None:
        """As images of two axes ``(B, H, W, I)`` with a kernel ``(kh, kw, I, O)``.

        Series have rows of length 1 before their steps.
        """
        params, shapes = step.given, self.builder.shapes
        operands, out = step.operands, step.results[0]
        numbers = params["dimension_numbers"]
        x_order, k_order, y_order = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
        x = self.permute(operands[0], [x_order[0], *x_order[2:], x_order[1]])
        k = self.permute(operands[1], [*k_order[2:], k_order[1], k_order[0]])
        moved = [y_order[0], *y_order[2:], y_order[1]]
        result = tuple(shapes[out][axis] for axis in moved)
        more = 4 - len(result)
        if more < 0:
            raise InputError(_refusal(step))

        def pair(values: Sequence[int], default: int = 1) -> list[Json]:
            return [*[default] * more, *map(int, values)]

        y = self.value(result, x)
        self.emit(
            "conv",
            [y],
            [x, k],
            batch=shapes[x][0],
            size=pair(shapes[x][1:]),
            kernel=pair(shapes[k]),
            result=pair(result[1:]),
            strides=pair(params["window_strides"]),
            pads=pair([low for low, _ in params["padding"]], 0),
            dilation=pair(params["rhs_dilation"]),
            spread=pair(params["lhs_dilation"]),
            groups=int(params["feature_group_count"]),
        )
        self.permute(y, [moved.index(axis) for axis in range(len(moved))], out)

    def _gather(self, step: _Step) -> None:
        params = step.given
        d = params["dimension_numbers"]
        self.emit(
            "gather",
            step.results,
            step.operands,
            offset=[int(i) for i in d.offset_dims],
            collapsed=[int(i) for i in d.collapsed_slice_dims],
            map=[int(i) for i in d.start_index_map],
            batch=[int(i) for i in d.operand_batching_dims],
            index_batch=[int(i) for i in d.start_indices_batching_dims],
            sizes=[int(n) for n in params["slice_sizes"]],
        )

    def _scatter(self, step: _Step) -> None:
        d = step.given["dimension_numbers"]
        self.emit(
            "scatter",
            step.results,
            step.operands,
            window=[int(i) for i in d.update_window_dims],
            inserted=[int(i) for i in d.inserted_window_dims],
            map=[int(i) for i in d.scatter_dims_to_operand_dims],
            batch=[int(i) for i in d.operand_batching_dims],
            index_batch=[int(i) for i in d.scatter_indices_batching_dims],
            add=step.operation != "scatter",
        )

    def _scan(self, step: _Step) -> None:
        if step.body is None:
            raise InputError(_refusal(step))
        params = step.given
        inner = _Lowering(self.builder)
        for each in step.body.steps:
            inner.add(each)
        body = _Body(step.body.operands, inner.steps, step.body.results)
        given: dict[str, Json] = {
            "constants": int(params["num_consts"]),
            "carry": int(params["num_carry"]),
            "length": int(params["length"]),
            "reverse": bool(params["reverse"]),
        }
        self.steps.append(_Step("scan", step.results, step.operands, given, body=body))


TRANSLATIONS: dict[str, Callable[[_Lowering, _Step], None]] = {
    "convert_element_type": _Lowering._convert,
    "not": _Lowering._not,
    "integer_pow": lambda to, step: to.emit(
        "integer_pow", step.results, step.operands, power=int(step.given["y"])
    ),
    "round": _Lowering._round,
    "select_n": _Lowering._select,
    "broadcast_in_dim": lambda to, step: to._broadcast(
        step.operands[0], step.results[0], step.given["broadcast_dimensions"]
    ),
    "transpose": _Lowering._transpose,
    "slice": _Lowering._slice_by_strides,
    "split": _Lowering._split,
    "rev": _Lowering._reverse,
    "concatenate": lambda to, step: to._join(step, step.given["dimension"]),
    "stack": lambda to, step: to._join(step, step.given["axis"]),
    "pad": lambda to, step: to._pad(
        step.operands, step.results[0], step.given["padding_config"]
    ),
    "iota": _Lowering._count_up,
    **dict.fromkeys(REDUCTIONS, _Lowering._reduce_axes),
    **dict.fromkeys(CUMULATIVE, _Lowering._cumulate),
    "dot_general": lambda to, step: to._dot(
        step.operands, step.results[0], step.given["dimension_numbers"]
    ),
    "conv_general_dilated": _Lowering._convolve,
    "dynamic_slice": _Lowering._keep,
    "dynamic_update_slice": _Lowering._keep,
    "gather": _Lowering._gather,
    **dict.fromkeys(("scatter", "scatter_add", "scatter-add"), _Lowering._scatter),
    "scan": _Lowering._scan,
}
"""From a primitive, other than those of `ELEMENTWISE` and `COPIES`, to its steps."""


def _shape_of(variable: Var | Literal) -> jax.ShapeDtypeStruct:
    """The shape and type of a variable of a jaxpr."""
    form = cast(jax.core.ShapedArray, variable.aval)
    return jax.ShapeDtypeStruct(form.shape, form.dtype)


def _strides(shape: Shape) -> list[int]:
    """Numbers between neighbours along each axis.

    >>> _strides((2, 3, 4))
    [12, 4, 1]
    """
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def _refusal(step: _Step) -> str:
    """Why a model has no page: the primitive, and the module that uses it."""
    where = f" in {step.module}" if step.module else ""
    return (
        f"the explorer must be of a model without the primitive {step.operation!r}"
        f"{where}: its page cannot compute it"
    )
