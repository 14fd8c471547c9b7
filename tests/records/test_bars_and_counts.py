"""Lines of text that do not say what they count, and numbers as other languages write them."""

from __future__ import annotations

import json

import pytest

from trainscope.errors import RecordError
from trainscope.records.imports import Given, run_from_log
from trainscope.records.imports.words import read_line

GIVEN = Given(rates=(0.1, 0.01, 0.001), schedule="0:0.1", total=3)
EPOCHS = tuple(zip((0, 1, 2), (0.1, 0.01, 0.001), (1.5, 1.0, 0.8), (60, 65, 70), strict=True))
RIGHT = [(1, 60.0, 1.5), (2, 65.0, 1.0), (3, 70.0, 0.8)]


def read(tmp_path, text, given=None, name="log.txt"):
    path = tmp_path / name
    path.write_bytes(text.encode())
    return run_from_log(path, given)


def rows(run):
    return [(r.epoch, r.test_metric, r.train_loss) for r in run.epochs]


def drawn(done, of, loss, right, total, width=200):
    """A bar whose count is written over its middle, with backspaces."""
    share = f"{100 * right / total:.3f}% ({right}/{total})"
    said = f"  Step: 35ms | Tot: 15s | Loss: {loss:.3f} | Acc: {share}"
    filled = 65 * (done - 1) // of
    bar = f" [{'=' * filled}>{'.' * (64 - filled)}]{said}"
    blanks = " " * max(0, width - 68 - len(said))
    return f"{bar}{blanks}{chr(8) * (width - 30)} {done}/{of} {chr(13) if done < of else chr(10)}"


def shown(done, of, loss, right, total, _=0):
    """The same as a terminal shows it."""
    said = f"Step: 35ms | Loss: {loss:.3f} | Acc: {100 * right / total:.3f}% ({right}/{total})"
    return f" [{'=' * 20} {done}/{of} {'=' * 20}>]  {said}\n"


@pytest.mark.parametrize("bar", [drawn, shown])
def test_the_second_bar_of_each_epoch_is_of_the_test(tmp_path, bar):
    text = "==> Building model..\n"
    for epoch, _, loss, accuracy in EPOCHS:
        text += f"\nEpoch: {epoch}\n"
        text += bar(1, 391, loss + 1, 5, 128) + bar(391, 391, loss, 400 * accuracy, 50000)
        text += bar(1, 100, 1.9, 40, 100) + bar(100, 100, 1.2, 100 * accuracy, 10000) + "Saving..\n"
    run = read(tmp_path, text, GIVEN)
    assert rows(run) == RIGHT
    assert [r.test_loss for r in run.epochs] == [1.2] * 3
    assert any("two progress bars, of 391 and of 100 batches" in note for note in run.notes)


def test_bars_of_a_training_that_was_begun_again(tmp_path):
    bars = "\nEpoch: {}\n" + shown(391, 391, 1.5, 30, 100)
    text = "".join(bars.format(e) + shown(100, 100, 1.2, a, 100) for e, _, _, a in EPOCHS)
    text += bars.format(2) + shown(100, 100, 1.2, 71, 100)
    assert [a for _, a, _ in rows(read(tmp_path, text, GIVEN))] == [60, 65, 71]


@pytest.mark.parametrize("totals", [(391, 391), (100, 391), (391, 100, 79)])
def test_bars_that_do_not_tell_a_test_are_of_training(tmp_path, totals):
    text = "".join(
        f"Epoch: {epoch}\n"
        + "".join(shown(of, of, 1.5, 60 * k, 100 * k) for k, of in enumerate(totals, 1))
        for epoch in range(3)
    )
    with pytest.raises(RecordError, match="no test accuracy"):
        read(tmp_path, text, GIVEN)


PADDLE = "".join(
    f"Epoch {e + 1}/3\nstep 391/391 [=====] - loss: {loss} - acc: 0.5 - 10ms/step\n"
    f"Eval begin...\nstep 79/79 [====] - loss: 1.2 - acc: {a / 100} - 5ms/step\n"
    for e, _, loss, a in EPOCHS
)
KERAS = "".join(
    f"Epoch {e + 1}/3\n"
    + "".join(
        f"\x1b[1m{k}/391\x1b[0m ━━ 5s 13ms/step - accuracy: 0.1 - loss: 2.3{chr(8) * 40}\r"
        for k in (1, 200)
    )
    + f"\x1b[1m391/391\x1b[0m 5s 13ms/step - loss: {loss} - val_accuracy: {a / 100}\n"
    for e, _, loss, a in EPOCHS
)
FAIRSEQ = "".join(
    f"INFO | train_inner | epoch {e + 1:03d}:    100 / 1500 loss=9.1, ppl=100, lr={lr}, wall=1\n"
    f"INFO | valid | epoch {e + 1:03d} | valid on 'valid' subset | loss {a} | best_loss 9\n"
    f"INFO | train | epoch {e + 1:03d} | loss {loss} | ppl 5.0 | lr {lr} | train_wall 10\n"
    for e, lr, loss, a in EPOCHS
)


