"""Memory of activations against extra work: plans for many networks, and one file measured.

    python benchmarks/memory.py plans [--plot docs/memory.png] [--kept FILE.json]
    python benchmarks/memory.py file PLAIN.tflite CHECKPOINT --memory 320KB [--out FILE] [--pictures DIR]
    python benchmarks/memory.py micro PLAIN.tflite CHECKPOINT [--memory SIZE ...] [--allocations]

`plans` prints for every width and size the cheapest INT8 plan within each budget; its table has the sizes and
widths of `SHOWN`, its plot all. `file` writes a plan into an exported file, float32 or INT8, and prints what
LiteRT allocates for both, how far their answers are apart and the ratio of their times, measured in turns.
`micro` writes plans into an INT8 backbone, from the picture in int8 to its last map, and prints what
TFLite-Micro (`pip install tflite-micro`) allocates: head, for activations, and tail, for operators.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))

from falconet.backbones import MobileNetV2
from falconet.deploy.memory import RULES, Search, memory_size

WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.4)
SIZES = (96, 128, 160, 192, 224)
SHOWN = {'width': (0.35, 0.5, 0.75, 1.0, 1.4), 'size': (96, 160, 224)}  # in the table
BUDGETS = (64, 128, 256, 320, 512)  # kB
MOST_EXTRA = 0.6  # of the plot


def curve(width: float, size: int) -> dict[str, Any]:
    """Return what the network needs without a plan, the least, the plans for `BUDGETS`, and a curve."""
    with torch.device('meta'):
        backbone = MobileNetV2(width=width).eval()
    search = Search(backbone, (size, size), RULES['int8'], most_slices=1)
    least = search.fitting_least()
    budgets = np.geomspace(least.arena, least.plain_arena, 12).astype(int)
    plans = [each for budget in budgets if (each := search.fitting(int(budget))) is not None]
    chosen = {str(budget): search.fitting(1000 * budget) for budget in BUDGETS}
    return {
        'width': width,
        'size': size,
        'plain': least.plain_arena,
        'least': [least.arena, least.extra, least.describe()],
        'curve': sorted({(each.arena, each.extra) for each in plans}),
        'plans': {key: each and [each.arena, each.extra, each.describe()] for key, each in chosen.items()},
    }


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Draw memory against extra multiply-adds, one panel a size, one line a width."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        1, len(SIZES), figsize=(14, 4), sharex=True, sharey=True, layout='constrained'
    )
    colours = dict(zip(WIDTHS, plt.get_cmap('turbo')(np.linspace(0.05, 0.9, len(WIDTHS))), strict=True))
    for panel, size in zip(panels, SIZES, strict=True):
        for each in (one for one in found if one['size'] == size):
            memory, extra = zip(*each['curve'], strict=True)
            kilobytes = np.array(memory) / 1000
            style = {'color': colours[each['width']], 'label': f'width {each["width"]}', 'ms': 4, 'lw': 1}
            panel.plot(kilobytes, 100 * np.array(extra), '.-', **style)
        for budget in (64, 256, 512):
            panel.axvline(budget, color='0.8', lw=0.8, zorder=0)
        panel.set(title=f'{size} px', xscale='log', xlabel='INT8 arena, kB', ylim=(0, 100 * MOST_EXTRA))
        panel.set_yscale('symlog', linthresh=2)
        panel.set_yticks(marks := [0, 1, 2, 5, 10, 20, 50], [str(mark) for mark in marks])
        ticks = [64, 128, 256, 512, 1024, 2048]
        panel.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=7)
        panel.minorticks_off()
    panels[0].set_ylabel('more multiply-adds, %')
    panels[0].legend(fontsize=7)
    figure.savefig(path, dpi=90)


def print_plans(found: list[dict[str, Any]]) -> None:
    """Print a Markdown table: arena in kB and more multiply-adds, for every budget."""
    heads = ['width', 'px', 'no plan', 'least', *(f'{budget} kB' for budget in BUDGETS)]
    print('| ' + ' | '.join(heads) + ' |\n|' + '---|' * len(heads))
    for each in (one for one in found if all(one[key] in chosen for key, chosen in SHOWN.items())):
        plans = [each['plans'][str(budget)] for budget in BUDGETS]
        cells = ['-' if plan is None else f'{plan[0] / 1000:.0f}, +{plan[1]:.0%}' for plan in plans]
        least = f'{each["least"][0] / 1000:.0f}, +{each["least"][1]:.0%}'
        row = [each['width'], each['size'], f'{each["plain"] / 1000:.0f}', least, *cells]
        print(f'| {" | ".join(map(str, row))} |')


def micro(arguments: argparse.Namespace) -> None:
    """Print what TFLite-Micro allocates for a backbone, without a plan and by several."""
    from falconet import load_model
    from falconet.deploy.memory.flatbuffer import arena_of
    from falconet.deploy.memory.program import search_for
    from falconet.deploy.memory.rewrite import rewrite

    model: Any = load_model(arguments.checkpoint)
    search = Search(model.backbone, search_for(model, int8=True).size, RULES['micro'], most_slices=1)
    before = int8_backbone(Path(arguments.plain).read_bytes(), search)
    least = search.fitting_least()
    budgets = [memory_size(each) for each in arguments.memory]
    budgets = budgets or [int(each) for each in np.geomspace(least.arena, least.plain_arena / 2, 10)]
    print('| planned | operators | head | tail | both | more multiply-adds |\n|---|---|---|---|---|---|')
    for plan in [None, *(search.fitting(budget) for budget in sorted(budgets))]:
        content = before if plan is None else rewrite(before, search.units, plan)
        report = allocations(content)
        head, tail = (
            next(int(line.split()[-2]) for line in report if f'allocation {part}' in line)
            for part in ('head', 'tail')
        )
        planned, extra = arena_of(content, holds_input=False, alignment=16).size, plan.extra if plan else 0
        cells = [f'{each:,}' for each in (planned, operators(content), head, tail, head + tail)]
        print(f'| {" | ".join(cells)} | {extra:.1%} |', flush=True)
        if arguments.allocations:
            print('', *report, '', sep='\n')


def int8_backbone(content: bytes, search: Search) -> bytes:
    """Return an INT8 file without what normalises the picture, which comes in int8, and without the head."""
    from falconet.deploy.memory.flatbuffer import File

    file = File(content)
    network = file.convolutions()[: sum(_count(unit) for unit in search.units)]
    first, last = (file.graph.operators.index(each) for each in (network[0], network[-1]))
    file.graph.operators = file.graph.operators[first : last + 1]
    file.graph.inputs, file.graph.outputs = [int(network[0].inputs[0])], [int(network[-1].outputs[0])]
    file.model.signatureDefs = None
    return file.pack()


def _count(unit: Any) -> int:
    return sum(each is not None for each in (unit.expand, unit.depthwise, unit.project))


def operators(content: bytes) -> int:
    """Return how many operators a file has."""
    from falconet.deploy.memory.flatbuffer import File

    return len(File(content).graph.operators)


def allocations(content: bytes) -> list[str]:
    """Return the lines that TFLite-Micro's recording allocator prints of a file."""
    code = (
        'import sys; from tflite_micro.python.tflite_micro import runtime as r;'
        'i = r.Interpreter.from_bytes(sys.stdin.buffer.read(), arena_size=32_000_000); i.print_allocations()'
    )
    done = subprocess.run([sys.executable, '-c', code], input=content, capture_output=True, check=False)
    found = (done.stdout + done.stderr).decode()
    if done.returncode:
        raise SystemExit(f'TFLite-Micro: {found[-500:]}')
    return [line for line in found.splitlines() if 'llocat' in line or 'bytes' in line]


