"""Segmentation: training throughput, the cost of evaluating, and the memory of one large photograph.

    python benchmarks/segmentation_throughput.py --data-root data/VOCdevkit

Training: both sides train DeepLabv3 without pyramid on MobileNetV2 1.0 at output stride 16 (2.11 M
parameters, 21 classes) on the same images with the same crop, batch size and number of workers. Ours is
`engine.train` with `configs/deeplabv3_voc.py`, hooks and logging included. Theirs is the loop of
torchvision's segmentation reference: `torchvision.models.segmentation.DeepLabV3` around torchvision's
MobileNetV2, dilated alike, and our head, which it lacks; its transforms (random resize, flip, crop, float,
normalise), float32, SGD. Each measurement is a process of its own; they alternate, so that a busy machine
disturbs both. The first iterations of each are left out.

Evaluation: what `tools/test.py` does with the images of the split 'val' (load, network, resize, count),
against the forward passes alone over the same batches already in memory.

Memory: the peak of a process that predicts and draws one photograph of 2000 x 1500 pixels.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from measuring import ROOT, WARM_UP, alternate, compare, finish, summarise, time_training

CONFIG = 'configs/deeplabv3_voc.py'


def options(arguments: argparse.Namespace) -> list[str]:
    """What all of our measurements change in the config."""
    return [
        f'train_dataloader.num_workers={arguments.workers}',
        f'train_dataloader.dataset.augment.0.size={arguments.crop}',
        'train_dataloader.dataset.split=train',
        f'val_dataloader.num_workers={arguments.workers}',
        'model.backbone.pretrained=None',
        f'amp={arguments.amp}',
    ]


def measure_ours(arguments: argparse.Namespace) -> dict[str, float]:
    """Train with Falconet's runner."""
    return time_training(
        CONFIG,
        options=options(arguments),
        data_root=arguments.data_root,
        batch_size=arguments.batch_size,
        iterations=arguments.iterations,
    )


