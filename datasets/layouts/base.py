"""A recognised layout: which format, what was seen of it, its splits, and how to read one of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from falconet.core.errors import UserError, closest, listing
from falconet.datasets.annotations import Problems
from falconet.datasets.layouts.file_tree import Tree

SPLITS = ('train', 'val', 'test')


@dataclass(frozen=True)
class Layout:
    """Labelled pictures as found in a folder.

    Attributes:
        name: of the format, as `--data-format` takes it.
        seen: what it was recognised by, for the log and for messages.
        splits: 'train', 'val' and 'test' as far as there are any, or '' for data without a split; each with
            what its reader needs.
        read: returns what a split holds, given its part of `splits` and where to note problems.
        unnamed: returns the pictures beside those used that no annotation names, below the root.
        parents: returns names that are left out of the classes because they only stand for the group of all
            others; known after reading.
    """

    name: str
    seen: str
    splits: Mapping[str, Any]
    read: Callable[[Any, Problems], Any]
    unnamed: Callable[[], Sequence[str]] = tuple
    parents: Callable[[], Sequence[str]] = tuple

    @property
    def has_split(self) -> bool:
        """Whether the data come with pictures to train on and others to score."""
        return 'train' in self.splits and len(self.splits) > 1


Recognise = Callable[..., Layout | None]


def find_layout(
    tree: Tree, formats: Mapping[str, Recognise], *, name: str = 'auto', expected: str, **options: Any
) -> Layout:
    """Return the one layout in which a folder is labelled.

    Args:
        tree: the folder.
        formats: what recognises each format.
        name: one of `formats`, or 'auto'.
        expected: what was looked for, for the message.
        **options: for the recognisers.

    Raises:
        UserError: none fits, several do, or the one that is named does not.
    """
    if name != 'auto' and name not in formats:
        raise UserError(f'--data-format {name}: {closest(name, ["auto", *formats])}')
    tried = formats if name == 'auto' else {name: formats[name]}
    found = [layout for each in tried.values() if (layout := each(tree, **options)) is not None]
    if len(found) > 1:
        seen = '; '.join(f'{layout.name} ({layout.seen})' for layout in found)
        raise UserError(
            f'{tree.root} is labelled in {len(found)} ways: {seen}. Say which counts: '
            + ' or '.join(f'--data-format {layout.name}' for layout in found)
        )
    if not found:
        endings = sorted({file.rpartition('.')[2].lower() for file in tree.files if '.' in file})
        inside = sorted({file.split('/')[0] + ('/' if '/' in file else '') for file in tree.files})
        what = expected if name == 'auto' else f'what --data-format {name} stands for'
        raise UserError(
            f'{tree.root} holds no {what}. Seen: {len(tree.images)} pictures and {len(tree.files)} files '
            f'({listing(endings, 8) or "none"}) in {listing(inside, 8) or "nothing"}'
        )
    return found[0]


def one_each(files: Mapping[str, Sequence[str]], *, root: Any, what: str) -> dict[str, str]:
    """Return the one file of every split; UserError where two want to be the same."""
    for split, names in files.items():
        if len(names) > 1:
            raise UserError(
                f'{root}: {len(names)} {what} {"of the split " + split if split else "without a split"}: '
                f'{listing(names)}. Keep one of them, or name them train and val'
            )
    return {split: names[0] for split, names in files.items()}


def sorted_splits(splits: Mapping[str, Any]) -> dict[str, Any]:
    """Return splits in the order train, val, test, without; data beside named splits are left out."""
    named = {key: splits[key] for key in SPLITS if splits.get(key)}
    return named if 'train' in named else {key: splits[key] for key in (*SPLITS, '') if splits.get(key)}


def left_out(layout: Layout, *, training: bool) -> list[str]:
    """Return the pictures that no annotation names; said once, by the part that is learnt."""
    return sorted(layout.unnamed()) if training else []


def about_left_out(unnamed: Sequence[str], parents: Sequence[str] = ()) -> str:
    """Return clauses for the log: of pictures, and of names that are no classes."""
    text = ''
    if parents:
        text += f'; no class, but the group of all others, without an object: {listing(parents, 3)}'
    if unnamed:
        text += f'; left out, for no annotation names them: {len(unnamed)} pictures ({listing(unnamed, 3)})'
    return text


def chosen_split(layout: Layout, *, training: bool, name: str | None = None) -> str:
    """Return the split to train on, or to score: 'val', where there is none 'test'.

    Args:
        layout: of the folder.
        training: it is to train on.
        name: take the split of this name instead.

    Raises:
        UserError: there are splits, but none to train on, or none of that name; or not a single
            picture is there.
    """
    if not layout.splits:
        raise UserError(f'{layout.seen}: none of the pictures is there')
    if name is not None:
        if name not in layout.splits:
            known = listing(each or 'no split' for each in layout.splits)
            raise UserError(f'{layout.seen}: there is no split {name!r}, only {known}')
        return name
    if layout.has_split:
        return 'train' if training else next(key for key in ('val', 'test') if key in layout.splits)
    if len(layout.splits) > 1:
        raise UserError(f'{layout.seen}: splits {listing(layout.splits)}, and none is called train')
    return next(iter(layout.splits))
