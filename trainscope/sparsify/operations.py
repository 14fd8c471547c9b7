"""What functions and methods do with channels: one rule each, None where a rule does not hold.

A rule returns the layout of the operation's result. Where it returns None, or where an operation
has no rule, the walk marks every group that the operation touches as one that cannot be cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, fx

from trainscope.sparsify.graph_step import GraphStep
from trainscope.sparsify.layout import Layout, NamedWidth, Segment

Rule = Callable[[GraphStep], Layout | None]


def elementwise(step: GraphStep) -> Layout | None:
    """Each number by itself: the layout stays."""
    layout = step.layout
    return layout if layout is not None and step.value.shape == step.source.shape else None


def spatial(step: GraphStep) -> Layout | None:
    """Pooling, padding and resizing: each channel by itself, channels on axis 1."""
    layout = step.layout
    if layout is None or layout.axis != 1 or step.value.ndim != step.source.ndim:
        return None
    return layout if step.value.shape[1] == step.source.shape[1] else None


def pad(step: GraphStep) -> Layout | None:
    """Padding, where it leaves the channels alone."""
    layout, pads = step.layout, step.argument(1, "pad")
    if layout is None or layout.axis >= step.value.ndim - len(pads) // 2:
        return None
    return layout


def addition(step: GraphStep) -> Layout | None:
    """Sum or difference: of two tensors, a residual addition."""
    return _binary(step, residual=True)


def product(step: GraphStep) -> Layout | None:
    """Product, quotient, maximum, expansion to another tensor: the channels are the same ones."""
    return _binary(step, residual=False)


def _binary(step: GraphStep, *, residual: bool) -> Layout | None:
    raw = (step.argument(0, "input", raw=True), step.argument(1, "other", raw=True))
    values = (step.source, step.argument(1, "other"))
    pairs = [(step.layout_of(r), v) for r, v in zip(raw, values, strict=True)]
    tensors = [(layout, value) for layout, value in pairs if isinstance(value, Tensor)]
    known = [(layout, value) for layout, value in tensors if layout is not None]
    if not known:
        return None
    # Counted from the right, as broadcasting aligns.
    axis = known[0][0].axis - known[0][1].ndim
    result = known[0][0].on(step.value.ndim + axis)
    wide = [(lay, v) for lay, v in tensors if v.ndim >= -axis and v.shape[axis] > 1]
    made = [step.origins.get(r) if isinstance(r, fx.Node) else None for r in raw]
    # An activation may add what it computed of one number to that number: no residual addition.
    if residual and len(wide) > 1 and (made[0] is None or made[0] != made[1]):
        for layout, _ in known:
            for group in step.groups.of(layout):
                group.residual = True
    if len(tensors) == 1:
        return result
    if any(layout.axis - value.ndim != axis for layout, value in known):
        return None
    for layout, value in known:
        if value.shape[axis] == 1 < step.value.shape[axis]:
            step.groups.block(layout, "one channel is spread over many")
    carriers = [layout for layout, _ in wide]
    if not all(carriers):  # a wide operand of unknown origin, like a parameter
        return None
    found = [layout for layout in carriers if layout is not None]
    if len(found) == 2:
        step.groups.join(found[0], found[1], step.node.name)
    return found[0].on(step.value.ndim + axis) if found else None


def reduce(step: GraphStep) -> Layout | None:
    """Mean, sum and the like over axes other than the channels'."""
    layout, dims = step.layout, step.argument(1, "dim")
    if layout is None or dims is None:
        return None
    ndim = step.source.ndim
    axes = {d % ndim for d in ([dims] if isinstance(dims, int) else dims)}
    if layout.axis in axes or not isinstance(step.value, Tensor):
        return None
    if step.value.ndim == ndim:
        return layout
    return layout.on(layout.axis - sum(axis < layout.axis for axis in axes))


def flatten(step: GraphStep) -> Layout | None:
    """Flattening from the channels on: each channel is repeated for each of its positions."""
    start, end = step.argument(1, "start_dim", 0), step.argument(2, "end_dim", -1)
    return flattened(step, start, end)


