"""Print the paper's tables beside what is counted here: python tools/paper_tables.py [--markdown]

Paper: arXiv 1801.04381 (last version), Tables 3 to 7 and section 5; slim/nets/mobilenet/README.md, its table
of 22 networks. Every network is built and counted, nothing is copied into the column "counted".
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

# Lets the tools run from a checkout that was never installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))

PAGE = 'docs/paper_tables.md'


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Print the paper's tables beside what is counted here.")
    parser.add_argument(
        '--markdown', nargs='?', const=PAGE, metavar='FILE', help=f'write them to {PAGE}, or FILE'
    )
    return parser.parse_args()


# Before the imports that take seconds: --help answers at once.
ARGUMENTS = parse_arguments() if __name__ == '__main__' else argparse.Namespace(markdown=None)

import torch  # noqa: E402

from falconet.backbones import MobileNetV2  # noqa: E402
from falconet.backbones.counting import atrous_surplus, multiply_adds, parameters, peak_memory, shapes  # noqa: E402
from falconet.backbones.mobilenetv2 import InvertedResidual  # noqa: E402
from falconet.core.errors import UserError  # noqa: E402
from falconet.deploy.memory import Search, read_network  # noqa: E402
from falconet.deploy.memory.build import PAPERS, one_channel_at_a_time, sliced_peak  # noqa: E402
from falconet.heads import DeepLabV3Head, LinearHead, SSDLiteHead  # noqa: E402

SIGN = 'Written by `python tools/paper_tables.py --markdown`'
# Table 3, MobileNetV2: side -> printed channels and kilobytes.
TABLE_3 = {112: (16, 400), 56: (32, 200), 28: (64, 100), 14: (160, 62), 7: (320, 32), 1: (1280, 2)}
# Table 4: width -> printed millions of parameters and of multiply-adds.
TABLE_4 = {1.0: ('3.4', '300'), 1.4: ('6.9', '585')}
# slim: width -> millions of parameters, {resolution: millions of multiply-adds}.
SLIM = {
    1.4: ('6.06', {224: '582'}),
    1.3: ('5.34', {224: '509'}),
    1.0: ('3.47', {224: '300', 192: '221', 160: '154', 128: '99', 96: '56'}),
    0.75: ('2.61', {224: '209', 192: '153', 160: '107', 128: '69', 96: '39'}),
    0.5: ('1.95', {224: '97', 192: '71', 160: '50', 128: '32', 96: '18'}),
    0.35: ('1.66', {224: '59', 192: '43', 160: '30', 128: '20', 96: '11'}),
}
# Table 7, MobileNetV2 reading its 320-channel map: (output stride, pyramid) -> millions of parameters,
# billions of multiply-adds; at output stride 8 over six scales and their mirror images.
TABLE_7 = {
    (16, False): ('2.11', '2.75'),
    (8, False): ('2.11', '152.6'),
    (16, True): ('4.52', '5.8'),
    (8, True): ('4.52', '387'),
}
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
EACH_CHANNEL = 960  # as many as the widest expanded tensor has channels


class Row(NamedTuple):
    """One number of a table: what it is of, as printed, as counted, and what to say of the two."""

    network: str
    quantity: str
    printed: str
    counted: str
    verdict: str


class Table(NamedTuple):
    """A table with its heading and a sentence on how it is counted."""

    title: str
    note: str
    rows: list[Row]


def compare(value: int, printed: str, unit: float, why: str = '') -> str:
    """Return 'equal' when `value` rounds to the printed figure or is cut off there, else that it differs."""
    digits = len(printed.partition('.')[2])
    scaled = value / unit
    if f'{scaled:.{digits}f}' == printed:
        return 'equal'
    step = 10**-digits
    if f'{int(scaled / step + 1e-9) * step:.{digits}f}' == printed:
        return 'equal, truncated'
    return f'differs: {why or "unexplained"}'


def counted(network: str, quantity: str, printed: str, letter: str, value: int, why: str = '') -> Row:
    """Return the row of a figure printed in millions ('M') or billions ('B')."""
    verdict = compare(value, printed, {'M': 1e6, 'B': 1e9}[letter], why)
    return Row(network, quantity, f'{printed} {letter}', f'{value:,}', verdict)


def classifier(width: float, classes: int) -> tuple[Any, Any]:
    """Return backbone and linear head on the meta device, where nothing is computed."""
    with torch.device('meta'):
        backbone = MobileNetV2(width=width).eval()
        return backbone, LinearHead(backbone.channels, backbone.strides, num_classes=classes).eval()


def passes(backbone: Any, head: Any, side: int) -> Callable[[], Any]:
    """Return what runs a backbone with its head on one picture of `side` x `side` pixels."""
    images = torch.empty(1, 3, side, side, device=next(backbone.parameters()).device)
    return lambda: head(backbone(images))


def adds(backbone: Any, head: Any, side: int) -> int:
    """Return the multiply-adds of a backbone with its head."""
    return multiply_adds(passes(backbone, head, side))


def table_3() -> Table:
    """Memory at each resolution, and at the worst moment."""
    backbone, _ = classifier(1.0, 1000)
    widest: dict[int, int] = {}
    for layer, _, made in shapes(backbone, 224, InvertedResidual):
        if layer in set(backbone.features):
            widest[made.shape[3]] = max(widest.get(made.shape[3], 0), made.shape[1])
    widest[1] = backbone.channels[0]
    rows = []
    for side, (channels, kilobytes) in TABLE_3.items():
        mine = widest[side]
        counted = 2 * mine * side * side / 1000
        if mine != channels:
            verdict = 'differs: the paper puts the next stage here, whose output is half as large already'
        elif round(counted) == kilobytes:
            verdict = 'equal'
        else:
            verdict = 'channels equal; the paper rounds its kilobytes to round numbers'
        rows.append(
            Row(
                f'{side}x{side}',
                'channels / kB',
                f'{channels} / {kilobytes}',
                f'{mine} / {counted:.1f}',
                verdict,
            )
        )
    most = max(2 * count * side * side for side, count in widest.items())
    rows.append(Row('largest', 'kB', '400', f'{most / 1000:.1f}', 'differs: rounded in the paper'))
    operator = f'{peak_memory(backbone, 224, slices=1) / 1e6:.2f}'
    verdict = 'not printed; two thirds are the 32 channels of the first convolution, in no row above'
    rows.append(Row('inputs and outputs at once', 'MB, a bottleneck is one operator', '-', operator, verdict))
    return Table(
        'Table 3: activation memory',
        'Width 1.0 at 224 px, 16-bit numbers. The first rows are the widest tensor between bottlenecks at '
        'each resolution, the first convolution being part of the first bottleneck, as in section 5.1 of the '
        'paper. The last row is what the neediest operator needs.',
        rows,
    )


def section_5() -> Table:
    """What a run needs when bottlenecks are sums over slices, by the planner of `deploy.memory`."""
    backbone, _ = classifier(1.0, 1000)
    units, whole, cells = read_network(backbone), 'whole network', 2 * 112**2
    names = {1: 'not sliced', **{slices: f't = {slices}' for slices in (2, 3, 4, 5)}}
    rows = []
    for slices, name in names.items():
        needs = sliced_peak(units, (224, 224), slices)
        alike = needs == peak_memory(backbone, 224, slices=None if slices == 1 else slices)
        verdict = f'not printed; {"equal to" if alike else "differs from"} the count by operators'
        rows.append(Row(whole, f'MB, {name}', '-', f'{needs / 1e6:.2f}', verdict))
    needs = sliced_peak(units, (224, 224), EACH_CHANNEL)
    verdict = (
        "mostly the first convolution's 32 channels, which are not sliced here; if they were, image and "
        f'output of the first block would be {2 * (3 * 224**2 + 16 * 112**2) / 1e6:.2f} MB still'
    )
    rows.append(Row(whole, 'MB, one channel at a time', '-', f'{needs / 1e6:.2f}', verdict))
    ends, most = one_channel_at_a_time(units[2], 112)
    bound = f'{ends / 1000:.1f} + O({cells / 1000:.1f})'
    verdict = (
        'within the bound, input and output and O of one channel of the larger side: '
        f'{(most - ends) / cells:.2f} of it'
    )
    rows.append(
        Row('first block of stage 2', 'kB, one channel at a time', bound, f'{most / 1000:.1f}', verdict)
    )
    found = Search(backbone, (224, 224), PAPERS).cheapest(1000 * TABLE_3[112][1])
    assert found is not None
    first = found.segments[0]
    verdict = (
        f'all at once within what Table 3 prints for one tensor, for {found.extra:.1%} more multiply-adds: '
        f'the first {first.end} layers in {first.patches} patches'
    )
    rows.append(Row(whole, 'MB, t up to 5 and patches', '0.40', f'{found.peak / 1e6:.2f}', verdict))
    note = (
        'Width 1.0 at 224 px, 16-bit numbers: the most that is alive at once when the network runs step by '
        'step, by the planner of `--memory` (docs/memory.md). The paper recommends t from 2 to 5.'
    )
    return Table('Section 5: bottlenecks as sums over slices', note, rows)


def table_4() -> Table:
    """Parameters and multiply-adds on ImageNet."""
    why = {
        1.0: '3.47 without batch norms at 1001 classes (slim), of which the paper keeps one digit',
        1.4: 'not reproducible; slim prints 6.06',
    }
    rows = []
    for width, (millions, multiply) in TABLE_4.items():
        name, pair = f'MobileNetV2 {width}', classifier(width, 1000)
        count, total = parameters(*pair), adds(*pair, 224)
        rows += [
            counted(name, 'parameters', millions, 'M', count, why[width]),
            counted(name, 'multiply-adds', multiply, 'M', total, 'slim prints 582 for the same network'),
        ]
    return Table('Table 4: ImageNet', '224 px, 1000 classes, batch norms included.', rows)


def slim_table() -> Table:
    """slim's 22 networks."""
    rows = []
    for width, (millions, per_resolution) in SLIM.items():
        count = parameters(*classifier(width, 1001), norms=False)
        rows.append(counted(f'{width}', 'parameters', millions, 'M', count))
        pair = classifier(width, 1000)
        for resolution, printed in per_resolution.items():
            total = adds(*pair, resolution)
            rows.append(counted(f'{width}, {resolution} px', 'multiply-adds', printed, 'M', total))
    return Table(
        "slim's 22 networks",
        'Parameters as slim counts them, with 1001 classes and no batch norms. Multiply-adds with 1000 '
        'classes.',
        rows,
    )


