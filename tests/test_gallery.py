"""Each script of the gallery runs and draws its picture, and has a page that shows both."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

GALLERY = Path(__file__).parents[1] / "docs" / "gallery"

spec = importlib.util.spec_from_file_location("gallery_run", GALLERY / "run.py")
assert spec is not None
assert spec.loader is not None
SKLEARN = ("sklearn",)
NEEDS = {
    "detection": ("torchmetrics", "pycocotools"),
    **dict.fromkeys(("own_module", "regression", "training_loop"), SKLEARN),
}
gallery = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gallery)


@pytest.mark.usefixtures("one_thread", "few_digits")
@pytest.mark.parametrize("name", gallery.SCRIPTS)
def test_a_script_draws_its_picture(name, tmp_path, monkeypatch):
    """On fewer digits, and trained but once: the numbers are not looked at."""
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package)
    whole = gallery.SCRIPTS[name].read_text(encoding="utf-8")
    text = re.sub(r"for _ in range\(\d+\)", "for _ in range(1)", whole)
    text = re.sub(r"\b(retrain_epochs|epochs|steps)=\d+", r"\1=1", text)
    if text != whole:
        short = tmp_path / "short.py"
        short.write_text(text, encoding="utf-8")
        monkeypatch.setitem(gallery.SCRIPTS, name, short)
    assert gallery.run(name, tmp_path).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", gallery.SCRIPTS)
def test_a_page_shows_the_script_and_a_small_picture(name):
    page = (GALLERY / f"{name}.md").read_text(encoding="utf-8")
    assert f"```{{literalinclude}} {name}.py" in page
    assert f"](images/{name}.png)" in page
    assert 0 < (GALLERY / "images" / f"{name}.png").stat().st_size <= gallery.LARGEST
    assert f"](images/{name}.png)" in (GALLERY / "index.md").read_text(encoding="utf-8")


def test_scripts_are_short():
    for name, path in gallery.SCRIPTS.items():
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len([line for line in lines if line.strip()]) <= 45, name
