"""Networks of transformers' own classes, built from a hub's `config.json`. Nothing is fetched.

A configuration names its classes. Only those that the installed transformers has are taken, so no
code of a folder's ever runs.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainscope.errors import CheckpointError, TaskError
from trainscope.foreign import reason
from trainscope.networks.meta import shapes_of
from trainscope.task import (
    Classification,
    LanguageModelling,
    MaskedLanguageModelling,
    Regression,
    Task,
)

PREFIX = "transformers/"
EXTRA = 'pip install "trainscope-pruning[transformers]"'
_HEADS: tuple[tuple[str, type[Task]], ...] = (
    ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", LanguageModelling),
    ("MODEL_FOR_MASKED_LM_MAPPING_NAMES", MaskedLanguageModelling),
    ("MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES", Classification),
    ("MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES", Classification),
    ("MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES", Classification),
)
"""Transformers' tables of classes by the kind of a configuration, and what such a head is for."""


class Filled(NamedTuple):
    """A network with a file's weights in it, and what did not fit.

    Attributes:
        module: It, in eval mode.
        random: The names of its tensors that no file had: their values are drawn.
        left_out: Tensors of the file that it has no place for.
        other: Tensors of another shape than the configuration says, by name: the file's shape.
    """

    module: nn.Module
    random: tuple[str, ...]
    left_out: tuple[str, ...]
    other: dict[str, tuple[int, ...]]


def class_of(config: Mapping[str, Any], task: Task | None = None) -> type[nn.Module]:
    """Return the class of transformers that a configuration describes.

    Args:
        config: The contents of `config.json`.
        task: What the network is to be asked; another head than the configuration names is taken
            where that has none for it.

    Raises:
        CheckpointError: Transformers is not installed or has no such class.
        TaskError: It has no head of this kind of network for the task.
    """
    made = config_of(config)
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    if name is not None and not isinstance(name, str):
        raise CheckpointError("config.json names its architecture by what is no word")
    own = None if name is None else _found(name, made)
    wanted = None if task is None else type(task)
    if own is not None and (wanted is None or wanted not in _kinds() or wanted is _head(own)):
        return own
    if name is not None and own is None:
        raise CheckpointError(
            f"config.json asks for the class {name}, which the installed transformers does not "
            f"have{_remote(config)}: give a folder of a network that transformers has, or open it "
            "with --model package.module:factory where you trust its code"
        )
    if task is None:
        raise CheckpointError(
            "config.json names no architecture, so the head is not known: name the task, like "
            "--task language-modelling or --task classification"
        )
    return _with_head(made, task)


def config_of(config: Mapping[str, Any]) -> Any:
    """Return transformers' configuration of a `config.json`.

    Raises:
        CheckpointError: Transformers is not installed, does not know the kind, or refuses it.
    """
    kind = config["model_type"]
    if find_spec("transformers") is None:
        raise CheckpointError(
            f"config.json describes a network of transformers ({kind}), which is not installed: "
            f"{EXTRA}"
        )
    if config.get("quantization_config"):
        raise CheckpointError(
            "config.json says that the weights are quantised (quantization_config): give the "
            "folder of the network in float32, bfloat16 or float16"
        )
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if kind not in CONFIG_MAPPING:
        raise CheckpointError(
            f"config.json is of the kind '{kind}', which the installed transformers does not know"
            f"{_remote(config)}: give a folder of a network that transformers has, or open it with "
            "--model package.module:factory where you trust its code"
        )
    try:
        with quiet():
            made = CONFIG_MAPPING[kind].from_dict(dict(config))
    except Exception as error:  # whatever a configuration's own checks raise
        raise CheckpointError(
            f"transformers refuses config.json: {reason(error)}; download the folder again"
        ) from error
    if getattr(made, "use_cache", False):
        made.use_cache = False  # keys and values of earlier tokens are of no use here
    return made


def task_of(kind: type[nn.Module], config: Any) -> Task:
    """Return what a network is asked to do, by its head.

    Raises:
        TaskError: The head is none, or of a kind that has no task here.
    """
    head = _head(kind)
    problem = getattr(config, "problem_type", None)
    if head is Classification and (problem == "regression" or config.num_labels == 1):
        return Regression()
    if head is Classification and problem == "multi_label_classification":
        head = None
    if head is not None:
        return head()
    raise TaskError(
        f"{kind.__name__} has no head whose task is known: name it with --task (classification "
        "puts a new head on it), or give your own as --task package.module:object"
    )


