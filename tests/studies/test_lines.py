"""Every value of a TOML file has its line."""

from __future__ import annotations

import tomllib

import pytest

from trainscope.studies.lines import lines_of

TEXT = '''# a study
name = "x # no comment"   # a comment
recipes = [
    "F1,1e-1",  # [not, a, table]
    "F2,1e-1",
    { recipe = "F3", shape = "cos=ine" },
]
"quoted.key".inner = 1

[settings]
clip = 1.0
text = """
[no]
header = 1
"""

[[action]]
ratio = [0.5, 0.9]

[[action]]

ratios = { "layer1*" = 0.5, fc = 0 }
[action.deep]
x = 1

[[exclude]]
"action.ratio" = 0.5
'''


def flat(value, path=()):
    """Return the path of every value in what tomllib read."""
    yield path
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    for key, part in inner:
        yield from flat(part, (*path, key))


def test_every_path_that_tomllib_reads_has_a_line():
    found = lines_of(TEXT)
    wanted = set(flat(tomllib.loads(TEXT))) - {()}
    assert wanted <= set(found)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("name",), 2),
        (("recipes",), 3),
        (("recipes", 1), 5),
        (("recipes", 2, "shape"), 6),
        (("quoted.key", "inner"), 8),
        (("settings", "text"), 12),
        (("action", 0), 17),
        (("action", 0, "ratio", 1), 18),
        (("action", 1, "ratios", "fc"), 22),
        (("action", 1, "deep", "x"), 24),
        (("exclude", 0, "action.ratio"), 27),
    ],
)
def test_the_line(path, line):
    assert lines_of(TEXT)[path] == line