@pytest.mark.parametrize("text", [PADDLE, KERAS, FAIRSEQ], ids=["Paddle", "Keras", "fairseq"])
def test_a_line_that_sums_the_epoch_up_counts_alone(tmp_path, text):
    """The numbers of batches before it would be averaged with it."""
    assert rows(read(tmp_path, text, GIVEN)) == RIGHT


def test_the_last_batch_of_a_bar_is_no_sum(tmp_path):
    text = "".join(
        f"Epoch {e}\n"
        + "".join(f"[{k}/2] loss: {loss + k - 1.5}\n" for k in (1, 2))
        + f"val acc {a}\n"
        for e, _, loss, a in EPOCHS
    )
    assert [loss for _, _, loss in rows(read(tmp_path, text, GIVEN))] == pytest.approx(
        [1.5, 1, 0.8]
    )


COUNTED = {
    "in brackets": "[{e}/3] lr={lr} | valid: loss 1.2 acc {a} | train: loss {loss} acc 50\n",
    "a bar": "Epochs: 33%|#  | {e}/3 [00:15<00:30, 15.0s/it, train_loss={loss}, val_acc={a}]\n",
    "from 0": "({z}/3) train loss {loss} acc 50 test acc {a}\n",
}


@pytest.mark.parametrize("name", COUNTED)
def test_counts_of_lines_with_training_and_test_are_of_epochs(tmp_path, name):
    text = "".join(
        COUNTED[name].format(e=e + 1, z=e, lr=lr, loss=loss, a=a) for e, lr, loss, a in EPOCHS
    )
    run = read(tmp_path, text, GIVEN)
    assert rows(run) == RIGHT
    assert any("the count at each of its tests" in note for note in run.notes)


def test_counts_of_batches_of_a_test_are_no_epochs(tmp_path):
    text = "".join(f"Test: [{k}/30] acc {50 + k}\n" for k in (10, 20, 30))
    run = read(tmp_path, text, GIVEN)
    assert rows(run) == [(1, 80.0, None)]


def test_an_accuracy_of_training_ends_no_epoch(tmp_path):
    """As flax writes them: accuracy of a step of training, then eval_accuracy of the same step."""
    pairs = [
        ({"accuracy": a / 100 - 0.1, "learning_rate": lr, "loss": loss}, {"eval_accuracy": a / 100})
        for _, lr, loss, a in EPOCHS
    ]
    text = "".join(
        f"logging_writer.py:48] [{100 * k}] "
        + ", ".join(f"{n}={v}" for n, v in each.items())
        + "\n"
        for k, pair in enumerate(pairs, 1)
        for each in pair
    )
    documents = [{"step": 100 * k, **each} for k, p in enumerate(pairs, 1) for each in p]
    table = "step,accuracy,learning_rate,loss,eval_accuracy\n" + "".join(
        ",".join(map(str, (100 * k, *p.values()))) + f",\n{100 * k},,,,{q['eval_accuracy']}\n"
        for k, (p, q) in enumerate(pairs, 1)
    )
    for name, log in (("a.txt", text), ("a.json", json.dumps(documents)), ("a.csv", table)):
        run = read(tmp_path, log, name=name)
        assert rows(run) == RIGHT
        assert [r.lr for r in run.epochs] == [0.1, 0.01, 0.001]


def test_a_word_of_data_that_has_a_number_says_nothing_of_the_next(tmp_path):
    """loss is of training, or of nobody knows what: it was taken for the test's."""
    text = "".join(
        f"[Epoch {e}] train=0.5 val=0.6 loss={loss} time: 10.1\n" for e, _, loss, _ in EPOCHS
    )
    with pytest.raises(RecordError, match="no test accuracy"):
        read(tmp_path, text, GIVEN)


def test_a_bar_at_its_end_names_no_epoch(tmp_path):
    text = "".join(
        f"Train: 100%|###| 391/391 [00:15<00:00, 25.0it/s, loss={loss}, acc=50]\n"
        f"Test: 100%|###| 79/79 [00:01<00:00, 60.0it/s, loss=1.2, acc={a}]\n"
        for _, _, loss, a in EPOCHS
    )
    assert rows(read(tmp_path, text, GIVEN)) == RIGHT


def test_a_step_is_no_loss(tmp_path):
    """Megatron's: "validation loss at iteration 100" names no loss of 100."""
    assert read_line(" validation loss at iteration 100 | lm loss value: 1.2E+00 |").step == 100
    text = "".join(
        f" iteration {100 * k:8d}/     300 | learning rate: {lr:.3E} | lm loss: {loss:.6E} |\n"
        f" validation loss at iteration {100 * k} | lm loss value: {a:.6E} | lm loss PPL: 5. |\n"
        for k, (_, lr, loss, a) in enumerate(EPOCHS, 1)
    )
    run = read(tmp_path, text)
    assert rows(run) == RIGHT
    assert run.metric.name == "loss"


