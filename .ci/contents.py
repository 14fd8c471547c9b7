"""What the built archives must hold, and what they must not: `python .ci/contents.py FILE ...`."""

import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BUILT = {"__pycache__", "_build", ".venv", "demo"}


def wheel_must_hold() -> set[str]:
    """Return every module and every data file of the packages, as they are installed."""
    tables = PROJECT["tool"]["setuptools"]
    folders = {"trainscope": "trainscope"} | tables["package-dir"]
    found = set()
    for package in tables["packages"]:
        parent = max((name for name in folders if f"{package}.".startswith(f"{name}.")), key=len)
        folder = ROOT / folders[parent] / package[len(parent) :].strip(".").replace(".", "/")
        for path in folder.iterdir():
            if path.is_file() and path.suffix != ".pyc":
                found.add(f"{package.replace('.', '/')}/{path.name}")
    return found


def source_must_hold() -> set[str]:
    """Return every file of a clone: rooms, tests, pages, measurements and what is beside them."""
    folders = ("trainscope", "probes", "cli", "tests", "docs", "benchmarks", ".ci", ".github")
    found = {path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()}
    files = (".pre-commit-config.yaml", ".gitignore", "Makefile", "CITATION.cff", "pyproject.toml")
    found |= {ROOT / name for name in files} | set(ROOT.glob("*.md")) | {ROOT / "LICENSE"}
    names = {path.relative_to(ROOT) for path in found}
    return {name.as_posix() for name in names if not BUILT & set(name.parts)}


def main(paths: list[str]) -> None:
    for path in paths:
        if path.endswith(".whl"):
            held, wanted = set(zipfile.ZipFile(path).namelist()), wheel_must_hold()
            extra = {name for name in held - wanted if ".dist-info/" not in name}
        else:
            with tarfile.open(path) as archive:
                names = [member.name for member in archive if member.isfile()]
            held, wanted = {name.split("/", 1)[1] for name in names}, source_must_hold()
            extra = {name for name in held if BUILT & set(Path(name).parts)}
        for name in sorted(wanted - held):
            print(f"{Path(path).name} lacks {name}")
        for name in sorted(extra):
            print(f"{Path(path).name} has {name}, which does not belong there")
        if extra or wanted - held:
            sys.exit(1)
        print(f"{Path(path).name}: {len(held)} files, none missing")


main(sys.argv[1:])
