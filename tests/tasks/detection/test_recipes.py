"""The recipes for boxes of one's own fit what they start from, and the objects they are to find."""

from pathlib import Path

import numpy as np
import torch
from torchvision.ops import box_iou

from falconet.core.plain_values import plain
from falconet.heads.boxes import corners_of
from falconet.tasks.build import build_model, load_config


def test_tensorflows_detector_is_trained_on_as_the_network_it_is(root: Path) -> None:
    scored, trained = (
        build_model(load_config(root / f'configs/{name}.py'), classes=('person',))
        for name in ('ssdlite_tf_person', 'ssdlite_tf_folder')
    )
    ours, theirs = trained.state_dict(), scored.state_dict()
    assert {key: value.shape for key, value in ours.items()} == {
        key: value.shape for key, value in theirs.items()
    }
    assert trained.head.shapes == scored.head.shapes  # where its offsets begin
    for name in ('padding', 'norm_eps'):
        assert trained.spec['backbone'][name] == scored.spec['backbone'][name]
    assert trained.head.extras[0][1][0].padding == scored.head.extras[0][1][0].padding
    assert trained.spec['normalise'] == scored.spec['normalise']
    sizes = [
        (entry['height'], entry['width'])
        for name, stage in (('ssdlite_tf_person', 'test'), ('ssdlite_tf_folder', 'val'))
        for entry in plain(load_config(root / f'configs/{name}.py')[f'{stage}_dataloader'].dataset.augment)
    ]
    assert sizes == [(300, 300)] * 2


def test_objects_from_a_25th_of_the_picture_on_have_default_boxes(root: Path) -> None:
    config = load_config(root / 'configs/ssdlite_folder.py', ['model.backbone.pretrained=None'])
    model = build_model(config, classes=('thing',)).eval()
    entry = config.val_dataloader.dataset.augment[0]
    with torch.no_grad():
        defaults = model(torch.zeros(1, 3, entry.height, entry.width, dtype=torch.uint8))['defaults']
    rng = np.random.default_rng(0)
    side, root_of_ratio = np.exp(rng.uniform(np.log(1 / 25), np.log(0.8), 400)), rng.uniform(0.7, 1.4, 400)
    sides = np.minimum(np.stack([side * root_of_ratio, side / root_of_ratio], axis=1), 1)
    corners = rng.uniform(0, 1, (400, 2)) * (1 - sides)
    boxes = torch.from_numpy(np.concatenate([corners, corners + sides], axis=1)).float()
    found = box_iou(boxes, corners_of(defaults)).amax(dim=1) >= config.model.head.match_threshold
    assert found.float().mean() > 0.95
