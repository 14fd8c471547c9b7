"""The version stands in one place, and the package page has no dead link."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import trainscope
from trainscope.cli.main import main

ROOT = Path(__file__).parents[1]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_the_package_s_own_everywhere():
    project = tomllib.loads(text("pyproject.toml"))
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {
        "attr": "trainscope.version.VERSION"
    }
    assert f"version: {trainscope.__version__}\n" in text("CITATION.cff")
    assert trainscope.__version__ in CliRunner().invoke(main, ["--version"]).output


def test_the_changelog_opens_with_what_is_unreleased_then_this_version_with_its_date():
    headings = re.findall(r"^## (.*)$", text("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    released = re.search(r"^date-released: \"(.*)\"$", text("CITATION.cff"), re.MULTILINE)
    assert released is not None
    assert headings[1] == f"{trainscope.__version__} - {released[1]}"


def test_a_clone_is_importable_without_an_install():
    code = """
import sys
sys.meta_path[:] = [one for one in sys.meta_path if "Editable" not in str(one)]
import trainscope.probes.when, trainscope.cli.main
print(trainscope.__version__)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.decode().strip() == trainscope.__version__


@pytest.fixture(scope="module")
def package_page():
    pytest.importorskip("setuptools")
    spec = importlib.util.spec_from_file_location("package_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.package_page


README = """See [the
guide](docs/guide.md#see-it), ![a picture](docs/a.png) and [a paper](https://example.org/p).

```python
values[0](docs)
```
"""


def test_a_package_page_without_an_address_has_the_texts_of_its_links(package_page):
    page = package_page(README, None)
    assert page.startswith("See the\nguide,  and [a paper](https://example.org/p).\n")
    assert "values[0](docs)" in page


def test_a_package_page_has_links_below_the_address(package_page):
    page = package_page(README, "https://example.org/us/")
    assert "[the\nguide](https://example.org/us/blob/HEAD/docs/guide.md#see-it)" in page
    assert "![a picture](https://example.org/us/raw/HEAD/docs/a.png)" in page
    assert "[a paper](https://example.org/p)" in page
    assert "values[0](docs)" in page


def test_no_relative_link_of_the_readme_is_left(package_page):
    for address in (None, "https://example.org/us"):
        page = package_page(text("README.md"), address)
        prose = "".join(re.split(r"^```.*?^```$", page, flags=re.MULTILINE | re.DOTALL))
        targets = re.findall(r"\]\(([^)]*)\)", prose)
        assert targets
        assert all(target.startswith("https://") for target in targets)
