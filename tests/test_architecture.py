"""The shape of the package: imports go one way, help is light, the package list is whole."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {"trainscope": ROOT / "trainscope", "trainscope.probes": ROOT / "probes"}
ROOMS["trainscope.cli"] = ROOT / "cli"

# Lower numbers stand below: a module may import only from its own room or from lower ones.
LEVELS = {
    "trainscope.errors": 0,
    "trainscope.version": 0,
    "trainscope.foreign": 1,
    "trainscope.pace": 1,
    "trainscope.records": 1,
    "trainscope.convergence": 2,
    "trainscope.task": 2,
    "trainscope.data": 3,
    "trainscope.networks": 4,
    "trainscope.sparsify": 5,
    "trainscope.training": 6,
    "trainscope.probes": 7,
    "trainscope.diagnosis": 8,
    "trainscope.comparison": 9,
    "trainscope.studies": 10,
    "trainscope.report": 11,
    "trainscope.cli": 12,
}
# The same within the room of the probes, whose other files are the probes themselves.
SHARED = (
    "trainscope.probes.processes",
    "trainscope.probes.subject",
    "trainscope.probes.gradients",
    "trainscope.probes.hessian",
)
BESIDE = ("trainscope.probes.rounding", "trainscope.probes.jackknife")
LIGHT = ("trainscope", "trainscope.cli.main", "trainscope.records", "trainscope.training.schedule")


def modules() -> list[tuple[str, Path]]:
    """Return every module of the package and its file."""
    found = []
    for package, folder in ROOMS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found.append((".".join((package, *parts)), path))
    return found


def room(module: str) -> str | None:
    """Return the room of a module."""
    return next((name for name in LEVELS if module == name or module.startswith(name + ".")), None)


def imported(path: Path) -> set[str]:
    """Return the modules of ours that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found.add(node.module or "")
    return {name for name in found if name.split(".")[0] == "trainscope"}


def loaded(path: Path, known: dict[str, Path]) -> set[str]:
    """Return the modules of ours that a file loads, at any depth of its code; not for types."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in types:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else str(node.module))
    return found & set(known)


def test_imports_go_one_way():
    wrong = []
    for module, path in modules():
        own = room(module)
        if own is None:  # the package itself, which only re-exports
            continue
        for name in imported(path):
            other = room(name)
            if other not in (None, own) and LEVELS[other] >= LEVELS[own]:
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_what_probes_share_stands_below_them_in_order():
    wrong = []
    for place, folder in enumerate(SHARED):
        inside = [(module, path) for module, path in modules() if module.startswith(folder + ".")]
        assert inside
        below = (*SHARED[: place + 1], *BESIDE)
        for module, path in inside:
            of_probes = {name for name in imported(path) if name.startswith("trainscope.probes")}
            wrong += [
                f"{module} imports {name}" for name in of_probes if not name.startswith(below)
            ]
    assert not wrong


def test_no_files_import_each_other_in_a_circle():
    """But for annotations, which nothing loads."""
    known = dict(modules())
    uses = {module: loaded(path, known) for module, path in known.items()}
    while ends := {module for module, used in uses.items() if not used & set(uses) - {module}}:
        uses = {module: used for module, used in uses.items() if module not in ends}
    assert sorted(uses) == []


def test_convergence_stands_on_records_alone():
    inside = [path for module, path in modules() if module.startswith("trainscope.convergence")]
    assert len(inside) > 20
    for path in inside:
        rooms = {room(name) for name in imported(path)}
        assert rooms <= {"trainscope.convergence", "trainscope.records", "trainscope.errors"}


def test_commands_print_through_one_module():
    """It keeps control characters of files from the terminal."""
    direct = [m for m, path in modules() if "click.echo(" in path.read_text(encoding="utf-8")]
    assert direct == []


def test_every_package_is_listed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(project["tool"]["setuptools"]["packages"])
    there = {module for module, path in modules() if path.name == "__init__.py"}
    assert listed == there


def test_no_public_class_name_stands_twice():
    places: dict[str, list[str]] = {}
    for module, path in modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module)
    assert {name: held for name, held in places.items() if len(held) > 1} == {}


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_do_not_load_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_are_importable():
    import trainscope

    for name in trainscope.__all__:
        assert getattr(trainscope, name) is not None
    assert set(trainscope.__all__) <= set(dir(trainscope))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = trainscope.nothing
