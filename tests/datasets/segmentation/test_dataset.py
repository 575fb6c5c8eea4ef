"""Segmentation's data: official VOC, a user's own folders, COCO as VOC; and every way a mask can be wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from falconet.core.errors import UserError
from falconet.datasets.dataset import VisionDataset
from falconet.datasets.formats import masks
from falconet.datasets.formats.masks import check_masks, voc_palette
from falconet.datasets.images.images import ImageError
from falconet.datasets.samples import Sample
from falconet.datasets.segmentation.dataset import VOC_CLASSES, MaskFolder, VOCSegmentation

NAMES = ('background', 'cat', 'dog')
CROP = [{'type': 'RandomScaleCrop', 'size': 33}]


def write_mask(path: Path, values: np.ndarray, *, palette: bool = True) -> Path:
    """Write class indices as a palette or a greyscale PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if palette:
        masks.write_mask(path, values.astype(np.uint8))
    else:
        Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def write_photo(path: Path, size: tuple[int, int], mode: str = 'RGB') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (size[1], size[0]), 128 if mode == 'L' else None).save(path)
    return path


def blobs(seed: int, size: tuple[int, int] = (40, 50)) -> np.ndarray:
    """A mask with all three classes and a border to ignore."""
    mask = np.random.default_rng(seed).integers(0, 3, size).astype(np.uint8)
    mask[:2] = 255
    return mask


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Six images in VOC's layout with three classes: 4 to train, 2 to validate; one mask is greyscale."""
    base = tmp_path / 'VOCdevkit' / 'VOC2012'
    for index in range(6):
        write_photo(base / f'JPEGImages/{index}.jpg', (40, 50), ['RGB', 'L', 'CMYK'][index % 3])
        write_mask(base / f'SegmentationClass/{index}.png', blobs(index), palette=index != 3)
        write_mask(base / f'SegmentationClassAug/{index}.png', np.full((40, 50), index % 3), palette=False)
    lists = base / 'ImageSets/Segmentation'
    lists.mkdir(parents=True)
    for name, members in {'train': '0123', 'val': '45', 'trainval': '012345', 'trainaug': '0123'}.items():
        (lists / f'{name}.txt').write_text('\n'.join(members) + '\n')
    (base / 'classes.txt').write_text('\n'.join(NAMES) + '\n')
    return tmp_path / 'VOCdevkit'


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A user's own pair of folders with three classes."""
    base = tmp_path / 'mine'
    for index in range(8):
        write_photo(base / f'images/{index % 2}/{index}.png', (40, 50))
        write_mask(base / f'masks/{index % 2}/{index}.png', blobs(index))
    (base / 'classes.txt').write_text('\n'.join(NAMES) + '\n')
    return base


# Layouts


@pytest.mark.parametrize(('split', 'count'), [('train', 4), ('val', 2), ('trainval', 6)])
def test_voc_is_read_from_its_layout(voc: Path, split: str, count: int) -> None:
    for root in (voc, voc / 'VOC2012'):
        data = VOCSegmentation(str(root), split)
        assert data.classes == NAMES
        assert len(data) == count
    first = int(Path(data.paths[0]).stem)
    np.testing.assert_array_equal(data.read_mask(0), blobs(first))


def test_train_aug_reads_the_masks_of_sbd(voc: Path) -> None:
    data = VOCSegmentation(str(voc), 'train_aug')
    assert [int(data.read_mask(index)[0, 0]) for index in range(4)] == [0, 1, 2, 0]


def test_a_list_in_two_columns_is_understood(voc: Path) -> None:
    (voc / 'VOC2012/ImageSets/Segmentation/train_aug.txt').write_text(
        '/JPEGImages/2.jpg /SegmentationClassAug/2.png\n'
    )
    assert [Path(path).stem for path in VOCSegmentation(str(voc), 'train_aug').paths] == ['2']


def test_without_a_class_list_the_classes_are_vocs(voc: Path) -> None:
    (voc / 'VOC2012/classes.txt').unlink()
    assert VOCSegmentation(str(voc), 'train').classes == VOC_CLASSES
    assert len(VOC_CLASSES) == 21


def test_a_users_folders_are_paired_by_name_and_split_by_name(pair: Path) -> None:
    whole = MaskFolder(str(pair))
    assert len(whole) == 8
    for index, path in enumerate(whole.paths):
        np.testing.assert_array_equal(whole.read_mask(index), blobs(int(Path(path).stem)))
    parts = [set(MaskFolder(str(pair), holdout=0.4, training=each).paths) for each in (True, False)]
    assert parts[0] | parts[1] == set(whole.paths)
    assert not parts[0] & parts[1]
    assert all(parts)


