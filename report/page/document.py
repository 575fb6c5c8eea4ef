"""A whole page: sections under a heading, with the numbers behind it as data that a program can read back."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from falconet.core.names import MARK, NAME, NAMES
from falconet.report.page.findings import Section
from falconet.report.page.markup import Html, element, escaped, joined
from falconet.report.page.style import STYLE

DATA = re.compile(rf'<script type="application/json" id="(?:{"|".join(NAMES)})">(.*?)</script>', re.S)


def document(
    title: str, *, summary: object, notes: Sequence[str], sections: Sequence[Section], data: Mapping[str, Any]
) -> str:
    """Return a page.

    Args:
        title: heading.
        summary: what stands below it.
        notes: warnings, above everything else.
        sections: in order.
        data: plain values that `read_data` returns.
    """
    head = joined([
        element('meta', charset='utf-8'),
        element('meta', name='generator', content=MARK),
        element('meta', name='viewport', content='width=device-width,initial-scale=1'),
        element('meta', name='color-scheme', content='light dark'),
        # Nothing may be asked of a network, whatever a name or a picture holds.
        element('meta', http_equiv='Content-Security-Policy',
                content="default-src 'none'; img-src data:; style-src 'unsafe-inline'"),
        element('title', title),
        element('style', Html(STYLE)),
    ])  # fmt: skip
    links = element('nav', *(element('a', each.title, href=f'#{each.anchor}') for each in sections))
    warnings = [element('p', each, class_='note') for each in notes]
    parts = [element('section', element('h2', each.title, id=each.anchor), each.body) for each in sections]
    # As JSON in a script: only '<' could end it.
    content = json.dumps(data, separators=(',', ':')).replace('<', '\\u003c')
    body = element(
        'body',
        element('header', element('h1', title), escaped(summary), *warnings),
        links,
        element('main', *parts),
        element('script', Html(content), type='application/json', id=NAME),
    )
    return f'<!DOCTYPE html>\n{element("html", element("head", head), body, lang="en")}\n'


def read_data(path: Path) -> dict[str, Any] | None:
    """Return the data in a page, None when the file is no page of ours."""
    found = DATA.search(path.read_text(encoding='utf-8', errors='replace'))
    if found is None:
        return None
    try:
        return json.loads(found[1])
    except (ValueError, RecursionError):
        return None


def write_page(text: str, path: Path) -> None:
    """Write a page, whole or not at all."""
    temporary = path.with_name(f'.{path.name}.tmp')
    try:
        temporary.write_text(text, encoding='utf-8')
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
