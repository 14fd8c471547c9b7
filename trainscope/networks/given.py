"""What a person brings: a module as a Network, and inputs of another size for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from trainscope.errors import CheckpointError, DataError, TaskError
from trainscope.foreign import reason
from trainscope.networks.belongings import as_it_belongs
from trainscope.networks.copies import whole_copy
from trainscope.networks.example import Example, as_example
from trainscope.networks.forward import check_forward
from trainscope.networks.guess_shape import GUESSED
from trainscope.networks.mask_use import inverted_mask
from trainscope.networks.network import Network
from trainscope.networks.origin import noticed
from trainscope.task import Batch, Classification, Outputs, Task
from trainscope.task.batches import TARGETS, beside, described, targets, tensors
from trainscope.task.modes import eval_mode, evaluating
from trainscope.task.task import answers, is_ragged, sample_shape, why_reaching


def brought(network: Network, dtype: torch.dtype | None = None) -> Network:
    """Return a network of somebody's own as it is measured, and as it came pruned.

    Args:
        network: Not touched; of one in another dtype a copy is taken, as files of it are opened,
            and a note says so.
        dtype: In which it is measured; by default float32 where it is in half precision (or less),
            and as it is otherwise.

    Raises:
        CheckpointError: It has quantised layers.
    """
    _refuse_quantised(network.module)
    refuse_sparse(network.module)
    tensors = [*network.module.parameters(), *network.module.buffers()]
    held = {t.dtype for t in tensors if t.is_floating_point()}
    other = {d for d in held if (d.itemsize < 4 if dtype is None else d != dtype)}
    if not other:
        return noticed(network)
    kinds = " and ".join(sorted(str(each).removeprefix("torch.") for each in other))
    wanted = dtype or torch.float32
    word = str(wanted).removeprefix("torch.")
    note = f"Its weights are {kinds}; a copy of them in {word} is measured."
    copied = whole_copy(network.module).to(wanted)
    if dtype is None and len(held) > 1 and _converts(network, copied):
        note = (
            f"Its code turns what it computes into {kinds} by itself, so it is measured as it is."
        )
        return noticed(replace(network, notes=(*network.notes, note)))
    return noticed(replace(network, module=copied, notes=(*network.notes, note)), own=True)


def _converts(network: Network, copied: nn.Module) -> bool:
    """Tell a network whose code needs the dtypes that its layers have: a copy in one does not run.

    Args:
        network: As it was given.
        copied: It in one dtype, whose buffers a pass may change.
    """
    if _runs(whole_copy(copied), network):
        return False
    return _runs(whole_copy(network.module), network)


def _runs(module: nn.Module, network: Network) -> bool:
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            as_example(network.inputs, samples=2).run(evaluating(module))
    except Exception:  # whatever the network's code raises
        return False
    return True


def given_network(module: nn.Module, batch: Batch, task: Task) -> Network:
    """Return a module as a Network, in its own mode and on its own device.

    Args:
        module: Run once in eval mode without gradients; modes and random states are put back.
        batch: Of the task; at most two samples are put forward, and shown to the task's losses.
        task: What the module is asked to do.

    Raises:
        CheckpointError: It does not take such a batch, or its outputs do not fit the task.
    """
    if isinstance(module, nn.DataParallel):
        module = module.module
    name = type(module).__name__
    refuse_uninitialised(module)
    _refuse_meta(module)
    _refuse_quantised(module)
    refuse_sparse(module)
    few = task.select(batch, torch.arange(min(2, task.size(batch))))
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    example = call_of(module, few, task)
    shape = sample_shape(task, (example.args, dict(example.kwargs)))
    few = beside(few, like) if like.numel() else few
    try:
        with (
            as_it_belongs(module),
            torch.no_grad(),
            eval_mode(module),
            torch.random.fork_rng(devices=[]),
        ):
            out = task.outputs(module, few)
            said = answers(task, module, few, out)
    except TaskError as error:
        raise CheckpointError(f"{name}: {error}") from error
    except Exception as error:  # whatever the module's own code raises
        raise CheckpointError(
            f"{name} does not take {_inputs_of(shape)}: {reason(error)}" + _hint(error, few)
        ) from error
    wrong = inverted_mask(module, lambda twin: task.outputs(twin, few))
    if wrong is not None:
        raise CheckpointError(f"{name}: {wrong}")
    plain = len(example.args) == 1 and not example.kwargs and _is_floating(example.args[0])
    classes = _classes(name, out, few, task)
    if type(task) is not Classification:
        _check_terms(name, out, said, few, task)
        why = why_reaching(task, module, few, out)
        if why is not None:
            raise CheckpointError(f"{name}: {why}")
    return Network(
        module=module,
        architecture=name,
        input_shape=shape,
        num_classes=classes,
        recognised="the module that was given",
        example=None if plain else example,
    )


def refuse_uninitialised(module: nn.Module) -> None:
    """Refuse a network with lazy layers that have seen no batch yet.

    Raises:
        CheckpointError: There is one.
    """
    named = (*module.named_parameters(), *module.named_buffers())
    lazy = next((name for name, each in named if is_lazy(each)), None)
    if lazy is not None:
        raise CheckpointError(
            f"{type(module).__name__}: '{lazy}' has no shape yet, as in a lazy layer before its "
            "first batch: put a batch through the network first"
        )


def _refuse_meta(module: nn.Module) -> None:
    """Refuse a network whose weights have no numbers.

    Raises:
        CheckpointError: One of them is on the meta device.
    """
    empty = next((name for name, each in module.named_parameters() if each.is_meta), None)
    if empty is not None:
        raise CheckpointError(
            f"{type(module).__name__}: '{empty}' is on the meta device and holds no numbers: load "
            "its weights first (to_empty(), then load_state_dict(), or assign=True)"
        )


def _refuse_quantised(module: nn.Module) -> None:
    """Refuse a network with layers of whole numbers, which take no part in any gradient.

    Raises:
        CheckpointError: torch's quantisation made one.
    """
    for name, each in module.named_modules():
        if ".quantized." in type(each).__module__:
            raise CheckpointError(
                f"{type(module).__name__}: '{name}' is a quantised layer ({type(each).__name__}), "
                "whose weights have no gradient: give the network from before quantisation"
            )


def refuse_sparse(module: nn.Module) -> None:
    """Refuse a network with parameters of sparse layouts, whose zeros have no place in memory.

    Buffers may be lists of coordinates; of those in compressed rows torch makes no copy.

    Raises:
        CheckpointError: One of them is such.
    """
    fit = (torch.strided, torch.sparse_coo)
    bad: list[tuple[str, str, Tensor]]
    bad = [("parameter", *row) for row in module.named_parameters() if row[1].layout is not fit[0]]
    bad += [("buffer", *row) for row in module.named_buffers() if row[1].layout not in fit]
    for kind, name, each in bad:
        layout = str(each.layout).removeprefix("torch.")
        raise CheckpointError(
            f"{type(module).__name__}: the {kind} '{name}' is {layout}: give the network with a "
            "dense one (to_dense()); zeros of weights are seen as pruned"
        )


def _inputs_of(shape: tuple[int, ...]) -> str:
    return f"inputs of shape {'x'.join(map(str, shape))}" if shape else "inputs of one number each"


def _hint(error: Exception, batch: Batch) -> str:
    """Return what may put right a call that failed, "" where nothing is known."""
    if isinstance(batch, Mapping) and "dict" in str(error):
        entries = ", ".join(repr(name) for name in batch if name not in TARGETS)
        return (
            f"; a batch's entries ({entries}) go to the arguments of forward that are called so, "
            "and where none is, it gets the dictionary: call them alike, or give tuples "
            "(inputs, labels)"
        )
    if any(leaf.dtype == torch.uint8 for leaf in tensors(batch)[:1]):
        return (
            "; the inputs are of torch.uint8: give floating-point inputs, normalised as the "
            "network was trained on them, or a network that makes them so"
        )
    if isinstance(error, TypeError) and "missing" in str(error) and "argument" in str(error):
        return (
            "; where it takes several entries of a batch, say how many (a task with inputs=2, as "
            "FromLoss(loss, inputs=2) or --task classification:inputs=2)"
        )
    if isinstance(error, NotImplementedError) and "eval()" in str(error):
        return "; torch.export's module cannot be put into eval mode: give the network itself"
    if "boxes" in str(described(_last_target(batch))):
        return "; of lists of images with boxes, name the task (task='detection')"
    if isinstance(error, IndexError):
        return (
            "; two samples of a batch were put forward: where those of a batch belong together, as "
            "the nodes of a graph do, give a task of your own for which a batch is one sample"
        )
    return ""


def _last_target(batch: Batch) -> object:
    """Return the first of a list of targets, or nothing."""
    last = batch[-1] if isinstance(batch, tuple | list) and batch else None
    return last[0] if isinstance(last, tuple | list) and last else None


def _is_floating(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _classes(name: str, outputs: Outputs, batch: Batch, task: Task) -> int | None:
    """Return the number of classes of a classifier.

    Raises:
        CheckpointError: The outputs do not fit the task.
    """
    if not isinstance(task, Classification):
        return None
    out, count = task.logits(outputs), task.size(batch)
    labels = targets(batch, task.inputs)
    if type(task) is not Classification or (isinstance(labels, Tensor) and labels.ndim > 1):
        try:
            logits, _ = task.labelled(outputs, batch)
        except TaskError as error:
            raise CheckpointError(f"{name}: {error}") from error
        return int(logits.shape[1])
    if out.ndim != 2 or len(out) != count:
        what = f"a tensor of shape {tuple(out.shape)}"
        if not isinstance(outputs, Tensor):
            what = f"a {type(outputs).__name__} with {what}"
        raise CheckpointError(
            f"{name} returns {what} for {count} inputs and not logits of shape "
            "[samples, classes]: wrap it in a module that does, or name its task (task=, --task)"
        )
    return int(out.shape[1])


@torch.no_grad()
def _check_terms(name: str, outputs: Outputs, said: Outputs, batch: Batch, task: Task) -> None:
    """Check what a task makes of outputs, before any work is done.

    Raises:
        CheckpointError: It fails on them, or what it returns is none of what `Task` promises.
    """
    count, what = task.size(batch), type(task).__name__
    with torch.random.fork_rng(devices=[]):
        losses = _said(name, what, "losses", lambda: task.losses(outputs, batch))
        _said(name, what, "unsuited", lambda: getattr(task, "unsuited", _is_floating)(outputs))
        score = _said(name, what, "score", lambda: task.score(said, batch))
        signal = _said(name, what, "signal", lambda: task.signal(outputs))
    if not _is_floating(losses) or losses.ndim != 1 or not losses.numel():
        raise CheckpointError(
            f"losses() of the task {what} returns {described(losses)}: let it return one "
            "floating-point number a term, a tensor of shape [terms]"
        )
    if not isinstance(score, tuple | list) or len(score) != 2:
        raise CheckpointError(
            f"score() of the task {what} returns {described(score)}: let it return two numbers, "
            "the metric's sum and its count"
        )
    fits = _is_floating(signal) and signal.ndim == 2 and len(signal) == count
    if signal is not None and not fits:
        raise CheckpointError(
            f"signal() of the task {what} returns {described(signal)} for {count} samples: let it "
            "return a tensor of shape [samples, K], or None"
        )


def _said(name: str, task: str, method: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except TaskError as error:
        raise CheckpointError(f"{name}: {error}") from error
    except Exception as error:  # whatever a task of the user's raises
        raise CheckpointError(f"{method}() of the task {task} fails: {reason(error)}") from error


class _Called(BaseException):
    """A call that was caught before it was made."""


def call_of(module: nn.Module, batch: Batch, task: Task) -> Example:
    """Return what a task calls a module with; the call is not made.

    Of a task whose samples are entries of lists it is one call with all of them.

    Raises:
        CheckpointError: The task does not call it.
    """
    found: list[Example] = []
    ragged = is_ragged(task)
    call = task.call if ragged else task.outputs  # type: ignore[attr-defined]

    def catch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(Example(args, kwargs, task.size(batch) if ragged else None))
        raise _Called

    try:
        handle = module.register_forward_pre_hook(catch, with_kwargs=True, prepend=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{type(module).__name__} is TorchScript, into which nothing can look: give the "
            "network that it was scripted from"
        ) from error
    try:
        call(module, batch)
    except _Called:
        return found[0]
    except TaskError as error:
        raise CheckpointError(f"{type(module).__name__}: {error}") from error
    except Exception as error:  # whatever a task of the user's raises
        raise CheckpointError(f"{type(task).__name__} fails on a batch: {reason(error)}") from error
    finally:
        handle.remove()
    raise CheckpointError(f"{type(task).__name__} does not call the network")


def with_inputs_of(network: Network, shape: tuple[int, ...], data: str) -> Network:
    """Return a network with the input shape of the data, where it takes such inputs.

    Args:
        network: Not touched.
        shape: Of one input of the data, (C, H, W).
        data: The data's name, for the message.

    Raises:
        DataError: It takes inputs of its own shape alone.
    """
    if shape == tuple(network.input_shape):
        return network
    try:
        check_forward(network.module, shape, network.architecture)
    except CheckpointError as error:
        own, other = ("x".join(map(str, sides)) for sides in (network.input_shape, shape))
        raise DataError(
            f"{data} has inputs {other} and {network.architecture} takes {own}: give the data that "
            "it was trained on with --data"
        ) from error
    notes = tuple(note for note in network.notes if not note.startswith(GUESSED))
    return replace(network, input_shape=shape, notes=notes)
