"""Pictures lie as a viewer shows them, in every task's data, and annotations lie with them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from falconet import evaluate, load_config, load_model, train
from falconet.core.errors import UserError
from falconet.datasets.classification.dataset import ImageFolder
from falconet.datasets.detection.dataset import CocoDetection
from falconet.datasets.images.images import turn
from falconet.datasets.samples import Sample
from falconet.datasets.segmentation.dataset import MaskFolder

# How the stored pixels come from the shown ones: the way back.
BACK = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


def store(path: Path, shown: np.ndarray, orientation: int) -> None:
    """Write a picture that a viewer shows as `shown`, stored the way a camera held on its side does."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(turn(shown, BACK[orientation])).save(path, exif=exif)


def scene() -> np.ndarray:
    """A red square in the upper left of grey, (60, 80, 3)."""
    image = np.full((60, 80, 3), 128, np.uint8)
    image[5:25, 10:40] = (220, 40, 40)
    return image


@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_picture_in_a_class_folder_is_learnt_as_it_is_seen(tmp_path: Path, orientation: int) -> None:
    store(tmp_path / 'a/1.png', scene(), orientation)
    sample = ImageFolder(str(tmp_path))[0]
    assert isinstance(sample, Sample)
    np.testing.assert_array_equal(sample.image, scene())
    assert sample.info.turned == (orientation != 1)
    raw = ImageFolder(str(tmp_path), exif='ignore')[0]
    assert isinstance(raw, Sample)
    np.testing.assert_array_equal(raw.image, turn(scene(), BACK[orientation]))
    with pytest.raises(UserError, match=r"exif must be one of .* got 'sometimes'"):
        ImageFolder(str(tmp_path), exif='sometimes')


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('drawn_on', ['shown', 'stored'])
def test_boxes_lie_where_they_were_drawn(tmp_path: Path, orientation: int, drawn_on: str) -> None:
    """On the shown picture; or on the stored one, where a size that only that has says so."""
    store(tmp_path / 'images/1.png', scene(), orientation)
    shown = scene() if drawn_on == 'shown' else turn(scene(), BACK[orientation])
    rows, columns = np.nonzero(shown[..., 0] > 200)
    box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
    content = {
        'images': [{'id': 1, 'file_name': '1.png', 'height': shown.shape[0], 'width': shown.shape[1]}],
        'annotations': [{'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': box}],
        'categories': [{'id': 1, 'name': 'red'}],
    }
    (tmp_path / 'a.json').write_text(json.dumps(content))
    tells = drawn_on == 'shown' or orientation >= 5 or orientation == 1
    exif = 'auto' if tells else 'ignore'  # of 180 degrees and mirrors the size says nothing
    sample = CocoDetection(str(tmp_path), 'a.json', 'images', training=True, exif=exif)[0]
    assert isinstance(sample, Sample)
    height, width = sample.image.shape[:2]
    pixels = sample.target['boxes_unit'][0] * np.array([width, height, width, height])
    left, top, right, bottom = np.round(pixels).astype(int)
    inside = sample.image[top:bottom, left:right]
    assert (inside == (220, 40, 40)).all()
    assert (sample.image == (220, 40, 40)).all(axis=2).sum() == inside.shape[0] * inside.shape[1]


@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
@pytest.mark.parametrize('drawn_on', ['shown', 'stored'])
def test_masks_lie_where_they_were_drawn(tmp_path: Path, orientation: int, drawn_on: str) -> None:
    store(tmp_path / 'images/1.png', scene(), orientation)
    (tmp_path / 'classes.txt').write_text('background\nred\n')
    shown = scene() if drawn_on == 'shown' else turn(scene(), BACK[orientation])
    (tmp_path / 'masks').mkdir()
    Image.fromarray((shown[..., 0] > 200).astype(np.uint8)).save(tmp_path / 'masks/1.png')
    exif = 'ignore' if (drawn_on, orientation) == ('stored', 3) else 'auto'
    sample = MaskFolder(str(tmp_path), exif=exif)[0]
    assert isinstance(sample, Sample)
    np.testing.assert_array_equal(sample.target == 1, sample.image[..., 0] > 200)


def test_a_mask_that_fits_neither_way_is_refused(tmp_path: Path) -> None:
    store(tmp_path / 'images/1.png', scene(), 6)
    (tmp_path / 'classes.txt').write_text('background\nred\n')
    (tmp_path / 'masks').mkdir()
    Image.fromarray(np.zeros((60, 80), np.uint8)[:, :70]).save(tmp_path / 'masks/1.png')
    with pytest.raises(UserError, match=r'70 x 60 pixels, its image .* has 80 x 60'):
        MaskFolder(str(tmp_path))


def test_scoring_agrees_with_predicting_on_pictures_stored_on_their_side(
    write_config: Callable[..., Path], folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for path in (folders / 'test').rglob('*.png'):
        with Image.open(path) as opened:
            store(path, np.asarray(opened), 6)
    train(load_config(write_config()), work_dir=str(tmp_path / 'run'))
    best = str(tmp_path / 'run/best.pth')
    report = evaluate(None, checkpoint=best, verbose=True)
    assert 'evaluation: 12 pictures were turned as their EXIF orientation says' in capsys.readouterr().out
    results = load_model(best).predict(folders / 'test')
    right = sum(Path(result.path).parent.name == result.class_name for result in results)
    assert report['top1'] == pytest.approx(right / 12)
