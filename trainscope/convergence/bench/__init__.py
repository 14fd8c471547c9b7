"""RetrainBench: curves of pruned networks, fixed splits, and the questions that judge estimators.

Without torch; the table is read when it is first asked for.
"""

from trainscope.convergence.bench.curves import METRICS, BenchCurve, load, save
from trainscope.convergence.bench.questions import KINDS, BenchQuestion, at_the_end, questions
from trainscope.convergence.bench.splits import PUT_ASIDE, BenchSplit, splits

__all__ = [
    "KINDS",
    "METRICS",
    "PUT_ASIDE",
    "BenchCurve",
    "BenchQuestion",
    "BenchSplit",
    "at_the_end",
    "load",
    "questions",
    "save",
    "splits",
]
