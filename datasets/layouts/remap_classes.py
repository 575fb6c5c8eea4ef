"""Labelled pictures with other classes, or split anew: `tools/convert_data.py --classes --merge --split`."""

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from falconet.core.errors import UserError, closest
from falconet.datasets.annotations import Annotations
from falconet.datasets.images import near_duplicates as near
from falconet.datasets.layouts.base import SPLITS
from falconet.datasets.layouts.holdout import hold_out
from falconet.datasets.packed_strings import PackedStrings


class Classes(NamedTuple):
    """Classes made of others.

    Attributes:
        names: of the new ones.
        index_of: of every old class the index of the new one, -1 for those that are left out; int64 (C,).
    """

    names: tuple[str, ...]
    index_of: np.ndarray


def new_classes(names: Sequence[str], *, merge: Mapping[str, str], keep: Sequence[str] | None) -> Classes:
    """Return the classes that are left.

    Args:
        names: of the old ones.
        merge: old name -> the name it gets, of another class or a new one.
        keep: names after merging, in the order wanted; None keeps all, in the old order.

    Raises:
        UserError: a name that is none, or is kept twice.
    """
    if missing := [name for name in merge if name not in names]:
        raise UserError(
            f'--merge {missing[0]}={merge[missing[0]]}: no such class. {closest(missing[0], names)}'
        )
    called = [merge.get(name, name) for name in names]
    known = list(dict.fromkeys(called))
    kept = known if keep is None else list(keep)
    if missing := [name for name in kept if name not in known]:
        raise UserError(f'--classes: no class {missing[0]!r}. {closest(missing[0], known)}')
    if len(set(kept)) < len(kept) or not kept:
        raise UserError(f'--classes: each once, and one at least, got {", ".join(kept) or "none"}')
    places = [kept.index(name) if name in kept else -1 for name in called]
    return Classes(tuple(kept), np.array(places, dtype=np.int64))


def merges_of(texts: Sequence[str]) -> dict[str, str]:
    """Return old name -> new name from 'kitten,tomcat=cat'.

    Raises:
        UserError: no such pair, or a name that is to be called two ways.
    """
    found: dict[str, str] = {}
    for text in texts:
        old, equals, new = (part.strip() for part in text.partition('='))
        for name in (each.strip() for each in old.split(',')):
            if not (equals and name and new):
                raise UserError(f'--merge {text}: expected names of classes and the name they get, as a,b=c')
            if found.setdefault(name, new) != new:
                raise UserError(f'--merge: {name} is to be called {found[name]} and {new}')
    return found


def recast(annotations: Annotations, classes: Classes) -> Annotations:
    """Return objects with other classes; pictures that are left without any stay."""
    if classes.names == annotations.class_names:
        return annotations
    labels = classes.index_of[annotations.labels]
    found = only(replace(annotations, labels=labels.astype(np.int32)), labels >= 0)
    numbers = tuple(range(1, len(classes.names) + 1))
    return replace(found, class_names=classes.names, category_ids=numbers)


def only(annotations: Annotations, inside: np.ndarray) -> Annotations:
    """Return the objects where `inside`, bool (K,), is True; pictures without any stay."""
    owners = np.repeat(np.arange(len(annotations)), np.diff(annotations.starts))[inside]
    counts = np.bincount(owners, minlength=len(annotations))
    columns = ('boxes', 'labels', 'crowd', 'areas', 'object_ids', 'original_boxes')
    return replace(
        annotations,
        **{name: getattr(annotations, name)[inside] for name in columns},
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def joined(parts: Sequence[Annotations]) -> Annotations:
    """Return the objects of several splits as one, numbered anew."""
    first = parts[0]
    if other := [each for each in parts if each.class_names != first.class_names]:
        raise UserError(f'the splits have other classes: {first.class_names} and {other[0].class_names}')
    columns = ('sizes', 'boxes', 'labels', 'crowd', 'areas', 'original_boxes')
    counts = np.concatenate([np.diff(each.starts) for each in parts])
    return replace(
        first,
        **{name: np.concatenate([getattr(each, name) for each in parts]) for name in columns},
        paths=PackedStrings(itertools.chain.from_iterable(each.paths for each in parts)),
        image_ids=np.arange(1, len(counts) + 1),
        object_ids=np.arange(1, counts.sum() + 1),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def shares_of(text: str) -> dict[str, float]:
    """Return the share of each split from '0.8,0.1,0.1' (train, val, test); the last may be left out.

    Raises:
        UserError: not two or three numbers that add up to 1.
    """
    try:
        shares = [float(each) for each in text.split(',')]
    except ValueError:
        shares = []
    if len(shares) not in (2, 3) or not min(shares) >= 0 or not shares[0] or not abs(sum(shares) - 1) < 1e-6:
        raise UserError(
            f'--split {text}: expected the shares of train and val, or of train, val and test, which add up '
            'to 1: --split 0.8,0.1,0.1'
        )
    return dict(zip(SPLITS, shares, strict=False))


def new_split(
    names: Sequence[str], strata: Sequence[Hashable], paths: Sequence[str], shares: Mapping[str, float]
) -> dict[str, list[int]]:
    """Return the numbers of the pictures of every split: of every stratum alike, near copies together.

    Args:
        names: of the pictures, which decide where each goes.
        strata: what each is of.
        paths: where they lie.
        shares: of train, val and test, which add up to 1.
    """
    groups = near.groups(paths)
    left = list(range(len(names)))
    found: dict[str, list[int]] = {}
    rest = 1.0
    for split in ('test', 'val'):
        share = shares.get(split, 0.0)
        chosen = set(
            hold_out(
                [names[index] for index in left],
                [strata[index] for index in left],
                share=share / rest if rest else 0.0,
                groups=[groups[index] for index in left],
            )
        )
        found[split] = [index for index in left if names[index] in chosen]
        left = [index for index in left if names[index] not in chosen]
        rest -= share
    found['train'] = left
    return {split: found[split] for split in SPLITS if found[split]}
