"""The epochs that measurements are put down to, where a Trainer counts its steps in its own way."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainscope.probes.hooks import ProbeHook
from trainscope.probes.when import at_epochs

pytestmark = pytest.mark.filterwarnings("ignore")  # of the integrated packages, not ours
SAMPLES, SIZE = 50, 8
BATCHES = 7


def rows():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(SAMPLES, 4, generator=generator)
    return [{"x": row, "labels": torch.tensor(k % 3)} for k, row in enumerate(x)]


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x, labels=None):
        logits = self.net(x)
        if labels is None:
            return {"logits": logits}
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.parametrize(
    ("asked", "steps"),
    [
        ({"num_train_epochs": 2}, 7),
        ({"max_steps": 10}, 7),
        ({"num_train_epochs": 0.5}, 7),
        ({"num_train_epochs": 2.5}, 7),
        ({"num_train_epochs": 2, "gradient_accumulation_steps": 2}, 4),
        ({"max_steps": 9, "gradient_accumulation_steps": 2}, 4),
        ({"max_steps": 9, "dataloader_drop_last": True}, 6),
    ],
)
def test_the_hugging_face_trainers_epochs(asked, steps, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    from trainscope.probes.transformers import TrainerProbes

    hook = ProbeHook(["gradient"], when=at_epochs(0, 1), data="trainer")
    ends: list[tuple[int, float]] = []

    class Ends(transformers.TrainerCallback):
        def on_epoch_end(self, args, state, control, **_):
            ends.append((state.global_step, round(state.epoch, 6)))

    arguments = transformers.TrainingArguments(
        str(tmp_path),
        per_device_train_batch_size=SIZE,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        **asked,
    )
    trainer = transformers.Trainer(Network(), arguments, train_dataset=rows(), callbacks=[Ends()])
    trainer.add_callback(TrainerProbes(hook, trainer))
    trainer.train()
    epochs = {t.step: t.epoch for t in hook.taken if t.measurement.probe == "step_gradient"}
    assert epochs == pytest.approx({step: step / steps for step in epochs})
    for step, epoch in ends:  # the Trainer's own count of whole epochs
        if epoch.is_integer():
            assert epochs[step] == pytest.approx(epoch)
    due = [t.step for t in hook.taken if t.measurement.probe == "gradient"]
    assert due == [0, *([steps] if steps in epochs else [])]


def lightning_module(lightning, every):
    class Module(lightning.LightningModule):
        """Makes an optimizer step every so many batches, and one of a second optimizer each."""

        def __init__(self):
            super().__init__()
            self.net, self.other = Network().net, nn.Linear(3, 3)
            self.automatic_optimization = False

        def training_step(self, batch, index):
            first, second = self.optimizers()
            self.manual_backward(F.cross_entropy(self.net(batch["x"]), batch["labels"]))
            if (index + 1) % every == 0:
                first.step()
                first.zero_grad()
            outputs = self.other(self.net(batch["x"]).detach())
            self.manual_backward(F.cross_entropy(outputs, batch["labels"]))
            second.step()
            second.zero_grad()

        def configure_optimizers(self):
            return [
                torch.optim.Adam(self.net.parameters(), lr=1e-2),
                torch.optim.SGD(self.other.parameters(), lr=0.1),
            ]

    return Module()


def fitted(tmp_path, every, epochs, checkpoint=None):
    lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    from trainscope.probes.lightning import LightningProbes

    hook = ProbeHook()
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[LightningProbes(hook, network="net")],
    )
    loader = torch.utils.data.DataLoader(rows(), batch_size=SIZE)
    trainer.fit(lightning_module(lightning, every), loader, ckpt_path=checkpoint)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return [(t.step, t.epoch) for t in hook.taken]


def test_lightnings_epochs_where_the_module_steps_by_itself(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="trainscope"):
        found = fitted(tmp_path, 1, 2)
    assert found == [(k, k / BATCHES) for k in range(1, 2 * BATCHES + 1)]
    assert not caplog.records
    with caplog.at_level(logging.WARNING, logger="trainscope"):
        found = fitted(tmp_path, 3, 3)  # two steps an epoch
    assert found[2:] == [(k, k / 2) for k in range(3, 7)]
    (record,) = caplog.records
    assert "took 2 optimizer steps, and 7 were expected" in record.getMessage()


def test_lightnings_steps_of_one_of_two_optimizers_go_on_after_a_restart(tmp_path):
    fitted(tmp_path, 1, 2)
    found = fitted(tmp_path, 1, 3, tmp_path / "last.ckpt")
    assert found == [(k, k / BATCHES) for k in range(2 * BATCHES + 1, 3 * BATCHES + 1)]
