"""Logs as other tools print them: whose epoch a line is of, and what a cell of odd make says."""

from __future__ import annotations

import json

import pytest
from text_logs import read

from trainscope.errors import RecordError


def rows(run):
    return [(r.epoch, r.lr, r.train_loss, r.test_loss, r.test_accuracy) for r in run.epochs]


SWIN = """\
[2021-04-12 10:00:00 swin] (main.py 193): INFO Train: [0/300][0/1251]\teta 1:00:00 lr 0.001000\t\
time 0.3 (0.3)\tloss 2.0000 (2.0000)\tmem 100MB
[2021-04-12 10:01:00 swin] (main.py 193): INFO Train: [0/300][1250/1251]\teta 1:00:00 lr 0.001000\t\
time 0.3 (0.3)\tloss 1.4000 (1.5000)\tmem 100MB
[2021-04-12 10:01:10 swin] (main.py 200): INFO EPOCH 0 training takes 0:10:00
[2021-04-12 10:02:00 swin] (main.py 249): INFO Test: [0/98]\tTime 1.0 (1.0)\tLoss 1.0 (1.0)\t\
Acc@1 70.000 (70.000)\tMem 100MB
[2021-04-12 10:02:10 swin] (main.py 255): INFO  * Acc@1 60.000 Acc@5 85.000
[2021-04-12 10:02:10 swin] (main.py 150): INFO Accuracy on the 50000 test images: 60.0%
[2021-04-12 10:02:10 swin] (main.py 152): INFO Max accuracy: 60.00%
[2021-04-12 10:03:00 swin] (main.py 193): INFO Train: [1/300][1250/1251]\teta 1:00:00 lr 0.000900\t\
time 0.3 (0.3)\tloss 1.4000 (1.2000)\tmem 100MB
[2021-04-12 10:03:10 swin] (main.py 200): INFO EPOCH 1 training takes 0:10:00
[2021-04-12 10:04:10 swin] (main.py 255): INFO  * Acc@1 55.000 Acc@5 85.000
[2021-04-12 10:04:10 swin] (main.py 150): INFO Accuracy on the 50000 test images: 55.0%
"""


def test_two_counts_side_by_side_are_of_the_epoch_and_of_the_batch(tmp_path):
    """Swin's: the second epoch's loss and LR stand before the line that says its number."""
    found = [(e, lr, loss, acc) for e, lr, loss, _, acc in rows(read(tmp_path, SWIN))]
    assert found == [(1, 0.001, 1.5, 60.0), (2, 0.0009, 1.2, 55.0)]


