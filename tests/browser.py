"""Headless Chromium: a page is opened, its scripts run, and its DOM is handed back."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--virtual-time-budget=5000", "--window-size=1280,900", "--dump-dom"),
)
NEEDED = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

# Before any script of the page: keep every error and every request that the policy refused.
WATCH = """<script>
window.SEEN = {errors: [], refused: []};
addEventListener("error", (e) => SEEN.errors.push(String(e.message)));
addEventListener("unhandledrejection", (e) => SEEN.errors.push(String(e.reason)));
addEventListener("securitypolicyviolation", (e) => SEEN.refused.push(e.blockedURI));
for (const name of ["error", "warn"]) {
  console[name] = (...words) => SEEN.errors.push(words.join(" "));
}
</script>"""

# Around a reader's script, which returns what it saw; `frame` waits until the page has drawn again.
BEFORE = """<script>
(async () => {
  const frame = () => new Promise((done) => setTimeout(done, 60));
  const $ = (query, from = document) => from.querySelector(query);
  const all = (query, from = document) => [...from.querySelectorAll(query)];
  await frame();
"""
AFTER = """
})().catch((error) => { SEEN.errors.push(String(error)); return {}; }).then((out) => {
  const node = document.createElement("pre");
  node.id = "seen";
  node.textContent = JSON.stringify({...out, errors: SEEN.errors, refused: SEEN.refused});
  document.body.append(node);
});
</script>"""


def dump(page: str, folder: Path, *options: str) -> str:
    """Return the page's DOM after its scripts have run."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [CHROMIUM, *OPTIONS, *options, profile, path.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    return done.stdout.decode()


def play(page: str, script: str, folder: Path, *options: str) -> Any:
    """Return what a reader's script saw on a page, and the errors and refused requests."""
    page = page.replace("<head>", "<head>" + WATCH)
    dom = dump(page.replace("</body>", f"{BEFORE}{script}{AFTER}</body>"), folder, *options)
    found = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
    if found is None:
        pytest.fail("the page's scripts did not run to their end:\n" + dom[-2000:])
    return json.loads(html.unescape(found[1]))
