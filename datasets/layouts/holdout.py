"""A share of the pictures set aside for scoring, of every class alike, where data have no split."""

import hashlib
from collections import Counter
from collections.abc import Collection, Hashable, Sequence


def hold_out(
    names: Sequence[str],
    strata: Sequence[Hashable],
    *,
    share: float,
    groups: Sequence[Hashable] | None = None,
) -> list[str]:
    """Return the names to set aside: of every stratum that share, at least one where it has two groups.

    Which ones is decided by a hash of each name, so that the same folder gives the same ones everywhere.

    Args:
        names: of the pictures, below the data root.
        strata: what each is of, its class for example.
        share: 0 to 1.
        groups: of every picture what it must stay together with; None where each is alone. A group belongs
            to the rarest stratum in it.
    """
    counts = Counter(strata)
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(range(len(names)) if groups is None else groups):
        members.setdefault(group, []).append(index)
    units: dict[Hashable, list[list[str]]] = {}
    order = list(dict.fromkeys(strata))
    for inside in members.values():
        rarest = min((strata[index] for index in inside), key=lambda each: (counts[each], order.index(each)))
        units.setdefault(rarest, []).append(sorted((names[index] for index in inside), key=_rank))
    chosen: list[str] = []
    for each in units.values():
        chosen += _chosen(sorted(each, key=lambda unit: _rank(unit[0])), share)
    return sorted(chosen)


def _chosen(units: Sequence[list[str]], share: float) -> list[str]:
    """Return the names of the first units that fit into a share of all names, at least one unit of two."""
    total = sum(map(len, units))
    most = round(share * total)
    if share > 0 and len(units) > 1:
        most = min(max(most, 1), total - 1)
    chosen: list[str] = []
    for unit in units:
        if len(chosen) + len(unit) <= most:
            chosen += unit
    if not chosen and share > 0 and len(units) > 1:  # all are larger than the share
        chosen += min(units, key=len)
    return chosen


def _rank(name: str) -> bytes:
    return hashlib.sha256(name.encode('utf-8', 'surrogateescape')).digest()


def keep_part(names: Sequence[str], held_out: Collection[str], *, training: bool) -> list[bool]:
    """Return which pictures belong to a part: to train on (True), or those set aside."""
    return [(name in held_out) != training for name in names]
