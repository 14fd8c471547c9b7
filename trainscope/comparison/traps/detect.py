"""All traps of a set of groups and Diagnoses."""

from __future__ import annotations

from collections.abc import Sequence

from trainscope.comparison.grounds import kin
from trainscope.comparison.settings import Setting
from trainscope.comparison.traps.convergence import (
    best_epoch,
    decayed_too_early,
    not_converged,
    not_finished,
)
from trainscope.comparison.traps.learning_rate import above_ceiling, too_low
from trainscope.comparison.traps.pruning import no_op, stale_batch_norm
from trainscope.comparison.traps.trap import Trap
from trainscope.records import Diagnosis


def detect(groups: Sequence[Setting], diagnoses: Sequence[Diagnosis] = ()) -> list[Trap]:
    """Return every trap that a setting fell into, group by group.

    How many of a group's runs a trap takes is its own. A setting is held against others only with
    the same optimizer settings, and on the pruned networks that both retrained.

    Args:
        groups: The settings.
        diagnoses: Measurements of the same networks before and after the action.
    """
    families = kin(groups)
    found: list[Trap | None] = []
    for item in groups:
        family = next((held for held in families if item in held), [])
        others = [other for other in family if other is not item]
        found += [
            no_op(item),
            not_finished(item, groups),
            decayed_too_early(item),
            not_converged(item, others),
            too_low(item, others),
            above_ceiling(item, diagnoses),
            best_epoch(item),
        ]
    found += [stale_batch_norm(diagnosis) for diagnosis in diagnoses]
    return [trap for trap in found if trap is not None]