def test_training_crops_and_evaluation_keeps_the_mask_as_drawn(voc: Path) -> None:
    training = VOCSegmentation(str(voc), 'train', training=True, augment=CROP)
    sample = training[0]
    assert isinstance(sample, Sample)
    assert sample.image.shape == (33, 33, 3)
    assert sample.target.shape == (33, 33)
    assert sample.target.dtype == np.uint8
    evaluation = VOCSegmentation(str(voc), 'val', augment=[{'type': 'ResizePad', 'size': 25}])
    sample = evaluation[0]
    assert isinstance(sample, Sample)
    assert sample.image.shape == (25, 25, 3)
    assert sample.info.content == (20, 25)
    np.testing.assert_array_equal(sample.target, blobs(4))


def test_real_voc_is_read(real_data: Path) -> None:
    data = VOCSegmentation(str(real_data / 'VOCdevkit'), 'train', training=True, augment=CROP)
    assert len(data) == 173
    assert data.classes == VOC_CLASSES
    sample = data[0]
    assert isinstance(sample, Sample)
    assert sample.target.shape == (33, 33)


# What a mask may and may not hold


def coloured(path: Path, values: np.ndarray) -> None:
    Image.fromarray(voc_palette()[values]).save(path)


def grey_as_rgb(path: Path, values: np.ndarray) -> None:
    Image.fromarray(np.repeat(values[..., None], 3, axis=2)).save(path)


def deep(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.uint16) * 256).save(path)


def jpeg(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(path, format='JPEG')


def cut_off(path: Path, values: np.ndarray) -> None:
    write_mask(path, values)
    path.write_bytes(path.read_bytes()[:-200])


def no_picture(path: Path, values: np.ndarray) -> None:
    path.write_text('no picture')


def absent(path: Path, values: np.ndarray) -> None:
    path.unlink()


def of_another_size(path: Path, values: np.ndarray) -> None:
    write_mask(path, values[:-3])


def silhouette_in_classes(path: Path, values: np.ndarray) -> None:
    write_mask(path, np.where(values == 1, 200, 0))


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (coloured, r'1\.png: a mask of colours \(RGB\), such as \(0, 0, 0\).*colours of VOC.*mode P'),
        (grey_as_rgb, r'1\.png: a mask of colours.*It is grey: save one channel'),
        (deep, r'1\.png: a 16-bit mask with values up to'),
        (jpeg, r'1\.png: a JPEG mask: its compression changes'),
        (cut_off, r'1\.png: not a readable mask'),
        (no_picture, r'1\.png: not a readable mask'),
        (absent, r'1\.png: no such file \(for .*1\.jpg\)'),
        (of_another_size, r'1\.png: 50 x 37 pixels, its image .*1\.jpg has 50 x 40'),
        (silhouette_in_classes, r'1\.png: values 0, 200'),
    ],
)
def test_a_bad_mask_is_named_with_what_was_found(
    voc: Path, spoil: Callable[[Path, np.ndarray], None], message: str
) -> None:
    spoil(voc / 'VOC2012/SegmentationClass/1.png', blobs(1))
    with pytest.raises(UserError, match=r'(?s)1 of 4 masks cannot be used with 3 classes.*' + message):
        VOCSegmentation(str(voc), 'train')


def test_a_mask_that_breaks_later_is_an_unreadable_sample(voc: Path) -> None:
    data = VOCSegmentation(str(voc), 'train', training=True, augment=CROP)
    (voc / 'VOC2012/SegmentationClass/1.png').write_text('no picture')
    with pytest.raises(ImageError):
        data.read_mask(1)
    sample = data[1]
    assert isinstance(sample, Sample)
    assert [Path(each.path).name for each in sample.skipped] == ['1.png']


def rewrite(pair: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for index in range(8):
        write_mask(pair / f'masks/{index % 2}/{index}.png', change(blobs(index)), palette=False)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda m: np.where(m == 255, 255, m + 1), r'values are 1, 2, 3, 255.*begin at 1: subtract 1'),
        (lambda m: np.where(m == 2, 3, m), r'values are 0, 1, 3, 255.*One more than there are classes'),
        (lambda m: np.where(m == 2, 9, m), r'values are 0, 1, 9, 255.*Is the class list complete'),
        (lambda m: (np.arange(m.size) % 251).reshape(m.shape), 'look like a grey picture'),
        (lambda m: np.where(m > 0, 255, 0), r"hold 0 and 255 only.*nothing is labelled 'cat'. Silhouettes"),
        (lambda m: np.full_like(m, 255), 'none of the 8 masks labels a single pixel'),
    ],
)
def test_the_likely_cause_of_wrong_values_is_said(pair: Path, change: Callable, message: str) -> None:
    rewrite(pair, change)
    with pytest.raises(UserError, match='(?s)' + message):
        MaskFolder(str(pair))


def test_many_bad_masks_are_counted_and_the_first_listed(pair: Path) -> None:
    rewrite(pair, lambda mask: np.where(mask == 2, 9, mask))
    (pair / 'masks/0/0.png').unlink()
    write_mask(pair / 'masks/0/0.png', blobs(0))
    with pytest.raises(UserError, match='7 of 8 masks') as error:
        MaskFolder(str(pair))
    assert str(error.value).count('.png: values') == 7


