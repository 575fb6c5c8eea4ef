"""Every usual picture file comes out as RGB uint8; every broken one is named."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from falconet.datasets.images.images import ImageError, read_image, read_photograph


@pytest.fixture
def colours() -> Image.Image:
    """Four 16-pixel squares: red, green / blue, grey."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16, :16], pixels[:16, 16:] = (200, 30, 20), (10, 180, 40)
    pixels[16:, :16], pixels[16:, 16:] = (30, 40, 210), (128, 128, 128)
    return Image.fromarray(pixels)


@pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'a.webp', 'a.bmp', 'a.tif', 'ünï.png'])
def test_formats_give_the_same_colours(tmp_path: Path, colours: Image.Image, name: str) -> None:
    options = {'quality': 95} if name.endswith(('jpg', 'webp')) else {}
    colours.save(tmp_path / name, **options)
    image = read_image(tmp_path / name)
    assert image.dtype == np.uint8
    assert image.shape == (32, 32, 3)
    # Square by square: chroma is coarse in JPEG and WebP.
    for y, x in [(8, 8), (8, 24), (24, 8), (24, 24)]:
        assert np.abs(image[y, x].astype(int) - np.asarray(colours)[y, x]).max() <= 8


@pytest.mark.parametrize(
    ('mode', 'name'),
    [
        ('L', 'a.png'),
        ('L', 'a.jpg'),
        ('1', 'a.png'),
        ('P', 'a.png'),
        ('P', 'a.gif'),
        ('CMYK', 'a.jpg'),
        ('I;16', 'a.png'),
    ],
)
def test_other_modes_agree_with_pillow(tmp_path: Path, colours: Image.Image, mode: str, name: str) -> None:
    if mode == 'I;16':
        grey = np.asarray(colours.convert('L')).astype(np.uint16) * 257
        Image.fromarray(grey).save(tmp_path / name)
        expected = np.asarray(colours.convert('L').convert('RGB'))
    else:
        colours.convert(mode).save(tmp_path / name)
        with Image.open(tmp_path / name) as opened:
            expected = np.asarray(opened.convert('RGB'))
    image = read_image(tmp_path / name)
    assert image.shape == (32, 32, 3)
    tolerance = 24 if mode == 'CMYK' else 3  # OpenCV and Pillow convert CMYK by slightly different rules
    assert np.abs(image[4:12, 4:12].astype(int) - expected[4:12, 4:12]).max() <= tolerance


@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
def test_transparent_pixels_become_white(tmp_path: Path, mode: str) -> None:
    picture = Image.new(mode, (4, 4), (10, 20, 30, 0) if mode == 'RGBA' else (10, 0))
    picture.putpixel((0, 0), (10, 20, 30, 255) if mode == 'RGBA' else (10, 255))
    picture.putpixel((1, 0), (0, 0, 0, 128) if mode == 'RGBA' else (0, 128))
    picture.save(tmp_path / 'a.png')
    image = read_image(tmp_path / 'a.png')
    assert image[3, 3].tolist() == [255, 255, 255]
    assert image[0, 0].tolist() == ([10, 20, 30] if mode == 'RGBA' else [10, 10, 10])
    assert image[0, 1].tolist() == [127, 127, 127]


def test_a_one_pixel_image_is_an_image(tmp_path: Path) -> None:
    Image.new('RGB', (1, 1), (1, 2, 3)).save(tmp_path / 'a.png')
    assert read_image(tmp_path / 'a.png').tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
@pytest.mark.parametrize('share', [0.3, 0.7, 0.98])
def test_a_truncated_picture_is_an_error(tmp_path: Path, name: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=rf'{name}: truncated'):
        read_image(tmp_path / name)


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'empty file'),
        (b'hello, world\n', 'not a picture'),
        (b'\xff\xd8\xff\xe0garbage\xff\xd9', 'truncated JPEG'),
    ],
)
def test_a_file_that_is_no_picture_is_an_error(
    tmp_path: Path, content: bytes, reason: str, capfd: pytest.CaptureFixture
) -> None:
    (tmp_path / 'a.jpg').write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(tmp_path / 'a.jpg')
    assert caught.value.path == tmp_path / 'a.jpg'
    assert capfd.readouterr().err == ''


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match='No such file'):
        read_image(tmp_path / 'nowhere.jpg')


@pytest.fixture
def corners() -> Image.Image:
    """Six 16-pixel squares, two wide and three high, each of its own colour: every way of turning shows."""
    small = np.array(
        [
            [[220, 30, 30], [30, 200, 40]],
            [[30, 40, 220], [230, 220, 40]],
            [[40, 210, 220], [220, 60, 220]],
        ],
        np.uint8,
    )
    return Image.fromarray(np.kron(small, np.ones((16, 16, 1), np.uint8)))


