"""A page stands alone, says what it was given whatever that is made of, and stays small."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from falconet.report.page.document import document, read_data, write_page
from falconet.report.page.drawings import Curve, heat_map, plot, reliability, thinned, ticks
from falconet.report.page.findings import Section
from falconet.report.page.markup import Html, element, escaped, joined, name, table
from falconet.report.page.pictures import SIDE, case

HOSTILE = (
    '<script>alert(1)</script>',
    'salt & "pepper" \'n\' </style>',
    'x' * 200,
    'שלום עולם‮',
    'half \ud800 a letter',
    '\x00\x1b[31m',
    '</script><!--',
)


class Reader(HTMLParser):
    """The elements and the visible text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ''
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page(body: Html, **options: object) -> str:
    sections = [Section('One', body)]
    return document('A page', summary='', notes=[], sections=sections, data={'of': options})


@pytest.mark.parametrize('text', HOSTILE)
def test_names_never_become_markup(text: str) -> None:
    body = joined([
        table(('class', 'other'), [(name(text), text)], words=['other']),
        heat_map(np.eye(1, dtype=int), [text], percent=False),
        plot(text, [Curve(text, [1, 2], [1, 2]), Curve('b', [1, 2], [2, 1])]),
        case(text, f'folder/{text}', [(text, Image.new('RGB', (4, 4)))]),
    ])  # fmt: skip
    whole = document(text, summary=text, notes=[text], sections=[Section('S', body)], data={'name': text})
    scripts = [attributes for tag, attributes in Reader(whole).elements if tag == 'script']
    assert scripts == [{'type': 'application/json', 'id': 'falconet'}]
    assert not re.search('[\ud800-\udfff\x00\x1b]', whole)


def test_a_name_that_runs_from_right_to_left_turns_nothing_else_around() -> None:
    assert name('שלום') == '<bdi>שלום</bdi>'


def test_a_long_name_is_cut_and_whole_in_its_title() -> None:
    found = Reader(name('y' * 200)).elements[0][1]
    assert found['title'] == 'y' * 200
    assert len(Reader(name('y' * 200)).text) <= 60


def test_markup_is_escaped_once_and_text_always() -> None:
    assert element('b', 'a < b', Html('<i></i>'), title='"') == '<b title="&quot;">a &lt; b<i></i></b>'
    assert escaped(escaped('&')) == '&amp;'


def test_a_page_asks_no_network_for_anything() -> None:
    whole = page(case('c', 'p', [('t', Image.new('RGB', (900, 30)))]))
    for tag, attributes in Reader(whole).elements:
        assert tag not in ('link', 'iframe', 'object', 'embed')
        for key in ('src', 'href'):
            assert (attributes.get(key) or '#').startswith(('#', 'data:image/jpeg;base64,'))
    policies = [
        attributes.get('content') for _, attributes in Reader(whole).elements if 'http-equiv' in attributes
    ]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert 'url(' not in whole


def test_its_data_can_be_read_back(tmp_path: Path) -> None:
    write_page(page(Html(''), key='</script><b>', other=['ü', None, 0.5]), tmp_path / 'r.html')
    assert read_data(tmp_path / 'r.html') == {'of': {'key': '</script><b>', 'other': ['ü', None, 0.5]}}
    (tmp_path / 'other.html').write_text('<html>')
    assert read_data(tmp_path / 'other.html') is None


def test_a_table_says_how_many_rows_it_leaves_out() -> None:
    text = Reader(table(('a', 'b'), [(str(row), row) for row in range(130)], limit=100)).text
    assert '30 more rows are left out' in text
    assert '99' in text
    assert '129' not in text


def test_pictures_are_small_jpegs() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1500, 2000, 3), dtype=np.uint8)
    whole = case('c', 'p', [('t', Image.fromarray(noise))])
    assert f'width="{SIDE}"' in whole
    assert len(whole) < 150_000


def test_curves_of_any_length_are_thinned_to_their_means_and_gaps_left_out() -> None:
    xs, ys = thinned(range(10_000), [float(x % 2) for x in range(10_000)])
    assert len(xs) == len(ys) == 300
    assert min(ys) > 0.4
    assert thinned([1, 2, 3], [1.0, float('nan'), 3.0]) == ([1, 3], [1, 3])


@pytest.mark.parametrize('values', [[], [1.0], [0.0, 0.0], [1e-9, 2e-9], [-5.0, 1e6], [float('inf')]])
def test_any_curve_can_be_drawn(values: list[float]) -> None:
    drawn = plot('t', [Curve('c', list(range(len(values))), values)])
    assert 'nan' not in drawn
    assert 'inf' not in drawn


@pytest.mark.parametrize(('low', 'high'), [(0, 1), (0.013, 0.027), (-3, 250), (5, 5)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 1 <= len(found) <= 7
    assert all(low - 1e-9 <= each <= high + 1e-9 for each in found)


def test_an_empty_reliability_diagram_can_be_drawn() -> None:
    assert '<rect' not in reliability('t', np.zeros(15), np.zeros(15), np.zeros(15, dtype=int))
