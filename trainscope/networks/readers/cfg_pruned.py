"""A pruned network with the widths of its layers: `cfg` and `state_dict`.

Network slimming and Liu et al.'s "Rethinking the Value of Network Pruning" save so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainscope.networks.network import Remembered
from trainscope.networks.readers.contents import Contents
from trainscope.networks.readers.numbers import accuracy_of, whole_of
from trainscope.networks.state_dict import is_state_dict


def recognises(obj: object) -> bool:
    """Say whether a dictionary holds a state dict and the widths of its layers."""
    return (
        isinstance(obj, Mapping)
        and isinstance(obj.get("cfg"), Sequence)
        and not isinstance(obj["cfg"], str)
        and is_state_dict(obj.get("state_dict"))
    )


def read(obj: object) -> Contents:
    """Return the weights; the layers' widths are those of the tensors, which cannot be wrong."""
    assert isinstance(obj, Mapping)
    return Contents(
        state_dict=obj["state_dict"],
        format="pruned network with its cfg",
        remembered=Remembered(
            epochs=whole_of(obj.get("epoch")), accuracy=accuracy_of(obj.get("best_prec1"))
        ),
    )
