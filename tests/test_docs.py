"""Every command has help, a page, and every option on that page."""

from __future__ import annotations

import inspect
import pydoc
import re
from pathlib import Path

import click
import matplotlib
import pytest
from click.testing import CliRunner
from matplotlib import pyplot

import trainscope
from trainscope.cli.main import COMMANDS, GROUPS, main
from trainscope.cli.sections import REST
from trainscope.probes.scalar_spec import described
from trainscope.records.arrays import MORE, PROBES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_and_is_documented(name):
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.help
    page = (DOCS / "commands" / f"{name}.md").read_text(encoding="utf-8")
    below = getattr(command, "commands", {}).values()
    assert all(each.help and f"## {name} {each.name}" in page for each in below)
    for parameter in [*command.params, *(own for each in below for own in each.params)]:
        if isinstance(parameter, click.Option):
            option = max(parameter.opts, key=len)
            assert parameter.help, f"{option} of {name} has no help"
            assert option in page, f"docs/commands/{name}.md does not name {option}"


@pytest.mark.parametrize("name", ["probe", "train", "retrain", "pipeline", "scratch"])
def test_long_help_has_every_option_once_in_a_section(name):
    shown = CliRunner().invoke(main, [name, "--help"]).output
    _, _, options = shown.partition("The network:\n")
    _, _, rest = options.partition(f"{REST}:\n")
    # click keeps the help option of whoever asked first, with -h or without.
    *others, last = re.findall(r"^  (-\S+)", rest, re.MULTILINE)
    assert others == ["--seed", "--device", "--debug"]
    assert last in ("-h,", "--help")
    command = main.get_command(click.Context(main), name)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            option = parameter.opts[0]
            assert len(re.findall(rf"^  {option}(?![-\w])", options, re.MULTILINE)) == 1, option


def test_the_table_of_commands_says_what_each_help_says():
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command.name == name
    shown = CliRunner().invoke(main, ["--help"]).output
    for title, group in GROUPS.items():
        section = re.search(rf"^{title}:\n((?:  .*\n?)+)", shown, re.MULTILINE)
        assert section is not None
        for name, line in group.items():
            assert re.search(rf"^  {name} +{re.escape(line)}$", section[1], re.MULTILINE)


def anchor_of(heading: str) -> str:
    """Return a heading as a link names it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w -]", "", plain.lower()).strip().replace(" ", "-")


def test_every_link_between_pages_finds_its_page_and_heading():
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]
    anchors = {
        page: {anchor_of(line) for line in re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)}
        for page in pages
    }
    lost = []
    for page in pages:
        for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
            name, _, heading = target.partition("#")
            if "://" in target or (name and not name.endswith(".md")):
                continue
            other = (page.parent / name).resolve() if name else page
            if not other.is_file() or (heading and heading not in anchors[other]):
                lost.append(f"{page.relative_to(ROOT)}: {target}")
    assert lost == []


def documented() -> list[str]:
    """Return what the pages of the API show."""
    form = re.compile(r"^\.\. auto(?:class|function):: (\S+)$", re.MULTILINE)
    return sorted({name for page in DOCS.glob("api/*.md") for name in form.findall(text_of(page))})


@pytest.mark.parametrize("name", documented())
def test_no_docstring_of_the_api_begins_what_sphinx_takes_for_a_substitution(name):
    shown = pydoc.locate(name)
    assert shown is not None
    text = inspect.getdoc(shown) or ""
    text = re.sub(r"``.*?``|`[^`]*`|^\.\. math::(?:\n|\s+.*\n)*", "", text, flags=re.MULTILINE)
    assert not re.search(r"(?:^|[\s(\[{<=/])\|\w", text)


def test_every_page_is_in_a_table_of_contents():
    listed = {"index"}
    for page in DOCS.rglob("*.md"):
        for tree in re.findall(
            r"^```{toctree}\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL
        ):
            folder = page.relative_to(DOCS).parent
            listed |= {
                (folder / line).as_posix() for line in tree.split("\n") if line[:1].isalnum()
            }
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        assert name in listed, f"{name} is in no table of contents"


def test_links_between_pages_lead_somewhere():
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def scalars_table() -> str:
    """Return the table of all numbers, as the probes' own words make it."""
    rows = [
        f"| {probe} | `{spec.name}` | {spec.label} | {spec.unit} | {spec.better} |"
        for probe in (*PROBES, *MORE)
        for spec in described(probe).scalars
    ]
    head = ["| probe | name | in tables | unit | better |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def test_the_table_of_numbers_is_what_the_probes_say():
    table = scalars_table()
    assert table in (DOCS / "probes.md").read_text(encoding="utf-8"), f"it should be\n{table}"


def blocks(page: str) -> list[str]:
    """Return the Python in a page."""
    return re.findall(r"^```python\n(.*?)^```", text_of(DOCS / page), re.MULTILINE | re.DOTALL)


STANDING_ALONE = ["extending.md", *(f"api/{page.name}" for page in (DOCS / "api").glob("*.md"))]


@pytest.mark.parametrize("page", sorted(STANDING_ALONE))
def test_the_examples_of_the_api_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    found = blocks(page)
    assert found
    for number, block in enumerate(found):
        code = compile(block, f"{page}, block {number}", "exec", dont_inherit=True)
        exec(code, {"__name__": "example"})
    pyplot.close("all")


def test_every_public_name_has_an_example():
    code = "\n".join(block for page in STANDING_ALONE for block in blocks(page))
    rooms = {"data", "probes", "studies", "task", "__version__"}
    missing = [name for name in set(trainscope.__all__) - rooms if f"trainscope.{name}" not in code]
    assert not missing


@pytest.mark.parametrize("number", range(2))
def test_the_examples_of_tasks_run(number, capsys):
    found = blocks("tasks.md")
    assert len(found) == 2
    exec(compile(found[number], f"tasks.md, block {number}", "exec"), {"__name__": "example"})
    said = capsys.readouterr().out
    assert "right" in said if number == 0 else float(said) > 0


def test_the_hook_of_any_task_runs(capsys):
    block = next(block for block in blocks("hooks.md") if "task=" in block)
    exec(compile(block, "hooks.md", "exec"), {"__name__": "example"})
    assert "curvature" in capsys.readouterr().out


def test_the_loop_that_writes_to_trackers_runs(tmp_path, monkeypatch):
    block = blocks("trackers.md")[0]
    for name in ("mlflow", "wandb", "trackio"):  # not here: their packages are no part of this
        block = block.replace(f'"{name}", ', "")
    assert 'sink=["tensorboard"]' in block
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "trackers.md", "exec"), {"__name__": "example"})
    assert list(tmp_path.glob("runs/*/*.tfevents.*"))
