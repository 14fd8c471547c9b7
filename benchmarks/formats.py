"""One file of each checkpoint format, made by the real tool, opened and probed: docs/formats.md.

    pip install timm lightning transformers
    python benchmarks/formats.py [DOCS_PAGE]

Each row says which tool of which version wrote the file, what trainscope made of it, whether the
opened network's logits are the source's bit for bit, and whether `probe --ratio 0.9` ran. A tool
that is not installed is a row that says so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from trainscope.diagnosis import examine
from trainscope.errors import TrainscopeError
from trainscope.networks import build, open_checkpoint

HEAD = """# Formats that were tried

Made by `benchmarks/formats.py`: one file of each format, written by the tool that people use,
opened without running any code in it, and probed at ratio 0.9 where its network is known here.

| format | written by | opened as | weights | probe at 0.9 |
|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Case:
    """One format: how it is called, the tool, and what writes a file and returns its source."""

    name: str
    tool: str
    write: Callable[[Path], tuple[Path, nn.Module | None]]


def lenet() -> nn.Module:
    torch.manual_seed(0)
    return build("lenet5", 10).eval()


def saved(content: object, module: nn.Module, path: Path) -> tuple[Path, nn.Module]:
    torch.save(content, path)
    return path, module


def state_dict(folder: Path) -> tuple[Path, nn.Module]:
    module = lenet()
    return saved(module.state_dict(), module, folder / "weights.pt")


def imagenet_example(folder: Path) -> tuple[Path, nn.Module]:
    torch.manual_seed(0)
    module = build("resnet18", 10).eval()
    content = {
        "epoch": 5,
        "arch": "resnet18",
        "state_dict": nn.DataParallel(module).state_dict(),
        "best_acc1": torch.tensor(71.0),
    }
    return saved(content, module, folder / "checkpoint.pth.tar")


def torchvision_reference(folder: Path) -> tuple[Path, nn.Module]:
    torch.manual_seed(0)
    module = build("resnet18", 10).eval()
    averaged = torch.optim.swa_utils.AveragedModel(module)
    content = {
        "model": module.state_dict(),
        "model_ema": averaged.state_dict(),
        "epoch": 3,
        "args": argparse.Namespace(model="resnet18", data_path="/data", lr=0.1),
    }
    return saved(content, module, folder / "model_3.pth")


def timm_script(folder: Path) -> tuple[Path, nn.Module]:
    import timm
    from timm.utils import CheckpointSaver, ModelEmaV3

    module = timm.create_model("resnet18", num_classes=10).eval()
    averaged = ModelEmaV3(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    arguments = argparse.Namespace(model="resnet18", seed=42)
    CheckpointSaver(
        module,
        optimizer,
        args=arguments,
        model_ema=averaged,
        checkpoint_dir=str(folder),
        recovery_dir=str(folder),
    ).save_checkpoint(4, metric=76.5)
    return folder / "last.pth.tar", averaged.module


def timm_hub(folder: Path) -> tuple[Path, nn.Module]:
    import timm
    from timm.models import save_for_hf

    module = timm.create_model("resnet18", num_classes=10).eval()
    save_for_hf(module, str(folder), model_config={"num_classes": 10})
    return folder, module


def lightning_run(folder: Path) -> tuple[Path, nn.Module]:
    import lightning

    class Lit(lightning.LightningModule):
        def __init__(self, root: Path = Path("data")) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = lenet()

        def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    lit = Lit()
    data = torch.utils.data.TensorDataset(torch.randn(8, 1, 28, 28), torch.zeros(8).long())
    trainer = lightning.Trainer(
        max_epochs=1,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    trainer.fit(lit, torch.utils.data.DataLoader(data, batch_size=4))
    trainer.save_checkpoint(folder / "run.ckpt")
    return folder / "run.ckpt", lit.net


def transformers_folder(folder: Path) -> tuple[Path, None]:
    import transformers

    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]}
    network = transformers.ResNetForImageClassification(transformers.ResNetConfig(**sizes))
    network.save_pretrained(folder, max_shard_size="5KB")
    return folder, None