def measure_theirs(arguments: argparse.Namespace) -> dict[str, float]:
    """Train as torchvision's `references/segmentation/train.py` does."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, Dataset
    from torchvision import tv_tensors
    from torchvision.models import mobilenet_v2
    from torchvision.models.segmentation import DeepLabV3
    from torchvision.transforms import v2

    from falconet.backbones import MobileNetV2
    from falconet.datasets.formats.masks import read_mask
    from falconet.datasets.segmentation.dataset import VOCSegmentation
    from falconet.heads import DeepLabV3Head

    class Backbone(nn.Module):
        """torchvision's layers, strided and dilated as ours are at output stride 16."""

        def __init__(self) -> None:
            super().__init__()
            self.features = mobilenet_v2().features[:18]
            ours = MobileNetV2(taps=('stage7',), output_stride=16)
            convolutions = [each for each in ours.modules() if isinstance(each, nn.Conv2d)]
            theirs = [each for each in self.features.modules() if isinstance(each, nn.Conv2d)]
            for one, other in zip(theirs, convolutions, strict=True):
                one.stride, one.dilation, one.padding = other.stride, other.dilation, other.padding

        def forward(self, images: Any) -> dict[str, Any]:
            return {'out': self.features(images)}

    class Classifier(nn.Module):
        """Our head, which torchvision lacks without pyramid."""

        def __init__(self) -> None:
            super().__init__()
            self.head = DeepLabV3Head((320,), (16,), num_classes=21)

        def forward(self, cells: Any) -> Any:
            return self.head([cells])

    transform = v2.Compose(
        [
            v2.RandomResize(min_size=arguments.crop // 2, max_size=arguments.crop * 2, antialias=True),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomCrop(arguments.crop, pad_if_needed=True, fill={tv_tensors.Mask: 255, 'others': 0}),
            v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64, 'others': None}, True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    ours = VOCSegmentation(arguments.data_root, 'train')

    class Data(Dataset):
        def __len__(self) -> int:
            return len(ours)

        def __getitem__(self, index: int) -> Any:
            from PIL import Image

            with Image.open(ours.paths[index]) as picture:
                image = tv_tensors.Image(v2.functional.pil_to_tensor(picture.convert('RGB')))
            mask = tv_tensors.Mask(torch.from_numpy(read_mask(ours.masks[index])))
            return transform(image, mask)

    loader = DataLoader(
        Data(), arguments.batch_size, shuffle=True, num_workers=arguments.workers, drop_last=True
    )
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    model = DeepLabV3(Backbone(), Classifier()).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.007, momentum=0.9, weight_decay=4e-5)
    ends: list[float] = []
    model.train()
    while True:
        for images, masks in loader:
            output = model(images.to(device))['out']
            loss = nn.functional.cross_entropy(output, masks.to(device), ignore_index=255)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            ends.append(time.perf_counter())
            if len(ends) == arguments.iterations + WARM_UP:
                return summarise(ends, arguments.batch_size)


def measure_evaluation(arguments: argparse.Namespace) -> dict[str, float]:
    """Time a whole evaluation, and the forward passes of the same batches alone."""
    import torch

    from falconet.checkpoints.external_weights import load_weights
    from falconet.datasets.loader import build_loader
    from falconet.engine.builders import build_metric
    from falconet.engine.cpu import tune_cpu
    from falconet.tasks.build import build_dataset, build_model, load_config

    config = load_config(ROOT / CONFIG, options(arguments))
    dataset = build_dataset(config, 'val_dataloader', root=Path(arguments.data_root), classes=None, seed=0)
    model = build_model(config, classes=dataset.classes).eval()
    if arguments.checkpoint:
        load_weights(model, arguments.checkpoint)
    metric: Any = build_metric(config, model)
    metric.dataset_meta = dataset.metainfo
    loader = build_loader(dataset, batch_size=8, num_workers=arguments.workers, training=False, seed=0)
    tune_cpu()
    forward = []
    with torch.inference_mode():
        batches = list(loader)
        for _ in range(2):  # the first warms up
            begin = time.perf_counter()
            for batch in batches:
                model.head(model.backbone(model.normalise(batch['images'])))
            forward.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        for batch in loader:
            metric.process(batch, model(**batch, mode='predict'))
        metric.evaluate(len(dataset))
        whole = time.perf_counter() - begin
    return {'images': len(dataset), 'forward_s': forward[-1], 'whole_s': whole, 'ratio': whole / forward[-1]}


def measure_memory(arguments: argparse.Namespace) -> dict[str, float]:
    """Predict one photograph of 2000 x 1500 pixels."""
    import resource

    import numpy as np

    from falconet.datasets.segmentation.dataset import VOC_CLASSES
    from falconet.tasks.build import build_model, load_config

    model = build_model(load_config(ROOT / CONFIG, options(arguments)), classes=VOC_CLASSES).eval()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    photograph = np.random.default_rng(0).integers(0, 255, (1500, 2000, 3), np.uint8)
    begin = time.perf_counter()
    result = model.predict(photograph)
    seconds = time.perf_counter() - begin
    assert result.mask.shape == (1500, 2000)
    result.draw()
    return {
        'peak_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        'before_mb': before,
        'predict_s': seconds,
    }


MEASUREMENTS = {
    'theirs': measure_theirs,
    'ours': measure_ours,
    'evaluation': measure_evaluation,
    'memory': measure_memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description='Segmentation: training, evaluation, memory.')
    parser.add_argument('--data-root', required=True, help='folder that holds VOC2012')
    parser.add_argument(
        '--checkpoint', help='trained weights to evaluate; without, every class wins somewhere'
    )
    parser.add_argument('--crop', type=int, default=321, help='side of the training crop in pixels')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--iterations', type=int, default=12, help='timed iterations per measurement')
    parser.add_argument('--rounds', type=int, default=2, help='alternations of the two sides')
    parser.add_argument('--amp', choices=('auto', 'off'), default='auto')
    parser.add_argument('--side', choices=tuple(MEASUREMENTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        finish(MEASUREMENTS[arguments.side](arguments))
    results = alternate(('theirs', 'ours'), arguments.rounds)
    for key in ('images_per_s', 'median_images_per_s'):
        compare(results, key)
    alternate(('evaluation', 'memory'), 1)


if __name__ == '__main__':
    main()
