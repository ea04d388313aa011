# SPDX-License-Identifier: MIT
"""Hooks for mkdocs: they add README.md and other files as pages, and pages for files of the repository that links name.

So one text serves GitHub and the site: a link such as ``../drivers/edu.py`` leads to a page that shows that file, and
``examples.md`` shows every program of ``examples/`` in full.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS = PurePosixPath("docs")
EXAMPLES = PurePosixPath("examples")
# Files outside docs/ that become pages, and the pages' names.
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
LANGUAGES = {".py": "python", ".c": "c", ".sh": "sh", ".toml": "toml", ".yml": "yaml"}
# References that a browser fetches by itself. A link that the reader follows is not among them.
_FETCHED = re.compile(
    r"<(?:script|img|iframe)\b[^>]*\bsrc=\"?https?://[^\s>]*|<link\b[^>]*stylesheet[^>]*https?://[^\s>]*"
)
_log = logging.getLogger("mkdocs.hooks.docs_site")
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def _page_of(path: PurePosixPath) -> str | None:
    """Return the page, relative to the site, of a file of the repository; None if it has no page."""
    if path.is_relative_to(DOCS):
        return str(path.relative_to(DOCS))
    if str(path) in PAGES:
        return PAGES[str(path)]
    if path.parent == EXAMPLES and path.suffix == ".py":
        return "examples.md"
    return f"source/{path}.md" if (ROOT / path).is_file() else None


def _source_of(page: str) -> PurePosixPath:
    """Return the file of the repository from which a page of the site was made."""
    named = {name: path for path, name in PAGES.items()}
    return PurePosixPath(named[page]) if page in named else DOCS / page


def _fenced(path: PurePosixPath) -> str:
    return f"``````{LANGUAGES.get(path.suffix, 'text')}\n{(ROOT / path).read_text()}``````\n"


def _outside_links(text: str, source: PurePosixPath) -> set[PurePosixPath]:
    """Return the files outside docs/ that a page's links name."""
    named = (_resolved(match[2], source) for match in _LINK.finditer(text))
    return {path for path in named if path is not None and (_page_of(path) or "").startswith("source/")}


def _resolved(target: str, source: PurePosixPath) -> PurePosixPath | None:
    if ":" in target or target.startswith("/"):
        return None
    path = PurePosixPath(os.path.normpath(source.parent / target))
    return path if (ROOT / path).is_file() else None


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/: README.md and the like, the examples, and files that links name."""
    texts = {_source_of(file.src_uri): file.content_string for file in files.documentation_pages()}
    for path, page in PAGES.items():
        texts[PurePosixPath(path)] = (ROOT / path).read_text()
        files.append(File.generated(config, page, content=texts[PurePosixPath(path)]))
    programs = [EXAMPLES / path.name for path in sorted((ROOT / "examples").glob("*.py"))]
    listing = [f"## {path.stem}\n\n{_fenced(path)}" for path in programs]
    text = "# Examples\n\nThe docstring of each program says how to run it and what it prints.\n\n" + "\n".join(listing)
    files.append(File.generated(config, "examples.md", content=text))
    shown = set().union(*(_outside_links(text, source) for source, text in texts.items()))
    for shown_path in sorted(shown):
        content = f"# {shown_path}\n\n{_fenced(shown_path)}"
        files.append(File.generated(config, f"source/{shown_path}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace links to files of the repository by links to their pages."""
    here = page.file.src_uri
    source = _source_of(here)

    def replaced(match: re.Match[str]) -> str:
        path = _resolved(match[2], source)
        target = None if path is None else _page_of(path)
        if target is None:
            return match[0]
        anchor = f"#{path.stem})" if target == "examples.md" and path is not None else match[3]
        return match[1] + os.path.relpath(target, PurePosixPath(here).parent) + anchor

    return _LINK.sub(replaced, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Warn if a page makes a browser fetch something from elsewhere; with --strict that is an error."""
    for match in _FETCHED.finditer(output):
        _log.warning("%s makes the browser fetch something from elsewhere: %s", page.file.src_uri, match[0])
    return output
