"""Large photographs are decoded no larger than needed, with the same framing; a cache changes nothing."""

import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from falconet.core.errors import UserError
from falconet.datasets.classification.dataset import ImageFolder
from falconet.datasets.images.cache import COUNT, ENDING, PictureCache, open_cache, parse_size
from falconet.datasets.images.images import ImageError, Photograph, decode_photograph, read_bytes
from falconet.datasets.images.reading import Reading, reading_of
from falconet.datasets.samples import Sample, SampleKey
from falconet.datasets.segmentation.dataset import SegmentationDataset
from falconet.datasets.transforms.augment import Augment
from falconet.engine.train import train
from falconet.tasks.build import load_config

CROP = [{'type': 'RandomResizedCrop', 'size': (32, 32), 'scale': (0.5, 1.0)}, {'type': 'HorizontalFlip'}]
MOSAIC = {'type': 'Mosaic', 'centre': (0.35, 0.65)}
CROPPED = [{'type': 'RandomIoUCrop'}, {'type': 'Resize', 'height': 30, 'width': 30}]


def scene(height: int = 403, width: int = 601, *, noise: float = 0.0) -> np.ndarray:
    """Smooth blobs, RGB uint8, which a resize keeps, and noise, which one that averages takes away."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (7, 9, 3), dtype=np.uint8)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return (large + rng.normal(0, noise, large.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / 'photos' / 'a'
    folder.mkdir(parents=True)
    for index in range(3):
        exif = Image.Exif()
        exif[0x0112] = (1, 6, 3)[index]
        image = np.roll(scene(noise=30), 50 * index, axis=1)
        Image.fromarray(image).save(folder / f'{index}.jpg', quality=95, exif=exif)
    return tmp_path / 'photos'


@pytest.mark.parametrize(
    ('entries', 'size', 'expected'),
    [
        ([{'type': 'Resize', 'height': 100, 'width': 100}], (1200, 1300), 8),
        ([{'type': 'Resize', 'height': 100, 'width': 100}], (1199, 1300), 4),
        ([{'type': 'Resize', 'height': 100, 'width': 100}], (299, 1300), 1),
        ([{'type': 'Resize', 'height': 100, 'width': 100, 'p': 0.5}], (1200, 1300), 1),
        ([{'type': 'HorizontalFlip'}, {'type': 'Resize', 'height': 100, 'width': 50}], (600, 300), 4),
        ([{'type': 'Blur'}, {'type': 'Resize', 'height': 10, 'width': 10}], (600, 300), 1),
        ([{'type': 'ResizeCenterCrop', 'resize': 100, 'crop': 90}], (400, 9000), 2),
        ([{'type': 'ResizePad', 'size': 100}], (100, 600), 4),
        ([{'type': 'ResizeTensorFlow', 'height': 10, 'width': 10}], (600, 600), 1),
        ([{'type': 'RandomIoUCrop'}, {'type': 'Resize', 'height': 30, 'width': 30}], (600, 600), 4),
        ([{'type': 'ZoomOut'}, {'type': 'Resize', 'height': 30, 'width': 30}], (600, 600), 8),
        ([MOSAIC | {'height': 60, 'width': 60}, *CROPPED], (600, 600), 4),  # by the crop
        ([MOSAIC | {'height': 300, 'width': 300}, *CROPPED], (600, 600), 2),  # by the largest quarter
        (CROP, (403, 601), 4),
        (CROP, (4000, 60), 1),  # whatever is drawn, 60 pixels are not enough
        ([{'type': 'RandomCrop', 'height': 10, 'width': 10}], (600, 600), 1),
        ([], (600, 600), 1),
    ],
)
def test_the_transforms_decide_how_much_is_decoded(entries: list, size: tuple, expected: int) -> None:
    assert Augment(entries).reduction(*size) == expected


@pytest.mark.parametrize('size', [(403, 601), (400, 600), (397, 611)])
@pytest.mark.parametrize('factor', [2, 4, 8])
def test_a_reduced_picture_has_the_same_framing(tmp_path: Path, size: tuple[int, int], factor: int) -> None:
    path = tmp_path / 'a.jpg'
    Image.fromarray(scene(*size)).save(path, quality=95)
    whole = decode_photograph(read_bytes(path), path=path)
    small = decode_photograph(read_bytes(path), path=path, reduce=lambda height, width: factor)
    assert small.size == small.reduced_from == whole.size == size
    assert small.image.shape[:2] == tuple((side + factor // 2) // factor for side in size)
    seen = (64, 48)
    one, other = (cv2.resize(each.image, seen, interpolation=cv2.INTER_AREA) for each in (whole, small))
    for axis in (0, 1):  # by less than a third of a pixel of what is seen
        shifted = np.roll(one, 1, axis=axis).astype(int)
        assert np.abs(shifted - other).mean() > 3 * np.abs(one.astype(int) - other).mean()


@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_reduced_picture_is_turned_and_compared_with_its_annotations(
    tmp_path: Path, orientation: int
) -> None:
    path = tmp_path / 'a.jpg'
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(scene()).save(path, exif=exif)
    data = read_bytes(path)
    for size in (None, (403, 601), (601, 403)):
        try:
            whole = decode_photograph(data, path=path, size=size)
        except ImageError:
            with pytest.raises(ImageError, match='by its annotations'):
                decode_photograph(data, path=path, size=size, reduce=lambda *_: 4)
            continue
        small = decode_photograph(data, path=path, size=size, reduce=lambda *_: 4)
        assert (small.turned, small.size) == (whole.turned, whole.size)
        enlarged = cv2.resize(small.image, whole.size[::-1])
        assert np.abs(enlarged.astype(int) - whole.image).mean() < 6


@pytest.mark.parametrize('factor', [2, 4, 8])
def test_half_a_jpeg_is_found_at_any_size(tmp_path: Path, factor: int) -> None:
    path = tmp_path / 'a.jpg'
    noise = np.random.default_rng(1).integers(0, 255, (400, 600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    data = read_bytes(path)
    half = np.concatenate([data[: len(data) // 2], np.frombuffer(b'\xff\xd9', np.uint8)])
    decode_photograph(data, path=path, reduce=lambda *_: factor)
    with pytest.raises(ImageError, match='damaged JPEG'):
        decode_photograph(half, path=path, reduce=lambda *_: factor)


def samples(folder: Path, reading: Reading, *, augment: list = CROP) -> list[np.ndarray]:
    data = ImageFolder(str(folder), augment=augment, training=True)
    data.reading = reading
    found = [data[SampleKey(index, epoch)] for epoch in (0, 1) for index in range(len(data))]
    assert all(isinstance(each, Sample) and max(each.info.size) == 601 for each in found)
    return [each.image for each in found if isinstance(each, Sample)]


def test_training_reduces_and_scoring_does_not_unless_told() -> None:
    assert reading_of({}, training=True).reduced
    assert not reading_of({}, training=False).reduced
    assert not reading_of({'decode': 'full'}, training=True).reduced
    assert reading_of({'decode': 'reduced'}, training=False).reduced


def test_a_reduced_crop_is_nearer_to_an_averaging_resize_than_picked_pixels(
    photographs: Path,
) -> None:
    ideal = samples(photographs, Reading(), augment=[{**CROP[0], 'area_for_downscale': 'image'}, CROP[1]])

    def distance(found: list[np.ndarray]) -> float:
        pairs = zip(found, ideal, strict=True)
        return float(np.mean([np.abs(one.astype(int) - other).mean() for one, other in pairs]))

    reduced = samples(photographs, Reading(reduced=True))
    assert any(
        (one != other).any() for one, other in zip(reduced, samples(photographs, Reading()), strict=True)
    )
    assert distance(reduced) < 0.7 * distance(samples(photographs, Reading()))


def test_masks_are_trained_at_full_size() -> None:
    class Masks(SegmentationDataset):
        training = True

    assert not Masks.reducible.fget(Masks)  # type: ignore[attr-defined]


@pytest.mark.parametrize('reduced', [False, True])
def test_a_cache_changes_no_pixel_and_is_used(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reduced: bool
) -> None:
    plain = samples(photographs, Reading(reduced=reduced))
    cache = PictureCache(tmp_path / 'cache', 10**8)
    first = samples(photographs, Reading(reduced=reduced, cache=cache))
    monkeypatch.setattr('falconet.datasets.dataset.read_bytes', lambda path: pytest.fail('read again'))
    again = samples(photographs, Reading(reduced=reduced, cache=PictureCache(tmp_path / 'cache', 10**8)))
    for one, *others in zip(plain, first, again, strict=True):
        for other in others:
            np.testing.assert_array_equal(one, other)


def used(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.glob(f'*{ENDING}'))


def test_a_cache_stays_within_its_limit_and_forgets_what_changed(photographs: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'cache'
    samples(photographs, Reading(cache=PictureCache(folder, 1_000_000)))  # one of 727 kB fits
    assert len(list(folder.glob(f'*{ENDING}'))) == 1
    assert int((folder / COUNT).read_bytes()) == used(folder) <= 1_000_000
    samples(photographs, Reading(cache=PictureCache(folder, 10**8)))
    assert len(list(folder.glob(f'*{ENDING}'))) == 3
    os.utime(photographs / 'a/1.jpg', ns=(1, 1))
    (photographs / 'a/2.jpg').unlink()
    PictureCache(folder, 10**8)
    assert len(list(folder.glob(f'*{ENDING}'))) == 1
    assert int((folder / COUNT).read_bytes()) == used(folder)


def test_a_picture_reduced_otherwise_or_half_written_is_read_anew(photographs: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'cache'
    cache = PictureCache(folder, 10**8)
    whole = samples(photographs, Reading(cache=cache))
    reduced = samples(photographs, Reading(cache=cache, reduced=True))
    np.testing.assert_array_equal(reduced[0], samples(photographs, Reading(reduced=True))[0])
    for file in folder.glob(f'*{ENDING}'):
        file.write_bytes(file.read_bytes()[:5000])
    np.testing.assert_array_equal(samples(photographs, Reading(cache=cache))[1], whole[1])
    assert int((folder / COUNT).read_bytes()) >= used(folder)


def test_processes_that_write_at_once_keep_within_the_limit(tmp_path: Path) -> None:
    import multiprocessing

    folder = tmp_path / 'cache'
    PictureCache(folder, 400_000)
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=_fill, args=(folder, start)) for start in (0, 20, 0)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert 350_000 < used(folder) <= 400_000
    assert not list(folder.glob('*.tmp'))
    assert int((folder / COUNT).read_bytes()) == used(folder)


def _fill(folder: Path, start: int) -> None:
    cache = PictureCache(folder, 400_000)
    for index in range(start, start + 40):
        key = (str(folder / COUNT), 1, index)
        cache.put(key, Photograph(np.full((60, 60, 3), index, np.uint8)), None)
        found = cache.get(key, None)
        assert found is None or (found.image == index).all()


def test_a_cache_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='are more than'):
        PictureCache(tmp_path / 'cache', 10**18)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/letter.txt').write_text('dear')
    with pytest.raises(UserError, match=r'holds other files \(letter\.txt\)'):
        PictureCache(tmp_path / 'mine', 1000)
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot write to'):
        PictureCache(tmp_path / 'file', 1000)
    for wrong in ('many', '-4GB', '0', 'GB', True):
        with pytest.raises(UserError, match=r'cache\.limit must be'):
            parse_size(wrong)
    assert [parse_size(text) for text in ('4GB', '1.5 mb', '12', 7)] == [4 * 10**9, 1_500_000, 12, 7]


def test_a_cache_in_memory_ends_with_its_process(fresh_process) -> None:
    printed = fresh_process("""
        from falconet.datasets.images.cache import open_cache
        cache = open_cache(limit='1MB')
        print(cache.folder)
        assert cache.folder.is_dir()
    """)
    assert not Path(printed.strip()).exists()


def test_a_config_may_name_a_cache_and_nothing_unknown_of_it(write_config, tmp_path: Path) -> None:
    load_config(write_config("train_dataloader |= dict(cache=dict(limit='1GB'), decode='full', repeated=2)"))
    with pytest.raises(UserError, match=r"unknown key 'train_dataloader\.cache\.size'"):
        load_config(write_config("train_dataloader['cache'] = dict(limit='1GB', size=1)"))
    with pytest.raises(UserError, match=r'train_dataloader\.decode must be one of'):
        load_config(write_config("train_dataloader['decode'] = 'small'"))
    assert open_cache(limit='1MB', folder=str(tmp_path / 'c')).limit == 10**6


def test_a_folder_that_is_no_cache_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/letter.txt').write_text('dear')
    with pytest.raises(UserError, match='holds other files'):
        PictureCache(tmp_path / 'mine', 1000)
    assert [each.name for each in (tmp_path / 'mine').iterdir()] == ['letter.txt']


@pytest.mark.parametrize('content', [b'', b'\0\0\0\0', b'half a nu', b'-5'])
def test_a_count_that_a_power_cut_broke_is_made_again(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / 'cache'
    PictureCache(folder, 400_000)
    (folder / COUNT).write_bytes(content)
    _fill(folder, 0)
    assert 350_000 < used(folder) <= 400_000
    assert int((folder / COUNT).read_bytes()) == used(folder)


def test_no_size_and_no_name_of_a_folder_are_explained(tmp_path: Path) -> None:
    for wrong in ('9' * 400 + 'GB', 10**400, '0.1'):
        with pytest.raises(UserError, match=r'cache\.limit must be'):
            parse_size(wrong)
    with pytest.raises(UserError, match='is no name of a folder'):
        open_cache(limit='1MB', folder=f'{tmp_path}/a\0b')


def test_a_cache_in_memory_leaves_room_for_batches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Usage:
        free = 64_000_000  # what Docker gives

    monkeypatch.setattr('shutil.disk_usage', lambda folder: Usage)
    with pytest.raises(UserError, match=r'of which batches need 16\.0 MB'):
        PictureCache(tmp_path / 'memory', 50_000_000, in_memory=True)
    assert not (tmp_path / 'memory').exists()
    PictureCache(tmp_path / 'memory', 48_000_000, in_memory=True)
    PictureCache(tmp_path / 'disk', 64_000_000)


def test_a_cache_in_memory_ends_with_its_run_in_a_program_that_goes_on(
    write_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[PictureCache] = []
    original = PictureCache.put

    def put(cache: PictureCache, *arguments: Any) -> None:
        original(cache, *arguments)
        opened.append(cache)
        assert list(cache.folder.glob(f'*{ENDING}'))

    monkeypatch.setattr(PictureCache, 'put', put)
    config = write_config("train_dataloader['cache'] = dict(limit='1MB')\ntrain_cfg = dict(max_epochs=1)")
    train(load_config(config), work_dir=str(tmp_path / 'run'))
    assert opened
    assert not opened[0].folder.exists()


def test_a_run_goes_on_when_the_folder_of_its_cache_becomes_something_else(tmp_path: Path) -> None:
    folder = tmp_path / 'cache'
    cache = PictureCache(folder, 400_000)
    for wreck in (lambda: None, lambda: folder.write_text('no folder')):
        shutil.rmtree(folder)
        wreck()
        cache._full = False
        cache.put(('a', 1, 1), Photograph(np.zeros((9, 9, 3), np.uint8)), None)
        assert cache.get(('a', 1, 1), None) is None
        folder.unlink(missing_ok=True)
        folder.mkdir()
