"""The part of a labelled folder that is learnt, or scored: by its own split, or with a share set aside."""

import os
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

from falconet.core.errors import UserError, listing
from falconet.datasets.images import near_duplicates as near
from falconet.datasets.layouts.base import Layout
from falconet.datasets.layouts.file_tree import Tree
from falconet.datasets.layouts.holdout import hold_out, keep_part


class Part(NamedTuple):
    """Which pictures belong to a part.

    Attributes:
        keep: of every picture whether it does.
        held_out: names below the root of those set aside for scoring; None where data have a split.
        text: how it was decided, for the log.
    """

    keep: list[bool]
    held_out: list[str] | None
    text: str


def names_below(root: Path, paths: Sequence[str]) -> list[str]:
    """Return paths as names below a root, with forward slashes."""
    return [os.path.relpath(path, root).replace(os.sep, '/') for path in paths]


def choose_part(
    layout: Layout,
    names: Sequence[str],
    strata: Sequence[Hashable],
    *,
    paths: Sequence[str],
    training: bool,
    share: float,
    held_out: Sequence[str] | None,
) -> Part:
    """Return the part of a folder to learn from (`training`) or to score.

    Args:
        layout: of the folder.
        names: of the pictures that were read, below the root.
        strata: what each is of.
        paths: where they lie: near copies are found, and stay on one side.
        training: the part to learn from.
        share: to set aside where the data have no split; 0 sets nothing aside.
        held_out: names that were set aside before, which are set aside again.

    Raises:
        UserError: the part is empty.
    """
    if layout.has_split:
        return Part([True] * len(names), None, f'split of the data ({", ".join(layout.splits)})')
    known = set(held_out or ()) & set(names)
    if held_out and not known and not training:
        return Part([True] * len(names), None, f'all: none of the {len(held_out)} pictures set aside is here')
    chosen, together = sorted(known), ''
    if not known and share > 0 and len(names) > 1:
        chosen, together = _hold_out(names, strata, paths, share=share)
    if not chosen and share == 0:
        return Part([True] * len(names), None, 'all, for training and scoring alike')
    keep = keep_part(names, frozenset(chosen), training=training)
    if not any(keep):
        raise UserError(
            f'{layout.seen}: {len(names)} pictures are too few to set some aside for scoring. Add pictures, '
            f'or a split of your own ({listing(("train", "val"))})'
        )
    lost = len(held_out) - len(known) if held_out and known else 0
    gone = f' (of {lost + len(known)} before: {lost} are gone)' if lost else ''
    text = f'without a split: {len(chosen)} of {len(names)} set aside for scoring{gone}{together}'
    return Part(keep, chosen, text)


def _hold_out(
    names: Sequence[str], strata: Sequence[Hashable], paths: Sequence[str], *, share: float
) -> tuple[list[str], str]:
    """Return names to set aside, copies and near copies of one picture on one side; and that in words."""
    groups = near.groups(paths)
    sizes = [count for count in Counter(groups).values() if count > 1]
    if max(sizes, default=0) == len(names):
        return hold_out(names, strata, share=share), (
            '; every picture is nearly a copy of another: those that are scored have been learnt'
        )
    together = (
        f'; {sum(sizes)} of them are copies or near copies, in {len(sizes)} groups that stay on one side'
        if sizes else ''
    )  # fmt: skip
    return hold_out(names, strata, share=share, groups=groups), together


def check_apart(tree: Tree, train: Sequence[str], scored: Sequence[str], *, source: str) -> None:
    """Raise UserError for pictures that are learnt and scored; a forgiving tree notes them."""
    if both := sorted(set(train) & set(scored)):
        tree.refuse(
            'pictures_in_two_splits',
            [f'{path}: train and val' for path in both],
            f'{source}: {len(both)} pictures are both learnt and scored: {listing(both)}. Take them out of '
            'one of the splits',
        )