def flattened(step: GraphStep, start: int, end: int) -> Layout | None:
    """Return the layout after flattening axes `start` to `end`."""
    layout, shape = step.layout, step.source.shape
    start, end = start % len(shape), end % len(shape)
    if layout is None or start < layout.axis <= end:
        return None
    if layout.axis < start:
        return layout
    if layout.axis > end:
        return layout.on(layout.axis - (end - start))
    return layout.repeated(math.prod(shape[layout.axis + 1 : end + 1]))


def reshape(step: GraphStep) -> Layout | None:
    """View or reshape that keeps the channels on one axis, or flattens all that follows them."""
    layout, old, new = step.layout, step.source.shape, step.value.shape
    if layout is None:
        return None
    before, after = math.prod(old[: layout.axis]), math.prod(old[layout.axis + 1 :])
    sizes = step.sizes(raw=True)
    for axis, size in enumerate(new):
        if math.prod(new[:axis]) != before or size == 1:
            continue
        if _is_fixed(step, axis):  # a width written into the code would be wrong after the cut
            step.groups.block(layout, "its outputs are reshaped to a width written into the code")
            return None
        if size in (old[layout.axis], old[layout.axis] * after):
            repeat = 1 if size == old[layout.axis] else after
            result = layout.on(axis).repeated(repeat)
            if axis < len(sizes) and isinstance(sizes[axis], NamedWidth):
                step.groups.widths.append((sizes[axis].name, result))
            return result
    return None


def expand(step: GraphStep) -> Layout | None:
    """Expansion of axes other than the channels'."""
    layout = step.layout
    if layout is None or step.value.ndim != step.source.ndim:
        return None
    same = step.value.shape[layout.axis] == step.source.shape[layout.axis]
    return layout if same and not _is_fixed(step, layout.axis) else None


def _is_fixed(step: GraphStep, axis: int) -> bool:
    sizes = step.sizes(raw=True)
    if not step.literal or axis >= len(sizes) or isinstance(sizes[axis], NamedWidth):
        return False
    return isinstance(sizes[axis], int) and sizes[axis] != -1


def permute(step: GraphStep) -> Layout | None:
    """Reordering of axes."""
    layout, order = step.layout, step.sizes()
    if layout is None or not order:
        return None
    return layout.on([axis % step.source.ndim for axis in order].index(layout.axis))


def transpose(step: GraphStep) -> Layout | None:
    """Exchange of two axes."""
    layout, ndim = step.layout, step.source.ndim
    if layout is None:
        return None
    one, two = step.argument(1, "dim0") % ndim, step.argument(2, "dim1") % ndim
    return layout.on({one: two, two: one}.get(layout.axis, layout.axis))


def squeeze(step: GraphStep) -> Layout | None:
    """Removal of axes of length one, the channels' not among them."""
    layout, shape = step.layout, step.source.shape
    dims = step.argument(1, "dim")
    if layout is None or shape[layout.axis] == 1:
        return None
    chosen = range(len(shape)) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {d % len(shape) for d in chosen if shape[d] == 1}
    return layout.on(layout.axis - sum(axis < layout.axis for axis in gone))


def unsqueeze(step: GraphStep) -> Layout | None:
    """A new axis of length one."""
    layout, dim = step.layout, step.argument(1, "dim") % step.value.ndim
    return None if layout is None else layout.on(layout.axis + (dim <= layout.axis))


def getitem(step: GraphStep) -> Layout | None:
    """Indexing that takes all channels."""
    layout, index = step.layout, step.args[1]
    index = index if isinstance(index, tuple) else (index,)
    if layout is None or not all(isinstance(i, (int, slice)) for i in index):
        return None
    if layout.axis < len(index) and index[layout.axis] != slice(None):
        return None
    return layout.on(layout.axis - sum(isinstance(i, int) for i in index[: layout.axis]))


def select(step: GraphStep) -> Layout | None:
    """One place of an axis that is not the channels' (ATen's `select`)."""
    layout, ndim = step.layout, step.source.ndim
    dim = step.argument(1, "dim") % ndim
    if layout is None or layout.axis == dim:
        return None
    return layout.on(layout.axis - (dim < layout.axis))


