"""Scoring and predicting with a classifier, whole commands, against a plain torchvision loop, in one run.

    python benchmarks/evaluate_throughput.py best.pth --data-root data/imagenet --copies 10

Both sides are processes of their own from their start to their end, imports, reading and reports included,
and take turns so that a busy machine disturbs both. Scoring: `tools/test.py` (with its engine, and with
`--engine torch`) against torchvision's MobileNetV2 over an ImageFolder, batches of 32, two loading processes,
float32. Predicting: `load_model(best.pth).predict(folder)`, quickened as `tools/predict.py` does, against
opening, transforming and computing one photograph after the other. Accuracy is not compared: theirs has
random weights. The pictures are links, so that a small folder can stand for a large one.

Time is taken by the clock, and as the seconds that all threads and processes of a side worked, which other
programs disturb less.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from measuring import ROOT

TRANSFORM = """
import sys, torch
from PIL import Image
from torchvision import datasets, models, transforms
transform = transforms.Compose([
    transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
    transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
])
model = models.mobilenet_v2().eval()
"""
SCORING = (
    TRANSFORM
    + """
data = datasets.ImageFolder(sys.argv[1], transform)
loader = torch.utils.data.DataLoader(data, 32, num_workers=2)
right = 0
with torch.no_grad():
    for images, labels in loader:
        right += int((model(images).argmax(1) == labels).sum())
print(right / len(data))
"""
)
PREDICTING = (
    TRANSFORM
    + """
from pathlib import Path
with torch.no_grad():
    for path in sorted(Path(sys.argv[1]).rglob('*.*')):
        scores = model(transform(Image.open(path).convert('RGB'))[None]).softmax(1)
        print(path, int(scores.argmax()))
"""
)
OURS = """
import sys
from falconet.deploy.openvino_eval import quicken
from falconet import load_model
from falconet.datasets.files import find_images
model = load_model(sys.argv[2])
if sys.argv[3] == 'auto':
    quicken(model, len(find_images([sys.argv[1]])), print)
for result in model.predict(sys.argv[1]):
    print(result.path, result.label)
"""


def links(source: Path, target: Path, copies: int) -> int:
    """Link every file of an ImageNet layout `copies` times; return how many photographs there are."""
    count = 0
    for file in sorted(each for each in source.rglob('*') if each.is_file()):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        inside = file.parent != source
        for copy in range(copies if inside else 1):
            place.with_stem(f'{file.stem}_{copy}' if inside else file.stem).symlink_to(file.resolve())
            count += inside
    return count


def seconds_of(command: Sequence[str]) -> tuple[float, float]:
    """Run a command to its end; return seconds by the clock, and of work by all its threads and processes."""
    begin, before = time.perf_counter(), os.times()
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        # Threads that wait for each other in a loop do no work.
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_WAIT_POLICY': 'PASSIVE'},
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    after = os.times()
    work = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - begin, work


def main() -> None:
    parser = argparse.ArgumentParser(description='Scoring and predicting against a plain torchvision loop.')
    parser.add_argument('checkpoint', help='of a classifier whose data is of the ImageNet layout')
    parser.add_argument('--data-root', required=True, help='folder that holds val/<class>/<photograph>')
    parser.add_argument('--copies', type=int, default=10, help='times that every photograph is scored')
    parser.add_argument('--rounds', type=int, default=2, help='turns of each side')
    parser.add_argument('--only', choices=('scoring', 'predicting'))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root, out = Path(scratch) / 'data', str(Path(scratch) / 'out' / 'metrics.json')
        count = links(Path(arguments.data_root).resolve(), root, arguments.copies)
        checkpoint, photographs = str(Path(arguments.checkpoint).resolve()), str(root / 'val')
        score = ['tools/test.py', checkpoint, '--data-root', str(root), '--out', out]
        sides = {
            'scoring': {
                'theirs': ['-c', SCORING, photographs],
                'ours': score,
                'ours, --engine torch': [*score, '--engine', 'torch'],
            },
            'predicting': {
                'theirs': ['-c', PREDICTING, photographs],
                'ours': ['-c', OURS, photographs, checkpoint, 'auto'],
                'ours, torch': ['-c', OURS, photographs, checkpoint, 'torch'],
            },
        }
        for what, commands in sides.items():
            if arguments.only not in (None, what):
                continue
            seconds_of(commands['ours'])  # converts, once for all
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
            for _ in range(arguments.rounds):
                for name, command in commands.items():
                    times[name].append(seconds_of(command))
                    clock, work = times[name][-1]
                    print(f'{what}, {name}: {count / clock:.1f} images/s, {work:.1f} s of work', flush=True)
            theirs = [statistics.median(each) for each in zip(*times['theirs'], strict=True)]
            for name, each in times.items():
                ours = [statistics.median(side) for side in zip(*each, strict=True)]
                clock, work = (other / own for other, own in zip(theirs, ours, strict=True))
                print(f'{what} {count}, {name}: {clock:.2f} times theirs by the clock, {work:.2f} in work')


if __name__ == '__main__':
    main()
