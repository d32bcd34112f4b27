"""The site is built, without a warning and without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.docs.pages import PAGES, ROOT

_RECIPE = re.compile(r"^\t\$\(BIN\)/sphinx-build (.*) build/docs$", re.MULTILINE)
_LINK = re.compile(r'(?:href|src)="([^"]+)"')
_ANCHOR = re.compile(r'\bid="([^"]+)"')
_FETCHED = re.compile(r"<(?:script|img|link)\b[^>]*(?:src|href)=\"(?:https?:)?//[^>]*>")


def build(place: Path) -> None:
    """Build it as ``make docs`` does."""
    (options,) = _RECIPE.findall((ROOT / "Makefile").read_text())
    command = [sys.executable, "-m", "sphinx", *options.split(), str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr == ""
    assert done.returncode == 0


def test_the_site_is_built_and_whole(tmp_path: Path) -> None:
    """One test for all, as building it takes a while."""
    build(tmp_path)
    pages = {page: page.read_text() for page in tmp_path.rglob("*.html")}
    assert [page for page in PAGES if tmp_path / page.relative_to(ROOT).with_suffix(".html") not in pages] == []
    assert "url=vbackup/docs/index.html" in pages[tmp_path / "index.html"]
    assert list(dead_links(pages)) == []
    assert [found for text in pages.values() for found in _FETCHED.findall(text)] == []  # readable without a network


def dead_links(pages: dict[Path, str]) -> Iterator[str]:
    """Yield links to pages and files of the site, and to places in them, that are not there."""
    anchors = {page: set(_ANCHOR.findall(text)) for page, text in pages.items()}
    for page, text in pages.items():
        for link in map(unescape, _LINK.findall(text)):
            parts = urlsplit(link)
            path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            here = not parts.fragment or path not in anchors or unquote(parts.fragment) in anchors[path]
            if not parts.scheme and not (path.exists() and here):
                yield f"{page}: {link}"
