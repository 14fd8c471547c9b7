"""A plain loop, a real Lightning Trainer and a real Hugging Face Trainer: the same norms."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainscope.errors import ProbeError
from trainscope.probes.hooks import ProbeHook
from trainscope.probes.sinks import Memory
from trainscope.probes.when import every, every_epochs
from trainscope.records.epoch import AFTER_CLIPPING, BEFORE_CLIPPING

pytestmark = pytest.mark.filterwarnings("ignore")  # of the integrated packages, not ours
STEPS, SIZE, LR = 12, 8, 0.5


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return (
        torch.randn(STEPS // 2 * SIZE, 6, generator=generator),
        torch.randint(3, (STEPS // 2 * SIZE,), generator=generator),
    )


def hook_for(memory: Memory) -> ProbeHook:
    return ProbeHook(norms=every(1), sink=memory)


def norms(memory: Memory, moment: str = AFTER_CLIPPING) -> list[float]:
    return [t.measurement.value("norm") for t in memory.taken if t.moment == moment]


def plain(clip: float | None = None) -> list[float]:
    """Two epochs by hand, with norms by hand, independent of the hook."""
    model, (x, y), found = network(), samples(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for start in list(range(0, len(x), SIZE)) * 2:
        optimizer.zero_grad()
        F.cross_entropy(model(x[start : start + SIZE]), y[start : start + SIZE]).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        found.append(float(torch.cat([p.grad.flatten() for p in model.parameters()]).norm()))
        optimizer.step()
    return found


def hooked() -> Memory:
    model, (x, y), memory = network(), samples(), Memory()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    with hook_for(memory).attach(model, optimizer):
        for start in list(range(0, len(x), SIZE)) * 2:
            optimizer.zero_grad()
            F.cross_entropy(model(x[start : start + SIZE]), y[start : start + SIZE]).backward()
            optimizer.step()
    return memory


def lightning_run(memory: Memory, hook: ProbeHook | None = None, **options) -> nn.Module:
    lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    from trainscope.probes.lightning import LightningProbes

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, _):
            return F.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=LR)

    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*samples()), batch_size=SIZE
    )
    module = Module()
    lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[LightningProbes(hook or hook_for(memory), network="net")],
        **options,
    ).fit(module, loader)
    return module.net


def test_the_hook_in_a_plain_loop_reads_the_norms_computed_by_hand():
    memory = hooked()
    assert norms(memory) == pytest.approx(plain(), rel=1e-6)
    assert [t.step for t in memory.taken] == list(range(1, STEPS + 1))


def test_lightning_gives_the_norms_of_the_plain_loop():
    memory = Memory()
    lightning_run(memory)
    assert norms(memory) == pytest.approx(plain(), rel=1e-6)
    assert [t.epoch for t in memory.taken] == pytest.approx(np.arange(1, STEPS + 1) / 6)


def test_lightning_with_clipping_has_both_moments():
    memory = Memory()
    lightning_run(memory, gradient_clip_val=0.1)
    assert norms(memory) == pytest.approx(plain(clip=0.1), rel=1e-4)
    before = norms(memory, BEFORE_CLIPPING)
    assert before[0] == pytest.approx(plain()[0], rel=1e-6)
    assert len(before) == STEPS


def test_lightning_without_an_optimizer_or_a_module_of_that_name_is_told_so():
    pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    from trainscope.errors import ProbeError
    from trainscope.probes.lightning import LightningProbes

    class Trainer:
        optimizers, num_training_batches, accumulate_grad_batches, global_step = [], 3, 1, 0

    model = network()
    with pytest.raises(ProbeError, match="Sequential configures no optimizer"):
        LightningProbes(ProbeHook()).on_train_start(Trainer, model)
    Trainer.optimizers = [torch.optim.SGD(model.parameters())]
    with pytest.raises(ProbeError, match="Sequential has no module 'backbone'"):
        LightningProbes(ProbeHook(), network="backbone").on_train_start(Trainer, model)


def test_lightning_goes_on_when_a_sink_fails_and_a_probe_raises():
    pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    from trainscope.data import ProbeData

    class Raises:
        name, needs = "raises", frozenset()

        def measure(self, subject, data):
            raise RuntimeError("out of order")

    def down(_):
        raise ConnectionError("no route to host")

    memory, data = Memory(), ProbeData("random:6", *samples())
    hook = ProbeHook([Raises()], when=every(4), data=data, sink=[down, memory])
    lightning_run(memory, hook=hook)
    assert norms(memory) == pytest.approx(plain(), rel=1e-6)
    reasons = [t.measurement.reason for t in memory.taken if t.measurement.probe == "raises"]
    assert reasons == ["RuntimeError: out of order"] * 4
    assert len(hook.unwritten) == len(memory.taken)


def test_hugging_face_gives_the_norms_of_the_plain_loop(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    from transformers.modeling_outputs import SequenceClassifierOutput

    from trainscope.probes.transformers import TrainerProbes

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x, labels):
            logits = self.net(x)
            return SequenceClassifierOutput(F.cross_entropy(logits, labels), logits)

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    x, y = samples()
    memory, model = Memory(), Model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        InOrder(
            model=model,
            args=transformers.TrainingArguments(
                output_dir=str(tmp_path),
                num_train_epochs=2,
                per_device_train_batch_size=SIZE,
                max_grad_norm=0.0,
                lr_scheduler_type="constant",
                learning_rate=LR,
                use_cpu=True,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=[{"x": a, "labels": b} for a, b in zip(x, y, strict=True)],
            optimizers=(torch.optim.SGD(model.parameters(), lr=LR), None),
            callbacks=[TrainerProbes(hook_for(memory))],
        ).train()
    assert norms(memory) == pytest.approx(plain(), rel=1e-6)
    assert memory.taken[-1].epoch == pytest.approx(2.0)


def test_a_probe_in_lightning_leaves_the_weights_bit_for_bit():
    pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    from trainscope.data import ProbeData
    from trainscope.probes.gradient import Gradient

    memory = Memory()
    probing = ProbeHook(
        [Gradient()], when=every_epochs(1), data=ProbeData("random:6", *samples()), sink=memory
    )
    watched = lightning_run(memory, hook=probing)
    alone = lightning_run(Memory(), hook=ProbeHook(norms=None))
    for left, right in zip(watched.parameters(), alone.parameters(), strict=True):
        assert torch.equal(left, right)
    found = [t for t in memory.taken if t.measurement.probe == "gradient"]
    assert [t.step for t in found] == [0, 6, 12]
    assert all(t.measurement.status == "ok" for t in found)


EVERY = ["gradient", "jacobian", "curvature"]


def dictionaries() -> list[dict[str, torch.Tensor]]:
    ids = torch.randint(1, 20, (24, 6), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[::3, 4:] = 0
    return [
        {"input_ids": i, "attention_mask": m, "labels": i[0] % 3}
        for i, m in zip(ids, mask, strict=True)
    ]


class Pooled(nn.Module):
    """A classifier of token ids, as Hugging Face calls and trains one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embed, self.mix, self.out = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask, labels=None):
        hidden = torch.tanh(self.mix(self.embed(input_ids))) * attention_mask.unsqueeze(2)
        logits = self.out(hidden.sum(1))
        if labels is None:
            return {"logits": logits}
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def probed(hook: ProbeHook) -> dict[str, object]:
    """Return what each probe found last, which must be something."""
    found = {t.measurement.probe: t.measurement for t in hook.taken}
    assert {name: found[name].reason for name in EVERY} == dict.fromkeys(EVERY)
    return found


