"""The files below a data root, listed once, and the pictures that annotation files name in so many ways."""

import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from falconet.core.errors import UserError, listing
from falconet.datasets.annotations import Problems
from falconet.datasets.files import IGNORED_NAMES
from falconet.datasets.formats.voc import read_split
from falconet.datasets.images.images import check_regular, is_image_name, stored_in

SPLIT_WORDS = {
    **dict.fromkeys(('train', 'training'), 'train'),
    **dict.fromkeys(('val', 'valid', 'validation', 'dev'), 'val'),
    **dict.fromkeys(('test', 'testing'), 'test'),
}
# Folders of masks, by their names in small letters; and of pictures that are neither.
MASK_FOLDERS = frozenset(
    ('masks', 'mask', 'labels', 'label', 'annotations', 'segmentationclass', 'segmentationclassraw', 'gt')
    + ('ground_truth', 'groundtruth', 'labelids', 'segmentation')
)
NO_MASKS = frozenset(('segmentationobject',))


def split_of(name: str) -> str:
    """Return 'train', 'val' or 'test' for a name such as 'instances_train2017' or 'valid', else ''."""
    found = {SPLIT_WORDS[word] for word in re.findall('[a-z]+', name.lower()) if word in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else ''


def split_of_place(file: str) -> str:
    """Return the split that the folders of a path below the root name, the outermost first, else ''."""
    return next((split for part in PurePosixPath(file).parts[:-1] if (split := split_of(part))), '')


class Tree:
    """All files below a folder, by path below it with forward slashes, sorted.

    Hidden ones are left out, and what is no file: pipes, sockets, devices.

    Links to folders are followed.

    Args:
        root: an existing folder.
        forgiving: note faults that otherwise stop a training, and go on without what is faulty: to list them
            all.

    Attributes:
        root: the folder.
        forgiven: what was noted, by the kinds of `doctor.catalogue`; None where faults are errors.
    """

    def __init__(self, root: Path, *, forgiving: bool = False) -> None:
        self.root = root
        self.forgiven = Problems(limit=None) if forgiving else None
        self.files: list[str] = []
        for parent, folders, names in os.walk(root, followlinks=True):
            inside = sorted(each for each in folders if not _is_left_out(each))
            folders[:] = [each for each in inside if not _leads_back(os.path.join(parent, each), root)]
            base = Path(parent).relative_to(root).as_posix()
            prefix = '' if base == '.' else f'{base}/'
            self.files += [
                f'{prefix}{name}'
                for name in sorted(names)
                if not (_is_left_out(name) or _is_waited_for(os.path.join(parent, name)))
            ]
        self.files.sort()

    @cached_property
    def file_set(self) -> frozenset[str]:
        """The files, to look one up."""
        return frozenset(self.files)

    @cached_property
    def images(self) -> list[str]:
        """The pictures, by their endings."""
        return [file for file in self.files if is_image_name(file)]

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for file in self.images:
            found.setdefault(PurePosixPath(file).name, []).append(file)
        return found

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """Pictures by path without ending."""
        found: dict[str, list[str]] = {}
        for file in self.images:
            found.setdefault(without_ending(file), []).append(file)
        return found

    def ending(self, *endings: str) -> list[str]:
        """Return the files with one of these endings."""
        return [file for file in self.files if file.lower().endswith(endings)]

    def path(self, file: str) -> Path:
        """Return where a file lies."""
        return self.root / file

    def text(self, file: str) -> str:
        """Return the text of a file, with or without a byte-order mark; UserError when it is no UTF-8."""
        try:
            return self.path(file).read_text(encoding='utf-8-sig')
        except UnicodeDecodeError as error:
            raise UserError(f'{self.path(file)}: no UTF-8 ({error}). Save it as UTF-8') from error
        except OSError as error:
            raise UserError(f'{self.path(file)} cannot be read: {error}') from error

    def refuse(self, kind: str, places: Iterable[str], message: str) -> None:
        """Raise UserError with `message`; a forgiving tree notes the places instead, each once."""
        if self.forgiven is None:
            raise UserError(message)
        known = self.forgiven.found.get(kind, (0, []))[1]
        new = [place for place in dict.fromkeys(places) if place not in known]
        self.forgiven.add(kind, len(new), new)

    def picture(self, name: str, *, near: str = '') -> str | None:
        r"""Return the picture that an annotation file means by `name`, None where there is none.

        Args:
            name: as written: a bare name, or a path of the machine it was written on, with / or \.
            near: the annotation file, below the root.

        Raises:
            UserError: several pictures fit.
        """
        wanted = [part for part in name.replace('\\', '/').split('/') if part not in ('', '.', '..')]
        if not wanted:
            return None
        fitting = self._by_name.get(wanted[-1], [])
        if len(fitting) > 1:  # as much of the path as is the same
            same = {file: _same_end(file.split('/'), wanted) for file in fitting}
            fitting = [file for file in fitting if same[file] == max(same.values())]
        if len(fitting) > 1:  # then what lies nearest to the annotation
            same = {file: _same_begin(file.split('/'), near.split('/')) for file in fitting}
            fitting = [file for file in fitting if same[file] == max(same.values())]
        if len(fitting) > 1 and (split := split_of(near)):
            fitting = [file for file in fitting if split_of_place(file) == split] or fitting
        if len(fitting) > 1:
            self.refuse(
                'names_double',
                [f'{near}: {name} is {" or ".join(fitting[:3])}'],
                f'{self.path(near)} names {name}, and {len(fitting)} pictures have that name: '
                f'{listing(fitting, 3)}. Write their paths below {self.root} in full',
            )
        return fitting[0] if fitting else None

    def same_stem(self, stems: Iterable[str], *, source: str) -> str | None:
        """Return the picture that has one of these paths without ending; UserError where two share one."""
        for stem in stems:
            found = self.by_stem.get(stem, [])
            if len(found) > 1:
                self.refuse(
                    'names_double',
                    [f'{source}: {" or ".join(found)}'],
                    f'{self.path(source)} belongs to {" or ".join(found)}: two pictures of one name. Which '
                    'one counts? Rename or remove the other',
                )
            if found:
                return found[0]
        return None

    def beside(self, named: Collection[str]) -> list[str]:
        """Return the pictures in the folders of those that annotations name that are not among them."""
        folders = {os.path.dirname(file) for file in named}
        folders = {each for each in folders if not (MASK_FOLDERS | NO_MASKS) & set(each.lower().split('/'))}
        return [file for file in self.images if file not in named and os.path.dirname(file) in folders]


def _leads_back(folder: str, root: Path) -> bool:
    """Whether a folder is a link to one that it lies in: followed, it would have no end."""
    if not os.path.islink(folder):
        return False
    there = os.path.realpath(folder)
    above = Path(folder).parents
    return any(os.path.realpath(each) == there for each in above[: 1 + above.index(root)])


def _is_left_out(name: str) -> bool:
    return name.startswith('.') or name in IGNORED_NAMES


def _is_waited_for(path: str) -> bool:
    """Whether opening this could take forever: a pipe, a socket, a device."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:  # a link to nothing, which is named where it is read
        return False


def names_in(tree: Tree, file: str) -> list[str]:
    """Return the names in a list of VOC's kind, each once; see `datasets.formats.voc.read_split`."""
    path = tree.path(file)
    try:
        return read_split(path.parent, path.stem)
    except UserError as error:
        if tree.forgiven is None:
            raise
        counts = Counter(line.split()[0] for line in tree.text(file).splitlines() if line.strip())
        if not counts:
            raise
        twice = [f'{file}: {name}, {count} times' for name, count in counts.items() if count > 1]
        tree.refuse('names_twice_in_a_list', twice, str(error))
        return list(counts)


def without_ending(file: str) -> str:
    """Return a path without its last ending."""
    return os.path.splitext(file)[0]


def _same_end(first: Sequence[str], second: Sequence[str]) -> int:
    return _same_begin(first[::-1], second[::-1])


def _same_begin(first: Sequence[str], second: Sequence[str]) -> int:
    pairs = zip(first, second, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def picture_size(path: Path, *, exif: str) -> tuple[int, int] | None:
    """Return (height, width) of a picture as it is seen, from its header; None where it cannot be read."""
    from PIL import Image

    try:
        check_regular(path)
        with Image.open(path) as picture:
            orientation, (height, width) = stored_in(picture)
            swaps = exif != 'ignore' and orientation >= 5
    except Exception:  # whatever is wrong with it, the loader says; and it knows more formats
        from falconet.datasets.images.images import ImageError, read_image

        try:
            height, width = read_image(path, exif=exif).shape[:2]
        except ImageError:
            return None
        return height, width
    return (width, height) if swaps else (height, width)
