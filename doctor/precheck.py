"""The doctor's quick part, run before a training: what is serious, in three lines.

It looks at headers, counts, boxes and copied files, and at the pictures themselves where they are few.
Nothing that a training computes depends on it.
"""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from falconet.core.errors import listing
from falconet.doctor import pictures
from falconet.doctor.examine import examined

FEW = 300  # pictures that are looked at in full: a second or two
LINES = 3


def quick_check(config: Config, datasets: Mapping[str, Any], *, root: object) -> list[str]:
    """Return lines for the log: what is serious, at most three, and how to see the rest; or none.

    Data sets that read a standard set (COCO's, VOC's or ImageNet's own folders) are not looked at.

    Args:
        config: of the run.
        datasets: 'train' and 'val', as they will be used.
        root: where the data lie, for the command.
    """
    if not all(hasattr(dataset, 'forgiven') for dataset in datasets.values()):
        return []
    if sum(map(len, datasets.values())) <= FEW:
        seen = {part: pictures.look_at(dataset) for part, dataset in datasets.items()}
    else:
        seen = pictures.look_at_heads(datasets)
    findings = examined(config, datasets, seen, quick=True).findings
    serious = [each for each in findings if each.serious]
    if not serious:
        return []
    shown = serious if len(serious) <= LINES else serious[: LINES - 1]
    lines = [
        f'data: {each.count} {each.text} ({listing(each.examples, 1)}). {each.consequence}' for each in shown
    ]
    if len(shown) < len(serious):
        more = listing((each.kind.replace('_', ' ') for each in serious[LINES - 1 :]), 6)
        lines.append(f'data: and {len(serious) - len(shown)} other kinds of faults: {more}')
    name = datasets['train'].format
    where = f'--data-root {root} --data-format {name}'
    return [*lines, f'data: the whole list: python tools/check_data.py {config.filename} {where}']