@pytest.mark.parametrize("kind", ["own", "bert", "gpt2"])
def test_every_probe_in_hugging_faces_trainer_with_dictionary_batches(tmp_path, kind):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    from trainscope.probes.transformers import TrainerProbes

    sizes = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2}
    data, task = dictionaries(), None

    def made():
        torch.manual_seed(3)
        if kind == "own":
            return Pooled()
        if kind == "bert":
            config = transformers.BertConfig(
                vocab_size=20, intermediate_size=8, num_labels=3, **sizes
            )
            return transformers.BertForSequenceClassification(config)
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2)
        )

    if kind == "gpt2":
        for each in data:  # padding is left out by label, as Hugging Face's collators do
            each["labels"] = each["input_ids"].masked_fill(each["attention_mask"] == 0, -100)
        task = "language-modelling"

    def trained(hook: ProbeHook) -> nn.Module:
        model = made()
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path), max_steps=3, per_device_train_batch_size=SIZE, seed=1,
            learning_rate=1e-2, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        transformers.Trainer(
            model=model, args=arguments, train_dataset=data, callbacks=[TrainerProbes(hook)]
        ).train()
        return model

    loader = torch.utils.data.DataLoader(data, SIZE, shuffle=True)
    hook = ProbeHook(EVERY, when=every(3), data=loader, task=task)
    watched, alone = trained(hook), trained(ProbeHook(norms=None))
    for left, right in zip(watched.parameters(), alone.parameters(), strict=True):
        assert torch.equal(left, right)
    found = probed(hook)
    # By hand, from the network that came out and the very samples: the loss is the Trainer's own.
    with torch.no_grad():
        by_hand = float(watched.eval()(**hook.data.batch)["loss"])
    assert found["gradient"].value("loss") == pytest.approx(by_hand, rel=1e-5)


