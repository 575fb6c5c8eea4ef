"""What TensorBoard and its like get of every validation: the worst pictures beside their truth, tables."""

from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.visualization import LocalVisBackend, TensorboardVisBackend
from PIL import Image

PICTURES = 8
SIDE = 320  # pixels of a picture's longer side
MOST_CLASSES = 50  # with a score of their own
GAP = 6


class BoardHook(Hook):
    """After every validation, hand pictures, class scores and tables to all backends but the local files."""

    priority = 'VERY_LOW'

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        backends = [
            each for each in runner.visualizer._vis_backends.values() if not isinstance(each, LocalVisBackend)
        ]
        if not backends or not runner.metric.report:
            return
        # mmengine's own scalars of validations have the names of training's; these stand apart, by iteration.
        step = runner.iter if runner.training_loop is not None else 0
        dataset = runner.evaluation_loop.dataloader.dataset
        pictures = [side_by_side(views) for _, views in runner.metric.worst(dataset, PICTURES) if views]
        findings = runner.metric.findings()
        scores = {
            f'val/{name}': value for name, value in (metrics or {}).items() if name in runner.metric.scores
        }
        classes = {
            f'class/{each.title}': each.value
            for each in findings.classes[:MOST_CLASSES]
            if each.value is not None
        }
        for backend in backends:
            for place, picture in enumerate(pictures):
                backend.add_image(f'most_wrong/{place}', picture, step)
            if scores or classes:
                backend.add_scalars({**scores, **classes}, step)
            if isinstance(backend, TensorboardVisBackend):
                backend.experiment.add_text('scores', as_markdown(findings.scores), step)
                backend.experiment.add_text('classes', as_markdown(findings.classes[:MOST_CLASSES]), step)


def side_by_side(views: list[tuple[str, Image.Image]]) -> np.ndarray:
    """Return truth and answer in one picture, RGB uint8 (H, W, 3)."""
    small = []
    for _, picture in views:
        each = picture.convert('RGB')
        each.thumbnail((SIDE, SIDE))
        small.append(each)
    width = sum(each.width for each in small) + GAP * (len(small) - 1)
    sheet = Image.new('RGB', (width, max(each.height for each in small)), (255, 255, 255))
    left = 0
    for each in small:
        sheet.paste(each, (left, 0))
        left += each.width + GAP
    return np.asarray(sheet)


def as_markdown(scores: Any) -> str:
    """Return a table of scores in Markdown, which TensorBoard shows."""
    rows = ['| | value | 95 % interval | |', '|---|---|---|---|']
    for each in scores:
        value = '-' if each.value is None else f'{each.value:.3f}'
        rows.append(f'| {_cell(each.title)} | {value} | {each.interval()} | {_cell(each.note)} |')
    return '\n'.join(rows)


def _cell(text: str) -> str:
    # Markdown and HTML alike are read out of it.
    return ''.join(f'&#{ord(each)};' if each in '|<>&`*_[]\\\n' else each for each in text)
