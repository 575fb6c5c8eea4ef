"""Detection: training throughput against torchvision's SSDLite, and the cost of predicting, in one run.

    python benchmarks/detection_throughput.py --data-root data/coco

Both sides train an SSDLite at 320 px on the same COCO images with the same batch size and number of workers.
Ours is `engine.train` with `configs/ssdlite_coco.py`, hooks and logging included: MobileNetV2, 788.8M
multiply-adds. Theirs is torchvision's `ssdlite320_mobilenet_v3_large` (about 0.58G multiply-adds) in the
loop and with the augmentation of its `references/detection` ("ssdlite" preset), float32. The networks
differ, so images per second times multiply-adds per image is compared as well. Predicting:
`VisionModel.predict` of one 640x480 photograph against the network alone on the resized one.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from measuring import WARM_UP, alternate, compare, finish, summarise, time_ours

ANNOTATIONS = 'annotations/instances_train2017.json'


def measure_ours(arguments: argparse.Namespace) -> dict[str, float]:
    """Train with Falconet's runner."""
    return time_ours('configs/ssdlite_coco.py', arguments)


def measure_theirs(arguments: argparse.Namespace) -> dict[str, float]:
    """Train with the loop of torchvision's references/detection."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large
    from torchvision.transforms import v2

    transforms = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(0.5),
            v2.ToDtype(torch.float, scale=True),
            v2.SanitizeBoundingBoxes(),
            v2.ToPureTensor(),
        ]
    )
    root = Path(arguments.data_root)
    whole = CocoDetection(str(root / 'train2017'), str(root / ANNOTATIONS), transforms=transforms)
    # As references/detection does: images without objects are left out.
    whole.ids = [index for index in whole.ids if whole.coco.getAnnIds(index, iscrowd=False)]
    data: Any = wrap_dataset_for_transforms_v2(whole, target_keys=('boxes', 'labels'))
    loader = DataLoader(
        data,
        arguments.batch_size,
        shuffle=True,
        num_workers=arguments.workers,
        drop_last=True,
        collate_fn=lambda batch: tuple(zip(*batch, strict=True)),
    )
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=4e-5)
    ends: list[float] = []
    model.train()
    while True:
        for images, targets in loader:
            moved = [image.to(device) for image in images]
            goals = [{key: value.to(device) for key, value in target.items()} for target in targets]
            loss: Any = sum(model(moved, goals).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            ends.append(time.perf_counter())
            if len(ends) == arguments.iterations + WARM_UP:
                return summarise(ends, arguments.batch_size)


def multiply_adds(network: Any, images: Any) -> float:
    """Of one forward pass, in millions."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images)
    return counter.get_total_flops() / 2e6


def count_both() -> dict[str, float]:
    """Millions of multiply-adds an image, forward, of the networks alone."""
    import torch
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    theirs = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91).eval()
    image = torch.zeros(1, 3, 320, 320)

    def alone(images: Any) -> Any:
        return theirs.head(list(theirs.backbone(images).values()))

    return {'ours': multiply_adds(detector(), image), 'theirs': multiply_adds(alone, image)}


def detector() -> Any:
    """Build the untrained model of `configs/ssdlite_coco.py` for 80 classes."""
    from measuring import ROOT

    from falconet.tasks.build import build_model, load_config

    config = load_config(ROOT / 'configs/ssdlite_coco.py', ['model.backbone.pretrained=None'])
    return build_model(config, classes=[f'class {index}' for index in range(80)]).eval()


def measure_predict(repeats: int = 30) -> dict[str, float]:
    """Milliseconds to predict one 640x480 picture, and for the network alone, alternating."""
    import numpy as np
    import torch

    model = detector()
    picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    ready = torch.from_numpy(model.to_input(picture)[None]).permute(0, 3, 1, 2)
    whole, network = [], []
    with torch.inference_mode():
        for _ in range(repeats + 5):
            begin = time.perf_counter()
            model.predict(picture)
            middle = time.perf_counter()
            model(ready)
            whole.append(middle - begin)
            network.append(time.perf_counter() - middle)
    whole_ms, network_ms = (1000 * statistics.median(each[5:]) for each in (whole, network))
    return {'predict_ms': whole_ms, 'network_ms': network_ms, 'predict_over_network': whole_ms / network_ms}


def main() -> None:
    parser = argparse.ArgumentParser(description="SSDLite against torchvision's, and the cost of predicting.")
    parser.add_argument('--data-root', required=True, help='folder in the layout of COCO 2017')
    parser.add_argument('--batch-size', type=int, default=24)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--iterations', type=int, default=10, help='timed iterations per measurement')
    parser.add_argument('--rounds', type=int, default=2, help='alternations of the two sides')
    parser.add_argument('--amp', choices=('auto', 'off'), default='auto')
    parser.add_argument('--side', choices=('ours', 'theirs', 'predict'), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side == 'predict':
        finish(measure_predict())
    if arguments.side:
        finish(measure_ours(arguments) if arguments.side == 'ours' else measure_theirs(arguments))
    results = alternate(('theirs', 'ours'), arguments.rounds)
    ours, theirs = compare(results, 'images_per_s')
    adds = count_both()
    print(f'multiply-adds an image, millions: ours {adds["ours"]:.1f}, theirs {adds["theirs"]:.1f}')
    print(f'images/s x multiply-adds: ratio {ours * adds["ours"] / (theirs * adds["theirs"]):.2f}')
    alternate(('predict',), 1)


if __name__ == '__main__':
    main()