def detector(**options: Any) -> tuple[Any, Any]:
    """Return backbone and SSDLite head for 80 classes. Default boxes are computed, so not on meta."""
    backbone = MobileNetV2(taps=('stage6_expand', 'last'), padding='same').eval()
    return backbone, SSDLiteHead(backbone.channels, backbone.strides, num_classes=80, **options).eval()


def table_5() -> Table:
    """SSD's prediction layers against SSDLite's."""
    rows = []
    twice = 'twice the real count'
    for name, options, millions, billions in (
        ('SSD', {'separable': False}, '14.8', '1.25'),
        ('SSDLite', {}, '2.1', '0.35'),
    ):
        backbone, head = detector(**options)
        with torch.no_grad():
            maps = backbone(torch.zeros(1, 3, 320, 320))
        count, total = parameters(head), multiply_adds(partial(head, maps))
        rows += [
            counted(name, 'parameters', millions, 'M', count),
            counted(name, 'multiply-adds', billions, 'B', total, twice),
        ]
    note = 'Extra maps and predictors over MobileNetV2 at 320 px, 80 classes.'
    return Table('Table 5: SSD and SSDLite, without the backbone', note, rows)


def table_6() -> Table:
    """MobileNetV2 with SSDLite."""
    pair = detector()
    count, total = parameters(*pair), adds(*pair, 320)
    name = 'MobileNetV2 + SSDLite'
    return Table(
        'Table 6: COCO detection',
        '320 px, 80 classes and background.',
        [
            counted(name, 'parameters', '4.3', 'M', count),
            counted(name, 'multiply-adds', '0.8', 'B', total),
        ],
    )


