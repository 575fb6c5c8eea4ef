"""From a checkpoint to files: trace, describe, write, compare, and only then put them in place."""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from mmengine.registry import METRICS

from falconet.checkpoints.file import read_checkpoint
from falconet.checkpoints.load import model_from_checkpoint
from falconet.core.errors import UserError
from falconet.core.owned_files import check_writable
from falconet.core.plain_values import to_plain
from falconet.core.registry import find
from falconet.deploy.card import Written, write_card
from falconet.deploy.description import DATA_KEYS, Description, Values
from falconet.deploy.engines import ExportedModel
from falconet.deploy.formats import BATCH, INPUT, Traced, find_format, trace
from falconet.deploy.int8.calibration import Int8, choose
from falconet.deploy.int8.prepare import prepare
from falconet.deploy.int8.qat import Tuned, fine_tuned
from falconet.deploy.int8.score import check_drop
from falconet.deploy.memory.options import LITERT, formats_of_memory
from falconet.deploy.memory.program import PlannedProgram, fitted, planned_program
from falconet.deploy.parity import chosen_pictures, differences, examples, expected_answer, too_large
from falconet.deploy.program import Program, check_amount
from falconet.engine.evaluate import evaluate
from falconet.tasks.model import VisionModel

CARD = 'model_card.md'


def export(
    checkpoint: str | Path,
    formats: Sequence[str],
    *,
    out: Path,
    size: tuple[int, int] | Literal['any'] | None = None,
    batch: int | None = None,
    raw: bool = False,
    check: Sequence[str | Path] = (),
    data_root: str | None = None,
    overwrite: bool = False,
    int8: Int8 | None = None,
    memory: int | None = None,
) -> list[Written]:
    """Write a checkpoint in one format or several, each compared with the model, and `model_card.md`.

    In INT8 a file does not say what the model says to four digits. It is scored instead, on the checkpoint's
    own data, and may not lose more than was allowed.

    Args:
        checkpoint: a Falconet checkpoint.
        formats: names of `deploy.formats.FORMATS`.
        out: folder to write to; the files are called as the checkpoint.
        size: (height, width) of the pictures, or 'any'; the transforms are then part of the program. None:
            pictures come as the model's own transforms make them.
        batch: how many pictures at a time; None for any number, which is one where size is 'any'.
        raw: end at the head's outputs.
        check: pictures and folders to compare on, at most `CHECKED` pictures; by default generated ones.
        data_root: where the checkpoint's data lies; checkpoint and files are then scored on it. In INT8 they
            always are, by default on the data where the config says that it lies.
        overwrite: replace files in `out` that Falconet did not make.
        int8: quantise, and how; the files are then called `<checkpoint>_int8`.
        memory: bytes that activations may take, see docs/memory.md; the picture is then the network's input.

    Raises:
        UserError: something is missing or cannot be read, written or exported; or a file does not say what
            the model says, or lost too much of its score. Then no file of it is left in `out`.
    """
    wanted = [find_format(name) for name in dict.fromkeys(formats)]
    modules = [each.module(writing=True, int8=int8 is not None) for each in wanted]
    if int8 is not None and isinstance(size, tuple):
        raise UserError(
            'INT8 is scored on the data, whose pictures have sizes of their own: leave --size out, or give '
            '--size any'
        )
    checkpoint = Path(checkpoint).expanduser()
    content = read_checkpoint(checkpoint)
    stem = checkpoint.stem if int8 is None else f'{checkpoint.stem}_int8'
    targets = [out / f'{stem}{each.ending}' for each in wanted]
    own = [path for path, module in zip(targets, modules, strict=True) if _is_program(path, module)]
    others = [out / CARD, *(path for path in targets if path not in own)]
    # Weights belong to the program beside them.
    others += [path.with_suffix('.bin') for path in others if path.suffix == '.xml']
    check_writable(others, overwrite=overwrite, hint='Choose another --out')
    model = model_from_checkpoint(content, source=str(checkpoint)).eval()
    in_file = memory is not None and formats_of_memory(formats, size=size, batch=batch) == LITERT

    def program_of(model: VisionModel) -> Program:
        if memory is None or in_file:
            return Program(model, size=size, raw=raw)
        return planned_program(model, memory, batch=batch or 1, raw=raw)

    program, facts = program_of(model), None
    if memory is not None and isinstance(program, PlannedProgram) and program.plan is not None:
        print(f'memory: {program.plan.describe()}')
        facts = program.plan.facts(memory // (batch or 1))
    if program.any_size:
        if batch not in (None, 1):
            raise UserError(f'pictures of any size come one at a time, not {batch}: leave --batch out')
        batch = 1
        if fixed := [each.name for each in wanted if each.fixed]:
            raise UserError(f'{fixed[0]} takes pictures of one size only: give --size HxW instead of any')
    check_amount(batch or 1, *(program.picture or (1, 1)))
    calibration = None if int8 is None else choose(int8, content, source=str(checkpoint), root=data_root)
    tuned: Tuned | None = None
    if int8 is not None and calibration is not None and int8.epochs:
        name = _primary(model)
        options = {'epochs': int8.epochs, 'root': data_root, 'primary': name}
        tuned = fine_tuned(checkpoint, content, calibration, **options)
        model, program = tuned.model, program_of(tuned.model)
    pictures = chosen_pictures(program, model, check) if check else examples(program)
    description = describe(program, model, content, checkpoint, batch=batch)
    description = description.model_copy(update={'memory': facts})
    described = {
        fixed: description_for(description, batch=batch, fixed=fixed)
        for fixed in {each.fixed for each in wanted}
    }
    traced = {
        fixed: trace(program, each.model_dump_json(), batch=each.batch) for fixed, each in described.items()
    }
    of_checkpoint = {}
    if data_root is not None or int8 is not None:  # data that is missing is missed before anything takes long
        of_checkpoint = scores_of(checkpoint, model, data_root)
    calibrating: dict[bool, Any] = dict.fromkeys(traced)  # makes the batches to calibrate on, again and again
    if calibration is not None:
        for path, reason in calibration.skipped.items():
            print(f'left out, not readable: {path}: {reason}', file=sys.stderr)
        for fixed, each in traced.items():
            number = described[fixed].batch or 1
            calibrating[fixed] = partial(calibration.batches, program, model, batch=number)
            prepare(each, calibrating[fixed]())
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix='.export_') as folder:
            scratch = Path(folder)
            written = [
                _write(
                    traced[each.fixed], module, scratch / path.name, calibrating[each.fixed], small=in_file
                )
                for each, path, module in zip(wanted, targets, modules, strict=True)
            ]
            for each in written if memory is not None and in_file else ():
                facts = _keep_within(memory, each, model, described[True], int8=int8 is not None, raw=raw)  # type: ignore[arg-type]  # not None
                description = description.model_copy(update={'memory': facts})
            here = [each for each, form in zip(written, wanted, strict=True) if form.runs_here]
            if int8 is None:
                _compare(here, program, model, pictures, checkpoint)
            for each in here if of_checkpoint else ():
                each.scores = scores_of(each.path, model, data_root)
            if int8 is not None and calibration is not None:
                number = len(calibration.paths)
                for each in written:
                    each.lost = check_drop(
                        each.path, of_checkpoint, each.scores, most=int8.max_drop, pictures=number
                    )
            text = f'{sum(map(len, pictures))} {"pictures of yours" if check else "generated pictures"}'
            write_card(
                scratch / CARD,
                description,
                written,
                pictures=text,
                scores=of_checkpoint,
                calibration=calibration,
                tuned=tuned,
            )
            for file in sorted(scratch.iterdir()):
                if file.is_dir():  # a folder is one file of Core ML's
                    shutil.rmtree(out / file.name, ignore_errors=True)
                shutil.move(file, out / file.name)
    except OSError as error:
        raise UserError(f'cannot write to {out}: {error}') from error
    for each in written:
        each.path = out / each.path.name
    return written


