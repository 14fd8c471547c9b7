"""What criteria are told of a network beside its weights, and how that is collected."""

from trainscope.sparsify.statistics.source import Source
from trainscope.sparsify.statistics.statistic import FROM_DATA, Statistic, Statistics
from trainscope.sparsify.statistics.subject import Subject, Unit

__all__ = ["FROM_DATA", "Source", "Statistic", "Statistics", "Subject", "Unit"]
