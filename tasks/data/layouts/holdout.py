"""A share of the pictures set aside for scoring, of every class alike, where data have no split."""

import hashlib
from collections.abc import Collection, Hashable, Sequence


def hold_out(names: Sequence[str], strata: Sequence[Hashable], *, share: float) -> list[str]:
    """Return the names to set aside: of every stratum that share, at least one where it has two.

    Which ones is decided by a hash of each name, so that the same folder gives the same ones everywhere.

    Args:
        names: of the pictures, below the data root.
        strata: what each is of, its class for example.
        share: 0 to 1.
    """
    groups: dict[Hashable, list[str]] = {}
    for name, stratum in zip(names, strata, strict=True):
        groups.setdefault(stratum, []).append(name)
    chosen: set[str] = set()
    for members in groups.values():
        count = round(share * len(members))
        if share > 0 and len(members) > 1:
            count = min(max(count, 1), len(members) - 1)
        chosen.update(sorted(members, key=_rank)[:count])
    return sorted(chosen)


def _rank(name: str) -> bytes:
    return hashlib.sha256(name.encode('utf-8', 'surrogateescape')).digest()


def keep_part(names: Sequence[str], held_out: Collection[str], *, training: bool) -> list[bool]:
    """Return which pictures belong to a part: to train on (True), or those set aside."""
    return [(name in held_out) != training for name in names]
