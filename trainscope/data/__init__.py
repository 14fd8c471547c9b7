"""Data sets by name, and pinned samples of them."""

from trainscope.data.class_index import with_class_index
from trainscope.data.dataset import Dataset
from trainscope.data.given import Given, given_data
from trainscope.data.pin import pin, pin_random, pinned, suited_to
from trainscope.data.probe_data import LabelSource, ProbeData
from trainscope.data.spec import RandomInputs, is_factory, is_text, load
from trainscope.data.split import Augment, Split, TensorSplit
from trainscope.data.text import Reading

__all__ = [
    "Augment",
    "Dataset",
    "Given",
    "LabelSource",
    "ProbeData",
    "RandomInputs",
    "Reading",
    "Split",
    "TensorSplit",
    "given_data",
    "is_factory",
    "is_text",
    "load",
    "pin",
    "pin_random",
    "pinned",
    "suited_to",
    "with_class_index",
]
