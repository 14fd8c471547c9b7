"""A study is a grid that is planned before anything runs; what is wrong with it has a line."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_studies import NETWORK, SETTINGS, pretraining, retraining

from trainscope.errors import StudyError
from trainscope.sparsify import Action
from trainscope.sparsify.criteria import CRITERIA
from trainscope.studies import RunSpec, Study
from trainscope.training.settings import Settings

TEXT = f'''data = "digits"
seeds = [0, 1]
recipes = [
  "P1F1,1e-1",
  "F2,1e-1",
]
settings = {{ batch_size = 256, augment = false }}

[[base]]
name = "tiny"
architecture = "{NETWORK}"
recipe = "F2,1e-1"

[[action]]
ratio = [0.25, 0.5]
criterion = ["l1", "random"]

[[exclude]]
"action.criterion" = "random"
"action.ratio" = [0.25]
'''


def read(text: str, tmp_path, name: str = "grid.toml") -> Study:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return Study.read(path)


def test_the_grid_of_a_file(tmp_path):
    study = read(TEXT, tmp_path)
    runs = study.plan()
    assert (study.name, study.store) == ("grid", str(tmp_path / "study.db"))
    assert len(runs) == 2 * 2 * 3  # seeds, recipes, actions without the one that is excluded
    assert len({each.spec.digest for each in runs}) == len(runs)
    first = runs[0]
    assert first.spec == replace(retraining("P1F1,1e-1"), action=Action(ratio=0.25), data="digits")
    assert first.names == {"base": "tiny"}


def test_the_same_grid_from_python():
    study = Study(
        "grid",
        base=pretraining(),
        action=[Action(ratio=r, criterion=c) for r in (0.25, 0.5) for c in ("l1", "random")],
        recipes=["P1F1,1e-1", "F2,1e-1"],
        seeds=range(2),
        settings=SETTINGS,
        exclude=[{"action.criterion": "random", "action.ratio": 0.25}],
    )
    found = {each.spec.digest for each in study.plan()}
    wanted = {
        replace(
            retraining(recipe), action=Action(ratio=ratio, criterion=criterion), seed=seed
        ).digest
        for recipe in ("P1F1,1e-1", "F2,1e-1")
        for ratio, criterion in ((0.25, "l1"), (0.5, "l1"), (0.5, "random"))
        for seed in (0, 1)
    }
    assert found == wanted


def test_a_run_that_two_axes_name_is_there_once():
    study = Study(
        "x", base=pretraining(), action=Action(ratio=0.5), recipes=["F2,1e-1", "P2F2,0.1"]
    )
    assert len(study.plan()) == 1


def test_runs_beside_the_grid_and_without_one():
    runs = [retraining(seed=seed) for seed in (0, 1, 1)]
    assert [each.spec for each in Study("x", runs=runs).plan()] == runs[:2]
    again = Study("x", runs=[spec.as_dict() for spec in runs]).plan()
    assert [each.spec for each in again] == runs[:2]


def test_bases_alone_are_trained_and_recipes_say_how_they_were():
    alone = Study(
        "x", base={"architecture": NETWORK, "recipe": ["F1,1e-1", "F2,1e-1"]}, data="digits"
    )
    assert [each.spec.kind for each in alone.plan()] == ["train", "train"]
    stems = Study("x", base={"architecture": NETWORK}, recipes="P2F2,1e-1", data="digits").plan()
    assert str(stems[0].spec.base.schedule) == "0:1e-1,2:1e-2,3:1e-3"


def test_shapes_of_schedules_and_weights_are_axes():
    study = Study(
        "x",
        base=pretraining(),
        action={"ratio": 0.5},
        recipes=[{"recipe": "F2,1e-1", "shape": ["halving", "constant", "cosine"]}],
        weights=["inherited", "winning-ticket"],
        data="digits",
    )
    runs = study.plan()
    assert len(runs) == 6
    assert {each.spec.shape for each in runs} == {"halving", "constant", "cosine"}


LAST = '"action.criterion" = "random"\n"action.ratio" = [0.25]'
FIRST = 'data = "digits"'
ERRORS = {
    "unknown key": (
        "seeds = [0, 1]",
        "seed = 0",
        "line 2: 'seed' is no key of a study: did you mean 'see",
    ),
    "unknown key of a table": (
        "criterion = [",
        "criterium = [",
        "line 16: 'criterium' is no key of action: did you mean 'crit",
    ),
    "bad ratio": (
        "[0.25, 0.5]",
        "[0.25, 1.5]",
        "line 15: the ratio is 1.5; give a share between 0 and 1",
    ),
    "ratio of text": ("[0.25, 0.5]", '["half"]', "line 15: action.ratio is a number, not 'half'"),
    "unknown criterion": ('"random"]', '"l7"]', "line 16: no criterion is named 'l7'"),
    "unknown structure": (
        "ratio = [0.25, 0.5]",
        'ratio = 0.5\nstructure = "rows"',
        "line 16: no structure is named 'rows'",
    ),
    "impossible pair": (
        '"P1F1,1e-1"',
        '"P3F1,1e-1"',
        "line 4: recipe 'P3F1,1e-1' prunes after epoch 3, and the base is",
    ),
    "no recipe": ('"F2,1e-1"', '"F2;1e-1"', "line 5: 'F2;1e-1' is no recipe"),
    "zero runs": (
        LAST,
        '"action.criterion" = ["l1", "random"]',
        "all 16 runs of the grid are excl",
    ),
    "exclusion that matches nothing": (
        "= [0.25]",
        "= [0.75]",
        "line 18: this exclusion matches no run",
    ),
    "exclusion by an unknown column": (
        '"action.ratio" =',
        '"action.rato" =',
        "line 20: 'action.rato' is no column of the runs: did you",
    ),
    "empty list": ("seeds = [0, 1]", "seeds = []", "line 2: seeds is an empty list"),
    "empty list in a table": ("[0.25, 0.5]", "[]", "line 15: action.ratio is an empty list"),
    "a seed of text": (
        "seeds = [0, 1]",
        'seeds = [0, "a"]',
        "line 2: a seed is a whole number, not 'a'",
    ),
    "a seed below zero": ("seeds = [0, 1]", "seeds = [0, -1]", "line 2: the seed -1"),
    "a setting out of range": (
        "batch_size = 256",
        "batch_size = 0",
        "line 7: the batch size is 1 or more, not 0",
    ),
    "an unknown setting": (
        "batch_size = 256",
        "batch = 256",
        "line 7: 'batch' is no key of settings: did you mean 'b",
    ),
    "a seed as setting": ("batch_size = 256", "seed = 1", "line 7: the seed of a training"),
    "unknown data": ('"digits"', '"digit"', "line 1: no data is named 'digit'"),
    "unknown task": (FIRST, FIRST + '\ntask = "class"', "line 2: .*class"),
    "unknown probe": (FIRST, FIRST + '\nprobes = ["gradients"]', "line 2: .*gradients"),
    "probes of a wrong kind": (FIRST, FIRST + '\nprobes = "gradient"', "line 2: probes is a list"),
    "unknown architecture": (
        f'"{NETWORK}"',
        '"resnet21"',
        r"line 11: no architecture is named 'resnet21'.*own: architecture = pack",
    ),
    "a factory that is not there": (
        NETWORK,
        "small_studies:networks",
        "line 11: architecture small_studies:networks: module 'small_studies' has no 'networks'",
    ),
    "a factory of no module": (NETWORK, "nopackage:network", "line 11: .* no module 'nopackage'"),
    "a loader that is not there": ('"digits"', '"json:loader"', "line 1: data json:loader: mod"),
    "a table for a number": (
        "ratio = [0.25, 0.5]",
        "ratio = { a = 1 }",
        "line 15: action.ratio takes no table",
    ),
    "a table for a name": ('["l1", "random"]', '{ name = "l1" }', "line 16: action.criterion tak"),
    "a column without quotes": (
        '"action.ratio" = [0.25]',
        "action.ratio = 0.25",
        'line 20: .*write a dotted name in quotes, like "action.ratio"',
    ),
    "no such digest": (
        f'architecture = "{NETWORK}"\nrecipe = "F2,1e-1"',
        'checkpoint = "sha256:abc"',
        "line 11: 'abc' is no digest",
    ),
    "a huge grid": ("seeds = [0, 1]", f"seeds = {list(range(200_000))}", "1,600,000 runs, above"),
    "an oracle that tries nothing": (LAST, LAST + "\n\n[oracle]", "line 22: an oracle says which"),
    "an oracle beside actions": (
        LAST,
        LAST + "\n\n[oracle]\nratio = 0.5",
        "line 14: an oracle tries actions of its own",
    ),
    "an oracle of text": (
        LAST,
        LAST + '\n\n[oracle]\nkeep = { conv1 = "a" }',
        "line 23: oracle.keep is a whole number, not 'a'",
    ),
    "a base without weights": (
        f'architecture = "{NETWORK}"',
        "",
        "line 9: a base has a checkpoint, or an architecture",
    ),
    "a base without recipe": (
        'recipe = "F2,1e-1"',
        "",
        "line 9: a base with an architecture needs a recipe",
    ),
    "no data": (FIRST, "", "line 9: a base with an architecture is trained on data"),
    "no base": ("[[base]]", "[[runs]]", "the study has no base|line 9"),
    "two of one name": (
        "[[action]]",
        '[[base]]\nname = "tiny"\ncheckpoint = "a.pt"\n\n[[action]]',
        "line 14: two entries of base are named 'tiny'",
    ),
    "unknown weights": (
        FIRST,
        FIRST + '\nweights = ["inherit"]',
        "line 2: 'inherit' is no kind of weights: did you mean",
    ),
    "no TOML": ("[[base]]", "[[base]", "is no TOML.*line 9"),
    "a key twice": ("seeds = [0, 1]", "seeds = [0, 1]\nseeds = 1", "is no TOML.*line 3"),
    "a name with a slash": (FIRST, FIRST + '\nname = "a/b"', "line 2: a study has a name"),
    "an axis that is a number": (
        '"F2,1e-1",',
        "3,",
        "line 5: recipes holds tables or texts, not 3",
    ),
    "an axis of no table": ("ratio = [0.25, 0.5]", "ratios = 0.5", "line 15: action.ratios is a t"),
    "an axis without values": (
        '[\n  "P1F1,1e-1",\n  "F2,1e-1",\n]',
        "[]",
        "recipes is an empty list",
    ),
    "a table without what it needs": (
        '"F2,1e-1",',
        "{ epochs = 3 },",
        "line 5: recipes has no recip",
    ),
    "a list of no tables": (
        FIRST,
        FIRST + '\npaper = ["x"]',
        "line 2: paper is a list of tables",
    ),
    "samples of no number": (
        FIRST,
        FIRST + "\nsamples = true",
        "line 2: samples is a whole number",
    ),
    "too few samples": (FIRST, FIRST + "\nsamples = 1", "line 2: 1 samples are too few"),
    "a base's own data": (
        'recipe = "F2,1e-1"',
        'recipe = "F2,1e-1"\ndata = "digit"',
        "line 13: no data is named 'digit'",
    ),
    "settings of a base": (
        'recipe = "F2,1e-1"',
        "settings = 3",
        "line 12: base.settings is a table",
    ),
    "a published row without a label": (
        LAST,
        LAST + "\n\n[[paper]]\nvalue = 3",
        "line 22: paper has no label",
    ),
    "a published row for an unknown column": (
        LAST,
        LAST + '\n\n[[paper]]\nlabel = "x"\nmatch = { "action.rato" = 0.5 }',
        "line 24: 'action.rato' is no column of the runs: did you",
    ),
    "a published number of text": (
        LAST,
        LAST + '\n\n[[paper]]\nlabel = "x"\nvalue = "y"',
        "line 24: paper.value is a number, not 'y'",
    ),
    "no such checkpoint": (
        f'architecture = "{NETWORK}"\nrecipe = "F2,1e-1"',
        'checkpoint = "gone.pt"',
        "line [0-9]+: .*(gone.pt|cuts off)",
    ),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_what_is_wrong_is_one_sentence_with_the_line(kind, tmp_path):
    old, new, said = ERRORS[kind]
    assert old in TEXT
    with pytest.raises(StudyError, match=said) as raised:
        read(TEXT.replace(old, new, 1), tmp_path).plan()
    assert str(tmp_path / "grid.toml") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_impossible_pair_may_be_excluded(tmp_path):
    text = TEXT.replace('"P1F1,1e-1"', '"P3F1,1e-1"') + '\n[[exclude]]\nrecipe = "P3F1,1e-1"\n'
    assert {each.spec.recipe for each in read(text, tmp_path).plan()} == {"F2,1e-1"}


def test_a_criterion_that_needs_data_and_gets_none_is_refused(tmp_path, monkeypatch):
    class Needy:
        name = "needy"
        needs = frozenset({"weight", "gradient"})

    monkeypatch.setitem(CRITERIA, "needy", Needy())
    text = TEXT.replace('["l1", "random"]', '"needy"').partition("[[exclude]]")[0]
    assert len(read(text, tmp_path).plan()) == 8
    text = text.replace('"digits"', '"random:1x8x8"')
    with pytest.raises(StudyError, match="line 16: the criterion needy needs data \\(for gradient"):
        read(text, tmp_path).plan()


def test_a_study_that_is_no_file(tmp_path):
    with pytest.raises(StudyError, match=r"nothing.toml cannot be read as a study"):
        Study.read(tmp_path / "nothing.toml")


def test_settings_of_bases_are_those_of_the_study_with_their_own():
    study = Study(
        "x",
        base={"architecture": NETWORK, "recipe": "F1,1e-1", "settings": {"weight_decay": 0.0}},
        action={"ratio": 0.5},
        recipes="F1,1e-1",
        data="digits",
        settings=Settings(batch_size=32),
    )
    spec: RunSpec = study.plan()[0].spec
    assert spec.settings == Settings(batch_size=32)
    assert spec.base.settings == Settings(batch_size=32, weight_decay=0.0)