HALVES = {
    "bars": "Epoch {e} | LR {lr} | Train Loss: {loss:.4f} | Val Acc: {a:.2f}\n",
    "commas and blanks": "Epoch {e}, lr {lr}, train_loss {loss}, val_acc {a:.1f}\n",
    "exponents": "Epoch {e}; lr {lr:.1e}; train_loss {loss:.2e}; val_acc {a:.1f} %\n",
}


@pytest.mark.parametrize("name", HALVES)
def test_decimal_commas_are_read(tmp_path, name):
    lines = [HALVES[name].format(e=e + 1, lr=lr, loss=loss, a=a) for e, lr, loss, a in EPOCHS]
    text = "".join(f"2024-01-01 12:00:00;123 INFO {line}" for line in lines).replace(".", ",")
    run = read(tmp_path, text.replace(";123", ",123"))
    assert rows(run) == RIGHT
    assert [r.lr for r in run.epochs] == [0.1, 0.01, 0.001]
    assert any("commas in the place of decimal points" in note for note in run.notes)


def test_other_commas_are_no_decimal_ones(tmp_path):
    text = "".join(
        f"12:00:00,123 epoch {e + 1}, step 1,{e}00, lr {lr}, train_loss {loss}, val_acc {a},\n"
        for e, lr, loss, a in EPOCHS
    )
    assert rows(read(tmp_path, text)) == RIGHT


STEPS = "".join(f"step {k} loss {loss} lr {lr}\nval acc {a}\n" for k, lr, loss, a in EPOCHS)


def test_a_first_test_without_training_before_it_is_of_no_epoch(tmp_path):
    """As llm.c prints it, which names no epoch and no step of its tests."""
    run = read(tmp_path, "val acc 10\n" + STEPS)
    assert rows(run) == RIGHT
    assert [r.lr for r in run.epochs] == [0.1, 0.01, 0.001]
    assert run.start_metric == 10
    before = "".join(f"val acc {a}\nstep {k} loss {loss} lr {lr}\n" for k, lr, loss, a in EPOCHS)
    either = read(tmp_path, before, Given(rates=(0.1,) * 4))
    assert [a for _, a, _ in rows(either)] == [60, 65, 70, None]
    assert any("Training stands behind the last test" in note for note in either.notes)


def test_a_word_of_data_alone_is_of_the_metric_before_it(tmp_path):
    """LitGPT's."""
    line = "Epoch {e} | iter {e}00 | loss train: {loss:.3f}, val: {a} | iter time: 5. ms\n"
    text = "".join(line.format(e=e + 1, loss=loss, a=a) for e, _, loss, a in EPOCHS)
    run = read(tmp_path, text.replace("val: 60", "val: n/a"), GIVEN)
    assert [(r.epoch, r.test_metric, r.train_loss) for r in run.epochs] == [
        (1, None, 1.5),
        (2, 65.0, 1.0),
        (3, 70.0, 0.8),
    ]
    assert run.metric.name == "loss"


def test_words_behind_a_record_make_a_line_of_text(tmp_path):
    text = "".join(f'{{"epoch": {e}}} train loss {loss} val acc {a}\n' for e, _, loss, a in EPOCHS)
    assert rows(read(tmp_path, text, GIVEN)) == RIGHT


PLACED = {
    "after an epoch": "lr {lr}\nTest accuracy after epoch {e}: {a}\n",
    "at an epoch": "lr {lr}\nval acc at epoch {e} = {a} %\n",
    "with a sign": "lr {lr}\nval_acc @ epoch {e}: {a}\n",
    "in brackets": "lr {lr}\nAccuracy on test set (epoch {e}): {a}\n",
    "a step": "iter {e}00: loss {loss}, lr {lr}\nValidation accuracy at iteration {e}00: {a}\n",
}


@pytest.mark.parametrize("name", PLACED)
def test_an_epoch_or_step_between_a_name_and_its_number(tmp_path, name):
    """Validation loss at iteration 100: 4.2, which was a loss of 100."""
    text = "".join(PLACED[name].format(e=e + 1, lr=lr, loss=loss, a=a) for e, lr, loss, a in EPOCHS)
    run = read(tmp_path, text)
    assert [(r.epoch, r.lr, r.test_metric) for r in run.epochs] == [
        (1, 0.1, 60),
        (2, 0.01, 65),
        (3, 0.001, 70),
    ]


def test_the_best_of_an_epoch_is_not_its_own(tmp_path):
    lines = "".join(
        f"Epoch {e} val acc {a}\nbest acc at epoch {e}: 99.0\n" for e, _, _, a in EPOCHS
    )
    assert [a for _, a, _ in rows(read(tmp_path, lines, GIVEN))] == [60, 65, 70]


def test_a_stroke_beside_a_strange_blank(tmp_path):
    text = "".join(f"Epoch {e}\nstep 1/\x1e20 loss 2.0\nval acc {a}\n" for e, _, _, a in EPOCHS)
    assert [value for _, value, _ in rows(read(tmp_path, text, GIVEN))] == [60, 65, 70]
