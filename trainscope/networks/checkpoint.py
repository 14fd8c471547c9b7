"""Checkpoint files to networks and back."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from trainscope.errors import CheckpointError, RecordError
from trainscope.networks import registry
from trainscope.networks.custom import Trial, open_custom
from trainscope.networks.factory import from_factory
from trainscope.networks.fit import Fit, fit
from trainscope.networks.geometry import apply_geometry
from trainscope.networks.guess_shape import GUESSED
from trainscope.networks.hub import Head, dense_of, local_folder, open_hub
from trainscope.networks.layer_masks import with_layer_masks
from trainscope.networks.masks import masks_of, set_masks
from trainscope.networks.meta import Shapes
from trainscope.networks.network import Network
from trainscope.networks.origin import narrower, noticed
from trainscope.networks.parametrised import parts_of
from trainscope.networks.parts import chosen_part, part_of, with_own_head
from trainscope.networks.readers import Contents, contents_of, own
from trainscope.networks.recognise import recognise
from trainscope.networks.state_dict import Weights, told_of_masks, weights_of
from trainscope.records.files import replacing


def open_checkpoint(
    path: str | os.PathLike[str],
    *,
    arch: str | None = None,
    model: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    part: str | None = None,
    trial: Trial | None = None,
    head: Head | None = None,
    dtype: torch.dtype = torch.float32,
) -> Network:
    """Open a checkpoint as a network on the CPU, in eval mode, running no code of the file's.

    The architecture is the one said here, else the one the file names, else the one whose names
    and shapes its tensors have. Tensors narrower than the architecture's make a pruned network:
    its layers are resized to them, and it is run once. The weights are the file's, bit for bit,
    where they are of the dtype; other floating types are converted, and a note says so. Those of a
    large file stay mapped: they are read where they are used, so leave the file as it is.

    Args:
        path: The file, or a folder of a hub ("hf:DIR" too). It is opened for reading only.
        arch: The architecture's name in the registry.
        model: "package.module:factory", a network of the user's own; importing it runs its code.
        input_shape: The shape of one input, (C, H, W), where it is not the architecture's.
        part: Which network to take, where the file holds several, like "student".
        trial: How to try a network of the user's own that is no classifier of single inputs.
        head: What a network of transformers' classes is to be asked, by default what its own head
            is for.
        dtype: In which the network is measured; torch.bfloat16 halves what a large one takes.

    Raises:
        CheckpointError: The file cannot be read, holds no network, or holds one that does not fit;
            one sentence that starts with the path.
    """
    if arch is not None and model is not None:
        raise CheckpointError("--arch and --model both name the architecture; give one of them")
    if arch is not None:
        registry.architecture(arch)
    with torch.random.fork_rng(devices=[]):
        made = None if model is None else (model, from_factory(model))
        try:
            contents = contents_of(local_folder(path))
            return _open(contents, arch, made, input_shape, part, trial, head, dtype)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error


def open_contents(contents: Contents) -> Network:
    """Return the network in what was read from a file, as `open_checkpoint` does.

    Raises:
        CheckpointError: It is of no known architecture, or does not fit it.
    """
    with torch.random.fork_rng(devices=[]):
        return _open(contents)


def save_checkpoint(path: str | os.PathLike[str], network: Network) -> None:
    """Write a network, with what is remembered of its training, as one file.

    The file appears whole or not at all: it is written beside its place and moved there.

    Args:
        path: The file; one that is there is replaced, through a link too.
        network: Its masks are saved with it.

    Raises:
        CheckpointError: The folder does not exist or cannot be written.
    """
    try:
        with replacing(Path(path), make=False) as file:
            torch.save(own.write(network), file)
    except RecordError as error:
        raise CheckpointError(str(error)) from error


def _open(
    contents: Contents,
    arch: str | None = None,
    made: tuple[str, nn.Module] | None = None,
    input_shape: tuple[int, ...] | None = None,
    part: str | None = None,
    trial: Trial | None = None,
    head: Head | None = None,
    dtype: torch.dtype = torch.float32,
) -> Network:
    if part is not None and part in contents.others:
        contents, part = contents.others[part], None
    in_parts = parts_of(made[1].state_dict()) if made is not None else frozenset()
    weights = weights_of(contents.state_dict, dtype, owned=True, own=in_parts)
    if part is not None:
        weights = part_of(weights.plain(), part, contents.others)
    shape = input_shape or contents.input_shape
    named = contents.architecture or ""
    masked = weights
    if made is not None:
        if not any("mask" in name.lower() for name in made[1].state_dict()):
            masked = with_layer_masks(weights.plain(prefixes=False))
        network = _custom(made[0], made[1].to(dtype), masked, shape, trial)
    elif arch is None and contents.hub is not None:
        network, pruned = open_hub(contents.hub, weights, head, dtype)
        network = _narrowed(network, dense_of(network)) if pruned else network
    elif arch is None and ":" in named:
        # A file may not choose what is imported: only the person who opens it may.
        raise CheckpointError(
            f"the network was made by {named}; where you trust that code, say --model {named}"
        )
    else:
        masked = with_layer_masks(weights.plain())
        network = _known(masked, arch, named, shape)
    network = apply_geometry(network, contents.geometry, weights.tensors)
    if contents.num_classes not in (None, network.num_classes):
        raise CheckpointError(
            f"the file says {contents.num_classes} classes, and its network gives "
            f"{network.num_classes} logits; it was not written by one tool"
        )
    held = masks_of(network.module) if in_parts else {}  # in the network's own form
    network = replace(
        network,
        format=contents.format,
        remembered=contents.remembered,
        notes=(
            *(*contents.notes, *masked.notes),
            *((told_of_masks(held),) if held else ()),
            *network.notes,
        ),
    )
    return noticed(network, own=True)


def _custom(
    spec: str,
    module: nn.Module,
    weights: Weights,
    shape: tuple[int, ...] | None,
    trial: Trial | None,
) -> Network:
    opened = open_custom(spec, module, weights, shape, trial)
    notes = [opened.note] if opened.note else []
    if opened.guessed:
        size = "x".join(map(str, opened.input_shape))
        notes.append(f"{GUESSED}: {size}.")
    network = Network(
        module=opened.module,
        architecture=spec,
        input_shape=opened.input_shape,
        num_classes=opened.num_classes,
        recognised="--model",
        notes=tuple(notes),
        example=opened.example,
    )
    return _narrowed(network, from_factory(spec, opened.num_classes)) if opened.pruned else network


def _known(
    weights: Weights, arch: str | None, named: str, shape: tuple[int, ...] | None
) -> Network:
    weights, (chosen, how, notes) = _chosen(weights, arch, named)
    architecture = chosen.architecture
    if shape is not None:
        architecture = replace(architecture, input_shape=shape)
        chosen = replace(chosen, architecture=architecture)
    module = chosen.network(weights.tensors)
    set_masks(module, {n: mask for n, mask in weights.masks.items() if n in chosen.found})
    left_out = [name for name in weights.tensors if name not in chosen.found]
    if left_out:
        notes.append(
            f"Its auxiliary heads were left out ({left_out[0]} and {len(left_out) - 1} more)."
        )
    if architecture.note:
        notes.append(architecture.note)
    network = Network(
        module=module,
        architecture=architecture.name,
        input_shape=architecture.input_shape,
        num_classes=chosen.num_classes,
        recognised=how,
        notes=tuple(notes),
    )
    return network if chosen.exact else _narrowed(network, chosen.dense_network())


def _narrowed(network: Network, dense: nn.Module) -> Network:
    """Return a network with what is said of one that is narrower than its dense form."""
    found = narrower(dense, network)
    note = f"It is a pruned {network.architecture}: layers were resized to the tensors in the file."
    if not found.layers:
        return replace(network, notes=(*network.notes, note))
    return replace(network, notes=(*network.notes, note, found.sentence()), before=(found,))


def _chosen(
    weights: Weights, arch: str | None, named: str
) -> tuple[Weights, tuple[Fit, str, list[str]]]:
    """Return the tensors that are the network, and what `_choose` makes of them."""

    def attempt(some: Weights) -> tuple[Weights, tuple[Fit, str, list[str]]]:
        try:
            return some, _choose(some.shapes, arch, named)
        except CheckpointError:
            headed = with_own_head(some)
            if headed is None:
                raise
            fit_, how, notes = _choose(headed[0].shapes, arch, named)
            return headed[0], (fit_, how, [*notes, headed[1]])

    (taken, (found, how, notes)), beside = chosen_part(weights, attempt)
    return taken, (found, how, [*beside, *notes])


def _choose(found: Shapes, arch: str | None, named: str) -> tuple[Fit, str, list[str]]:
    """Return the fit to load, how it was found, and notes."""
    if arch is not None:
        asked = fit(registry.architecture(arch), found)
        if not asked.exact and not asked.narrower:
            raise CheckpointError(f"the weights do not fit: {asked.difference}")
        return asked, "--arch", []
    if named:
        fits = (fit(known, found) for known in registry.candidates(named))
        said = next((each for each in fits if each.exact or each.narrower), None)
        if said is not None:
            return said, "named in the file", []
    match = recognise(found)
    notes = []
    if named:
        notes.append(
            f"The file names '{named}', which its tensors do not fit; they are read as "
            f"{match.fit.architecture.name}."
        )
    if match.also:
        notes.append(f"It may as well have been {' or '.join(match.also)}.")
    return match.fit, "by names and shapes", notes
