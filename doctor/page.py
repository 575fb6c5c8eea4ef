"""The findings as one page: each with its examples as small pictures, what follows from it, what to do."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from falconet.datasets.images.images import ImageError, is_image_name, read_image
from falconet.doctor.finding import Finding
from falconet.report.boxes import draw_boxes
from falconet.report.page.document import document
from falconet.report.page.findings import Section
from falconet.report.page.markup import Html, element, joined, name, table
from falconet.report.page.pictures import gallery, picture_element

SIDE = 240  # pixels of an example's longer side
BOX = re.compile(r'(-?[\d.]+), (-?[\d.]+), (-?[\d.]+), (-?[\d.]+)$')  # corners, as findings of boxes end
MOST_CLASSES = 200


def doctor_page(
    title: str,
    *,
    parts: Mapping[str, str],
    findings: Sequence[Finding],
    counts: Mapping[str, Mapping[str, int]],
    unit: str,
    areas: Mapping[str, float],
    data: Mapping[str, Any],
) -> str:
    """Return the page.

    Args:
        title: heading.
        parts: what each part of the data is.
        findings: in order.
        counts: of each part, how often each class occurs.
        unit: what was counted.
        areas: share of the labelled pixels by class; empty where there are no masks.
        data: plain values for programs.
    """
    serious = sum(each.serious for each in findings)
    summary = (
        f'{len(findings)} kinds of faults, {serious} of them serious.' if findings else 'Nothing was found.'
    )
    about = [
        element('p', element('strong', f'{part} '), name(text, limit=600)) for part, text in parts.items()
    ]
    sections = [Section('Data', joined(about)), *map(_section, findings)]
    if counts:
        sections.append(_classes(counts, unit, areas))
    return document(title, summary=summary, notes=[], sections=sections, data=data)


def _section(found: Finding) -> Section:
    places = [
        element('figure', *_picture(place), element('figcaption', name(place, limit=300)))
        for place in found.examples
    ]
    rest = f'and {found.count - len(found.examples):,} more' if found.count > len(found.examples) else ''
    head = element(
        'p', element('strong', f'{found.count:,} '), found.text, class_='note' if found.serious else None
    )
    body = [head, element('p', f'{found.consequence}. {found.fix}.'), gallery(places), element('p', rest)]
    title = found.kind.replace('_', ' ')
    return Section(f'{title}: {found.part}' if found.part else title, joined(body))


def _picture(place: str) -> list[Html]:
    """Return the picture that a place begins with, where there is one; its box is drawn in."""
    ends = [end for end in (place.find(mark) for mark in (': ', ' is ')) if end > 0]
    path = place[: min(ends, default=len(place))]
    if not is_image_name(path):
        return []
    try:
        picture = Image.fromarray(read_image(path))
    except ImageError:
        return []
    if (found := BOX.search(place[len(path) :])) is not None:
        box = np.clip([[float(each) for each in found.groups()]], -9999, 9999)
        picture = draw_boxes(
            picture, box, [''], np.zeros(1, int), line_width=max(3, max(picture.size) // 80), font_size=0
        )
    picture.thumbnail((SIDE, SIDE))
    return [picture_element(picture, path)]


def _classes(counts: Mapping[str, Mapping[str, int]], unit: str, areas: Mapping[str, float]) -> Section:
    names = list(dict.fromkeys(each for part in counts.values() for each in part))
    columns = ['class', *(f'{unit} in {part}' for part in counts), *(['share of the area'] if areas else [])]
    rows = [
        (
            name(each),
            *(f'{part.get(each, 0):,}' for part in counts.values()),
            *([f'{areas.get(each, 0.0):.2%}'] if areas else []),
        )
        for each in names
    ]
    return Section('Classes', table(columns, rows, limit=MOST_CLASSES))
