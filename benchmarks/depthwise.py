"""What `layers.fast.depthwise` saves: training steps with and without it, in turn, on a CPU.

    python benchmarks/depthwise.py                     # MobileNetV2 1.0, 224 px, bfloat16
    python benchmarks/depthwise.py --output-stride 16  # dilated, as DeepLabv3 trains it; also 8
    python benchmarks/depthwise.py --float32 --output-stride 16

Random images, channels_last, forward and backward of the backbone.
"""

import argparse
import statistics
import time
from contextlib import nullcontext

from measuring import WARM_UP


def main() -> None:
    parser = argparse.ArgumentParser(description='Training steps with and without fast_depthwise.')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--size', type=int, default=224, help='side of the images in pixels')
    parser.add_argument('--output-stride', type=int, default=32, choices=(8, 16, 32))
    parser.add_argument('--float32', action='store_true', help='without bfloat16 autocast')
    parser.add_argument('--steps', type=int, default=10, help='timed steps of each kind')
    arguments = parser.parse_args()
    import torch

    from falconet.backbones import MobileNetV2
    from falconet.engine.cpu import tune_cpu
    from falconet.layers.fast.depthwise import fast_depthwise

    tune_cpu()
    backbone = MobileNetV2(taps=('stage7',), output_stride=arguments.output_stride)
    backbone.to(memory_format=torch.channels_last)
    images = torch.randn(arguments.batch_size, 3, arguments.size, arguments.size)
    images = images.to(memory_format=torch.channels_last)
    autocast = torch.autocast('cpu', torch.bfloat16, enabled=not arguments.float32)

    def step(fast: bool) -> float:
        begin = time.perf_counter()
        with autocast, fast_depthwise(images.device) if fast else nullcontext():
            (maps,) = backbone(images)
        maps.float().square().mean().backward()
        return time.perf_counter() - begin

    times = [(step(True), step(False)) for _ in range(arguments.steps + WARM_UP)][WARM_UP:]
    fast, plain = (statistics.median(each) for each in zip(*times, strict=True))
    print(f'a step: {1000 * fast:.0f} ms with it, {1000 * plain:.0f} ms without, ratio {plain / fast:.2f}')


if __name__ == '__main__':
    main()
