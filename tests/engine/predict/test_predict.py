"""Predicting: any picture in; results, annotated pictures and a sheet out."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import falconet.engine.predict.files
from falconet.core.errors import UserError
from falconet.datasets.files import find_images
from falconet.datasets.images.images import Photograph, read_photograph
from falconet.engine.predict import output_names, predict_files
from falconet.tasks.model import VisionModel


@pytest.fixture
def model() -> VisionModel:
    torch.manual_seed(0)
    return VisionModel(
        {'type': 'MobileNetV2', 'width': 0.35},
        {'type': 'LinearHead'},
        classes=('blue', 'green', 'red'),
        preprocess=[{'type': 'ResizeCenterCrop', 'resize': 32, 'crop': 32}],
    ).eval()


def test_a_path_an_array_a_list_and_a_folder_agree(model: VisionModel, folders: Path) -> None:
    from falconet.datasets.images.images import read_image

    path = folders / 'test/red/1.png'
    one = model.predict(path)
    assert one.path == str(path)
    same = [
        model.predict(str(path)),
        model.predict(read_image(path)),
        *model.predict([path, read_image(path)]),
    ]
    for other in same:
        np.testing.assert_allclose(other.scores, one.scores, atol=1e-6)
    in_folder = model.predict(folders / 'test')
    assert len(in_folder) == 12
    np.testing.assert_allclose(in_folder[9].scores, one.scores, atol=1e-6)


def test_predicting_leaves_the_model_as_it_was(model: VisionModel, folders: Path) -> None:
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.predict(folders / 'test')
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize('batch_size', [0, -1, 1.5, True, 'many', None])
def test_a_batch_of_no_pictures_is_an_error_and_no_empty_list(
    model: VisionModel, folders: Path, batch_size: object
) -> None:
    for inputs in ([folders / 'test/red/1.png'], folders / 'test'):
        with pytest.raises(UserError, match='batch_size must be a whole number of at least 1, got'):
            model.predict(inputs, batch_size=batch_size)  # type: ignore[arg-type]


@pytest.mark.parametrize('size', [(1, 1), (1, 300), (31, 33), (700, 500)])
def test_pictures_of_any_size_are_answered_and_drawn(model: VisionModel, size: tuple[int, int]) -> None:
    result = model.predict(np.zeros((*size, 3), np.uint8))
    assert result.scores.shape == (3,)
    assert isinstance(result.draw(), Image.Image)


@pytest.mark.parametrize(
    'array',
    [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_an_array_that_is_no_picture_is_explained(model: VisionModel, array: np.ndarray) -> None:
    with pytest.raises(UserError, match=r'RGB uint8 \(height, width, 3\), got'):
        model.predict(array)


def test_what_is_no_array_is_explained(model: VisionModel) -> None:
    for picture in (Image.new('RGB', (8, 8)), [Image.new('RGB', (8, 8))], 3):
        with pytest.raises(
            UserError, match=r'a picture must be a path or an RGB uint8 array, got (Image|int)'
        ):
            model.predict(picture)


def test_results_stay_inside_the_folder_when_inputs_are_given_by_dots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    names = output_names(['../a/x.jpg', 'b/y.jpg'])
    assert names == [Path('a/x.jpg'), Path('here/b/y.jpg')]


def test_files_are_predicted_into_a_folder(model: VisionModel, folders: Path, tmp_path: Path) -> None:
    (folders / 'test/red/broken.jpg').write_text('no picture')
    out = tmp_path / 'out'
    done = predict_files(model, [folders / 'test'], out)
    report = json.loads((out / 'predictions.json').read_text())
    assert done.pictures == len(report['predictions']) == 12
    assert list(done.skipped) == list(report['skipped']) == [str(folders / 'test/red/broken.jpg')]
    assert report['complete']
    assert not (out / 'predictions.jsonl').exists()
    first = report['predictions'][0]
    assert first['class_name'] in ('blue', 'green', 'red')
    assert sum(score for _, score in first['top5']) == pytest.approx(1.0, abs=1e-4)
    for entry in report['predictions']:
        with Image.open(entry['picture']) as picture:
            assert picture.width >= 160
    with Image.open(out / 'contact_sheet.png') as sheet:
        assert sheet.width > 600


def test_pictures_of_the_same_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    paths = [str(tmp_path / each) for each in ('a/x.png', 'b/x.png', 'b/x.bmp', 'b/y.JPEG')]
    assert [str(each) for each in output_names(paths)] == ['a/x.png', 'b/x.png', 'b/x_bmp.png', 'b/y.png']


def test_what_cannot_be_predicted_is_said(model: VisionModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='there is no file or folder'):
        find_images([tmp_path / 'nowhere'])
    with pytest.raises(UserError, match='no pictures'):
        find_images([tmp_path])
    (tmp_path / 'a.jpg').write_text('x')
    with pytest.raises(UserError, match='none of the 1 files is a readable picture'):
        predict_files(model, [tmp_path / 'a.jpg'], tmp_path / 'out')


def test_a_users_picture_is_never_overwritten(model: VisionModel, folders: Path) -> None:
    picture = folders / 'test/red/1.png'
    before = picture.read_bytes()
    for inputs, out in (([picture], picture.parent), ([folders / 'test'], folders / 'test')):
        with pytest.raises(UserError, match='choose another --out'):
            predict_files(model, inputs, out)
    assert picture.read_bytes() == before


def test_a_model_can_be_pickled(model: VisionModel) -> None:
    """As torch.save(model) and handing it to another process do."""
    import pickle

    assert pickle.loads(pickle.dumps(model)).classes == model.classes


def test_results_of_an_earlier_run_are_replaced_and_a_users_files_are_not(
    model: VisionModel, folders: Path, tmp_path: Path
) -> None:
    out = tmp_path / 'out'
    for _ in range(2):
        predict_files(model, [folders / 'test/red'], out)
    drawn = Image.new('RGB', (3, 3), (1, 2, 3))
    drawn.save(out / '2.png')  # of the same name as a result
    with pytest.raises(UserError, match=r'1 files that Falconet did not make .*2\.png.*--overwrite'):
        predict_files(model, [folders / 'test/red'], out)
    with Image.open(out / '2.png') as kept:
        assert kept.size == (3, 3)
    predict_files(model, [folders / 'test/red'], out, overwrite=True)
    with Image.open(out / '2.png') as replaced:
        assert replaced.size != (3, 3)


def test_what_was_predicted_before_an_interruption_is_kept(
    model: VisionModel, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    third = find_images([folders / 'test'])[2]

    def read(path: str) -> Photograph:
        if path == third:
            raise KeyboardInterrupt
        return read_photograph(path)

    monkeypatch.setattr(falconet.engine.predict.files, 'read_photograph', read)
    with pytest.raises(KeyboardInterrupt):
        predict_files(model, [folders / 'test'], tmp_path / 'out')
    report = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert len(report['predictions']) == 2
    assert not report['complete']


def test_one_picture_never_stops_a_batch(model: VisionModel, folders: Path, tmp_path: Path) -> None:
    """A pipe, a picture too large, names as long as they may be and names that are no UTF-8."""
    folder = tmp_path / 'mixed'
    folder.mkdir()
    good = (folders / 'test/red/1.png').read_bytes()
    (folder / ('n' * 251 + '.png')).write_bytes(good)
    (folder / os.fsdecode(b'caf\xe9.png')).write_bytes(good)
    Image.new('1', (25_000, 25_000)).save(folder / 'large.png')
    os.mkfifo(folder / 'pipe.png')
    done = predict_files(model, [folder], tmp_path / 'out')
    assert done.pictures == 2
    assert {Path(path).name for path in done.skipped} == {'large.png', 'pipe.png'}
    report = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert all(Path(entry['picture']).is_file() for entry in report['predictions'])
    assert all(
        (each['width'], each['height'], each['turned']) == (40, 40, False) for each in report['predictions']
    )


def test_leaving_boxes_out_early_is_leaving_them_out_late() -> None:
    torch.manual_seed(0)
    model = VisionModel(
        {'type': 'MobileNetV2', 'width': 0.35, 'taps': ('stage6_expand', 'last')},
        {'type': 'SSDLiteHead', 'per_class': 30, 'limit': 50},
        classes=('cat', 'dog', 'bird'),
        preprocess=[{'type': 'Resize', 'height': 96, 'width': 96}],
    ).eval()
    with torch.inference_mode():
        outputs = model.infer(torch.zeros(1, 3, 96, 96))
    for name in ('offsets', 'logits'):
        outputs[name] = 2 * torch.randn(outputs[name].shape)
    model.predictor.network = lambda images: outputs
    picture = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    every = model.predict(picture, score_threshold=0)
    assert len(set(every.scores.tolist())) == 50  # no ties, whose order is nobody's to say
    for threshold in (0.05, 0.5, float(every.scores[20])):  # the last is a box's own score
        late, early = every.above(threshold), model.predict(picture, score_threshold=threshold)
        assert 0 < len(early) <= 50
        for field in ('boxes', 'scores', 'labels'):
            np.testing.assert_array_equal(getattr(early, field), getattr(late, field))
    assert len(early) == 21
    assert model.head.suppression['score_threshold'] == 1e-8
