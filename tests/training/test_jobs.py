"""Stems, retraining, tickets and scratch baselines: which weights, which shapes, whose base."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from small_training import few_digits, pretrained

from trainscope.errors import ActionError, RecordError, ScheduleError
from trainscope.networks import build, digest, masks_of, open_checkpoint
from trainscope.records import Kind, Pretraining, Run
from trainscope.sparsify import Action, sparsify
from trainscope.training.budget import scratch_epochs
from trainscope.training.jobs import retraining_job, run_beside, scratch_job
from trainscope.training.recipe import parse_recipe
from trainscope.training.runner import Watch, run_job
from trainscope.training.schedule import parse_schedule
from trainscope.training.settings import Settings
from trainscope.training.stem import epoch_folder, pretrain
from trainscope.training.weights import reinitialised, rewound

SCHEDULE = parse_recipe("F2,1e-2").schedule()


@pytest.fixture(scope="module")
def stem(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stem")
    pretrain(pretrained(), folder, 4)
    return folder


def weights(path):
    return open_checkpoint(path / "checkpoint.pt").module.state_dict()


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def test_a_stem_is_pretrained_once_and_cut_where_it_is_asked(stem, tmp_path):
    """Later, earlier, and in one go: one trajectory."""
    steps = []
    later = pretrain(pretrained(), stem, 6, watch=Watch(on_step=lambda e, *_: steps.append(e)))
    assert set(steps) == {4, 5}
    earlier = pretrain(pretrained(), stem, 3)
    whole = pretrain(pretrained(), tmp_path, 6)
    assert equal(weights(later), weights(whole))
    run = Run.load(earlier)
    assert [r.epoch for r in run.epochs] == [1, 2, 3]
    assert [r.train_loss for r in run.epochs] == [r.train_loss for r in Run.load(whole).epochs[:3]]
    assert (run.schedule, run.total) == ("0:1e-1,4:1e-2,6:1e-3,7:1e-4", 8)
    assert sorted(path.name for path in stem.iterdir()) == [
        *("epoch-0000", "epoch-0003", "epoch-0004", "epoch-0006", "settings.json")
    ]
    assert equal(weights(epoch_folder(stem, 0)), pretrained().network.module.state_dict())


def test_an_interrupted_stem_goes_on(tmp_path):
    def stop(epoch, step, _):
        if (epoch, step) == (2, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(pretrained(), tmp_path / "a", 4, watch=Watch(on_step=stop))
    seen = []
    kept = pretrain(
        pretrained(), tmp_path / "a", 4, watch=Watch(on_step=lambda e, *_: seen.append(e))
    )
    assert set(seen) == {2, 3}
    assert equal(weights(kept), weights(pretrain(pretrained(), tmp_path / "b", 4)))


@pytest.mark.parametrize("damaged", [("checkpoint.pt",), ("checkpoint.pt", "state.pt")])
@pytest.mark.parametrize("epoch", [0, 3])
def test_what_a_stem_kept_is_made_again_where_it_is_damaged(stem, tmp_path, epoch, damaged):
    """The checkpoint from the state of its epoch, that from the last one before it."""
    folder = tmp_path / "stem"
    shutil.copytree(stem, folder)
    pretrain(pretrained(), folder, 3)
    kept = epoch_folder(folder, epoch)
    expected, records = weights(kept), Run.load(kept).epochs
    for name in damaged:
        if (kept / name).exists():
            content = bytearray((kept / name).read_bytes())
            content[len(content) // 2] ^= 0xFF
            (kept / name).write_bytes(content[: 3 * len(content) // 4])
    pretrain(pretrained(), folder, 3)
    assert equal(weights(kept), expected)
    assert len(Run.load(kept).epochs) == len(records)
    (kept / "checkpoint.pt").unlink()
    pretrain(pretrained(), folder, 3)
    assert equal(weights(kept), expected)
    content = bytearray((kept / "checkpoint.pt").read_bytes())
    content[len(content) // 2] ^= 0xFF  # one bit of a weight: the file is as long as it was
    (kept / "checkpoint.pt").write_bytes(content)
    pretrain(pretrained(), folder, 3)
    assert equal(weights(kept), expected)


def test_another_pretraining_has_another_folder(stem):
    with pytest.raises(RecordError, match="the seed is 0 there and 3 here"):
        pretrain(pretrained(seed=3), stem, 4)


@pytest.mark.parametrize("structure", ["filter", "unstructured"])
def test_retraining_tickets_and_new_weights(stem, structure):
    base = open_checkpoint(epoch_folder(stem, 4) / "checkpoint.pt")
    initial = open_checkpoint(epoch_folder(stem, 0) / "checkpoint.pt")
    run = run_beside(epoch_folder(stem, 4) / "checkpoint.pt", base)
    made = {}
    for kind in (Kind.RETRAIN, Kind.WINNING_TICKET, Kind.RANDOM_REINIT):
        job, done = retraining_job(
            base,
            few_digits(),
            Action(structure=structure, ratio=0.75),
            SCHEDULE,
            Settings(),
            pretraining=run,
            weights=kind,
            initial=initial,
        )
        assert job.base == run.end == digest(base.module)
        assert job.pruning.epoch == 4
        assert job.pruning.action == done.record
        assert job.pretraining == Pretraining(run.schedule, 8, 4, run.flops, run.final_accuracy)
        made[kind] = job.network.module
    kept, ticket, fresh = made.values()
    shapes = {tuple(map(tuple, (p.shape for p in module.parameters()))) for module in made.values()}
    assert len(shapes) == 1
    assert equal(masks_of(kept), masks_of(ticket))
    assert equal(masks_of(kept), masks_of(fresh))
    # The stem's first convolution is spared: it tells whose weights a network has.
    assert torch.equal(kept.conv1.weight, base.module.conv1.weight)
    assert torch.equal(ticket.conv1.weight, initial.module.conv1.weight)
    assert not torch.equal(fresh.conv1.weight, initial.module.conv1.weight)
    for module in made.values():
        for name, mask in masks_of(module).items():
            assert not module.get_parameter(name)[~mask].any()


def test_a_ticket_has_the_weights_that_its_survivors_began_with(stem):
    """The filters that went from the base are cut out of the first network."""
    base = open_checkpoint(epoch_folder(stem, 4) / "checkpoint.pt")
    initial = open_checkpoint(epoch_folder(stem, 0) / "checkpoint.pt")
    done = sparsify(base.module, Action(ratio=0.5), (1, 8, 8))
    ticket = rewound(initial, done, (1, 8, 8))
    removed = set(done.removed["layer2.0.conv1"])
    left = [i for i in range(32) if i not in removed]
    first = initial.module.layer2[0]
    assert torch.equal(ticket.layer2[0].conv1.weight, first.conv1.weight[left])
    assert torch.equal(ticket.layer2[0].conv2.weight, first.conv2.weight[:, left])
    other = replace(initial, module=build("resnet20", 10))
    masked = sparsify(base.module, Action(structure="unstructured", ratio=0.5), (1, 8, 8))
    with pytest.raises(ActionError, match="another shape"):
        rewound(other, masked, (1, 8, 8))


def test_what_a_ticket_lacks_is_said(stem):
    base = open_checkpoint(epoch_folder(stem, 4) / "checkpoint.pt")
    with pytest.raises(ActionError, match="--rewind-to"):
        retraining_job(
            base, few_digits(), Action(ratio=0.5), SCHEDULE, Settings(), weights=Kind.WINNING_TICKET
        )
    with pytest.raises(ActionError, match="--ratio"):
        retraining_job(base, few_digits(), None, SCHEDULE, Settings(), weights=Kind.RANDOM_REINIT)


def test_retraining_what_was_pruned_before_keeps_its_origin(stem, tmp_path):
    base = open_checkpoint(epoch_folder(stem, 4) / "checkpoint.pt")
    run = run_beside(epoch_folder(stem, 4) / "checkpoint.pt", base)
    job, _ = retraining_job(
        base, few_digits(), Action(ratio=0.75), SCHEDULE, Settings(), pretraining=run
    )
    first = run_job(job, tmp_path / "first")
    pruned = open_checkpoint(tmp_path / "first" / "checkpoint.pt")
    beside = run_beside(tmp_path / "first" / "checkpoint.pt", pruned)
    assert beside == first
    again, done = retraining_job(
        pruned, few_digits(), None, SCHEDULE, Settings(), pretraining=beside
    )
    assert done is None
    assert (again.base, again.pruning) == (first.base, first.pruning)
    assert again.pretraining == first.pretraining
    scratch = scratch_job(
        pruned, few_digits(), SCHEDULE, Settings(), Kind.SCRATCH_E, retraining=beside
    )
    assert (scratch.base, scratch.pruning) == (first.base, first.pruning)
    assert digest(scratch.network.module) != digest(pruned.module)


def test_a_run_beside_other_weights_is_not_theirs(stem, tmp_path):
    base = open_checkpoint(epoch_folder(stem, 4) / "checkpoint.pt")
    assert run_beside(epoch_folder(stem, 0) / "checkpoint.pt", base) is None
    assert run_beside(tmp_path / "checkpoint.pt", base) is None


def test_fresh_weights_have_the_right_spread():
    """Convolutions of a narrower network: normal, variance 2 / fan-out of its own width."""
    base = pretrained().network
    done = sparsify(build("resnet56", 10), Action(ratio=0.5), (3, 32, 32))
    like = replace(base, module=done.module, architecture="resnet56", input_shape=(3, 32, 32))
    module = reinitialised(like, 0).module
    assert [p.shape for p in module.parameters()] == [p.shape for p in like.module.parameters()]
    conv = module.layer3[4].conv1.weight
    fan_out = conv.shape[0] * 9
    assert float(conv.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    assert (module.bn1.weight == 1).all()
    assert (module.bn1.running_mean == 0).all()
    assert equal(module.state_dict(), reinitialised(like, 0).module.state_dict())
    assert not equal(module.state_dict(), reinitialised(like, 1).module.state_dict())


def test_budgets():
    assert scratch_epochs("epochs", pretrain=60, retrain=60) == 120
    assert scratch_epochs("epochs", pretrain=160, retrain=0) == 160
    assert scratch_epochs("flops", pretrain=60, retrain=60, speedup=2.0) == 180
    assert scratch_epochs("flops", pretrain=27, retrain=90, speedup=30 / 27) == 120
    with pytest.raises(ScheduleError, match="--speedup"):
        scratch_epochs("flops", pretrain=60, retrain=60)
    with pytest.raises(ScheduleError, match="--epochs"):
        scratch_epochs("epochs", pretrain=0, retrain=0)


def test_nobody_is_trained_by_a_recorded_schedule_with_a_rate_of_zero():
    recorded = parse_schedule("0:1e-2,1:0", 2, recorded=True)
    with pytest.raises(ScheduleError, match="1:0 is no learning rate"):
        retraining_job(pretrained().network, few_digits(), None, recorded, Settings())