CATALYST = """\
1/2 * Epoch (train): accuracy01=0.5000 | accuracy03=0.9 | loss=1.5000 | lr=0.1000
1/2 * Epoch (valid): accuracy01=0.6000 | accuracy03=0.9 | loss=1.2000 | lr=0.1000
2/2 * Epoch (train): accuracy01=0.7000 | accuracy03=0.9 | loss=1.0000 | lr=0.0100
2/2 * Epoch (valid): accuracy01=0.6500 | accuracy03=0.9 | loss=1.1000 | lr=0.0100
"""
LATER = """\
train (1/2) accuracy01: 0.5000 | accuracy03: 0.9 | loss: 1.5000 | lr: 0.1000 | momentum: 0.9
valid (1/2) accuracy01: 0.6000 | accuracy03: 0.9 | loss: 1.2000 | lr: 0.1000 | momentum: 0.9
* Epoch (1/2)
train (2/2) accuracy01: 0.7000 | accuracy03: 0.9 | loss: 1.0000 | lr: 0.0100 | momentum: 0.9
valid (2/2) accuracy01: 0.6500 | accuracy03: 0.9 | loss: 1.1000 | lr: 0.0100 | momentum: 0.9
* Epoch (2/2)
"""
DISTILLER = """\
Epoch: [0][  176/  176]    Overall Loss 1.500000    Top1 50.000000    LR 0.100000    Time 0.1
--- validate (epoch=0)-----------
5000 samples (256 per mini-batch)
Epoch: [0][   20/   20]    Loss 1.210000    Top1 60.100000    Top5 95.000000
==> Top1: 60.000    Top5: 95.000    Loss: 1.200
==> Best [Top1: 60.000   Top5: 95.000   Sparsity:0.00   on epoch: 0]
Epoch: [1][   88/  176]    Overall Loss 1.000000    Top1 70.000000    LR 0.010000    Time 0.1
Epoch: [1][  176/  176]    Overall Loss 1.000000    Top1 70.000000    LR 0.010000    Time 0.1
--- validate (epoch=1)-----------
==> Top1: 65.000    Top5: 95.000    Loss: 1.100
==> Best [Top1: 65.000   Top5: 95.000   Sparsity:0.00   on epoch: 1]
"""
PADDLE = """\
ppcls INFO: [Train][Epoch 1/2][Iter: 90/100]lr(PiecewiseDecay): 0.1, top1: 0.48, loss: 1.6
ppcls INFO: [Train][Epoch 1/2][Avg]top1: 0.50000, top5: 0.80000, loss: 1.50000
ppcls INFO: [Eval][Epoch 1][Avg]loss: 1.20000, top1: 0.60000, top5: 0.90000
ppcls INFO: [Train][Epoch 2/2][Iter: 90/100]lr(PiecewiseDecay): 0.01, top1: 0.68, loss: 1.1
ppcls INFO: [Train][Epoch 2/2][Avg]top1: 0.70000, top5: 0.80000, loss: 1.00000
ppcls INFO: [Eval][Epoch 2][Avg]loss: 1.10000, top1: 0.65000, top5: 0.90000
"""
TOOLS = {"Catalyst": CATALYST, "Catalyst later": LATER, "Distiller": DISTILLER, "Paddle": PADDLE}


@pytest.mark.parametrize("tool", TOOLS)
def test_lines_of_tools_that_name_epoch_and_data_in_their_own_way(tmp_path, tool):
    found = rows(read(tmp_path, TOOLS[tool]))
    assert [(e, lr, loss, acc) for e, lr, _, loss, acc in found] == [
        (1, 0.1, 1.2, 60.0),
        (2, 0.01, 1.1, 65.0),
    ]
    if tool != "Paddle":  # whose batches and means are both called loss
        assert [loss for _, _, loss, _, _ in found] == [1.5, 1.0]


def epochs(*lines):
    values = ((1, 0.1, 1.5, 60), (2, 0.01, 1.0, 65), (3, 0.001, 0.8, 70))
    return "".join(line.format(*each) + "\n" for each in values for line in lines)


THREE = [(1, 0.1, 1.5, 60.0), (2, 0.01, 1.0, 65.0), (3, 0.001, 0.8, 70.0)]


@pytest.mark.parametrize(
    ("lines", "behind"),
    [
        (("Epoch {0}", "train loss {2}", "val acc {3}", "lr: {1}"), True),
        (("Epoch {0} train_loss {2} val_acc {3}", "learning rate = {1}"), True),
        (("Epoch {0}", "train loss {2}", "lr: {1}", "val acc {3}"), False),
        (("lr: {1}", "Epoch {0} train_loss {2} val_acc {3}"), False),
    ],
)
def test_a_rate_on_a_line_of_its_own_is_of_its_epoch(tmp_path, lines, behind):
    run = read(tmp_path, epochs(*lines))
    assert [(e, lr, loss, acc) for e, lr, loss, _, acc in rows(run)] == THREE
    assert any("Each LR stands behind" in note for note in run.notes) == behind


CELLS = {
    "decimal commas": ('1,"0,1","1,5","60,5"\n2,"0,01","1,05","65,25"\n', [60.5, 65.25]),
    "three decimals": ('1,"0,1","1,5","60,125"\n2,"0,01","1,05","65,250"\n', [60.125, 65.25]),
    "commas and a sign": ('1,"1,0E-1","1,5","60,5 %"\n2,"0,01","1,05","65,25%"\n', [60.5, 65.25]),
    "counts": ("1,0.1,1.5,605/1000\n2,0.01,1.05,2610 / 4000\n", [60.5, 65.25]),
    "a spread": ("1,0.1,1.5,60.5±0.5\n2,0.01,1.05,65.25 +/- 0.4\n", [60.5, 65.25]),
    "a name of the separator above": ("1,0.1,1.5,60.5\n2,0.01,1.05,65.25\n", [60.5, 65.25]),
}


