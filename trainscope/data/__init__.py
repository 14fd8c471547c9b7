"""Data sets by name, and pinned samples of them."""

from trainscope.data.class_index import with_class_index
from trainscope.data.dataset import Dataset
from trainscope.data.given import Given, given_data
from trainscope.data.pin import pin, pin_random
from trainscope.data.probe_data import LabelSource, ProbeData
from trainscope.data.spec import RandomInputs, load
from trainscope.data.split import Augment, Split, TensorSplit

__all__ = [
    "Augment",
    "Dataset",
    "Given",
    "LabelSource",
    "ProbeData",
    "RandomInputs",
    "Split",
    "TensorSplit",
    "given_data",
    "load",
    "pin",
    "pin_random",
    "with_class_index",
]