def converted(checkpoint: str | Path, engine: str) -> Path:
    """Return a checkpoint's program for `engine`, exported unless the same one was before.

    Files lie in the user's cache folder, by what was in the checkpoint and what exports it.

    Raises:
        UserError: as `export`.
    """
    name = find_format(engine)
    checkpoint = Path(checkpoint).expanduser()
    read_checkpoint(checkpoint)  # says what is wrong with it, if anything
    parts = [checkpoint, *sorted(Path(__file__).parent.glob('*.py'))]
    key = ' '.join([engine, torch.__version__, *map(sha256, parts)])
    base = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser()
    folder = base / 'falconet' / hashlib.sha256(key.encode()).hexdigest()
    found = sorted(folder.glob(f'*{name.ending}'))
    return found[0] if found else export(checkpoint, [engine], out=folder)[0].path


def describe(
    program: Program, model: VisionModel, content: Mapping[str, Any], checkpoint: Path, *, batch: int | None
) -> Description:
    """Return what a program says of itself; `content` is that of the checkpoint."""
    first = BATCH if batch is None else batch
    meanings = {} if program.raw else program.form.meanings
    outputs = [
        Values(
            name=name,
            dtype=str(each.dtype).removeprefix('torch.'),
            shape=shape,
            meaning=meanings.get(name, 'what the head computes' if program.raw else 'what the head decodes'),
        )
        for name, (each, shape) in program.shapes(first).items()
    ]
    inside = program.transforms is not None
    meaning = 'RGB, rows from the top'
    return Description(
        task=model.task.name,
        classes=model.classes,
        input=Values(
            name=INPUT,
            dtype='uint8',
            shape=(first, *(program.picture or ('height', 'width')), 3),
            meaning=meaning if inside else f'{meaning}, as the transforms of `preprocess` make them',
        ),
        outputs=tuple(outputs),
        inside=inside,
        preprocess=tuple(to_plain(model.preprocess)),
        picture=program.picture,
        network=program.network,
        content=None if program.picture is None else program.geometry_of(program.picture).content,
        raw=program.nest,
        model=to_plain(model.spec),
        channels=tuple(model.backbone.channels),
        strides=tuple(model.backbone.strides),
        source=checkpoint.name,
        sha256=sha256(checkpoint),
        metrics=to_plain(content.get('metrics') or {}),
        config={key: content['config'][key] for key in DATA_KEYS if key in content.get('config', {})},
        versions={**content.get('versions', {}), 'torch': torch.__version__},
    )