@pytest.mark.parametrize("cells", CELLS)
def test_cells_of_odd_make(tmp_path, cells):
    body, wanted = CELLS[cells]
    start = "sep=,\n" if "separator" in cells else ""
    run = read(tmp_path, f"{start}epoch,lr,train_loss,val_acc\n{body}", "log.csv")
    assert [r.test_accuracy for r in run.epochs] == wanted
    assert [(r.lr, r.train_loss) for r in run.epochs] == [(0.1, 1.5), (0.01, 1.05)]


def test_commas_between_thousands_are_none_of_decimals(tmp_path):
    body = '1,"1,000",0.1,"1,234.5",60\n2,"2,000",0.01,"1,000.0",65\n'
    run = read(tmp_path, f"epoch,step,lr,train_loss,val_acc\n{body}", "log.csv")
    assert [r.train_loss for r in run.epochs] == [1234.5, 1000.0]
    line = "Epoch {} lr 0.1\nTest set: Average loss: 1.2, Accuracy: {}/10,000 ({}%)\n"
    text = line.format(1, "6,000", 60) + line.format(2, "6,512", 65)
    assert [r.test_accuracy for r in read(tmp_path, text).epochs] == [60.0, 65.12]


def test_counts_and_commas_in_json(tmp_path):
    records = [
        {"epoch": 1, "lr": "0,1", "train_loss": "1,5", "val_acc": "400/1000"},
        {"epoch": 2, "lr": "0,1", "train_loss": "1,0", "val_acc": "655/1000"},
    ]
    run = read(tmp_path, json.dumps(records), "log.json")
    assert [(r.lr, r.train_loss, r.test_accuracy) for r in run.epochs] == [
        (0.1, 1.5, 40.0),
        (0.1, 1.0, 65.5),
    ]


def test_epochs_as_keys_are_in_the_order_of_numbers(tmp_path):
    """Sorted as text, "10" and "11" stand before "2"."""
    document = {str(k): {"lr": 0.1, "val_acc": 50 + k} for k in range(1, 12)}
    run = read(tmp_path, json.dumps(document, sort_keys=True), "log.json")
    assert [r.test_accuracy for r in run.epochs] == [50 + k for k in range(1, 12)]


def test_a_typographic_minus_is_a_minus(tmp_path):
    text = "Epoch {} lr 1e\u2212{} train loss 1.5 val acc 60.0\n"
    run = read(tmp_path, text.format(1, 1) + text.format(2, 2))
    assert [r.lr for r in run.epochs] == [0.1, 0.01]


def test_an_accuracy_of_five_guesses_above_one_tells_that_one_is_in_percent(tmp_path):
    text = "epoch,lr,val_acc,val_acc5\n1,0.1,0.4,2.0\n2,0.1,0.9,4.0\n"
    with pytest.raises(RecordError, match=r"'val_acc5' is above it.*--accuracy share"):
        read(tmp_path, text, "log.csv")
    run = read(tmp_path, text.replace("2.0", "0.6").replace("4.0", "1.0"), "log.csv")
    assert [r.test_accuracy for r in run.epochs] == [40.0, 90.0]


def test_a_test_at_epoch_0_without_training_is_of_the_network_before_any(tmp_path):
    body = "0,,,10.0\n1,0.1,1.5,60.0\n2,0.01,1.0,65.0\n"
    run = read(tmp_path, f"epoch,lr,train_loss,val_acc\n{body}", "log.csv")
    assert run.start_accuracy == 10.0
    assert [(r.epoch, r.test_accuracy) for r in run.epochs] == [(1, 60.0), (2, 65.0)]


def test_short_words_for_the_data(tmp_path):
    text = "epoch,lr,tr_loss,tr_acc,va_loss,va_acc\n1,0.1,1.5,50,1.2,60\n2,0.1,1.0,70,1.1,65\n"
    assert rows(read(tmp_path, text, "log.csv")) == [
        (1, 0.1, 1.5, 1.2, 60.0),
        (2, 0.1, 1.0, 1.1, 65.0),
    ]
