"""Bad files by number: mutated checkpoints, logs, Runs and cards, each made from its seed alone."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import struct
import warnings
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from hostile_pickles import STEPS, WORDS, edited, tensor, text

ROOT = Path(__file__).parents[1]
KINDS = ("checkpoint", "pickle", "objects", "log", "run", "card")
SHARES = (25, 20, 20, 10, 15, 10)

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    -0.0,
    "",
    "nan",
    "\x1b[2J\x07",
    "[red]x[/blue]",
    "\ud800",
    "a" * 5000,
    [],
    {},
    [[]],
    {"a": {"b": []}},
    "../../etc/passwd",
    "0:1e-2,30:1e-3",
    "1e999",
)


class Maker:
    """Makes hostile files from good ones.

    Args:
        good: Bytes of good files by kind and name.
        canary: A file that no input may make.
    """

    def __init__(self, good: dict[str, dict[str, bytes]], canary: Path) -> None:
        self.good, self.canary = good, canary
        self._loaded: list[Any] | None = None

    def make(self, index: int, folder: Path) -> tuple[str, list[str]]:
        """Write the file of one number, and return its kind and the command that reads it."""
        draw = random.Random(index)
        kind = draw.choices(KINDS, SHARES)[0]
        path, arguments = getattr(self, f"_{kind}")(draw, folder)
        return kind, [each if each != "FILE" else str(path) for each in arguments]

    def _checkpoint(self, draw: random.Random, folder: Path) -> tuple[Path, list[str]]:
        name = draw.choice(sorted(self.good["checkpoint"]))
        content = self.good["checkpoint"][name]
        if name.endswith(".pt") and content[:2] == b"PK" and draw.random() < 0.6:
            content = self._rewritten(content, draw)
        else:
            content = self._damaged(content, draw, "checkpoint")
        path = folder / f"file{Path(name).suffix}"
        path.write_bytes(content)
        return path, _inspect(draw)

    def _rewritten(self, content: bytes, draw: random.Random) -> bytes:
        """Damage one record of an archive and write it anew, with the right checksums."""
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        pickled = [name for name in records if name.endswith("data.pkl")]
        chosen = pickled[0] if draw.random() < 0.8 else draw.choice(sorted(records))
        if chosen in pickled and draw.random() < 0.7:
            records[chosen] = edited(records[chosen], draw, self.canary)
        else:
            records[chosen] = self._damaged(records[chosen], draw, "checkpoint")
        out = io.BytesIO()
        packing = zipfile.ZIP_DEFLATED if draw.random() < 0.05 else zipfile.ZIP_STORED
        with zipfile.ZipFile(out, "w", packing) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, record in records.items():
                archive.writestr(name, record)
                if draw.random() < 0.002:
                    archive.writestr(name, record[::-1])
        return out.getvalue()

    def _pickle(self, draw: random.Random, folder: Path) -> tuple[Path, list[str]]:
        pickled = b"\x80\x02" + self._opcodes(draw) + b"."
        path = folder / "file.pt"
        if draw.random() < 0.2:
            before = b"".join(pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, {}))
            path.write_bytes(before + pickled + pickle.dumps([], 2))
        else:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("x/data.pkl", pickled)
                archive.writestr("x/data/0", bytes(draw.choice((0, 64, 4096))))
                archive.writestr("x/version", "3\n")
        return path, _inspect(draw)

    def _objects(self, draw: random.Random, folder: Path) -> tuple[Path, list[str]]:
        """Write what torch.save makes of a dictionary with odd values, names and tensors in it."""
        import torch

        if self._loaded is None:
            self._loaded = [
                torch.load(io.BytesIO(self.good["checkpoint"][name]), weights_only=True)
                for name in ("state.pt", "masked.pt", "lightning.pt", "own.pt")
            ]
        obj = copy.copy(draw.choice(self._loaded))
        state = obj = dict(obj)
        if "state_dict" in obj:
            state = obj["state_dict"] = dict(obj["state_dict"])
        for _ in range(draw.randrange(1, 4)):
            key, what = draw.choice(list(state)), draw.random()
            if what < 0.4:
                state[key] = _odd_tensor(draw)
            elif what < 0.5:
                state[draw.choice((*WORDS, *map(str, ODD)))] = state.pop(key)
            elif what < 0.6:
                state[key + draw.choice(("_mask", "_orig", "_g", "_v"))] = _odd_tensor(draw)
            elif what < 0.8:
                beside = (
                    "epoch",
                    "arch",
                    "args",
                    "cfg",
                    "best_acc1",
                    "format",
                    "input_shape",
                    "ema",
                )
                obj[draw.choice(beside)] = draw.choice(ODD)
            elif what < 0.9:
                obj[draw.choice(list(obj))] = draw.choice(ODD)
                state = {**state, "x": _odd_tensor(draw)}
            else:
                state = obj = {draw.choice(("model", "ema", "student", "x.y", "net")): obj}
        path = folder / "file.pt"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(obj, path, _use_new_zipfile_serialization=draw.random() < 0.8)
        return path, _inspect(draw)

    def _opcodes(self, draw: random.Random) -> bytes:
        """Return opcodes whose stack mostly holds, with a repetition now and then."""
        out, depth = [], 0
        for _ in range(draw.choice((5, 20, 80, 300))):
            step = draw.choice(STEPS)
            if step.takes > depth:
                continue
            code = step.make(draw, self.canary)
            times = 1
            if draw.random() < 0.03 and step.gives >= step.takes:
                times = draw.choice((50, 3000, 200_000 if len(code) < 3 else 500))
            out.append(code * times)
            depth += (step.gives - step.takes) * times
        shape = draw.random()
        if shape < 0.3:  # a tensor of a state dict, with one thing wrong
            return b"}" + text("conv1.weight") + tensor(draw) + b"s" + b"".join(out[:6]) + b"0"
        return b"".join(out) + (b"}" if not depth else b"")

    def _log(self, draw: random.Random, folder: Path) -> tuple[Path, list[str]]:
        name = draw.choice(sorted(self.good["log"]))
        content = self.good["log"][name]
        if name.endswith(".json") and draw.random() < 0.7:
            content = _odd_json(content, draw)
        elif name.endswith(".csv") and draw.random() < 0.7:
            content = _odd_table(content, draw)
        else:
            content = self._damaged(content, draw, "log")
        path = folder / name
        path.write_bytes(content)
        if name.endswith(".csv") and draw.random() < 0.2:
            return path, ["estimate", "FILE", "--target", "60"]
        return path, ["import", "FILE"]

    def _run(self, draw: random.Random, folder: Path) -> tuple[Path, list[str]]:
        content = self.good["run"][draw.choice(sorted(self.good["run"]))]
        odd = _odd_json(content, draw) if draw.random() < 0.8 else None
        path = folder / "run.json"
        path.write_bytes(odd if odd is not None else self._damaged(content, draw, "run"))
        return path, draw.choice((["compare", "FILE"], ["compare", "FILE", "--json"]))

    def _card(self, draw: random.Random, folder: Path) -> tuple[Path, list[str]]:
        content = self.good["card"][draw.choice(sorted(self.good["card"]))]
        if draw.random() < 0.7:
            lines = content.decode().splitlines()
            for _ in range(draw.randrange(1, 4)):
                at = draw.randrange(len(lines))
                key = lines[at].partition("=")[0].strip() or "x"
                value = draw.choice((*map(_toml, ODD), "[[run]]", "1_", "{", "'", "1979-05-27"))
                lines[at] = f"{key} = {value}" if draw.random() < 0.8 else value
            content = "\n".join(lines).encode("utf-8", "surrogatepass")
        else:
            content = self._damaged(content, draw, "card")
        path = folder / "card.toml"
        path.write_bytes(content)
        return path, ["compare", "FILE"]

    def _damaged(self, content: bytes, draw: random.Random, kind: str) -> bytes:
        """Return bytes with one to four things wrong."""
        data = bytearray(content)
        for _ in range(draw.randrange(1, 5)):
            at = draw.randrange(len(data) + 1)
            end = min(len(data), at + draw.choice((1, 4, 30, 1000)))
            what = draw.randrange(7)
            if what == 0 and at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            elif what == 1 and at < len(data):
                data[at] = draw.choice((0, 0xFF, 0x80, 0x28, 0x2E, 0x52, draw.randrange(256)))
            elif what == 2:
                del data[at:]
            elif what == 3:
                del data[at:end]
            elif what == 4:
                data[at:at] = data[at:end] * draw.choice((1, 2, 100))
            elif what == 5:
                other = self.good[kind][draw.choice(sorted(self.good[kind]))]
                start = draw.randrange(len(other) + 1)
                data[at:end] = other[start : start + draw.choice((4, 100, 3000))]
            else:
                data[at:end] = struct.pack("<q", draw.choice((-1, 2**31, 2**62, 0)))
        return bytes(data)


def _odd_tensor(draw: random.Random) -> Any:
    import torch

    shape = draw.choice(((), (0,), (3, 0, 2), (1,), (6, 1, 5, 5), (10, 84), (120, 400), (2,) * 20))
    value = torch.ones(shape)
    kinds = (torch.float64, torch.int8, torch.bool, torch.uint16, torch.complex64, torch.float16)
    what = draw.randrange(9)
    if what < 2:
        return value.to(draw.choice((*kinds, torch.float8_e5m2, torch.bfloat16)))
    if what == 2:
        return value.to("meta")
    if what == 3:
        return value.to_sparse() if value.ndim else value
    if what == 4:
        return torch.quantize_per_tensor(value, 0.1, 0, torch.quint8)
    if what == 5:
        return torch.zeros(()).expand(draw.choice(((3,), (10**9,), (10**5, 10**5, 10**3))))
    if what == 6:
        return value * draw.choice((float("nan"), float("inf"), 1e38, -0.0))
    if what == 7:
        return torch.nn.Parameter(value, requires_grad=False)
    return value


def _inspect(draw: random.Random) -> list[str]:
    return draw.choice((["inspect", "FILE"], ["inspect", "FILE", "--json"]))


def _odd_json(content: bytes, draw: random.Random) -> bytes:
    """Return a JSON document with one to three of its values made odd, or taken out."""
    document = json.loads(content)
    for _ in range(draw.randrange(1, 4)):
        places: list[tuple[Any, Any]] = []
        waiting = [document]
        while waiting:
            each = waiting.pop()
            keys = list(each) if isinstance(each, dict) else range(len(each))
            places += [(each, key) for key in keys]
            waiting += [each[key] for key in keys if isinstance(each[key], dict | list)]
        if not places:
            break
        home, key = draw.choice(places)
        what = draw.randrange(4)
        if what == 0 and isinstance(home, dict):
            del home[key]
        elif what == 1 and isinstance(home, dict):
            home[draw.choice(("", "x", "epoch", "\x1b[2J", "ratio"))] = home[key]
        elif what == 2 and isinstance(home, list):
            home.extend([home[key]] * draw.choice((1, 300)))
        else:
            home[key] = draw.choice(ODD)
    raw = json.dumps(document)
    if draw.random() < 0.05:
        raw = raw.replace("{", "[" * 100_000 + "{", 1)
    return raw.encode("utf-8", "surrogatepass")


def _odd_table(content: bytes, draw: random.Random) -> bytes:
    rows = [line.split(",") for line in content.decode().splitlines()]
    for _ in range(draw.randrange(1, 6)):
        row = draw.choice(rows)
        what = draw.randrange(4)
        if what == 0:
            row[draw.randrange(len(row))] = str(draw.choice(ODD))
        elif what == 1:
            rows.insert(draw.randrange(len(rows)), list(row))
        elif what == 2:
            row.append("7")
        else:
            row[draw.randrange(len(row))] = draw.choice(("1e400", '"', "=1+1", "1;2", "٣", "\x00"))
    return "\n".join(map(",".join, rows)).encode("utf-8", "surrogatepass")


def _toml(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool | float) else str(value).replace("'", '"')


def good_files(folder: Path) -> dict[str, dict[str, bytes]]:
    """Return good files of every kind, by name."""
    import torch
    from click.testing import CliRunner
    from safetensors.torch import save_file
    from torch.nn.utils import prune

    from trainscope.cli.main import main
    from trainscope.networks import build, open_checkpoint, save_checkpoint

    torch.manual_seed(0)
    module = build("lenet5", 10)
    state = module.state_dict()
    trainer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    module(torch.zeros(2, 1, 28, 28)).sum().backward()
    trainer.step()
    pruned = build("lenet5", 10)
    prune.l1_unstructured(pruned.fc1, "weight", 0.5)
    beside = {"arch": "lenet5", "epoch": 3, "best_acc1": 71.5, "optimizer": trainer.state_dict()}
    beside |= {"history": defaultdict(list, {"loss": [1.0, 0.5]})}
    sparse = {name: v.to_sparse() if v.ndim == 2 else v for name, v in state.items()}
    objects: dict[str, tuple[Any, dict[str, Any]]] = {
        "state.pt": (state, {}),
        "row.pt": (state, {"_use_new_zipfile_serialization": False}),
        "protocol.pt": (state, {"pickle_protocol": 4}),
        "example.pt": ({"state_dict": state, **beside}, {}),
        "whole.pt": ({"model": module, "epoch": 2}, {}),
        "whole_row.pt": (module, {"_use_new_zipfile_serialization": False}),
        "masked.pt": (pruned.state_dict(), {}),
        "sparse.pt": (sparse, {}),
        "lightning.pt": ({"pytorch-lightning_version": "2.2.0", "state_dict": state}, {}),
    }
    for name, (obj, options) in objects.items():
        torch.save(obj, folder / name, **options)
    save_file(state, folder / "state.safetensors")
    save_checkpoint(folder / "own.pt", open_checkpoint(folder / "state.pt"))
    table = "epoch,lr,train_loss,test_loss,test_accuracy\n" + "".join(
        f"{n},{0.1 if n < 4 else 0.01},{2 / n},{2.1 / n},{50 + n}\n" for n in range(1, 9)
    )
    (folder / "log.csv").write_text(table)
    text = "".join(
        f"Epoch {n} lr 0.1 | Loss_train {2 / n:.4f} | Acc1 {50 + n:.2f} Acc5 90.0 | Loss_test 1.0\n"
        for n in range(1, 9)
    )
    (folder / "log.txt").write_text(text)
    history = [
        {"epoch": n, "learning_rate": 0.1, "loss": 1 / n, "step": n, "eval_accuracy": 0.5 + n / 50}
        for n in range(1, 9)
    ]
    state_file = {"log_history": history, "epoch": 8, "global_step": 8, "max_steps": 8}
    (folder / "trainer_state.json").write_text(json.dumps(state_file))
    result = CliRunner().invoke(main, ["import", str(folder / "log.csv")])
    assert result.exit_code == 0, result.output
    checkpoints = [*objects, "state.safetensors", "own.pt"]
    logs = ("log.csv", "log.txt", "trainer_state.json")
    examples = {path.name: path.read_bytes() for path in (ROOT / "docs/examples").glob("*.csv")}
    cards = (ROOT / "trainscope/comparison/published").glob("*.toml")
    return {
        "checkpoint": {name: (folder / name).read_bytes() for name in checkpoints},
        "log": {name: (folder / name).read_bytes() for name in logs} | examples,
        "run": {"run.json": result.stdout.encode()},
        "card": {path.name: path.read_bytes() for path in cards},
    }