def description_for(description: Description, *, batch: int | None, fixed: bool) -> Description:
    """Return the description of a program as a format of a fixed batch has it, or as it is."""
    if not fixed:
        return description

    def own(values: Values) -> Values:
        shape = tuple((batch or 1) if side == BATCH else side for side in values.shape)
        dtype = 'int32' if values.dtype == 'int64' else values.dtype
        return values.model_copy(update={'shape': shape, 'dtype': dtype})

    return description.model_copy(
        update={'input': own(description.input), 'outputs': tuple(map(own, description.outputs))}
    )


def scores_of(path: Path, model: VisionModel, data_root: str | None) -> dict[str, float]:
    """Return the score, by its name, of a checkpoint or a program on the checkpoint's data."""
    name = _primary(model)
    return {name: evaluate(None, checkpoint=str(path), root=data_root)[name]}


def _primary(model: VisionModel) -> str:
    return find(METRICS, model.task.metric, where='evaluator').primary


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(
    traced: Traced,
    module: Any,
    path: Path,
    calibrating: Callable[[], Iterable[np.ndarray]] | None,
    *,
    small: bool = False,
) -> Written:
    """Write a file; `small` for one that is to run in little memory, in the format `litert`."""
    if calibrating is None:
        module.write(traced, path)
    else:
        module.write_int8(traced, path, calibrating(), **({'all_maps': True} if small else {}))
    files = [path, *path.parent.glob(f'{path.stem}.bin')] if path.suffix == '.xml' else [path]
    if path.is_dir():
        files = [file for file in path.rglob('*') if file.is_file()]
    return Written(path, sum(file.stat().st_size for file in files))


def _keep_within(
    memory: int, written: Written, model: VisionModel, description: Description, *, int8: bool, raw: bool
) -> dict[str, Any]:
    """Write a plan into a file that has been written, and return what its description now says of memory."""
    from falconet.deploy.litert_format import with_description

    content, plan, arena = fitted(written.path.read_bytes(), model, memory, int8=int8, raw=raw)
    facts = {**plan.facts(memory), 'arena': arena}
    about = description.model_copy(update={'memory': facts})
    content = with_description(content, about.model_dump_json())
    written.path.write_bytes(content)
    written.size = len(content)
    print(f'memory: {plan.describe()}')
    return facts


def _compare(
    written: Sequence[Written],
    program: Program,
    model: VisionModel,
    pictures: Sequence[np.ndarray],
    checkpoint: Path,
) -> None:
    """Note how far each file is from the model on batches of pictures; UserError where that is too far."""
    expected = [expected_answer(model, program, alike) for alike in pictures]
    for each in written:
        exported = ExportedModel(each.path)
        for one, alike in zip(expected, pictures, strict=True):
            found = differences(one, exported.run(alike), task=None if program.raw else model.task.name)
            each.measured |= {name: max(value, each.measured.get(name, 0)) for name, value in found.items()}
        _check(each, checkpoint)


def _is_program(path: Path, module: Any) -> bool:
    try:
        return path.exists() and module.read(path) is not None
    except Exception:  # whatever lies there is somebody else's
        return False


def _check(written: Written, checkpoint: Path) -> None:
    if wrong := too_large(written.measured):
        apart = ', '.join(f'{value:.3g} in {name}' for name, value in wrong.items())
        raise UserError(
            f'{written.path.suffix}: the program does not say what {checkpoint} says, it is off by {apart} '
            '(see LIMITS in deploy/parity.py). Nothing was written: try another format, or other pictures '
            'with --check if the model has not learnt anything yet'
        )