def explain_atrous(total: int, printed: str) -> str:
    """Say how far counting atrous convolutions as TensorFlow 1 ran them explains a printed figure."""
    text = (
        f'{total / 1e9:.3f} B with atrous convolutions as TensorFlow 1 ran them, on maps padded to a '
        'multiple of the rate'
    )
    if compare(total, printed, 1e9).startswith('equal'):
        return f'{text}, which is what is printed'
    return f'{text}; the rest, {abs(float(printed) * 1e9 / total - 1):.1%}, is unexplained'


def table_7() -> Table:
    """MobileNetV2 with DeepLabv3."""
    rows = []
    for (stride, pyramid), (millions, billions) in TABLE_7.items():
        with torch.device('meta'):
            backbone = MobileNetV2(taps=('stage7',), output_stride=stride).eval()
            head = DeepLabV3Head(backbone.channels, backbone.strides, num_classes=21, aspp=pyramid).eval()
        sides = [int(512 * scale + 1) for scale in SCALES for _ in range(2)] if stride == 8 else [513]
        count, total = parameters(backbone, head), sum(adds(backbone, head, side) for side in sides)
        name = f'output stride {stride}, {"with" if pyramid else "without"} ASPP'
        name += ', 6 scales and mirrored' if stride == 8 else ''
        surplus = sum(atrous_surplus(passes(backbone, head, side), backbone, head) for side in sides)
        why = explain_atrous(total + surplus, billions)
        rows += [
            counted(name, 'parameters', millions, 'M', count),
            counted(name, 'multiply-adds', billions, 'B', total, why),
        ]
    return Table('Table 7: VOC segmentation', '513 px, 21 classes with background.', rows)


