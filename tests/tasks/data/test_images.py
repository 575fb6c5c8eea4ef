"""Every usual picture file comes out as RGB uint8; every broken one is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.data.images import ImageError, read_image


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


@pytest.mark.parametrize('honour', [False, True])
def test_exif_orientation_is_honoured_only_when_asked(tmp_path: Path, honour: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    Image.new('RGB', (20, 10)).save(tmp_path / 'a.jpg', exif=exif)
    assert read_image(tmp_path / 'a.jpg', honour_exif=honour).shape == (
        (20, 10, 3) if honour else (10, 20, 3)
    )


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
        (b'\xff\xd8\xff\xe0garbage\xff\xd9', 'not a picture'),
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
