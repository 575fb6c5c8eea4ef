"""What the words of a command line stand for: pictures, videos, cameras."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from falconet.core.errors import UserError
from falconet.datasets.files import find_images

VIDEOS = ('.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv', '.3gp', '.ts')
CAMERA = 'camera:'
MOST_DIGITS = 4  # of a camera's number


class Inputs(NamedTuple):
    """Picture files; video files and cameras ('camera:0')."""

    pictures: list[str]
    videos: list[str]


def find_inputs(words: Sequence[str | Path]) -> Inputs:
    """Return what files, folders, patterns (`'shots/**/*.jpg'`) and cameras (`camera:0`) stand for.

    Videos are taken when they are named or match a pattern; of a folder only its pictures are.

    Raises:
        UserError: a file, folder or match does not exist, or a camera's number is none.
    """
    pictures: list[str] = []
    videos: list[str] = []
    for word in map(str, words):
        path = os.path.expanduser(word)
        if word.startswith(CAMERA):
            number = word.removeprefix(CAMERA)
            if not number.isdecimal() or len(number) > MOST_DIGITS:
                raise UserError(f'a camera is camera:NUMBER, as camera:0, got {word}')
            videos.append(word)
            continue
        found = [path]
        if glob.has_magic(path) and not os.path.exists(path):
            matches = sorted(glob.glob(path, recursive=True))
            found = [each for each in matches if not os.path.isdir(each)]
            if not found:
                raise UserError(f'nothing matches {word}')
        for each in found:
            if is_video(each) and os.path.isfile(each):
                videos.append(each)
            else:
                pictures += find_images([each])
    return Inputs(pictures, videos)


def is_video(path: str | Path) -> bool:
    """Whether a file's ending is one of a video."""
    return Path(path).suffix.lower() in VIDEOS
