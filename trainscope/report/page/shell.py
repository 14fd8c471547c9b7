"""What every page is made of: one file that asks nothing of any network."""

from __future__ import annotations

import json
from importlib import resources

from trainscope.records import Json
from trainscope.records.files import MADE
from trainscope.report.page.markup import escape
from trainscope.version import VERSION

# Nothing may be fetched, whatever a record says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
SCRIPTS = ("plot.js", "rows.js", "measured.js", "layout.js", "app.js")


def shell(heading: str, subtitle: str, body: str, data: Json, footer: str) -> str:
    """Return a whole page.

    Styles, script and data are inline; the page makes no request, works by keyboard, in light and
    dark, on a phone and on paper.

    Args:
        heading: Plain text.
        subtitle: Plain text.
        body: HTML, with a section `verdict` in it.
        data: What the script draws: settings, runs and plots.
        footer: HTML that follows the version.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="{MADE}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(heading)} – trainscope</title>
<link rel="icon" href="data:,">
<style>
{_file("style.css")}</style>
</head>
<body>
<a class="skip" href="#verdict">To the verdict</a>
<header class="top"><div><h1>{escape(heading)}</h1><p>{escape(subtitle)}</p></div>
<div class="tools"><button type="button" id="theme">Dark</button>
<button type="button" id="print">Print</button></div></header>
<main>{body}
<noscript><p>The plots need JavaScript; every number is in the tables.</p></noscript></main>
<footer>Made by trainscope {VERSION}. {footer}</footer>
<script type="application/json" id="data">{_embedded(data)}</script>
<script>
{chr(10).join(_file(name) for name in SCRIPTS)}</script>
</body>
</html>
"""


def _embedded(data: object) -> str:
    """Return JSON that cannot end the script element that holds it."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _file(name: str) -> str:
    folder = resources.files("trainscope.report.page")
    return (folder / name).read_text(encoding="utf-8")
