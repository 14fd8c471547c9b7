"""docs/architectures.md, made of the results of `architectures.py`."""

from __future__ import annotations

import platform
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from architecture_cases import (
    ACTIONS,
    CURVED_WEIGHTS,
    HEAVY_FLOPS,
    HEAVY_WEIGHTS,
    MASKED_FLOPS,
    Result,
)

Results = dict[tuple[str, str], Result]

_TITLES = {
    "inner": "`--ratio 0.5`",
    "all": "`--ratio 0.5 --scope all`",
    "unstructured": "`--structure unstructured --ratio 0.5`",
    "2:4": "`--structure 2:4`",
}


def write_page(page: Path, results: Results, names: list[str]) -> None:
    """Write the page.

    Args:
        page: Where to.
        results: By network and action.
        names: All networks that are to be in it.
    """
    known = [name for name in names if any((name, action) in results for action in ACTIONS)]
    footnotes: dict[str, int] = {}
    rows = [_row(name, results, footnotes) for name in sorted(known, key=_place(results))]
    missing = [name for name in names if (name, "2:4") not in results]
    lines = [
        "# Every architecture",
        "",
        _counts(results, names),
        "",
        *_method(results),
        "",
        "| network | parameters | GFLOPs | " + " | ".join(_TITLES.values()) + " |",
        "|---" * (3 + len(_TITLES)) + "|",
        *rows,
        "",
    ]
    if footnotes:
        lines += ["Refused, in the command's own words:", ""]
        lines += [f"{number}. {words}" for words, number in footnotes.items()]
        lines.append("")
    if missing:
        few = ", ".join(f"`{name}`" for name in missing)
        lines += [f"Not finished yet, and run by the same command: {few}.", ""]
    page.write_text("\n".join(lines), encoding="utf-8")


def _place(results: Results) -> dict[str, int] | object:
    sizes = {name: result.get("parameters", 0) for (name, _), result in results.items()}
    return lambda name: (name.startswith("timm/"), _family(name), sizes.get(name, 0))


def _family(name: str) -> str:
    return "".join(c for c in name.partition("_")[0] if not c.isdigit())


def _counts(results: Results, names: list[str]) -> str:
    status = Counter(result["status"] for result in results.values())
    kinds = Counter(action for (_, action), r in results.items() if r["status"] == "refused")
    known = {name for name, _ in results}
    words = (
        f"{len(known)} of {len(names)} networks were tried with up to four sparsifying actions: of "
    )
    words += f"{len(results)} cases {status['diagnosed']} are diagnosed, {status['refused']} are "
    words += "refused in one sentence"
    if kinds:
        words += " (" + ", ".join(f"{count} of {_TITLES[a]}" for a, count in kinds.items()) + ")"
    others = {word: n for word, n in status.items() if word not in ("diagnosed", "refused")}
    ended = ", ".join(f"{count} {'is' if count == 1 else 'are'} {w}" for w, count in others.items())
    return (
        words
        + (f", {ended}" if ended else "")
        + ", and none ends in a traceback."
        * (not others.keys() & {"traceback", "crashed", "wrong"})
    )


def _method(results: Results) -> list[str]:
    dates = sorted(result["date"] for result in results.values())
    exact = [r["exact"] for r in results.values() if r.get("exact") is not None]
    plain = sum(bool(r.get("norms")) for r in results.values())
    norms = (
        f"; {plain} of them lost channels of a layer norm, which then normalises over those left, "
        "and were compared with such norms made plain products with their weights."
    )
    days = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return [
        f"Made by `benchmarks/architectures.py` on {days}, torch {version('torch')}, torchvision "
        f"{version('torchvision')}, timm {version('timm')}, on one {platform.machine()} core: "
        "torchvision's classification networks and some of timm's, with random weights. "
        "`trainscope probe FILE --arch NAME` with the options at the head of a column does the "
        "same for a file of yours.",
        "",
        "A cell says by how many times parameters and FLOPs fall, FLOPs at the network's own input "
        "size, masks by their density. Every case is checked without trainscope's own means: "
        "parameters and FLOPs are counted anew, by torch's own counter; every layer named lost "
        "ceil(ratio x n) of its n; masked weights are zero, the others bit for bit what they were, "
        f"and two of every four inputs for 2:4. In {len(exact)} cases of filters cut out, all but "
        "those of the largest networks, the outputs are, in float64, those of the dense network "
        f"with the same outputs of its layers at zero, to {max(exact, default=0):.0e} of the "
        "largest" + (norms if plain else "."),
        "",
        "Two samples of the smallest input that a network takes are then measured after the "
        "action: the gradient; for the inner scope also the Jacobian (two combinations of outputs) "
        f"and, up to {CURVED_WEIGHTS / 1e6:.0f} M parameters, the curvature. What a probe could "
        "not do stands in the cell. A cell with *i* is of the scope inner, to which scope all gave "
        "way, one with *a* of the action and its checks alone. Masked "
        f"networks above {MASKED_FLOPS / 1e9:g} GFLOPs at that input, whose shapes are the dense "
        f"network's, and those above {HEAVY_WEIGHTS / 1e6:.0f} M parameters or "
        f"{HEAVY_FLOPS / 1e9:.0f} GFLOPs at it always are.",
    ]


def _row(name: str, results: Results, footnotes: dict[str, int]) -> str:
    first = next(results[name, a] for a in ACTIONS if (name, a) in results)
    cells = [f"`{name}`", f"{first['parameters'] / 1e6:.2f} M", f"{first['flops'] / 1e9:.2f}"]
    cells += [_cell(results.get((name, action)), footnotes) for action in ACTIONS]
    return "| " + " | ".join(cells) + " |"


def _cell(result: Result | None, footnotes: dict[str, int]) -> str:
    if result is None:
        return "not run"
    if result["status"] == "refused":
        words = result["sentence"].replace("|", "\\|").replace("<", "\\<")
        return f"refused ({footnotes.setdefault(words, len(footnotes) + 1)})"
    if result["status"] != "diagnosed":
        return f"{result['status']}: {result['sentence']}".rstrip(": ")[:200]
    by = [
        f"{result[dense] / result[left]:.2f}×"
        for dense, left in (("parameters", "left"), ("flops", "left flops"))
    ]
    cell = " / ".join(by)
    if any("gave way to scope inner" in note for note in result["notes"]):
        cell += " *i*"
    if not result["probes"]:
        return f"{cell} *a*"
    failed = {
        probe: words
        for probe, words in result["probes"].items()
        # three products are too few for an eigenvalue: that it is run is asked here
        if words != "ok" and not words.startswith("not converged")
    }
    return cell + "".join(f"; {probe} {words}" for probe, words in failed.items())
