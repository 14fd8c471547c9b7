"""What is tried of every page: its tags, its data, and whether it fits a phone."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

from browser import dump

VOID = {"meta", "link", "input", "br", "hr", "line", "img", "wbr"}


class Balance(HTMLParser):
    """Fails on tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.ids = [], []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes something else"


def data_of(html):
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])


NARROW = """<script>
setTimeout(() => parent.postMessage([document.documentElement.scrollWidth, innerWidth], "*"), 300);
</script>"""


def phone_width(page, folder):
    """Return how wide the page is in a window of 360 pixels, and that window's own width."""
    (folder / "phone.html").write_text(page.replace("</body>", NARROW + "</body>"), "utf-8")
    frame = (
        "<script>addEventListener('message', (e) => {"
        "document.title = e.data.join(' ');});</script>"
        '<iframe src="phone.html" width="360" height="700" style="border:0"></iframe>'
    )
    dom = dump(f"<!doctype html><title></title>{frame}", folder)
    return tuple(map(int, re.search(r"<title>(\d+) (\d+)</title>", dom).groups()))