def test_a_mask_that_labels_nothing_is_allowed_and_said(pair: Path) -> None:
    write_mask(pair / 'masks/0/4.png', np.full((40, 50), 255))
    data = MaskFolder(str(pair))
    assert len(data) == 8
    assert '1 masks label nothing (4.png)' in str(data)


def test_weights_balance_by_median_frequency(tmp_path: Path) -> None:
    """By hand: class 0 has 3/4 of the pixels of both masks, class 1 half of its one mask; class 2 none."""
    masks = [np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)]
    masks[0][:2] = 1
    masks[1][:1] = 255
    paths = [str(write_mask(tmp_path / f'{i}.png', mask)) for i, mask in enumerate(masks)]
    counts = check_masks(paths, paths, NAMES)
    assert counts.pixels.tolist() == [20, 8, 0]
    frequency = [20 / 28, 8 / 16]
    median = np.median(frequency)
    expected = [median / frequency[0], median / frequency[1], 1.0]
    np.testing.assert_allclose(counts.balanced_weights(), expected, rtol=1e-3)


# Layouts with something missing


def drop_images(voc: Path) -> None:
    (voc / 'VOC2012/JPEGImages/2.jpg').unlink()


def short_class_list(voc: Path) -> None:
    (voc / 'VOC2012/classes.txt').write_text('background\ncat\n')


def doubled_class_list(voc: Path) -> None:
    (voc / 'VOC2012/classes.txt').write_text('cat\ncat\n')


def no_masks(voc: Path) -> None:
    (voc / 'VOC2012/SegmentationClass').rename(voc / 'elsewhere')


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (drop_images, r'train\.txt names 1 images \(of 4\) that are not in .*JPEGImages: 2\.jpg'),
        (short_class_list, r'4 of 4 masks cannot be used with 2 classes.*is the background missing'),
        (doubled_class_list, r'classes\.txt: expected one class name a line, each once'),
        (no_masks, r'SegmentationClass does not exist'),
    ],
)
def test_what_is_missing_in_voc_is_said(voc: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(voc)
    with pytest.raises(UserError, match='(?s)' + message):
        VOCSegmentation(str(voc), 'train')


def test_an_unknown_split_names_the_known_ones(voc: Path) -> None:
    with pytest.raises(UserError, match=r'no split .*tests\.txt\. Known: train, trainaug, trainval, val'):
        VOCSegmentation(str(voc), 'tests')
    (voc / 'VOC2012/ImageSets/Segmentation/trainaug.txt').unlink()
    with pytest.raises(UserError, match=r'Write it: the names of all masks in SegmentationClassAug'):
        VOCSegmentation(str(voc), 'train_aug')


def test_a_model_of_other_classes_is_refused(voc: Path) -> None:
    with pytest.raises(UserError, match='order does not: background, cat, dog and background, dog, cat'):
        VOCSegmentation(str(voc), 'val', classes=('background', 'dog', 'cat'))


def test_what_is_missing_in_a_users_folders_is_said(pair: Path) -> None:
    with pytest.raises(UserError, match=r'photos does not exist.*holds \[.images., .masks.\]'):
        MaskFolder(str(pair), 'photos')
    write_mask(pair / 'masks/0/0.bmp', blobs(0), palette=False)
    with pytest.raises(UserError, match=r'0\.bmp.*0\.png are masks of the same picture'):
        MaskFolder(str(pair))
    (pair / 'masks/0/0.bmp').unlink()
    (pair / 'masks/0/2.png').unlink()
    with pytest.raises(UserError, match=r'1 of 8 pictures .* have no mask of the same name in .*: 2\.png'):
        MaskFolder(str(pair))
    (pair / 'classes.txt').unlink()
    with pytest.raises(UserError, match=r'classes\.txt does not exist. Write one class name a line'):
        MaskFolder(str(pair))
    with pytest.raises(UserError, match=r'data root .*nowhere does not exist.*--data-root'):
        MaskFolder(str(pair / 'nowhere'))


def test_greyscale_cmyk_and_narrow_photographs_train(pair: Path) -> None:
    for index, (mode, size) in enumerate(
        [('L', (40, 50)), ('CMYK', (40, 50)), ('RGB', (30, 1)), ('RGB', (1, 1))]
    ):
        write_photo(pair / f'images/2/{index}.jpg', size, mode)
        write_mask(pair / f'masks/2/{index}.png', np.full(size, 1))
    training: VisionDataset = MaskFolder(str(pair), training=True, augment=CROP)
    for index in range(len(training)):
        sample = training[index]
        assert isinstance(sample, Sample)
        assert sample.image.shape == (33, 33, 3)
        assert not sample.skipped


# COCO