def safetensors_file(folder: Path) -> tuple[Path, nn.Module]:
    from safetensors.torch import save_file

    module = lenet()
    save_file(module.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors", module


def masked(folder: Path) -> tuple[Path, nn.Module]:
    module = lenet()
    layer = next(m for m in module.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1)
    prune.l1_unstructured(layer, "weight", amount=0.5)
    return saved(module.state_dict(), module, folder / "masked.pt")


def weight_norm(folder: Path) -> tuple[Path, nn.Module]:
    module = lenet()
    for layer in [m for m in module.modules() if isinstance(m, nn.Conv2d)]:
        parametrizations.weight_norm(layer)
    return saved(module.state_dict(), module, folder / "normed.pt")


def cut() -> nn.Module:
    """Return a ResNet-34 cut by Torch-Pruning in every coupled channel."""
    import torch_pruning

    torch.manual_seed(0)
    module = build("resnet34", 10).eval()
    spared = [m for m in module.modules() if isinstance(m, nn.Linear)]
    torch_pruning.pruner.BasePruner(
        module,
        torch.randn(1, 3, 64, 64),
        importance=torch_pruning.importance.MagnitudeImportance(),
        pruning_ratio=0.5,
        ignored_layers=spared,
    ).step()
    module.zero_grad()
    return module.eval()


def whole(folder: Path) -> tuple[Path, nn.Module]:
    module = cut()
    return saved(module, module, folder / "whole.pt")


def whole_in_dictionary(folder: Path) -> tuple[Path, nn.Module]:
    module = cut()
    return saved({"model": module, "epoch": 90}, module, folder / "whole.pt")


def whole_legacy(folder: Path) -> tuple[Path, nn.Module]:
    module = cut()
    torch.save(module, folder / "whole.pt", _use_new_zipfile_serialization=False)
    return folder / "whole.pt", module


def cut_state_dict(folder: Path) -> tuple[Path, nn.Module]:
    module = cut()
    return saved(module.state_dict(), module, folder / "pruned.pt")


def script(folder: Path) -> tuple[Path, nn.Module]:
    module = lenet()
    torch.jit.save(torch.jit.script(module), folder / "script.pt")
    return folder / "script.pt", module


def exported(folder: Path) -> tuple[Path, nn.Module]:
    module = lenet()
    program = torch.export.export(module, (torch.randn(2, 1, 28, 28),))
    torch.export.save(program, folder / "exported.pt2")
    return folder / "exported.pt2", module


def distributed(folder: Path) -> tuple[Path, None]:
    import torch.distributed.checkpoint as dcp

    dcp.save(lenet().state_dict(), checkpoint_id=folder / "dcp", no_dist=True)
    return folder / "dcp", None


CASES = (
    Case("state dict", "torch", state_dict),
    Case("PyTorch ImageNet example", "torch", imagenet_example),
    Case("torchvision reference, with EMA", "torchvision", torchvision_reference),
    Case("timm training script, with EMA", "timm", timm_script),
    Case("timm folder for a hub", "timm", timm_hub),
    Case("Lightning checkpoint", "lightning", lightning_run),
    Case("transformers folder, sharded", "transformers", transformers_folder),
    Case("safetensors file", "safetensors", safetensors_file),
    Case("torch.nn.utils.prune masks", "torch", masked),
    Case("weight norm", "torch", weight_norm),
    Case("pruned state dict", "torch-pruning", cut_state_dict),
    Case("whole pruned network", "torch-pruning", whole),
    Case("whole pruned network under `model`", "torch-pruning", whole_in_dictionary),
    Case("whole pruned network, old container", "torch-pruning", whole_legacy),
    Case("TorchScript", "torch", script),
    Case("torch.export", "torch", exported),
    Case("distributed checkpoint", "torch", distributed),
)


def row(case: Case) -> str:
    try:
        tool = f"{case.tool} {version(case.tool).partition('+')[0]}"
    except PackageNotFoundError:
        return f"| {case.name} | {case.tool} | not installed | | |"
    with tempfile.TemporaryDirectory() as place:
        path, source = case.write(Path(place))
        try:
            network = open_checkpoint(path)
        except TrainscopeError as error:
            reason = str(error).removeprefix(f"{path}: ")
            return f"| {case.name} | {tool} | refused: {reason} | | |"
        bits = "identical logits" if source is not None and same(network.module, source) else "-"
        found = examine(path, ratio=0.9, probes=["gradient"], samples=2).diagnosis
        opened = f"{network.architecture} ({network.recognised})"
        return f"| {case.name} | {tool} | {opened} | {bits} | {found.action.speedup:.2f}x |"


@torch.no_grad()
def same(opened: nn.Module, source: nn.Module) -> bool:
    first = next(iter(source.parameters()))
    shape = (2, 1, 28, 28) if first.shape[0] == 6 else (2, 3, 64, 64)
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return torch.equal(opened(inputs), source.eval()(inputs))


def rows() -> Iterator[str]:
    for case in CASES:
        yield row(case)


def main(page: Path | None) -> None:
    warnings.simplefilter("ignore")
    lines = []
    for line in rows():
        print(line, flush=True)
        lines.append(line)
    if page is not None:
        page.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