def part(step: GraphStep) -> Layout | None:
    """Places of an axis that is not the channels', or all channels (ATen's `slice`)."""
    layout = step.layout
    if layout is None:
        return None
    return layout if step.value.shape[layout.axis] == step.source.shape[layout.axis] else None


def concatenate(step: GraphStep) -> Layout | None:
    """Concatenation: along the channels one layout after the other, else the same channels."""
    raw, values = step.argument(0, "tensors", raw=True), step.argument(0, "tensors")
    layouts = [step.layout_of(part) for part in raw]
    known = [layout for layout in layouts if layout is not None]
    axis = known[0].axis if known else 0
    if not known or any(layout.axis != axis for layout in known):
        return None
    if step.argument(1, "dim", 0) % step.value.ndim != axis:
        if len(known) < len(layouts):
            return None
        for layout in known[1:]:
            step.groups.join(known[0], layout, step.node.name)
        return known[0]
    segments: list[Segment] = []
    for part, value in zip(layouts, values, strict=True):
        if part is None:  # channels of unknown origin keep their place and cannot be cut
            width = value.shape[axis]
            segments.append(Segment(step.groups.new(width, blocked="not made by a layer")))
        else:
            segments.extend(part.segments)
    return Layout(axis, tuple(segments))


def split(step: GraphStep) -> list[Layout] | None:
    """Consecutive parts: along the channels each part has its own, else each has all of them."""
    layout, values = step.layout, step.value
    if layout is None or not values:
        return None
    dim = step.argument(2, "dim", 0)
    if dim % step.source.ndim != layout.axis:
        return [layout] * len(values)
    if step.literal and step.function != "chunk":
        return None  # a width written into the code
    return step.groups.split(layout, [value.shape[layout.axis] for value in values])


def glu(step: GraphStep) -> Layout | None:
    """One half of the channels times the sigmoid of the other."""
    return halved(step, step.argument(1, "dim", -1))


def halved(step: GraphStep, dim: int) -> Layout | None:
    """Return the layout after the product of both halves of an axis."""
    layout = step.layout
    if layout is None:
        return None
    if dim % step.source.ndim != layout.axis:
        return layout
    half = step.source.shape[layout.axis] // 2
    parts = step.groups.split(layout, [half, half])
    if parts is None:
        return None
    step.groups.join(parts[0], parts[1], step.node.name)
    return parts[0]


SPLITS = ("chunk", "split", "split_with_sizes", "unsafe_split", "unsafe_chunk", "tensor_split")
"""Functions that return consecutive parts of a tensor."""


def _named(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


FUNCTIONS: dict[str, Rule] = {
    **_named(
        elementwise,
        "relu relu6 leaky_relu elu selu celu gelu silu mish sigmoid tanh hardswish hardsigmoid "
        "hardtanh softplus softsign logsigmoid dropout dropout1d dropout2d dropout3d alpha_dropout "
        "feature_dropout contiguous clone detach float double half bfloat16 to type neg abs exp "
        "sqrt square clamp clip pow stochastic_depth alias to_copy",
    ),
    **_named(
        spatial,
        "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
        "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
        "adaptive_max_pool3d interpolate upsample_nearest1d upsample_nearest2d upsample_nearest3d "
        "max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices "
        "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d",
    ),
    **_named(addition, "add iadd sub isub radd rsub subtract"),
    **_named(
        product, "mul imul rmul multiply div truediv itruediv divide maximum minimum expand_as"
    ),
    **_named(reduce, "mean sum amax amin std var"),
    **_named(reshape, "view reshape"),
    **_named(concatenate, "cat concat concatenate"),
    "pad": pad,
    "glu": glu,
    "flatten": flatten,
    "expand": expand,
    "permute": permute,
    "transpose": transpose,
    "swapaxes": transpose,
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "getitem": getitem,
    "select": select,
    "slice": part,
}
"""Rules by the name of a function or method, trailing underscores (in place) taken off."""