def measured_arena(content: bytes) -> int:
    """Return the bytes from the first tensor to the last as LiteRT lays them out, without XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType  # type: ignore[import-not-found]

    from falconet.deploy.memory.flatbuffer import File

    file = File(content)
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter: Any = Interpreter(model_content=content, experimental_op_resolver_type=plain, num_threads=1)
    interpreter.allocate_tensors()
    spans = []
    for number in range(len(file.graph.tensors)):
        if not file.is_constant(number):
            where = interpreter.tensor(number)().__array_interface__
            size = int(np.prod(where['shape'])) * np.dtype(where['typestr']).itemsize
            spans.append((where['data'][0], where['data'][0] + size))
    return max(end for _, end in spans) - min(first for first, _ in spans)


def measure(arguments: argparse.Namespace) -> None:
    """Write a plan into a file and print both files' arenas, answers and times."""
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]

    from falconet import load_model
    from falconet.deploy.memory.flatbuffer import File, arena_of
    from falconet.deploy.memory.program import fitted

    before = Path(arguments.plain).read_bytes()
    model: Any = load_model(arguments.checkpoint)
    opened = File(before)
    is_int8 = any(each.type == 9 for each in opened.graph.tensors)
    after, plan, _ = fitted(before, model, memory_size(arguments.memory), int8=is_int8)
    if arguments.out:
        Path(arguments.out).write_bytes(after)
    print(plan.describe())
    for name, content in (('plain', before), ('planned', after)):
        found = arena_of(content)
        print(
            f'{name}: {len(File(content).graph.operators)} operators, {found.alive:,} bytes alive at once, '
            f'arena planned {found.size:,}, arena of LiteRT {measured_arena(content):,}'
        )
    runners = []
    for content in (before, after):
        runners.append(Interpreter(model_content=content, num_threads=1).get_signature_runner())
    (name, details), *_ = runners[0].get_input_details().items()
    size = [int(each) for each in details['shape']]
    pictures = pictures_of(arguments.pictures, model, size)
    times, apart, equal = [[], []], 0.0, 0
    for picture in pictures:
        answers = []
        for place, runner in enumerate(runners):
            start = time.thread_time()
            answers.append(runner(**{name: picture[None].astype(details['dtype'])}))
            times[place].append(time.thread_time() - start)
        one, other = ([answer[key].astype(float) for key in sorted(answer)] for answer in answers)
        apart = max(apart, *(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True)))
        equal += one[0].argmax() == other[0].argmax()
    ratio = float(np.median(np.array(times[1]) / np.array(times[0])))
    print(
        f'{len(pictures)} pictures: answers differ by {apart:.2g} at most, highest places equal in {equal}; '
        f'time planned to plain {ratio:.2f} (median of turns, time of the thread)'
    )


