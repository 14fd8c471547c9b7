"""What pyproject.toml cannot say; everything else is there.

**Editable installs.** `pip install -e .` links the three rooms of code into one folder, which type
checkers and editors follow; they cannot follow the import hook that is setuptools' default. After a
file was added, install again. The Makefile's own .venv has the hook, which sees new files at once.

**The package page.** The README's links lead to files beside it, and on a package page there are
none. So each link becomes an absolute one below the address `Source` of `[project.urls]`; while
that table names none, a link is its text alone, and pictures are left out.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")


def package_page(readme: str, source: str | None) -> str:
    """Return the README with absolute links, or with their text alone where there is no address."""

    def link(found: re.Match[str]) -> str:
        picture, text, target = found.groups()
        if source is None:
            return "" if picture else text
        kind = "raw" if picture else "blob"
        return f"{picture}[{text}]({source.rstrip('/')}/{kind}/HEAD/{target})"

    parts = re.split(r"(^```.*?^```$)", readme, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [RELATIVE.sub(link, part) for part in parts[::2]]  # code stays as it is
    return "".join(parts)


if __name__ == "__main__":
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    setup(
        options={"editable_wheel": {"mode": "strict"}},
        long_description=package_page(readme, project.get("urls", {}).get("Source")),
        long_description_content_type="text/markdown",
    )
