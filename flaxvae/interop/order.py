"""The order of a PyTorch program's layers, from shapes and customary names."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from flaxvae.checks import InputError, list_names
from flaxvae.interop.program import Program, Shape, TorchLayer, torch_layers

CODE = re.compile(r"(^|_)(code|latent|bottleneck|z)($|_)")
ENOUGH = 5_000  # steps of the search for an order
MOST = 100  # orders that are compared
MEAN = re.compile(r"mu|mean|(^|_)loc")
LOG_VARIANCE = re.compile(r"(log|ln)_?(var|sigma_?(sq|2)|v$)|(^|_)lv$")
SPREAD = re.compile(r"var|std|sigma|scale")


def guess_program(
    tensors: Mapping[str, np.ndarray],
    data_shape: Shape,
    heads: Sequence[str] = (),
    order: Mapping[str, Sequence[str]] | None = None,
) -> Program:
    """The only order of a program's layers that its tensors allow.

    Shapes must follow one another from the data to the code and back. Names count as
    far as they are customary: ``enc`` and ``dec`` for the two sides, ``mu`` or ``mean``
    beside ``logvar``, ``fc21`` beside ``fc22``, and numbers for the order.

    Args:
      tensors: by name.
      data_shape: shape of one example.
      heads: names of the layers of the means and the log-variances, or of one layer of
        both or of an autoencoder's code, where they are known.
      order: names of the layers of ``"encoder"`` and ``"decoder"`` in order, where they
        are known; normalizations may stand after the other layers.

    Raises:
      InputError: no order or several fit; the message lists what is ambiguous.
    """
    layers = torch_layers(tensors)
    order = order or {}
    unknown = [n for n in (*heads, *_all(order)) if n not in layers]
    if unknown:
        raise InputError(
            f"names must be of the weights' layers, {list_names(layers, 8)}, got "
            f"{unknown[0]}"
        )
    surplus = [n for n in layers if order and n not in (*heads, *_all(order))]
    if surplus:
        raise InputError(
            "names must be of all of the weights' layers, got none for "
            f"{list_names(surplus, 8)}"
        )
    _check_data(layers, data_shape)
    is_known = bool(heads or order)
    candidates = [tuple(heads)] if is_known else list(_find_heads(layers))
    found: list[Program] = []
    for is_strict in (True, False):
        for names in candidates:
            search = _Search(
                layers,
                data_shape,
                is_strict=is_strict,
                may_be_code=bool(heads),
                order=order,
            )
            found += search.run(names)
            if search.steps > ENOUGH:
                _explain(layers, data_shape, is_known)
                raise InputError(
                    "names must say in which order the layers are applied, of which "
                    f"{len(layers)} can be put in too many"
                )
        if found:
            break
    found = list({program.describe(): program for program in found}.values())
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            "names must say in which order the layers are applied, since more than "
            f"one fits: {found[0].describe()}, or {found[1].describe()}"
        )
    _explain(layers, data_shape, is_known)
    listed = [layer.describe() for layer in layers.values() if layer.kind != "norm"]
    raise InputError(
        "names must say in which order the layers are applied, since none fits "
        f"examples of shape {data_shape}: {list_names(listed, 8)}"
    )


def _find_heads(layers: Mapping[str, TorchLayer]) -> Iterator[tuple[str, ...]]:
    """Names of pairs of heads; of single ones, by their sizes; none, of a code."""
    dense = {n: v for n, v in layers.items() if v.kind == "dense"}
    pairs = [
        (a, b)
        for a, first in dense.items()
        for b, second in dense.items()
        if (first.inputs, first.outputs) == (second.inputs, second.outputs)
        and _are_heads(a, b)
    ]
    yield from pairs
    if pairs:
        return
    reads = {layer.inputs for layer in dense.values()}
    for name, layer in dense.items():
        if layer.outputs % 2 == 0 and layer.outputs // 2 in reads:
            yield (name,)
    yield ()


def _are_heads(mean: str, log_var: str) -> bool:
    """Whether two names are customary for the means and the log-variances."""
    stem, other = mean.removesuffix("1"), log_var.removesuffix("2")
    if mean != stem and stem == other != log_var and re.search(r"\d[._]?$", stem):
        return True  # fc21, fc22
    a, b = _word(mean), _word(log_var)
    is_mean = MEAN.search(a) and not SPREAD.search(a)
    return bool(is_mean and LOG_VARIANCE.search(b))


def _explain_heads(layers: Mapping[str, TorchLayer]) -> None:
    """Raises `InputError` where the heads are what is unclear."""
    dense = [layer for layer in layers.values() if layer.kind == "dense"]
    reads = {layer.inputs for layer in dense}
    for i, a in enumerate(dense):
        for b in dense[i + 1 :]:
            is_pair = (a.inputs, a.outputs) == (b.inputs, b.outputs)
            if not is_pair or a.outputs not in reads or a.inputs == a.outputs:
                continue
            if _are_heads(a.name, b.name) or _are_heads(b.name, a.name):
                continue
            for head in (a, b):
                name = _word(head.name)
                if SPREAD.search(name) and not LOG_VARIANCE.search(name):
                    other = b.name if head is a else a.name
                    raise InputError(
                        f"names must say what {head.name} computes: if log-variances, "
                        f'{{"posterior.mean_and_log_var": ["{other}", "{head.name}"]}} '
                        "or an architecture with such names; if the logarithm of a "
                        "standard deviation, double its weight and bias first; other "
                        "scales have no counterpart here"
                    )
            raise InputError(
                f"names must say which of {a.name} and {b.name}, both {a.inputs} to "
                f"{a.outputs}, is the layer of the means and which of the "
                'log-variances: {"posterior.mean_and_log_var": '
                f'["{a.name}", "{b.name}"]}}, or the other way round'
            )


def _explain(
    layers: Mapping[str, TorchLayer], data_shape: Shape, is_known: bool
) -> None:
    """Raises `InputError` where it is clear what is not."""
    if not is_known:
        _explain_heads(layers)
    for layer in layers.values():
        ends = layer.outputs == data_shape[-1] != layer.inputs
        if layer.kind == "conv" and (ends or _side(layer.name) == "decoder"):
            raise InputError(
                "weights must be of a decoder with transposed convolutions, got the "
                f"convolution {layer.name}: write such a decoder as a Linen module"
            )


def _check_data(layers: Mapping[str, TorchLayer], data_shape: Shape) -> None:
    """Raises `InputError` where no layer can read the data."""
    size = math.prod(data_shape)
    dense = [v for v in layers.values() if v.kind == "dense"]
    convs = [v.on("encoder") for v in layers.values() if v.kind in ("conv", "either")]
    reads = [v for v in convs if v and v.inputs == data_shape[-1]]
    if not layers:
        raise InputError("weights must hold layers, got none")
    if any(v.inputs == size for v in dense) or reads:
        return
    if not dense:
        raise InputError("weights must hold dense layers, got none")
    first = next((v for v in convs if v), max(dense, key=lambda v: v.inputs))
    what = "channels" if first.kernel else "numbers"
    has = data_shape[-1] if first.kernel else size
    raise InputError(
        f"the data must be what the weights are for: {first.name} reads {first.inputs} "
        f"{what} per example, the examples of shape {data_shape} have {has}"
    )


class _Search:
    """Orders of layers whose shapes follow one another; two are enough."""

    def __init__(
        self,
        layers: Mapping[str, TorchLayer],
        data_shape: Shape,
        *,
        is_strict: bool,
        may_be_code: bool,
        order: Mapping[str, Sequence[str]],
    ) -> None:
        self.layers = layers
        self.data_shape = data_shape
        self.is_strict = is_strict  # numbers of like names must rise
        self.may_be_code = may_be_code  # a single head
        self.order = order
        self.steps = 0
        self.sides = {name: _side(name) for name in layers}
        self.numbers = {name: _numbers(name) for name in layers}
        self.patterns = {name: re.sub(r"\d+", "#", name) for name in layers}
        self.sorted = sorted(layers, key=self.numbers.__getitem__)

    def run(self, heads: tuple[str, ...]) -> list[Program]:
        """The programs with these heads, of none: autoencoders."""
        start = ("data", math.prod(self.data_shape))
        found = list(itertools.islice(self._encode(heads, [], start), MOST))
        return found if heads else _narrowest(found)

    def _encode(
        self, heads: tuple[str, ...], path: list[TorchLayer], state: tuple[str, int]
    ) -> Iterator[Program]:
        used = {layer.name for layer in path}
        if heads:
            first = self.layers[heads[0]]
            if self._follow(first, state, path) is not None:
                chosen = tuple(self.layers[name] for name in heads)
                size = first.outputs
                for is_code in (False, True):
                    if is_code and (len(heads) == 2 or not self.may_be_code):
                        continue
                    width = size if is_code or len(heads) == 2 else size // 2
                    start = Program(tuple(path), chosen, (), is_code)
                    yield from self._decode(start, [], ("flat", width))
        if not heads and state[0] == "map" and self._may_end(used):
            # The code is a feature map.
            yield from self._decode(Program(tuple(path), (), (), True), [], state)
        for layer, after in self._next(used | set(heads), path, state, "encoder"):
            yield from self._encode(heads, [*path, layer], after)
            if not heads and layer.kind == "dense" and self._may_end(used, layer.name):
                start = Program(tuple(path), (layer,), (), True)
                yield from self._decode(start, [], after)

    def _may_end(self, used: set[str], *names: str) -> bool:
        """Whether the encoder may end, after some more layers."""
        return not set(self.order.get("encoder", ())).difference(used, names)

    def _is_next(self, name: str, used: set[str], side: str) -> bool:
        """Whether a layer is the next one, where the order is known."""
        if not self.order:
            return True
        kind = self.layers[name].kind == "norm"
        return name == next(
            (
                other
                for other in self.order[side]
                if other not in used and (self.layers[other].kind == "norm") == kind
            ),
            None,
        )

    def _decode(
        self, start: Program, path: list[TorchLayer], state: tuple[str, int]
    ) -> Iterator[Program]:
        before = [*start.encoder, *start.heads]
        used = {layer.name for layer in [*before, *path]}
        if len(used) == len(self.layers):
            wanted = self.data_shape[-1]
            wanted = wanted if state[0] == "map" else math.prod(self.data_shape)
            if path and state[1] == wanted:
                yield replace(start, decoder=tuple(path))
            return
        for layer, after in self._next(used, [*before, *path], state, "decoder"):
            yield from self._decode(start, [*path, layer], after)

    def _next(
        self,
        used: set[str],
        path: Sequence[TorchLayer],
        state: tuple[str, int],
        side: str,
    ) -> Iterator[tuple[TorchLayer, tuple[str, int]]]:
        """The layers that can be applied next, and what they compute."""
        self.steps += 1
        if self.steps > ENOUGH:
            return
        last = {self.patterns[v.name]: self.numbers[v.name] for v in path}
        seen: set[object] = set()
        for name in self.sorted:
            layer = self.layers[name].on(side)
            if layer is None or name in used or not self._is_next(name, used, side):
                continue
            if self.sides[name] not in (None, side) and not self.order:
                continue
            pattern = self.patterns[name]
            is_late = self.numbers[name] < last.get(pattern, ())
            if is_late and self.is_strict and not self.order:
                continue
            kind = (pattern, layer.kind, layer.inputs, layer.outputs, layer.kernel)
            if kind in seen:  # a later one of the same kind
                continue
            after = self._follow(layer, state, path)
            if after is not None:
                seen.add(kind)
                yield layer, after

    def _follow(
        self,
        layer: TorchLayer,
        state: tuple[str, int],
        path: Sequence[TorchLayer] = (),
    ) -> tuple[str, int] | None:
        """What the layer computes from what is there, or None."""
        kind, size = state
        if layer.kind == "norm":
            is_free = path and path[-1].kind != "norm"
            return (
                state if is_free and layer.inputs == size and kind != "data" else None
            )
        places = math.prod(self.data_shape[:-1])
        if layer.kind == "dense":
            fits = layer.inputs == size
            if kind == "map":  # it is flattened
                fits = layer.inputs % size == 0 and layer.inputs // size <= places
                fits = fits and path[-1].kind != "conv_transpose"
            return ("flat", layer.outputs) if fits else None
        if len(layer.kernel) != len(self.data_shape) - 1:
            return None
        channels = self.data_shape[-1] if kind == "data" else size
        fits = layer.inputs == channels
        if kind == "flat":
            fits = layer.kind == "conv_transpose" and size % layer.inputs == 0
            fits = fits and size // layer.inputs <= places
        return ("map", layer.outputs) if fits else None


def _all(order: Mapping[str, Sequence[str]]) -> Iterator[str]:
    return itertools.chain(*order.values())


def _narrowest(programs: list[Program]) -> list[Program]:
    """Those with the code that names say, or else the narrowest one."""
    maps = [p for p in programs if not p.heads]
    programs = [p for p in programs if p.heads]
    named = [p for p in programs if CODE.search(_word(p.heads[0].name))]
    programs = named or programs
    least = min((p.heads[0].outputs for p in programs), default=0)
    return maps + [p for p in programs if p.heads[0].outputs == least]


def _word(name: str) -> str:
    """What a layer is called, without where it stands."""
    words = [part for part in name.lower().split(".") if not part.isdigit()]
    return words[-1] if words else ""


def _side(name: str) -> str | None:
    words = re.findall("[a-z]+", name.lower())
    sides = {"enc": "encoder", "dec": "decoder"}
    return next((sides[w[:3]] for w in words if w[:3] in sides), None)


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", name))
