"""Training throughput, whole loop with data, against a plain torchvision loop, in one run.

    python benchmarks/train_throughput.py --data-root data/intel

Both sides train the same network (MobileNetV2 1.0, 224 px, 6 classes) from the same folder with the same
batch size and number of workers. Ours is `tasks.train` with `configs/linear_intel.py`, hooks and logging
included. Theirs is what a user writes first: `torchvision.models.mobilenet_v2`, `ImageFolder`, torchvision
transforms, float32, AdamW.
"""

import argparse
import time
from pathlib import Path

from measuring import WARM_UP, alternate, compare, finish, summarise, time_ours


def measure_ours(arguments: argparse.Namespace) -> dict[str, float]:
    """Train with Kestrel's runner."""
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
    folder = Path(arguments.data_root) / 'seg_train'
    nested = folder / 'seg_train'
    data = ImageFolder(str(nested if nested.is_dir() else folder), transform)
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


def main() -> None:
    parser = argparse.ArgumentParser(description='Training throughput against a plain torchvision loop.')
    parser.add_argument('--data-root', required=True, help='folder that holds seg_train (Intel scenes)')
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--iterations', type=int, default=12, help='timed iterations per measurement')
    parser.add_argument('--rounds', type=int, default=2, help='alternations of the two sides')
    parser.add_argument('--amp', choices=('auto', 'off'), default='auto')
    parser.add_argument('--side', choices=('ours', 'theirs'), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        finish(measure_ours(arguments) if arguments.side == 'ours' else measure_theirs(arguments))
    results = alternate(('theirs', 'ours'), arguments.rounds)
    for key in ('images_per_s', 'median_images_per_s'):
        compare(results, key)


if __name__ == '__main__':
    main()
