"""What `tasks.runtime.depthwise` saves: training steps in bfloat16 with and without it, in turn, on a CPU.

    python benchmarks/strided_depthwise.py

MobileNetV2 1.0 under a linear head on random images of 224 x 224, channels_last, forward and backward.
"""

import argparse
import statistics
import time
from contextlib import nullcontext

from measuring import WARM_UP


def main() -> None:
    parser = argparse.ArgumentParser(description='bfloat16 training with and without FastStridedDepthwise.')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--steps', type=int, default=10, help='timed steps of each kind')
    arguments = parser.parse_args()
    import torch

    from backbones import MobileNetV2
    from tasks.runtime.cpu import tune_cpu
    from tasks.runtime.depthwise import FastStridedDepthwise

    tune_cpu()
    backbone = MobileNetV2().to(memory_format=torch.channels_last)
    images = torch.randn(arguments.batch_size, 3, 224, 224).to(memory_format=torch.channels_last)

    def step(fast: bool) -> float:
        begin = time.perf_counter()
        with torch.autocast('cpu', torch.bfloat16), FastStridedDepthwise() if fast else nullcontext():
            (maps,) = backbone(images)
        maps.float().square().mean().backward()
        return time.perf_counter() - begin

    times = [(step(True), step(False)) for _ in range(arguments.steps + WARM_UP)][WARM_UP:]
    fast, plain = (statistics.median(each) for each in zip(*times, strict=True))
    print(f'a step: {1000 * fast:.0f} ms with it, {1000 * plain:.0f} ms without, ratio {plain / fast:.2f}')


if __name__ == '__main__':
    main()