def tables() -> Iterator[Table]:
    """Build and count everything."""
    for make in (table_3, section_5, table_4, slim_table, table_5, table_6, table_7):
        yield make()


def markdown(found: list[Table]) -> str:
    """Return the whole page."""
    lines = [
        "# The paper's tables, counted here",
        '',
        f'{SIGN}; a test compares it with the networks.',
        '"equal": the count rounds to the printed figure. "equal, truncated": it does when cut off there.',
    ]
    for table in found:
        lines += ['', f'## {table.title}', '', table.note, '']
        lines += ['| network | of | printed | counted | |', '|---|---|---|---|---|']
        lines += [f'| {" | ".join(row)} |' for row in table.rows]
    return '\n'.join(lines) + '\n'


def write_page(page: Path, text: str) -> None:
    """Write a page, in place of an earlier one and of no other file."""
    if page.exists() and SIGN not in page.read_text(encoding='utf-8', errors='replace'):
        raise UserError(f'{page} was not written by this command: give another FILE')
    page.write_text(text, encoding='utf-8')


def main() -> None:
    found = list(tables())
    if ARGUMENTS.markdown:
        write_page(Path(ARGUMENTS.markdown), markdown(found))
        print(f'wrote {ARGUMENTS.markdown}')
        return
    from rich.console import Console
    from rich.table import Table as Grid

    for table in found:
        grid = Grid('network', 'of', 'printed', 'counted', '', title=table.title, caption=table.note)
        for each in table.rows:
            grid.add_row(*each)
        Console().print(grid)


if __name__ == '__main__':
    from falconet.core.errors import run_command

    run_command(main)
