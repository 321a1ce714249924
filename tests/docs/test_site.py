"""The documentation: it is built without a warning, and loads nothing from the network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
DOCS = TOP / "docs"

# What a browser loads by itself. Links that a person follows may lead anywhere.
LOADED = re.compile(r"<(?:script|img|link|iframe|source|video|audio)\b[^>]*?\b(?:src|href)=[\"']?([^\"' >]+)")
ADDRESS = re.compile(r"(?:url\(|@import\s*)[\"']?((?:https?:)?//[^\"')]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A dead link or anchor, or a page that is in no menu, is an error (--strict)."""
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet: what is not printed is not counted by --strict either.
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        argv, cwd=TOP, capture_output=True, check=False, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"WARNING" not in done.stderr, done.stderr.decode()
    return folder


def test_every_page_is_built(site: Path) -> None:
    for page in DOCS.glob("*.md"):
        assert (site / page.with_suffix(".html").name).exists(), page


def test_nothing_is_loaded_from_the_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    styles = list(site.rglob("*.css"))
    assert pages
    assert styles
    for page in pages:
        loaded = LOADED.findall(page.read_text())
        assert loaded, "the pattern finds what a page loads"
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)], page
    for style in styles:
        assert not ADDRESS.findall(style.read_text()), style


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "guest/README.md"])
def test_links_from_outside_the_site_lead_somewhere(name: str, site: Path) -> None:
    links = re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", (TOP / name).read_text())
    for path, anchor in links:
        if not re.match(r"https?://", path):
            target = (TOP / name).parent / path if path else TOP / name
            assert target.exists(), f"{name}: {path}"
            if anchor and target.parent == DOCS:
                page = (site / target.with_suffix(".html").name).read_text()
                assert f'id="{anchor}"' in page, f"{name}: {path}#{anchor}"
