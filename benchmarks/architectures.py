"""Every architecture, four sparsifying actions each: docs/architectures.md.

    pip install timm
    OMP_NUM_THREADS=1 python benchmarks/architectures.py RESULTS.jsonl --page docs/architectures.md

All of torchvision's classification networks and some small ones of timm, with random weights, from
small to large. Each case is a process of its own with a limit of CPU time and of memory, so that
none can stop the rest. RESULTS.jsonl gets a line for each case that has ended; those in it already
are not run again, so that the script may be killed and started at any time. `--again PATTERN` runs
those again whose "network action status" matches.
"""

from __future__ import annotations

import argparse
import fnmatch
import gc
import json
import multiprocessing
import re
import resource
import signal
import warnings
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from architecture_cases import ACTIONS, Case, Result, open_case, run_case, sizes
from architecture_page import write_page

TIMM = (
    *(
        "convnext_atto",
        "convnextv2_atto",
        "coat_lite_tiny",
        "crossvit_tiny_240",
        "deit_tiny_patch16_224",
    ),
    *("dla34", "edgenext_xx_small", "efficientformer_l1", "efficientnet_lite0", "fastvit_t8"),
    *("gernet_s", "ghostnet_100", "gmlp_ti16_224", "hrnet_w18_small", "lcnet_050", "levit_128s"),
    *("maxvit_rmlp_pico_rw_256", "mixer_s32_224", "mobilenetv4_conv_small", "mobilevit_xxs"),
    *(
        "nf_resnet26",
        "pit_ti_224",
        "poolformer_s12",
        "regnety_002",
        "repvgg_a0",
        "res2net50_14w_8s",
    ),
    *("resmlp_12_224", "resnest14d", "rexnet_100", "selecsls42", "swin_tiny_patch4_window7_224"),
    *("tinynet_e", "vit_tiny_patch16_224", "volo_d1_224", "xcit_nano_12_p16_224"),
)
"""Networks of timm, chosen for their variety."""

SECONDS, MEMORY = 300, 10 * 2**30
"""CPU time of one case, and memory beyond what its process begins with, in bytes."""


def main() -> None:
    """Run what has not been run, and write the page."""
    options = _options()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    done = _read(options.results)
    if not options.page_only:
        for name, actions in _waiting(options, done):
            _run_network(name, actions, options)
    if options.page is not None:
        write_page(options.page, _read(options.results), _names())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--page", type=Path, help="the page of documentation to write")
    parser.add_argument("--page-only", action="store_true", help="run nothing")
    parser.add_argument("--quick", action="store_true", help="prune and check, without probes")
    parser.add_argument("--only", default="*", help="networks, as a pattern")
    parser.add_argument("--again", help="run cases again, by 'network action status' as a pattern")
    parser.add_argument(
        "--most", type=float, default=float("inf"), help="largest network, in 1e6 weights"
    )
    return parser.parse_args()


def _names() -> list[str]:
    from torchvision import models

    return [*models.list_models(module=models), *(f"timm/{name}" for name in TIMM)]


def _waiting(
    options: argparse.Namespace, done: dict[tuple[str, str], Result]
) -> Iterator[tuple[str, list[str]]]:
    """Yield networks with the actions that are to be run, the smallest of each family first."""
    names = [name for name in _names() if fnmatch.fnmatch(name, options.only)]
    order = sizes(names, options.results.with_suffix(".sizes.json"))
    ranks: dict[str, int] = {}
    seen: Counter[str] = Counter()
    for name in sorted(names, key=lambda name: order.get(name, 0)):
        family = "".join(re.findall(r"^[a-z/]+(?:_(?:[xy]|v2|v3)(?=_))?", name))
        ranks[name] = seen[family]
        seen[family] += 1
    for name in sorted(names, key=lambda name: (ranks[name], order.get(name, 0))):
        if order.get(name, 0) > options.most * 1e6:
            continue
        actions = []
        for action in ACTIONS:
            found = done.get((name, action))
            words = "" if found is None else f"{name} {action} {found['status']}"
            if found is None or (options.again and fnmatch.fnmatch(words, options.again)):
                actions.append(action)
        if actions:
            yield name, actions


def _read(path: Path) -> dict[tuple[str, str], Result]:
    """Return what has ended, the last line of each case."""
    found: dict[tuple[str, str], Result] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            result: Result = json.loads(line)
        except ValueError:  # killed within a line
            continue
        found[result["network"], result["action"]] = result
    return found


def _run_network(name: str, actions: list[str], options: argparse.Namespace) -> None:
    try:
        case = open_case(name)
    except Exception as error:
        case, why = None, f"{type(error).__name__}: {error}"
    for action in actions:
        if case is None:
            result: Result = {"status": "not built", "sentence": why}
        else:
            result = _in_a_process(case, action, quick=options.quick)
        result |= {"network": name, "action": action, "date": f"{datetime.now(UTC):%Y-%m-%d}"}
        with options.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        print(f"{name} {action}: {result['status']} {result.get('sentence', '')[:300]}", flush=True)
    del case
    gc.collect()


def _in_a_process(case: Case, action: str, *, quick: bool) -> Result:
    """Run a case in a process of its own, and return its result, or what ended it."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_limited, args=(theirs, case, action, quick))
    process.start()
    theirs.close()
    try:
        result: Result = ours.recv()
    except EOFError:
        result = {}
    process.join()
    if result:
        return result
    if process.exitcode in (-signal.SIGXCPU, -signal.SIGKILL):
        return {"status": "over time", "sentence": f"over {SECONDS} s of CPU time"}
    return {"status": "crashed", "sentence": f"exit status {process.exitcode}"}


def _limited(pipe: Connection, case: Case, action: str, quick: bool) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, hard))
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    pipe.send(run_case(case, action, quick=quick))


if __name__ == "__main__":
    main()
