"""`model_card.md`: what lies beside exported files for people to read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from falconet.core.errors import listing
from falconet.core.names import MARK
from falconet.deploy.answers import LONGEST
from falconet.deploy.description import Description, Values
from falconet.deploy.int8.calibration import Calibration
from falconet.deploy.int8.qat import Tuned
from falconet.deploy.parity import LIMITS


@dataclass
class Written:
    """One exported file.

    Attributes:
        path: of the file.
        size: of it and what belongs to it, in bytes.
        measured: its differences to the model; see `deploy.parity.LIMITS`.
        scores: on data, where that was asked for.
        lost: points of the score that INT8 took; 0 in float32.
    """

    path: Path
    size: int
    measured: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    lost: float = 0.0


UNCHECKED = "it runs on Apple's systems only, and was not written on one"
OPEN_BATCH = (
    'The `.onnx` file is for ONNX Runtime. OpenVINO 2026.4 computes it wrongly on CPUs while the number of '
    "pictures is open: take the format openvino there, export with `--batch 1`, or fix the model's shape "
    'before it is compiled (`model.reshape`).'
)
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
    calibration: Calibration | None = None,
    tuned: Tuned | None = None,
) -> None:
    """Write the card.

    Args:
        path: of the card.
        description: of the program that all the files hold.
        written: the files.
        pictures: on what they were compared with the model.
        scores: the checkpoint's own, where it was scored.
        calibration: the pictures that files in INT8 were calibrated on.
        tuned: what fine-tuning in eight bits gave.
    """
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
        *(_within(description.memory) if description.memory else ()),
        *(_compared(written, pictures) if calibration is None else _in_int8(written, scores)),
    ]
    if calibration is not None and description.batch is None and any(_is_onnx(each) for each in written):
        lines += [OPEN_BATCH, '']
    if tuned is not None:
        lines += _fine_tuned(tuned)
    if calibration is not None:
        lines += _calibrated(calibration)
    elif scores:
        name, value = next(iter(scores.items()))
        lines += [
            f'| file | {name} | difference |',
            '|---|---|---|',
            f'| {description.source} | {value:.4f} | |',
        ]
        lines += [
            f'| {each.path.name} | {each.scores[name]:.4f} | {each.scores[name] - value:+.4f} |'
            for each in written
            if each.scores
        ]
    elif numbers := {key: value for key, value in description.metrics.items() if isinstance(value, float)}:
        lines += ['The checkpoint had, in its own last validation:', '']
        lines += [f'- {key}: {value:.4f}' for key, value in numbers.items()]
    else:
        lines += ['Not measured: `tools/export.py --data-root DIR`, or `tools/test.py FILE`, does.']
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')


def _within(memory: Mapping[str, Any]) -> list[str]:
    extra = memory['multiply_adds'] / memory['plain_multiply_adds'] - 1
    whole = f' All tensors of the file fit into {memory["arena"]:,} bytes.' if 'arena' in memory else ''
    turned = ' Picture and kernels are turned by 180 degrees.' if memory['turned'] else ''
    return [
        '## Memory',
        '',
        f'Asked for: {memory["asked"]:,} bytes of activations for a picture. The backbone takes '
        f'{memory["planned"]:,} instead of {memory["plain"]:,}, with {extra:.1%} more multiply-adds.{whole}'
        f'{turned}',
        '',
        '| layers | rows x columns of patches | slices of expanded tensors |',
        '|---|---|---|',
        *(
            f'| `features[{first}]` to `[{last}]` | {rows} x {columns} | {", ".join(map(str, slices))} |'
            for segment in memory['segments']
            for (first, last), (rows, columns), slices in [
                (segment['layers'], segment['grid'], segment['slices'])
            ]
            if rows * columns > 1 or max(slices) > 1
        ),
        '',
    ]


def _compared(written: Sequence[Written], pictures: str) -> list[str]:
    names = list(dict.fromkeys(name for each in written for name in each.measured))
    unchecked = [each.path.name for each in written if not each.measured]
    return [
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
            if each.measured
        ),
        '| allowed | | ' + ' | '.join(f'{LIMITS[name]:g}' for name in names) + ' |',
        '',
        *(f'**{name} was not compared**: {UNCHECKED}.' for name in unchecked),
        *([''] if unchecked else []),
        '## Scores',
        '',
    ]


def _in_int8(written: Sequence[Written], scores: Mapping[str, float]) -> list[str]:
    name, value = next(iter(scores.items()))
    return [
        '## What INT8 cost',
        '',
        'Weights and maps have eight bits from the first convolution to the last layer; what comes before '
        'and after is in float32. Scored on the data that `tools/test.py` uses:',
        '',
        f'| file | bytes | {name} | points lost |',
        '|---|---|---|---|',
        f'| the checkpoint, float32 | | {value:.4f} | |',
        *(
            f'| {each.path.name} | {each.size:,} | {each.scores[name]:.4f} | {each.lost:.2f} |'
            for each in written
        ),
        '',
    ]


def _fine_tuned(tuned: Tuned) -> list[str]:
    (name, before), (after,) = next(iter(tuned.before.items())), tuned.after.values()
    kept = 'The best epoch was taken' if after > before else 'No epoch was better, so the weights stayed'
    return [
        '## Fine-tuned in eight bits',
        '',
        f'{tuned.epochs} epochs of the training that the checkpoint names, with weights and maps rounded '
        f'(`--qat {tuned.epochs}`): {name} of the rounded network was {before:.4f} before and is '
        f'{after:.4f} after. {kept}.',
        '',
    ]


def _calibrated(calibration: Calibration) -> list[str]:
    left_out = [f'- left out, not readable: {Path(path).name}' for path in calibration.skipped]
    return [
        '## Calibrated on',
        '',
        f'{len(calibration.names)} pictures of {calibration.source}, drawn with seed {calibration.seed}. The '
        f'SHA-256 of this list, one name a line, is `{calibration.sha256}`.',
        '',
        *left_out,
        *([''] if left_out else []),
        '```',
        *calibration.names,
        '```',
    ]


def _is_onnx(written: Written) -> bool:
    return written.path.suffix == '.onnx'


def _row(values: Values) -> str:
    shape = ', '.join(map(str, values.shape))
    return f'| `{values.name}` | {values.dtype} | ({shape}) | {values.meaning} |'