def test_every_probe_in_lightning_with_dictionary_batches():
    lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    from trainscope.probes.lightning import LightningProbes

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Pooled()

        def forward(self, **batch):
            return self.net(**batch)

        def training_step(self, batch, _):
            return self(**batch)["loss"]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=LR)

    def trained(hook: ProbeHook, network: str | None) -> nn.Module:
        torch.manual_seed(5)
        module = Module()
        lightning.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
            callbacks=[LightningProbes(hook, network)],
        ).fit(module, torch.utils.data.DataLoader(dictionaries(), SIZE, shuffle=True))  # fmt: skip
        return module

    alone = trained(ProbeHook(norms=None), None)
    for part in ("net", None):
        loader = torch.utils.data.DataLoader(dictionaries(), SIZE, shuffle=True)
        hook = ProbeHook(EVERY, when=every(3), data=loader)
        watched = trained(hook, part)
        for left, right in zip(watched.parameters(), alone.parameters(), strict=True):
            assert torch.equal(left, right)
        probed(hook)


# ---- a Trainer's own data and loggers


def by_hand(make, batches, hook, lr):
    """Train in a plain loop on these batches, with the hook."""
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    model.train()
    with hook.attach(model, optimizer):
        for batch in batches:
            optimizer.zero_grad()
            model(**batch)["loss"].backward()
            optimizer.step()
    return model


def scalars(hook: ProbeHook, *names: str) -> dict[tuple[str, int], dict[str, float | None]]:
    """Return what was measured by probe and step."""
    return {
        (t.measurement.probe, t.step): {n: s.value for n, s in t.measurement.scalars.items()}
        for t in hook.taken
        if t.measurement.probe in names
    }


def same(left, right, rel=1e-4):
    assert left.keys() == right.keys()
    assert left
    for key, values in left.items():
        assert values == {
            n: v if v is None else pytest.approx(v, rel=rel, abs=1e-6)
            for n, v in right[key].items()
        }, key


def tiny_gpt():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(3)
    sizes = {"vocab_size": 20, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **drops))


def texts() -> list[dict[str, torch.Tensor]]:
    """Return texts; the first token is no label, as the Trainer counts labels for its mean."""
    rows = [each["input_ids"] for each in dictionaries()]
    return [
        {"input_ids": ids, "labels": torch.cat([torch.tensor([-100]), ids[1:]])} for ids in rows
    ]


