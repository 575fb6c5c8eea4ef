"""`model_card.md`: what lies beside exported files for people to read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.answers import LONGEST
from deploy.description import Description, Values
from deploy.parity import LIMITS
from tasks.errors import listing
from tasks.outputs import MARK


@dataclass
class Written:
    """One exported file.

    Attributes:
        path: of the file.
        size: of it and what belongs to it, in bytes.
        measured: its differences to the model; see `deploy.parity.LIMITS`.
        scores: on data, where that was asked for.
    """

    path: Path
    size: int
    measured: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)


UNITS = {
    'scores': 'largest difference of a score',
    'boxes': 'largest difference of a box, pixels',
    'mask': 'share of pixels of another class',
    'outputs': "largest difference of the head's outputs, relative",
}


def write_card(
    path: Path,
    description: Description,
    written: Sequence[Written],
    *,
    pictures: str,
    scores: Mapping[str, float],
) -> None:
    """Write the card.

    Args:
        path: of the card.
        description: of the program that all the files hold.
        written: the files.
        pictures: on what they were compared with the model.
        scores: the checkpoint's own, where it was scored.
    """
    names = list(written[0].measured)
    height, width = description.picture or (None, None)
    sizes = f'Pictures are {height} pixels high and {width} wide.'
    if description.picture is None:
        sizes = f'One picture at a time, of any size. A mask has at most {LONGEST} pixels on its longer side.'
    if description.inside:
        preparing = 'The program itself does: ' + '; '.join(map(str, description.preprocess)) + '.'
    else:
        preparing = (
            'Bring the picture to that size first, as these transforms do: '
            + '; '.join(map(str, description.preprocess))
            + '. Export with `--size any` to have the program do it.'
        )
    lines = [
        f'<!-- {MARK} -->',
        f'# {description.source}: {description.task}',
        '',
        f'Classes ({len(description.classes)}): {listing(description.classes, 20)}. All of them, and '
        'what else is needed to use these files, are inside them as JSON.',
        '',
        f'Made from `{description.source}`, SHA-256 `{description.sha256}`.',
        '',
        '## In and out',
        '',
        '| tensor | type | shape | meaning |',
        '|---|---|---|---|',
        *(_row(each) for each in (description.input, *description.outputs)),
        '',
        f'{sizes} {preparing} Pixels stay 0 to 255: the program normalises.',
        '',
        '## Does it say what the model says?',
        '',
        f'Measured on {pictures}:',
        '',
        '| file | bytes | ' + ' | '.join(UNITS[name] for name in names) + ' |',
        '|---' * (2 + len(names)) + '|',
        *(
            f'| {each.path.name} | {each.size:,} | '
            + ' | '.join(f'{each.measured[name]:.2g}' for name in names)
            + ' |'
            for each in written
        ),
        '| allowed | | ' + ' | '.join(f'{LIMITS[name]:g}' for name in names) + ' |',
        '',
        '## Scores',
        '',
    ]
    if scores:
        name, value = next(iter(scores.items()))
        lines += [
            f'| file | {name} | difference |',
            '|---|---|---|',
            f'| {description.source} | {value:.4f} | |',
        ]
        lines += [
            f'| {each.path.name} | {each.scores[name]:.4f} | {each.scores[name] - value:+.4f} |'
            for each in written
        ]
    elif numbers := {key: value for key, value in description.metrics.items() if isinstance(value, float)}:
        lines += ['The checkpoint had, in its own last validation:', '']
        lines += [f'- {key}: {value:.4f}' for key, value in numbers.items()]
    else:
        lines += ['Not measured: `tools/export.py --data-root DIR`, or `tools/test.py FILE`, does.']
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')


def _row(values: Values) -> str:
    shape = ', '.join(map(str, values.shape))
    return f'| `{values.name}` | {values.dtype} | ({shape}) | {values.meaning} |'
