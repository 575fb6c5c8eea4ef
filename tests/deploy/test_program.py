"""A program says, of a picture, what `predict` says of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from falconet.core.errors import UserError
from falconet.deploy.parity import generated_pictures
from falconet.deploy.program import Program, named, unnamed
from falconet.heads.base import HEADS, Head
from falconet.heads.linear import LinearHead
from falconet.tasks.model import VisionModel

Models = Callable[..., VisionModel]


def answers(program: Program, pictures: np.ndarray) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {name: each.numpy() for name, each in program(torch.from_numpy(pictures)).items()}


def check_says_what_predict_says(found: dict[str, np.ndarray], results: list[Any]) -> None:
    """Compare the outputs of a program with the results for the pictures it was given."""
    for row, result in enumerate(results):
        if hasattr(result, 'mask'):
            assert (found['mask'][row] == result.mask).mean() >= 0.999
        elif hasattr(result, 'boxes'):
            count = found['count'][row]
            assert count == len(result) > 0
            np.testing.assert_allclose(found['scores'][row, :count], result.scores, atol=1e-4)
            np.testing.assert_allclose(found['boxes'][row, :count], result.boxes, atol=0.05)
            assert (found['labels'][row, :count] == result.labels).all()
        else:
            np.testing.assert_allclose(found['scores'][row], result.scores, atol=1e-4)


def test_it_says_what_predict_says_of_pictures_of_the_networks_size(
    case: tuple[str, str], small_model: Models
) -> None:
    model = small_model(*case)
    program = Program(model)
    pictures = generated_pictures((96, 96))
    # Of the classifier's transforms only the crop is left to undo: give `predict` what comes after them.
    model.predictor.preprocess = ()
    check_says_what_predict_says(answers(program, pictures), model.predict(list(pictures)))


@pytest.mark.parametrize('size', [(96, 96), (60, 140), (200, 130)])
def test_with_a_size_it_takes_pictures_as_they_are(
    case: tuple[str, str], small_model: Models, size: tuple[int, int]
) -> None:
    model = small_model(case[0], 'same')
    program = Program(model, size=size)
    pictures = generated_pictures(size)
    with torch.no_grad():
        resized = model.predictor.transforms.on_tensors(torch.from_numpy(pictures).permute(0, 3, 1, 2))
        outputs = model.infer(resized)
    content = model.predictor.transforms.content_size(*size)
    expected = model.head.predict(
        outputs,
        [size] * 4,
        input_size=(resized.shape[2], resized.shape[3]),
        content_sizes=[content] * 4,
    )
    results = [
        model.task.result(**each, class_names=model.classes, image=None, path=None) for each in expected
    ]
    check_says_what_predict_says(answers(program, pictures), results)


def test_no_norm_is_left_and_the_model_keeps_its_own(small_model: Models) -> None:
    model = small_model('detection')
    count = sum(isinstance(each, nn.BatchNorm2d) for each in model.modules())
    program = Program(model)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in program.modules())
    assert sum(isinstance(each, nn.BatchNorm2d) for each in model.modules()) == count > 50


def test_norms_that_also_activate_stay_as_they_are(small_model: Models) -> None:
    backbone = {'type': 'TimmBackbone', 'model': 'mobilenetv2_035'}
    model = small_model('classification', backbone=backbone)
    pictures = generated_pictures((96, 96))
    with torch.no_grad():
        expected = model.infer(torch.from_numpy(pictures).permute(0, 3, 1, 2)).softmax(dim=1)
    np.testing.assert_allclose(answers(Program(model), pictures)['scores'], expected, atol=1e-5)


def test_raw_ends_at_what_the_head_computes(case: tuple[str, str], small_model: Models) -> None:
    model = small_model(*case)
    program = Program(model, raw=True)
    pictures = generated_pictures((96, 96))
    with torch.no_grad():
        expected = model.infer(torch.from_numpy(pictures).permute(0, 3, 1, 2))
        found = program(torch.from_numpy(pictures))
    assert program.nest is not None
    torch.testing.assert_close(unnamed(found, program.nest), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize('nest', ['tensor', 'dict', 'tuple'])
def test_what_a_head_returns_is_named_and_found_again(nest: str) -> None:
    one, two = torch.zeros(2), torch.ones(3)
    outputs = {'tensor': one, 'dict': {'a': one, 'b': two}, 'tuple': (one, two)}[nest]
    again = unnamed(named(outputs), nest)
    assert type(again) is type(outputs)
    torch.testing.assert_close(again, outputs)


def test_a_head_without_decode_is_exported_raw_only(
    small_model: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OwnHead(LinearHead):
        decode, place = Head.decode, Head.place

    monkeypatch.setitem(HEADS.module_dict, 'OwnHead', OwnHead)
    model = small_model('classification', head={'type': 'OwnHead'})
    with pytest.raises(UserError, match=r'OwnHead answers through its own predict.*add --raw'):
        Program(model)
    assert set(answers(Program(model, raw=True), generated_pictures((96, 96)))) == {'outputs'}


def test_a_head_that_decodes_otherwise_is_told_what_is_missing(
    small_model: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model('segmentation')
    monkeypatch.setattr(
        type(model.head), 'decode', lambda self, outputs, input_size=None: {'winner': outputs.argmax(1)}
    )
    with pytest.raises(UserError, match=r"DeepLabV3Head\.decode gives no 'scores'.*--raw"):
        Program(model)


def test_transforms_that_keep_sizes_need_a_size(small_model: Models) -> None:
    flip = {'type': 'HorizontalFlip', 'p': 0.0}
    model = small_model('classification', preprocess=flip)
    with pytest.raises(UserError, match=r'40x30 and 700x900 .*--size HxW'):
        Program(model)
    with pytest.raises(UserError, match=r'HorizontalFlip cannot be done to tensors'):
        Program(model, size=(96, 96))
