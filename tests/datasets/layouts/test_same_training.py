"""A copy of a data set in another format trains to the same weights and the same score, bit for bit."""

from collections.abc import Callable
from pathlib import Path

import torch

from falconet.checkpoints.file import read_checkpoint
from falconet.engine.train import train
from falconet.tasks.build import load_config

SMALL = [
    *('model.backbone.width=0.35', 'model.backbone.pretrained=None', 'train_cfg.max_epochs=2'),
    *('train_dataloader.num_workers=0', 'val_dataloader.num_workers=0', 'train_dataloader.batch_size=4'),
    *('train_dataloader.dataset.augment.4.height=96', 'train_dataloader.dataset.augment.4.width=96'),
    *('val_dataloader.dataset.augment.0.height=96', 'val_dataloader.dataset.augment.0.width=96'),
]


def test_yolo_trains_as_coco_does(write: Callable[[str], Path], root: Path, tmp_path: Path) -> None:
    shared = ['images/1.png', 'images/4.png', 'images/6.png']
    results = []
    for layout in ('coco_label_studio', 'yolo_label_studio'):
        config = load_config(root / 'configs/ssdlite_folder.py', SMALL)
        for loader in (config.train_dataloader, config.val_dataloader):
            loader.dataset.held_out = shared
        report = train(config, root=str(write(layout)), work_dir=str(tmp_path / f'{layout}_run'))
        results.append((read_checkpoint(tmp_path / f'{layout}_run/last.pth')['state_dict'], report))
    (coco, coco_report), (yolo, yolo_report) = results
    assert all(torch.equal(coco[name], yolo[name]) for name in coco)
    assert coco_report['AP'] == yolo_report['AP']
    assert coco_report['images'] == yolo_report['images'] == 3