def load(
    kind: type[nn.Module],
    config: Any,
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Filled:
    """Return a network with these tensors as its weights.

    Tied weights are tied again, and names of older versions are those of today.

    Args:
        kind: A class of transformers.
        config: Its configuration.
        tensors: By name; they become the network's own.
        dtype: Theirs.
        seed: Of the values of tensors that are missing.

    Raises:
        CheckpointError: Transformers cannot make it.
    """
    _check_size(kind, config, tensors)
    torch.manual_seed(seed)
    loader: Any = kind
    try:
        with quiet():
            module, told = loader.from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                dtype=dtype,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **_attention(kind),
            )
    except Exception as error:  # whatever the class's own code raises
        raise CheckpointError(
            f"transformers does not load {kind.__name__} of these weights: {reason(error)}"
        ) from error
    other = {str(row[0]): tuple(row[1]) for row in told["mismatched_keys"]}
    return Filled(
        module.eval(),
        tuple(sorted(set(told["missing_keys"]) - set(other))),
        tuple(sorted(told["unexpected_keys"])),
        other,
    )


def skeleton(kind: type[nn.Module], config: Any) -> nn.Module:
    """Return the network without numbers, on the meta device."""
    with quiet(), torch.device("meta"):
        return kind(config)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from writing of what is told here in sentences."""
    from transformers.utils import logging as theirs

    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity(logging.CRITICAL)
    theirs.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()


def _check_size(kind: type[nn.Module], config: Any, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a configuration of far more weights than there are, before memory is taken."""
    try:
        shapes = shapes_of(skeleton(kind, config).state_dict())
    except Exception as error:  # whatever the class's own code raises
        raise CheckpointError(
            f"transformers does not build {kind.__name__} from config.json: {reason(error)}"
        ) from error
    count = sum(torch.Size(shape).numel() for shape in shapes.values())
    there = sum(tensor.numel() for tensor in tensors.values())
    if count > 100 * there + 10_000_000:
        raise CheckpointError(
            f"config.json describes a {kind.__name__} of {count:,} weights and the folder has "
            f"{there:,}: they are not of one network"
        )


def _attention(kind: type[nn.Module]) -> dict[str, str]:
    """Return how attention is computed: torch's own function, which has a kernel for every use."""
    return {"attn_implementation": "sdpa" if getattr(kind, "_supports_sdpa", False) else "eager"}


def _found(name: str, config: Any) -> type[nn.Module] | None:
    """Return a class of transformers by its name, None where it is none of such networks."""
    import transformers

    found = getattr(transformers, name, None) if name.isidentifier() else None
    if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
        return None
    made = getattr(found, "config_class", None)
    return found if made is not None and isinstance(config, made) else None


def _kinds() -> set[type[Task]]:
    return {kind for _, kind in _HEADS}


def _head(kind: type[nn.Module]) -> type[Task] | None:
    from transformers.models.auto import modeling_auto

    for table, task in _HEADS:
        for names in getattr(modeling_auto, table).values():
            if kind.__name__ in ((names,) if isinstance(names, str) else names):
                return task
    return None


def _with_head(config: Any, task: Task) -> type[nn.Module]:
    """Return the class of a configuration's kind with a head for a task."""
    from transformers.models.auto import modeling_auto

    for table, kind in _HEADS:
        name = getattr(modeling_auto, table).get(config.model_type)
        if kind is type(task) and name is not None:
            names = (name,) if isinstance(name, str) else name
            found = _found(names[0], config)
            if found is not None:
                _refuse_both_sides(config, task)
                return found
    raise TaskError(
        f"transformers has no {config.model_type} with a head for {type(task).__name__}: name "
        "another task with --task"
    )


def _refuse_both_sides(config: Any, task: Task) -> None:
    """Refuse to ask for the next token what sees it: an encoder."""
    from transformers.models.auto import modeling_auto

    masked = config.model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if type(task) is LanguageModelling and masked and not getattr(config, "is_decoder", False):
        raise TaskError(
            f"a {config.model_type} sees the tokens on both sides, so it cannot be asked for the "
            "next one: use --task masked-language-modelling"
        )


def _remote(config: Mapping[str, Any]) -> str:
    """Say that a configuration asks for code of its own, where it does."""
    return " (auto_map asks for code of its own, which is not run)" if "auto_map" in config else ""