def stored(picture: Image.Image, path: Path, orientation: int) -> Path:
    """Write a picture with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(path, exif=exif, **({'quality': 95} if path.suffix in ('.jpg', '.webp') else {}))
    return path


@pytest.mark.parametrize('ending', ['jpg', 'png', 'webp', 'tif'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_picture_is_seen_as_a_viewer_shows_it(
    tmp_path: Path, corners: Image.Image, ending: str, orientation: int
) -> None:
    path = stored(corners, tmp_path / f'a.{ending}', orientation)
    with Image.open(path) as opened:
        shown = np.asarray(ImageOps.exif_transpose(opened).convert('RGB')).astype(int)
    image, turned, _ = read_photograph(path)
    assert image.shape == shown.shape
    assert np.abs(image - shown).mean() < 6
    assert turned == (orientation != 1)
    raw, turned, _ = read_photograph(path, exif='ignore')
    assert np.abs(raw - np.asarray(corners).astype(int)).mean() < 12
    assert not turned


@pytest.mark.parametrize('orientation', range(1, 9))
def test_annotations_of_the_stored_size_mean_the_stored_pixels(
    tmp_path: Path, corners: Image.Image, orientation: int
) -> None:
    path = stored(corners, tmp_path / 'a.png', orientation)
    swaps = orientation >= 5
    assert read_photograph(path, size=(48, 32)).turned == (orientation in (2, 3, 4))
    if swaps:
        assert read_photograph(path, size=(32, 48)).turned
        with pytest.raises(ImageError, match='is 48x32 pixels, 32x48 by its annotations'):
            read_photograph(path, exif='apply', size=(48, 32))
    with pytest.raises(ImageError, match='by its annotations'):
        read_photograph(path, size=(10, 10))


@pytest.mark.parametrize('tail', [b'\0' * 5000, b'ftypmp42' + bytes(range(256)) * 40])
def test_what_follows_a_jpeg_does_not_matter(tmp_path: Path, colours: Image.Image, tail: bytes) -> None:
    """Phones append a video; some tools fill up with zeros."""
    colours.save(tmp_path / 'a.jpg', quality=95)
    whole = read_image(tmp_path / 'a.jpg')
    (tmp_path / 'a.jpg').write_bytes((tmp_path / 'a.jpg').read_bytes() + tail)
    np.testing.assert_array_equal(read_image(tmp_path / 'a.jpg'), whole)


@pytest.mark.parametrize('options', [{}, {'quality': 40, 'subsampling': 0}, {'optimize': True}])
@pytest.mark.parametrize('share', [0.1, 0.3, 0.5])
def test_a_progressive_jpeg_that_lost_scans_is_an_error(tmp_path: Path, options: dict, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / 'a.jpg', progressive=True, **options)
    assert read_image(tmp_path / 'a.jpg').shape == (300, 400, 3)
    data = (tmp_path / 'a.jpg').read_bytes()
    (tmp_path / 'a.jpg').write_bytes(data[: int(len(data) * share)] + b'\xff\xd9')
    with pytest.raises(ImageError, match='truncated JPEG'):
        read_image(tmp_path / 'a.jpg')


def test_half_a_jpeg_with_an_end_marker_is_an_error(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / 'a.jpg')
    data = (tmp_path / 'a.jpg').read_bytes()
    (tmp_path / 'a.jpg').write_bytes(data[: len(data) // 2] + b'\xff\xd9')
    with pytest.raises(ImageError, match='its data end before the picture does'):
        read_image(tmp_path / 'a.jpg')


@pytest.mark.parametrize('colour', [(255, 255, 255), (0, 0, 0), (17, 130, 200)])
@pytest.mark.parametrize('options', [{}, {'quality': 95, 'subsampling': 0}, {'optimize': True}])
def test_a_picture_that_ends_in_one_colour_is_none_of_those(
    tmp_path: Path, colour: tuple[int, int, int], options: dict
) -> None:
    page = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    page[60:] = colour
    Image.fromarray(page).save(tmp_path / 'a.jpg', **options)
    assert read_image(tmp_path / 'a.jpg').shape == (300, 400, 3)


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 200.0]], np.float32), [0, 100, 200]),
        (np.array([[-500.0, 0.0, 500.0]], np.float32), [0, 128, 255]),
        (np.array([[0, 32896, 65535]], np.uint16), [0, 128, 255]),
        (np.array([[0, 1_000_000, 2_000_000]], np.int32), [0, 128, 255]),
    ],
)
def test_other_depths_are_scaled_and_not_cut_off(
    tmp_path: Path, values: np.ndarray, expected: list[int]
) -> None:
    Image.fromarray(values).save(tmp_path / 'a.tif')
    assert np.abs(read_image(tmp_path / 'a.tif')[0, :, 0].astype(int) - expected).max() <= 1


def test_a_picture_larger_than_the_limit_is_refused_by_its_header(tmp_path: Path) -> None:
    """25,000 by 25,000 pixels would need 1.9 GB, and as much for every copy."""
    Image.new('1', (25_000, 25_000)).save(tmp_path / 'a.png')
    with pytest.raises(ImageError, match=r'a.png: is too large|more than 179 million'):
        read_image(tmp_path / 'a.png')


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'a.jpg')
    with pytest.raises(ImageError, match='is no regular file'):
        read_image(tmp_path / 'a.jpg')
