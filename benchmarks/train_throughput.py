"""Training throughput, whole loop with data, against a plain torchvision loop, in one run.

    python benchmarks/train_throughput.py --data-root data/intel

Both sides train the same network (MobileNetV2 1.0, 224 px, 6 classes) from the same folder with the same
batch size and number of workers. Ours is `tasks.train` with `configs/linear_intel.py`, hooks and logging
included. Theirs is what a user writes first: `torchvision.models.mobilenet_v2`, `ImageFolder`, torchvision
transforms, float32, AdamW. With `--against timm` it is what timm's own train.py does with the options that
suit a CPU best (`--device cpu --amp --amp-dtype bfloat16 --channels-last`, mean and standard deviation of
ImageNet, no colour jitter): its data sets, loader, network, optimiser and loss.
"""

import argparse
import time
from pathlib import Path

from measuring import WARM_UP, alternate, compare, finish, summarise, time_ours


def measure_ours(arguments: argparse.Namespace) -> dict[str, float]:
    """Train with Falconet's runner."""
    return time_ours('configs/linear_intel.py', arguments)


def measure_theirs(arguments: argparse.Namespace) -> dict[str, float]:
    """Train with the loop a user writes first."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder
    from torchvision.models import mobilenet_v2

    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(224, scale=(0.5, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    data = ImageFolder(str(training_folder(arguments)), transform)
    loader = DataLoader(
        data, arguments.batch_size, shuffle=True, num_workers=arguments.workers, drop_last=True
    )
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    model = mobilenet_v2(num_classes=len(data.classes)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.01)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    ends: list[float] = []
    model.train()
    while True:
        for images, labels in loader:
            loss = criterion(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            ends.append(time.perf_counter())
            if len(ends) == arguments.iterations + WARM_UP:
                return summarise(ends, arguments.batch_size)


def measure_timm(arguments: argparse.Namespace) -> dict[str, float]:
    """Train with the parts of timm, put together as its train.py does."""
    from typing import Any

    import torch
    from timm.data.dataset_factory import create_dataset
    from timm.data.loader import create_loader
    from timm.loss.cross_entropy import LabelSmoothingCrossEntropy
    from timm.models import create_model
    from timm.optim._optim_factory import create_optimizer_v2

    data: Any = create_dataset('', root=str(training_folder(arguments)), split='train', is_training=True)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    loader: Any = create_loader(
        data,
        input_size=(3, 224, 224),
        batch_size=arguments.batch_size,
        is_training=True,
        scale=(0.5, 1.0),
        color_jitter=0.0,
        num_workers=arguments.workers,
        device=device,
    )
    model = create_model('mobilenetv2_100', num_classes=len(list(training_folder(arguments).iterdir())))
    model = model.to(device).to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt='adamw', lr=5e-4, weight_decay=0.01)
    criterion = LabelSmoothingCrossEntropy(0.1)
    ends: list[float] = []
    model.train()
    while True:
        for images, labels in loader:
            images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=arguments.amp == 'auto'):
                loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
            ends.append(time.perf_counter())
            if len(ends) == arguments.iterations + WARM_UP:
                return summarise(ends, arguments.batch_size)


def training_folder(arguments: argparse.Namespace) -> Path:
    """Return the folder of a folder per class, which Intel's archive has inside another of its name."""
    folder = Path(arguments.data_root) / 'seg_train'
    nested = folder / 'seg_train'
    return nested if nested.is_dir() else folder


def main() -> None:
    parser = argparse.ArgumentParser(description='Training throughput against a plain loop.')
    parser.add_argument('--data-root', required=True, help='folder that holds seg_train (Intel scenes)')
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--iterations', type=int, default=12, help='timed iterations per measurement')
    parser.add_argument('--rounds', type=int, default=2, help='alternations of the two sides')
    parser.add_argument('--amp', choices=('auto', 'off'), default='auto')
    parser.add_argument(
        '--against', choices=('torchvision', 'timm'), default='torchvision', help='whose loop is theirs'
    )
    parser.add_argument('--side', choices=('ours', 'theirs'), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        theirs = measure_timm if arguments.against == 'timm' else measure_theirs
        finish((measure_ours if arguments.side == 'ours' else theirs)(arguments))
    results = alternate(('theirs', 'ours'), arguments.rounds)
    for key in ('images_per_s', 'median_images_per_s'):
        compare(results, key)


if __name__ == '__main__':
    main()
