"""The code in the documents runs, and does what the text around it says."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from falconet import load_model
from falconet.engine.evaluate import evaluate
from falconet.engine.train import train
from falconet.heads import HEADS
from falconet.tasks.build import load_config


def python_blocks(page: Path) -> list[str]:
    """Return the Python code of a Markdown page, block by block."""
    return re.findall(r'^```python\n(.*?)^```$', page.read_text(encoding='utf-8'), re.M | re.S)


@pytest.fixture
def new_head(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The head and the config of docs/new_head.md in a folder; returns the config."""
    head, config, _ = python_blocks(root / 'docs/new_head.md')
    (tmp_path / 'centre_head.py').write_text(head)
    (tmp_path / 'centre_demo.py').write_text(config)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / 'centre_demo.py'
    HEADS.module_dict.pop('CentreHead', None)
    sys.modules.pop('centre_head', None)


def test_the_new_head_is_under_sixty_lines_and_needs_nothing_else(root: Path) -> None:
    head, config, use = python_blocks(root / 'docs/new_head.md')
    lines = [line for line in head.splitlines() if line.strip()]
    assert len(lines) < 60
    assert "type='CentreHead'" in config
    assert 'load_model' in use


def test_the_new_head_learns_from_its_config_and_predicts_from_a_checkpoint(
    new_head: Path, coco_folder: Path, tmp_path: Path
) -> None:
    places = [
        f'{stage}_dataloader.dataset.{key}={value}'
        for stage, split in (('train', 'train'), ('val', 'train'))
        for key, value in (('annotations', f'annotations/{split}.json'), ('images', split))
    ]
    size = [
        f'{stage}_dataloader.dataset.augment.{place}.{side}=96'
        for stage, place in (('train', 2), ('val', 0))
        for side in ('height', 'width')
    ]
    loaders = [
        'train_dataloader.batch_size=6',
        'train_dataloader.num_workers=0',
        'val_dataloader.num_workers=0',
    ]
    longer = ['train_cfg.max_epochs=60', 'param_scheduler.1.end=60', 'param_scheduler.1.T_max=58']
    changes = [*places, *size, *loaders, *longer, 'train_cfg.val_interval=60']
    train(load_config(new_head, changes), root=str(coco_folder), work_dir=str(tmp_path / 'run'))

    best = str(tmp_path / 'run/best.pth')
    report = evaluate(load_config(new_head, changes), checkpoint=best, root=str(coco_folder))
    assert report['AP50'] > 0.6  # of two squares on grey, in 120 steps
    result = load_model(best).predict(str(coco_folder / 'train/0.png'))
    assert len(result) > 0
    assert result.boxes.max() <= 80


def test_the_new_head_keeps_the_contract_of_heads(new_head: Path) -> None:
    load_config(new_head)  # imports it
    head = HEADS.module_dict['CentreHead']((16,), (8,), num_classes=3)
    target: dict[str, Any] = {
        'boxes_unit': torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.2, 0.2, 0.3, 0.3]]),
        'labels': torch.tensor([2, 0]),
        'crowd': torch.tensor([False, False]),
    }
    empty = {key: value[:0] for key, value in target.items()}
    outputs = head([torch.rand(2, 16, 6, 8)])
    losses = head.loss(outputs, [target, empty])
    sum(losses.values()).backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in head.parameters())
    assert all(value.isfinite() for value in head.loss(outputs, [empty, empty]).values())
    outputs = {key: value.detach() for key, value in outputs.items()}
    answers = head.predict(outputs, [(60, 80), (5, 7)])
    assert [answer['boxes'].shape[1] for answer in answers] == [4, 4]
    assert head.decode(outputs)['boxes'].shape == (2, 100, 4)


@pytest.mark.parametrize('name', ['faster_rcnn', 'retinanet'])
def test_torchvisions_detectors_train_and_answer_on_our_backbone(
    root: Path, name: str, elsewhere: Callable[[], dict[str, Any]]
) -> None:
    detector = elsewhere()[name]
    images = [torch.rand(3, 96, 128), torch.rand(3, 128, 96)]
    targets = [
        {'boxes': torch.tensor([[10.0, 10.0, 60.0, 70.0]]), 'labels': torch.tensor([3])} for _ in images
    ]
    detector.transform.min_size, detector.transform.max_size = (96,), 128
    losses = detector(images, targets)
    sum(losses.values()).backward()
    body = detector.backbone.body
    assert all(value.grad is not None and value.grad.isfinite().all() for value in body.parameters())
    with torch.no_grad():
        answers = detector.eval()(images)
    assert [set(answer) for answer in answers] == [{'boxes', 'labels', 'scores'}] * 2


def test_a_users_own_network_reads_the_channels(elsewhere: Callable[[], dict[str, Any]]) -> None:
    assert elsewhere()['ages'].shape == (4, 1)


@pytest.fixture
def elsewhere(root: Path) -> Callable[[], dict[str, Any]]:
    """Run the blocks of docs/elsewhere.md one after the other."""

    def run() -> dict[str, Any]:
        names: dict[str, Any] = {}
        torch.manual_seed(0)
        for block in python_blocks(root / 'docs/elsewhere.md'):
            exec(compile(block, 'docs/elsewhere.md', 'exec'), names)
        return names

    return run


def test_the_example_for_torchvision_is_fifteen_lines(root: Path) -> None:
    block = python_blocks(root / 'docs/elsewhere.md')[0]
    code = [line for line in block.splitlines() if line.strip() and not line.startswith(('from', 'import'))]
    assert len(code) <= 15
