"""What a pickle would look up, read off its opcodes."""

from __future__ import annotations

import collections
import io
import os
import pickle
import random

import pytest

from trainscope.networks.readers.pickle_names import named_in


class _Call:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_names_are_found_in_every_protocol(protocol):
    held = [collections.OrderedDict(a=1), _Call(), _Call(), random.Random]
    data = pickle.dumps(held, protocol)
    assert {"collections.OrderedDict", "posix.system", "random.Random"} <= set(
        named_in(io.BytesIO(data))
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_objects_name_nothing(protocol):
    data = pickle.dumps({"os": "system", "n": [1, 2.5, None, b"x"]}, protocol)
    names = named_in(io.BytesIO(data))
    assert [name for name in names if name != "_codecs.encode"] == []


def test_the_stream_is_left_behind_the_pickle():
    stream = io.BytesIO(pickle.dumps([1], 2) + b"rest")
    named_in(stream)
    assert stream.read() == b"rest"


def test_other_bytes_are_a_value_error():
    with pytest.raises(ValueError, match=r"\w"):
        named_in(io.BytesIO(b"no pickle"))