def trained_by_hugging_face(hook, folder, *, data=None, lend=True, **options):
    """Train the tiny GPT on texts in order; return the Trainer."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    from trainscope.probes.transformers import TrainerProbes

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    model = tiny_gpt()
    given = {"per_device_train_batch_size": SIZE, "report_to": [], "num_train_epochs": 1, **options}
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_grad_norm=0.0, lr_scheduler_type="constant", use_cpu=True,
        save_strategy="no", disable_tqdm=True, logging_steps=1, **given,
    )  # fmt: skip
    trainer = InOrder(
        model=model, args=arguments, train_dataset=texts(), eval_dataset=data,
        optimizers=(torch.optim.SGD(model.parameters(), lr=0.1), None),
    )  # fmt: skip
    trainer.add_callback(TrainerProbes(hook, trainer if lend else None))
    trainer.train()
    return trainer


PROBES = ["gradient", "curvature"]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_hugging_faces_trainer_lends_its_data_and_the_numbers_are_those_of_a_plain_loop(
    tmp_path, accumulate
):
    """A step of two batches of 4 is one of a batch of 8."""
    hook = ProbeHook(PROBES, when=every(3), data="trainer", task="language-modelling")
    trained_by_hugging_face(
        hook, tmp_path, data=texts()[:16], gradient_accumulation_steps=accumulate,
        per_device_train_batch_size=SIZE // accumulate,
    )  # fmt: skip
    assert len(hook.data) == 16
    given = torch.utils.data.DataLoader(texts()[:16], SIZE)
    plain_hook = ProbeHook(PROBES, when=every(3), data=given, task="language-modelling")
    by_hand(tiny_gpt, torch.utils.data.DataLoader(texts(), SIZE), plain_hook, 0.1)
    names = (*PROBES, "step_gradient")
    same(scalars(hook, *names), scalars(plain_hook, *names), rel=1e-3)


def test_without_the_trainer_its_training_data_are_taken(tmp_path):
    hook = ProbeHook(["gradient"], when=every(3), data="trainer", task="language-modelling")
    trained_by_hugging_face(hook, tmp_path, data=texts()[:16], lend=False)
    assert len(hook.data) == 24
    assert set(hook.data.batch) >= {"input_ids", "labels"}


def test_bf16_autocast_of_the_trainer_does_not_reach_the_probes(tmp_path):
    hook = ProbeHook(PROBES, when=every(3), data="trainer", task="language-modelling")
    trainer = trained_by_hugging_face(hook, tmp_path, bf16=True)
    found = {t.measurement.probe: t.measurement for t in hook.taken if t.step == 3}
    batch, model = hook.data.batch, trainer.model.eval()
    with torch.no_grad():
        loss = float(model(**batch)["loss"])
    # In bf16 the loss differs by about 1e-3.
    assert found["gradient"].value("loss") == pytest.approx(loss, rel=1e-5)
    assert found["curvature"].status == "ok"


def test_hugging_faces_report_to_gets_the_numbers_in_the_trainers_own_run(tmp_path, monkeypatch):
    from trackers import mlflow_points, need, points, wandb_runs

    mlflow = need("mlflow")
    need("wandb")
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    for name, value in {
        "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true",
        "TENSORBOARD_LOGGING_DIR": str(tmp_path / "events"), "MLFLOW_EXPERIMENT_NAME": "own",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    memory = Memory()
    hook = ProbeHook(norms=every(1), sink=["logger", memory])
    trained_by_hugging_face(hook, tmp_path / "out", report_to=["mlflow", "wandb", "tensorboard"])
    assert hook.unwritten == []
    right = [(t.step, pytest.approx(t.measurement.value("norm"))) for t in memory.taken]
    assert [step for step, _ in right] == [1, 2, 3]
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("own").experiment_id])
    assert mlflow_points(run.info.run_id, "step_gradient/norm") == right
    assert len(mlflow_points(run.info.run_id, "loss")) == 3
    (own,) = wandb_runs(tmp_path)
    assert points(own.rows, "step_gradient/norm", "trainscope/step") == right
    assert len(points(own.rows, "train/loss", "train/global_step")) == 3
    assert hook.sinks[0]._sinks[2].seen("step_gradient/norm") == 3
    mlflow.end_run()


def test_hugging_faces_report_to_that_names_nothing_is_told_so(tmp_path):
    with pytest.raises(ProbeError, match="report_to names, which is nothing: name one of mlflow"):
        trained_by_hugging_face(ProbeHook(sink="logger"), tmp_path)


class Csv:
    """A logger's file."""

    @staticmethod
    def read(folder) -> list[dict[str, str]]:
        import csv

        (path,) = folder.rglob("metrics.csv")
        with path.open() as file:
            return list(csv.DictReader(file))


def lightning_texts(hook, **options):
    """Train the tiny GPT in Lightning by a loss of the module's own."""
    lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    from trainscope.probes.lightning import LightningProbes

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = tiny_gpt()

        def forward(self, **batch):
            return self.net(**batch)

        def training_step(self, batch, _):
            logits = self.net(input_ids=batch["input_ids"]).logits[:, :-1]
            loss = F.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch, _):
            pass

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", enable_checkpointing=False, log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[LightningProbes(hook, network="net")], **options,
    )  # fmt: skip
    loaders = (torch.utils.data.DataLoader(each, SIZE) for each in (texts(), texts()[:16]))
    trainer.fit(Module(), *loaders)
    return trainer


def test_lightning_lends_its_validation_data_and_its_loggers(tmp_path):
    loggers = pytest.importorskip("lightning.pytorch.loggers", reason="lightning is missing")
    memory = Memory()
    hook = ProbeHook(
        PROBES, when=every(3), data="trainer", task="language-modelling", sink=["logger", memory]
    )
    csv = loggers.CSVLogger(tmp_path)
    events = loggers.TensorBoardLogger(tmp_path / "events")
    lightning_texts(hook, logger=[csv, events])
    assert len(hook.data) == 16
    assert hook.unwritten == []
    plain_hook = ProbeHook(
        PROBES, when=every(3), data=torch.utils.data.DataLoader(texts()[:16], SIZE),
        task="language-modelling",
    )  # fmt: skip
    by_hand(tiny_gpt, torch.utils.data.DataLoader(texts(), SIZE), plain_hook, 0.1)
    names = (*PROBES, "step_gradient")
    hook.memory.taken = memory.taken
    found = scalars(hook, *names)
    same(found, scalars(plain_hook, *names), rel=1e-3)
    rows = Csv.read(tmp_path / "lightning_logs")
    logged = {int(r["step"]): float(r["gradient/norm"]) for r in rows if r.get("gradient/norm")}
    assert logged == {s: pytest.approx(found["gradient", s]["norm"]) for s in (0, 3)}
    assert any(row.get("train_loss") for row in rows)


def test_lightning_without_a_logger_is_told_so():
    with pytest.raises(ProbeError, match="loggers, and it has none"):
        lightning_texts(ProbeHook(sink="logger"), logger=False)
