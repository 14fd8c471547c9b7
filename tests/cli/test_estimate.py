"""`trainscope estimate` as a user types it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from commands import invoke
from curves import curve, law

from trainscope.cli.estimate import command
from trainscope.cli.main import main
from trainscope.convergence import Interval, LearningCurve, estimate_extra_epochs
from trainscope.convergence.continued import SHAPES
from trainscope.errors import RecordError, ScheduleError
from trainscope.records import EpochRecord, Run
from trainscope.records.run import Kind


def write(path: Path, small: LearningCurve) -> Path:
    """Write a curve as a CSV file."""
    rows = zip(small.epochs[1:], small.accuracy[1:], small.loss[1:], strict=True)
    lines = [f"{e:g},{small.lr[0]:g},{a!r},{x!r}" for e, a, x in (map(float, r) for r in rows)]
    path.write_text("\n".join(["epoch,lr,accuracy,loss", *lines]) + "\n")
    return path


@pytest.fixture
def files(tmp_path) -> tuple[str, str]:
    """A small-LR run of 30 epochs, and a large-LR one of 200."""
    small = write(tmp_path / "small.csv", curve(30, pace=8, lr=0.0125, noise=0.2))
    large = write(tmp_path / "large.csv", curve(200, lr=0.1, noise=0.2, seed=1))
    return str(small), str(large)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_json_is_the_estimate(files):
    small, large = files
    result = run(small, "--target", "66", "--match", large, "--level", "0.9", "--json")
    assert result.exit_code == 0, result.output
    expected = estimate_extra_epochs(
        LearningCurve.from_csv(small), 66.0, LearningCurve.from_csv(large), 0.9
    )
    assert json.loads(result.stdout) == json.loads(json.dumps(expected.to_json()))


def test_the_answer_is_put_in_words(files):
    small, large = files
    result = run(small, "--target", "66", "--match", large)
    assert result.exit_code == 0
    for part in ("first passage    epoch", "extra epochs", "equal LR time", "matched with the"):
        assert part in result.stdout


def test_without_a_target_the_end_of_the_reference_is_it(files):
    small, large = files
    found = json.loads(run(small, "--match", large, "--json").stdout)
    assert found["target"] == pytest.approx(LearningCurve.from_csv(large).accuracy[-3:].mean())


def test_a_run_with_decays_is_its_own_schedule_and_says_if_it_decayed_too_early(tmp_path):
    records = tuple(
        EpochRecord(
            e,
            1e-3 if e <= 30 else 1e-4,
            None,
            None,
            float(law(np.array(e), pace=8)) + 2 * (e > 30),
        )
        for e in range(1, 41)
    )
    Run(Kind.RETRAIN, records).save(tmp_path / "run.json")
    result = run(str(tmp_path), "--target", "66")
    assert result.exit_code == 0, result.output
    assert "to add to the first LR stage" in result.stdout
    assert "The LR dropped too early: at epoch 30" in result.stdout


def test_a_run_under_way_is_under_the_plan_that_it_records(tmp_path):
    records = tuple(
        EpochRecord(e, 1e-3 if e <= 30 else 1e-4, None, None, float(law(np.array(e), pace=8)))
        for e in range(1, 36)
    )
    under_way = Run(Kind.RETRAIN, records, schedule="0:1e-3,30:1e-4,50:1e-5", total=60)
    for count, total in ((35, 60), (20, 60)):
        replace(under_way, epochs=records[:count]).save(tmp_path / "run.json")
        told = run(str(tmp_path), "--target", "66", "--json")
        curve = LearningCurve.from_run(replace(under_way, epochs=records[:count]))
        asked = {"schedule": under_way.schedule, "total_epochs": total}
        expected = estimate_extra_epochs(curve, 66.0, **asked).to_json()
        assert json.loads(told.stdout) == json.loads(json.dumps(expected))
    constant = replace(under_way, epochs=records[:20], schedule="0:1e-3")
    constant.save(tmp_path / "run.json")
    assert "after the decays" not in run(str(tmp_path), "--target", "66").stdout


def test_a_plot_is_written_whole(files, tmp_path):
    small, large = files
    picture = tmp_path / "plot.svg"
    result = run(small, "--target", "66", "--match", large, "--plot", str(picture))
    assert result.exit_code == 0, result.output
    assert picture.read_text().rstrip().endswith("</svg>")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["large.csv", "plot.svg", "small.csv"]


def test_the_shapes_that_can_be_named_are_those_that_can_be_continued():
    (shape,) = [each for each in command.params if each.name == "shape"]
    assert list(shape.type.choices) == list(SHAPES)


def cosine_log(path: Path, *, upto: int, total: int = 30_000) -> str:
    """Write the first records of a cosine run as a log of steps; return its name."""
    rows = ["step,lr,val_loss"]
    for step in range(200, upto + 1, 200):
        lr = 5e-5 + 4.5e-4 * (1 + math.cos(math.pi * step / total))
        rows.append(f"{step},{lr:.6g},{3 + 20 * step**-0.5 + 100 * lr!r}")
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def test_a_run_in_the_middle_of_a_cosine_is_told_where_that_ends(tmp_path):
    log = cosine_log(tmp_path / "log.csv", upto=15_000)
    of = (log, "--metric", "val_loss", "--target", "3.1")
    bare = run(*of)
    assert "like --shape cosine --epochs TOTAL" in bare.output.replace("\n", " ")
    told = run(*of, "--shape", "cosine", "--epochs", "30000", "--json")
    assert told.exit_code == 0, told.output
    final = json.loads(told.stdout)["final"]
    truth = 3 + 20 * 30_000**-0.5 + 100 * 5e-5
    assert final["low"] <= truth <= final["high"]
    assert final["high"] - final["low"] < 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shape", "cosine"), "give --shape with the total, --epochs"),
        (("--shape", "cosine", "--epochs", "9", "--schedule", "0:1"), "and no --schedule"),
        (("--min-lr", "1e-5"), "are of a --shape"),
        (("--shape", "linear", "--epochs", "30000", "--cooldown", "0.1"), "of the shape wsd"),
        (("--shape", "cosine", "--epochs", "9000"), "the run has 15000 steps"),
        (("--shape", "wsd", "--epochs", "30000"), "not those of wsd over 30000 steps"),
    ],
)
def test_a_shape_that_cannot_be_is_one_sentence(tmp_path, options, message):
    log = cosine_log(tmp_path / "log.csv", upto=15_000)
    asked = ("estimate", log, "--metric", "val_loss", "--target", "3.1", *options)
    assert message in " ".join(invoke(*asked, code=2).output.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give --target"),
        (("--target", "66", "--epochs", "60"), "total of a --schedule"),
        (("--target", "x"), "not a valid float"),
    ],
)
def test_misuse_is_told(files, options, message):
    result = run(files[0], *options)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--target", "66", "--schedule", "0:1e-3"), ScheduleError),
        (("--target", "66", "--level", "2"), RecordError),
        (("--target", "66", "--plot", "/dev/null/at/all.png"), RecordError),
        (("--target", "66", "--plot", "plot.nothing"), RecordError),
    ],
)
def test_what_the_user_can_put_right_is_one_sentence(files, options, error):
    result = run(files[0], *options)
    assert isinstance(result.exception, error)
    assert "\n" not in str(result.exception)


def refused(*arguments: str) -> str:
    """Run a command that must fail with one sentence; return it."""
    result = CliRunner().invoke(main, ["estimate", *arguments])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def test_an_epoch_twice_is_refused(files, tmp_path):
    small, large = files
    lines = Path(small).read_text().splitlines()
    twice = tmp_path / "twice.csv"
    twice.write_text("\n".join([*lines, lines[7]]) + "\n")
    assert "epoch 7 more than once" in refused(str(twice), "--target", "66")
    assert "epoch 7 more than once" in refused(small, "--match", str(twice))
    twice.write_text("\n".join([*lines, "7,0.0125,,"]) + "\n")  # it tells the LR alone
    assert run(str(twice), "--target", "66").exit_code == 0
    assert run(small, "--match", large).exit_code == 0


def test_shares_of_one_are_refused(files, tmp_path):
    small, large = files
    curve = LearningCurve.from_csv(small)
    curve.accuracy /= 100
    shares = str(write(tmp_path / "shares.csv", curve))
    assert "not percent" in refused(shares, "--target", "66")
    assert "not percent" in refused(shares, "--match", large)
    assert "in percent" in refused(small, "--target", "0.66")
    assert "write 66" in refused(small, "--target", "0.66")


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("decimal", [".", ","])
def test_a_spreadsheets_separators_are_read(files, tmp_path, separator, decimal):
    text = Path(files[0]).read_text().replace(",", separator).replace(".", decimal)
    saved = tmp_path / "saved.csv"
    saved.write_text("\ufeff" + text, encoding="utf-8")
    arguments = ("--target", "66", "--match", files[1], "--json")
    assert run(str(saved), *arguments).stdout == run(files[0], *arguments).stdout


def test_commas_that_are_no_decimal_commas_are_refused(tmp_path):
    saved = tmp_path / "saved.csv"
    saved.write_text("epoch;lr;accuracy\n1;0.001;40\n1,024;0.001;41\n")
    assert "'1,024' is not a number" in refused(str(saved), "--target", "66")


def test_a_column_twice_is_refused(files, tmp_path):
    lines = Path(files[0]).read_text().splitlines()
    twice = tmp_path / "twice.csv"
    twice.write_text("\n".join([f"{lines[0]},Accuracy", *(f"{line},0" for line in lines[1:])]))
    assert "has the column 'accuracy' 2 times" in refused(str(twice), "--target", "66")
    assert "has the column 'accuracy' 2 times" in refused(files[0], "--match", str(twice))
    twice.write_text("\n".join([f"{lines[0]},x,x", *(f"{line},0,0" for line in lines[1:])]))
    assert run(str(twice), "--target", "66").exit_code == 0  # nobody reads those


@pytest.mark.parametrize("value", ["100.5", "-0.1", "1e308", "-1e308"])
def test_accuracies_that_are_no_percentages_are_refused(files, tmp_path, value):
    lines = Path(files[0]).read_text().splitlines()
    odd = tmp_path / "odd.csv"
    odd.write_text("\n".join([*lines, f"31,0.0125,{value},1.0"]))
    assert "line 32: accuracy" in refused(str(odd), "--target", "66")
    assert "between 0 and 100" in refused(files[0], "--match", str(odd))


def test_a_missing_column_is_told_with_the_separators_that_are_read(tmp_path):
    odd = tmp_path / "odd.csv"
    odd.write_text("epoch:lr:accuracy\n1:0.001:40\n")
    assert "commas, semicolons or tabs" in refused(str(odd), "--target", "66")


@pytest.mark.parametrize(
    ("median", "low", "high", "words"),
    [
        (63.2, 48, 90, "epoch 63 (48 to 90)"),
        (63, 48, math.inf, "epoch 63 (48 to never)"),
        (math.inf, 26, math.inf, "never (epoch 26 to never)"),
        (math.inf, math.inf, math.inf, "never"),
    ],
)
def test_the_first_passage_is_put_in_words(median, low, high, words):
    assert Interval(median, low, high).in_words("epoch") == words


@pytest.mark.parametrize(
    ("median", "low", "high", "words"),
    [
        (63, 48, 1999, "epoch 63 (48 to 1999)"),
        (63, 48, 2000, "epoch 63 (48 or later; not within 2000 epochs with probability 0.14)"),
        (
            2000,
            340,
            2000,
            "not within 2000 epochs with probability 0.14 (epoch 340 at the earliest)",
        ),
        (2000, 2000, 2000, "not within 2000 epochs with probability 0.14"),
    ],
)
def test_an_end_at_the_horizon_is_no_epoch(median, low, high, words):
    interval = Interval(median, low, high, horizon=2000, beyond=0.14)
    assert interval.in_words("epoch") == words
    assert interval.is_open == (high == 2000)
    assert interval.is_late == (median == 2000)
    assert Interval.from_json(interval.to_json()) == interval


def test_epochs_to_add_beyond_the_horizon_are_no_number():
    late = Interval(1980, 300, 1980, horizon=1980, beyond=0.71)
    assert late.in_words(more="epoch") == (
        "not within 1980 more epochs with probability 0.71 (300 at the least)"
    )
    some = Interval(80, 30, 1980, horizon=1980, beyond=0.12)
    assert some.in_words(more="step") == (
        "80 (30 or more; not within 1980 more steps with probability 0.12)"
    )


def test_a_target_out_of_sight_is_told_without_a_number_that_nobody_estimated(tmp_path):
    """A loss that creeps: in 20 records it is watched to step 2000, and 200000 is the horizon."""
    rows = [f"{100 * k},0.001,{4 * (100 * k) ** -0.02}" for k in range(1, 21)]
    (tmp_path / "creeps.csv").write_text("\n".join(["step,lr,val_loss", *rows]))
    asked = [str(tmp_path / "creeps.csv"), "--metric", "val_loss", "--target", "3.0"]
    shown = run(*asked).stdout
    assert "first passage    not within 200000 steps with probability 0." in shown
    assert "extra steps      not within 198000 more steps with probability 0." in shown
    assert "step 200000 " not in shown
    found = json.loads(run(*asked, "--json").stdout)["first_passage"]
    assert found["horizon"] == 200000
    assert 0.5 < found["beyond"] <= 1.0


def test_what_is_less_likely_than_not_is_told_as_that(tmp_path):
    rows = [f"{k},0.001,{80 - 60 * math.exp(-k / 4)}" for k in range(1, 31)]
    (tmp_path / "flat.csv").write_text("\n".join(["epoch,lr,accuracy", *rows]))
    shown = run(str(tmp_path / "flat.csv"), "--target", "90").stdout
    assert ", if at all (80 % interval in brackets)" in shown


def test_a_diverged_run_never_gets_there(tmp_path):
    lines = [f"{epoch},0.001,{20 + epoch},1.0" for epoch in range(1, 21)] + ["21,0.001,nan,nan"]
    (tmp_path / "diverged.csv").write_text("\n".join(["epoch,lr,accuracy,loss", *lines]))
    shown = run(str(tmp_path / "diverged.csv"), "--target", "66").stdout
    assert "first passage    never\n" in shown


def test_a_reference_that_has_no_larger_lr_is_refused(files):
    small, large = files
    message = refused(large, "--match", small)
    assert "LR 0.0125 where the run that is watched has 0.1" in message
    assert "a larger LR" in refused(small, "--match", small, "--target", "66")


@pytest.mark.parametrize("name", ["a", "a.xyz", ".png", "a.part"])
def test_a_plot_without_the_ending_of_a_picture_is_refused(files, tmp_path, name):
    message = refused(files[0], "--target", "66", "--plot", str(tmp_path / name))
    assert "end its name in .png, .svg or .pdf" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large.csv", "small.csv"]


def test_the_documented_example_prints_what_the_page_says_and_holds_the_truth():
    docs = Path(__file__).parents[2] / "docs"
    page = (docs / "estimator.md").read_text(encoding="utf-8")
    shown = page.split("```console\n")[1].split("```")[0].splitlines()[1:]
    small, large = str(docs / "examples/small.csv"), str(docs / "examples/large.csv")
    result = run(small, "--match", large, "--target", "90", "--json")
    passage = json.loads(result.stdout)["first_passage"]
    assert passage["low"] < 87 < passage["high"]  # the epoch at which that run reached 90 %
    assert run(small, "--match", large, "--target", "90").stdout.splitlines()[: len(shown)] == shown


def test_a_loss_over_steps_is_a_target(tmp_path):
    log, steps = tmp_path / "lm.csv", range(100, 2100, 100)
    rows = [f"{k},0.001,{2.5 + 3 * (1 + k / 100) ** -0.4}" for k in steps]
    log.write_text("\n".join(["step,lr,val_loss", *rows]) + "\n")
    found = invoke(
        "estimate", log, "--metric", "val_loss", "--target", "3.2", "--plot", tmp_path / "e.png"
    )
    assert found.exit_code == 0, found.output
    assert "first passage    step " in found.output
    assert "extra steps      " in found.output
    assert "epoch" not in found.output
    assert (tmp_path / "e.png").exists()
    twice = tmp_path / "twice.csv"
    twice.write_text(log.read_text() + rows[-1] + "\n")
    said = refused(str(twice), "--metric", "val_loss", "--target", "3.2")
    assert "has step 2000 more than once: keep one row a step" in said
    assert "which direction is better" in refused(str(log), "--metric", "lr", "--target", "1")
    assert "give that too" in refused(str(log), "--better", "lower", "--target", "1")
    assert "has no column 'epoch'" in refused(
        str(log), "--metric", "val_loss", "--per", "epoch", "--target", "3"
    )


@pytest.mark.parametrize(("column", "more"), [("val_acc", ""), ("val_error", "--unit ''")])
def test_shares_of_one_of_any_column_in_percent_are_refused(tmp_path, column, more):
    log = tmp_path / "log.csv"
    rows = [f"{k},0.1,{0.2 + 0.5 / k}" for k in range(1, 9)]
    log.write_text("\n".join([f"epoch,lr,{column}", *rows]) + "\n")
    said = refused(str(log), "--metric", column, "--target", "50")
    assert "above 1, so these are shares of 1 and not percent" in said
    assert more in said
    if more:
        found = invoke("estimate", log, "--metric", column, "--unit", "", "--target", "0.2")
        assert "target           0.2" in found.output


EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.parametrize("target", ["60", "77.8", "90"])
@pytest.mark.parametrize("plan", [(), ("--schedule", "0:1e-3,30:1e-4,45:1e-5", "--epochs", "60")])
def test_the_level_stands_on_the_first_line_that_has_an_interval(target, plan):
    result = run(str(EXAMPLES / "small.csv"), "--target", target, *plan)
    assert result.exit_code == 0, result.output
    told = [line for line in result.output.splitlines() if line[17:] and line[:5] in STARTS]
    with_interval = [line for line in told if " to " in line.replace("to add to", "")]
    marked = [line for line in told if line.endswith("(80 % interval in brackets)")]
    assert marked == with_interval[:1]


STARTS = ("first", "extra")
"""How the two lines begin whose numbers have an interval."""


def test_rough_numbers_of_few_epochs_are_told_and_none_are_unknown(tmp_path):
    """Of an accuracy that follows 90 - 50 exp(-LR time / 0.03): 80 % comes at epoch 49."""

    def log(name: str, epochs: int, lr: float) -> str:
        rows = [f"{e},{lr},{90 - 50 * math.exp(-e * lr / 0.03)}" for e in range(1, epochs + 1)]
        (tmp_path / name).write_text("\n".join(["epoch,lr,accuracy", *rows]))
        return str(tmp_path / name)

    large = log("large.csv", 60, 0.01)
    asked = (log("five.csv", 5, 0.001), "--target", "80", "--match", large)
    passage = json.loads(run(*asked, "--json").stdout)["first_passage"]
    assert passage["low"] < 49 < passage["high"]
    assert f"first passage    epoch {passage['median']:.0f} (" in run(*asked).stdout
    three = log("three.csv", 3, 0.001)
    assert "first passage    unknown" in run(three, "--target", "80").stdout
    assert "first passage    epoch" in run(three, "--target", "80", "--match", large).stdout


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ((), "epoch, lr and accuracy"),
        (("--metric", "val_loss"), "epoch, lr and val_loss"),
        (("--per", "step"), "step, lr and accuracy"),
    ],
)
def test_an_empty_table_is_told_what_was_asked_for(tmp_path, options, wanted):
    path = tmp_path / "log.csv"
    path.write_text("epoch,lr,accuracy\n")
    said = " ".join(invoke("estimate", path, "--target", 3, *options, code=2).output.split())
    assert "has a header alone (epoch, lr, accuracy) and no rows" in said
    assert f"give a table with the columns {wanted}" in said


def test_a_target_that_may_be_a_share_of_errors_is_said(tmp_path):
    path = tmp_path / "log.csv"
    rows = "".join(f"{k},0.001,{30 + 40 / k}\n" for k in range(1, 13))
    path.write_text(f"epoch,lr,err\n{rows}")
    said = " ".join(invoke("estimate", path, "--metric", "err", "--target", 0.25).output.split())
    assert "The target is 0.25 %, far below the 33.3333 % that was reached" in said
    assert "for a share of 0.25 write 25." in said
    assert "write 25." not in invoke("estimate", path, "--metric", "err", "--target", 25).output


def test_an_epoch_0_with_a_training_loss_is_said(tmp_path):
    path = tmp_path / "log.csv"
    rows = [f"{k},0.001,{70 - 40 / (k + 1)},{1 + 1 / (k + 1)}\n" for k in range(12)]
    path.write_text("epoch,lr,accuracy,loss\n" + "".join(rows))
    said = "Epoch 0 was taken to be before the first step, though it has a training loss"
    assert said in " ".join(invoke("estimate", path, "--target", 69).output.split())
    path.write_text("epoch,lr,accuracy,loss\n0,0.001,10,\n" + "".join(rows[1:]))
    assert said not in " ".join(invoke("estimate", path, "--target", 69).output.split())


def test_what_is_no_table_says_how_it_becomes_a_run(tmp_path):
    np.savez(tmp_path / "h.npz", val_acc=[1.0])
    (tmp_path / "out.log").write_text("Epoch 1 val acc 60\n")
    for name in ("h.npz", "out.log"):
        said = " ".join(invoke("estimate", tmp_path / name, "--target", 80, code=2).output.split())
        assert "make a Run" in said
        assert "`trainscope import`" in said
        assert "trainscope import" in invoke("compare", tmp_path / name, code=2).output
    assert "trainscope import" in " ".join(invoke("compare", tmp_path, code=2).output.split())


def test_a_run_without_accuracies_is_told_by_equal_lr_time_alone(tmp_path):
    (tmp_path / "s.csv").write_text("epoch,lr,accuracy\n1,1e-3,\n2,1e-3,\n3,1e-4,\n")
    rows = [f"{k},1e-2,{50 + k}" for k in range(1, 11)]
    (tmp_path / "r.csv").write_text("\n".join(["epoch,lr,accuracy", *rows]))
    asked = [str(tmp_path / "s.csv"), "--match", str(tmp_path / "r.csv"), "--target", "70"]
    shown = run(*asked)
    assert shown.exit_code == 0, shown.output
    assert "equal LR time    epoch 100" in shown.stdout