def pictures_of(folder: str | None, model: Any, size: list[int]) -> np.ndarray:
    """Return pictures of a folder as the network takes them, or 20 of noise, uint8 (N, H, W, 3)."""
    from falconet.datasets.files import find_images
    from falconet.tasks.predictor import to_image

    if folder is None:
        return np.random.default_rng(0).integers(0, 256, (20, *size[1:]), np.uint8)
    return np.stack([model.to_input(to_image(path)) for path in find_images([folder])])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='command', required=True)
    plans = commands.add_parser('plans')
    plans.add_argument('--plot', metavar='PNG')
    plans.add_argument('--kept', metavar='JSON', help='take the plans from there, or keep them there')
    file = commands.add_parser('file')
    file.add_argument('plain', metavar='PLAIN')
    file.add_argument('checkpoint', metavar='CHECKPOINT')
    file.add_argument('--memory', required=True, metavar='SIZE')
    file.add_argument('--out', metavar='FILE')
    file.add_argument('--pictures', metavar='DIR')
    small = commands.add_parser('micro')
    small.add_argument('plain', metavar='PLAIN')
    small.add_argument('checkpoint', metavar='CHECKPOINT')
    small.add_argument('--memory', nargs='+', default=[], metavar='SIZE')
    small.add_argument('--allocations', action='store_true', help='print what of the tail is for what')
    arguments = parser.parse_args()
    if arguments.command != 'plans':
        {'file': measure, 'micro': micro}[arguments.command](arguments)
        return
    kept = Path(arguments.kept) if arguments.kept else None
    if kept is not None and kept.is_file():
        found = json.loads(kept.read_text())
    else:
        found = [curve(width, size) for width in WIDTHS for size in SIZES]
        if kept is not None:
            kept.write_text(json.dumps(found))
    print_plans(found)
    if arguments.plot:
        draw(found, Path(arguments.plot))


if __name__ == '__main__':
    from falconet.core.errors import run_command

    run_command(main)
