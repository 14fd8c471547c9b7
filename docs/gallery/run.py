"""Run the gallery's scripts, each in a folder of its own, and keep their pictures beside them.

`make gallery` runs all of them, `python docs/gallery/run.py NAME ...` some.
"""

import contextlib
import os
import runpy
import sys
import tempfile
from pathlib import Path

import matplotlib

HERE = Path(__file__).parent
SCRIPTS = {path.stem: path for path in sorted(HERE.glob("*.py")) if path.name != "run.py"}
LARGEST = 100_000
"""Bytes of a picture that is kept in the repository."""


def run(name: str, folder: Path) -> Path:
    """Run one script in a folder, and return the picture that it drew there."""
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    with contextlib.chdir(folder):
        runpy.run_path(str(SCRIPTS[name]), run_name="__main__")
    plt.close("all")
    return folder / f"{name}.png"


def main(names: list[str]) -> None:
    for name in names or list(SCRIPTS):
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            drawn = run(name, Path(folder)).read_bytes()
        if len(drawn) > LARGEST:
            sys.exit(f"{name}.png has {len(drawn)} bytes, more than {LARGEST}")
        (HERE / "images").mkdir(exist_ok=True)
        (HERE / "images" / f"{name}.png").write_bytes(drawn)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(sys.argv[1:])
