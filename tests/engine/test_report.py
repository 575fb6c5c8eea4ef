"""Every training and every test leaves a page, finished or not, and runs can be put side by side."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmengine.hooks import Hook

from falconet.core.errors import Interrupted, UserError
from falconet.core.owned_files import is_ours
from falconet.engine.compare import compare, exceeds, read_run
from falconet.engine.evaluate import evaluate
from falconet.engine.hooks.board import as_markdown
from falconet.engine.scalars import read_scalars
from falconet.engine.train import train
from falconet.report.page.document import read_data
from falconet.tasks.build import load_config

WriteConfig = Callable[..., Path]


class StopAt(Hook):
    """Ask for a stop after an iteration, as Ctrl-C does; or fail there."""

    def __init__(self, iteration: int, error: Exception | None = None) -> None:
        self.iteration, self.error = iteration, error

    def after_train_iter(self, runner: Any, **_: Any) -> None:
        if runner.iter + 1 == self.iteration:
            if self.error is not None:
                raise self.error
            runner.train_loop.stop_request.signal_number = 15


def page_of(folder: Path) -> str:
    return (folder / 'report.html').read_text(encoding='utf-8')


def data_of(folder: Path) -> dict[str, Any]:
    data = read_data(folder / 'report.html')
    assert data is not None
    return data


@pytest.fixture
def run(write_config: WriteConfig, tmp_path: Path) -> Path:
    folder = tmp_path / 'run'
    train(load_config(write_config('log_interval = 1')), work_dir=str(folder))
    return folder


def test_a_training_leaves_a_page_with_everything_in_it(run: Path) -> None:
    page, data = page_of(run), data_of(run)
    for title in (
        'Weakest class',
        'Classes',
        'Confusions',
        'Most wrong',
        'Calibration',
        'Course',
        'What next',
    ):
        assert f'>{title}</h2>' in page or title == 'Weakest class'
    scores = json.loads((run / 'metrics.json').read_text())
    assert data['scores'][0][:2] == ['top1', round(scores['top1'], 5)]
    assert data['config']['optim_wrapper.optimizer.lr'] == '0.02'
    assert data['curves']['training']['loss'][0] == list(range(1, 13))
    assert len(data['curves']['validation']['top1'][0]) == 2
    for text in ('Python 3', 'torch 2', 'threads', '24 images', 'tools/predict.py'):
        assert text in page, text
    assert is_ours(run / 'report.html')
    assert len(page) < 2_000_000
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_the_scores_file_holds_what_it_always_held(run: Path) -> None:
    scores = json.loads((run / 'metrics.json').read_text())
    assert set(scores) == {
        *('made_by', 'images', 'top1', 'mean_class', 'never_predicted', 'per_class', 'class_names'),
        *('confusion_matrix', 'skipped'),
    }


def test_a_test_leaves_a_page_beside_its_scores(run: Path, tmp_path: Path) -> None:
    # last.pth: of two epochs with one score best.pth has the first, the training's page the last.
    evaluate(None, checkpoint=str(run / 'last.pth'), out=str(tmp_path / 'test/metrics.json'))
    page = page_of(tmp_path / 'test')
    assert 'run/last.pth: test' in page
    assert data_of(tmp_path / 'test')['scores'] == data_of(run)['scores']
    assert '>Course</h2>' not in page


def test_without_a_place_nothing_is_written(run: Path) -> None:
    before = sorted(run.iterdir())
    evaluate(None, checkpoint=str(run / 'best.pth'))
    assert sorted(run.iterdir()) == before


def test_nobody_elses_page_is_replaced(run: Path, write_config: WriteConfig, tmp_path: Path) -> None:
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/report.html').write_text('my own')
    with pytest.raises(UserError, match=r'report\.html'):
        evaluate(None, checkpoint=str(run / 'best.pth'), out=str(tmp_path / 'mine/metrics.json'))
    with pytest.raises(UserError, match=r'report\.html'):
        train(load_config(write_config()), work_dir=str(tmp_path / 'mine'))
    assert page_of(tmp_path / 'mine') == 'my own'


def test_an_interrupted_run_has_a_page_and_goes_on_to_the_same_numbers(
    run: Path, write_config: WriteConfig, tmp_path: Path
) -> None:
    config, folder = write_config('log_interval = 1'), tmp_path / 'stopped'
    with pytest.raises(Interrupted):
        train(load_config(config), work_dir=str(folder), hooks=[StopAt(3)])
    page = page_of(folder)
    assert 'This run did not come to its end: stopped at iteration 3 of 12' in page
    assert 'There has been no validation' in page
    assert '--resume' in page
    assert len(data_of(folder)['curves']['training']['loss'][0]) == 3
    train(load_config(config), work_dir=str(folder), resume=True)
    assert data_of(folder)['scores'] == data_of(run)['scores']
    whole, parts = data_of(run)['curves'], data_of(folder)['curves']
    assert whole['training']['loss'][0] == parts['training']['loss'][0]  # the values are means over a window
    assert whole['validation']['top1'] == parts['validation']['top1']


def test_a_run_that_stops_after_a_validation_shows_whose_scores_they_are(
    write_config: WriteConfig, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        train(load_config(write_config()), work_dir=str(tmp_path / 'run'), hooks=[StopAt(8)])
    assert 'The scores are those of iteration 6 of 8.' in page_of(tmp_path / 'run')


def test_a_run_that_fails_says_why(write_config: WriteConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        train(
            load_config(write_config()),
            work_dir=str(tmp_path / 'run'),
            hooks=[StopAt(5, UserError('the <disk> is full'))],
        )
    assert 'the &lt;disk&gt; is full' in page_of(tmp_path / 'run')


def test_files_that_could_not_be_read_are_counted(run: Path, folders: Path) -> None:
    for path in (folders / 'test').rglob('*.png'):
        if path.name == '0.png':
            path.write_bytes(b'')
    evaluate(None, checkpoint=str(run / 'best.pth'), out=str(run / 'again/metrics.json'))
    assert '3 files could not be read' in page_of(run / 'again')


def test_half_written_lines_are_passed_over_and_later_sessions_count(tmp_path: Path) -> None:
    for session, lines in {
        '20260101_000000': '{"iter": 1, "loss": 5.0}\n{"iter": 2, "loss": 4.0}\n'
        '{"top1": 0.1, "step": 1}\n{"iter": 3, "lo',
        '20260102_000000': '{"iter": 2, "loss": 3.0}\n[]\n{"top1": 0.2, "step": 1}\n',
    }.items():
        (tmp_path / session / 'vis_data').mkdir(parents=True)
        (tmp_path / session / 'vis_data/scalars.json').write_text(lines)
    training, validation = read_scalars(tmp_path)
    assert training == {'loss': ([1, 2], [5.0, 3.0])}
    assert validation == {'top1': ([2], [0.2])}


def test_runs_are_put_side_by_side(run: Path, write_config: WriteConfig, tmp_path: Path) -> None:
    other = load_config(write_config(), ['optim_wrapper.optimizer.lr=0.001'])
    train(other, work_dir=str(tmp_path / 'slow'))
    page = compare([str(run), str(tmp_path / 'slow/report.html')], tmp_path / 'compare.html').read_text()
    for text in ('optim_wrapper.optimizer.lr', '0.001', '0.02', 'loss (training)', '<bdi>slow</bdi>'):
        assert text in page, text
    assert 'train_cfg.max_epochs' not in page
    compare([str(run), str(tmp_path / 'slow')], tmp_path / 'compare.html')  # its own page it may replace


@pytest.mark.parametrize(
    ('first', 'other', 'expected'),
    [
        (['a', 0.5, 0.4, 0.6], ['a', 0.7, 0.6, 0.8], True),  # 0.2 against 0.14
        (['a', 0.5, 0.4, 0.6], ['a', 0.6, 0.5, 0.7], False),
        (['a', 0.5, None, None], ['a', 0.9, 0.8, 1.0], None),
    ],
)
def test_a_difference_counts_when_it_is_larger_than_both_intervals(
    first: list, other: list, expected: bool | None
) -> None:
    assert exceeds(first, other) is expected


def test_what_cannot_be_compared_is_a_users_error(run: Path, tmp_path: Path) -> None:
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'page.html').write_text('<html></html>')
    (tmp_path / 'task').mkdir()
    text = page_of(run).replace('"task":"ClassificationMetric"', '"task":"DetectionMetric"')
    (tmp_path / 'task/report.html').write_text(text)
    out = tmp_path / 'compare.html'
    for runs, said in (
        ([run], '2 to 8 runs'),
        ([run, tmp_path / 'empty'], r'there is no report\.html'),
        ([run, tmp_path / 'page.html'], 'is no report'),
        ([run, tmp_path / 'task'], 'different tasks'),
    ):
        with pytest.raises(UserError, match=said):
            compare([str(each) for each in runs], out)
    with pytest.raises(UserError, match='did not make'):
        compare([str(run), str(run)], tmp_path / 'page.html')
    with pytest.raises(UserError, match=r'ends in \.html'):
        compare([str(run), str(run)], tmp_path / 'page.json')
    assert read_run(str(run))['task'] == 'ClassificationMetric'


def test_the_command_says_what_is_wrong_and_exits_with_2(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(root / 'tools/compare.py'), str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith('error: ')


def test_scalars_pictures_and_tables_reach_tensorboard(
    coco_folder: Path, write_config: WriteConfig, tmp_path: Path
) -> None:
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(load_config(write_config('tensorboard = True\nlog_interval = 1')), work_dir=str(tmp_path / 'run'))
    (events,) = (tmp_path / 'run').rglob('events.out.tfevents.*')
    board = EventAccumulator(str(events), size_guidance={'images': 0, 'scalars': 0, 'tensors': 0}).Reload()
    tags = board.Tags()
    assert [each.step for each in board.Scalars('loss')] == list(range(1, 13))
    assert [each.step for each in board.Scalars('val/top1')] == [6, 12]
    assert {'class/blue', 'class/green', 'class/red'} <= set(tags['scalars'])
    picture = board.Images('most_wrong/0')[0]
    assert (picture.width, picture.height, picture.step) == (40, 40, 6)
    (text,) = (board.Tensors(tag)[-1] for tag in tags['tensors'] if tag.startswith('classes'))
    assert '| blue |' in text.tensor_proto.string_val[0].decode()
    assert not list((tmp_path / 'run').rglob('vis_image'))  # the local files get none


def test_tables_for_tensorboard_hold_no_markup() -> None:
    from falconet.report.page.findings import Score

    assert '<' not in as_markdown([Score('<img src=x>|`', 0.5)]).replace('&#60;', '')
    assert as_markdown([Score('a|b', 0.5)]).splitlines()[-1].count('|') == 5


def test_any_backend_of_mmengine_is_taken_by_its_config_entry(
    write_config: WriteConfig, tmp_path: Path
) -> None:
    from mmengine.registry import VISBACKENDS
    from mmengine.visualization import BaseVisBackend

    seen: dict[str, list[Any]] = {'scalars': [], 'image': []}

    class NotesBackend(BaseVisBackend):
        def _init_env(self) -> None: ...

        @property
        def experiment(self) -> None: ...

        def add_config(self, config: Any, **_: Any) -> None: ...

        def add_graph(self, model: Any, data_batch: Any, **_: Any) -> None: ...

        def add_image(self, name: str, image: Any, step: int = 0, **_: Any) -> None:
            seen['image'].append((name, image.shape, step))

        def add_scalar(self, name: str, value: Any, step: int = 0, **_: Any) -> None: ...

        def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: Any = None, **_: Any) -> None:
            seen['scalars'].append(set(scalar_dict))

    VISBACKENDS.register_module(module=NotesBackend)
    try:
        config = write_config("vis_backends = [dict(type='NotesBackend')]")
        train(load_config(config), work_dir=str(tmp_path / 'run'))
    finally:
        VISBACKENDS.module_dict.pop('NotesBackend')
    assert any('top1' in each for each in seen['scalars'])
    assert seen['image'][0][0] == 'most_wrong/0'


def test_an_unknown_backend_is_a_users_error(write_config: WriteConfig, tmp_path: Path) -> None:
    config = load_config(write_config("vis_backends = [dict(type='TensorbordVisBackend')]"))
    with pytest.raises(UserError, match='TensorboardVisBackend'):
        train(config, work_dir=str(tmp_path / 'run'))


@pytest.mark.slow
def test_two_processes_leave_the_page_of_one(
    run: Path, root: Path, write_config: WriteConfig, tmp_path: Path
) -> None:
    """Of the same weights: the pictures of both processes, each once."""
    config = write_config(
        f'load_from = {str(run / "best.pth")!r}\noptim_wrapper = dict(optimizer=dict(type="SGD", lr=0.0))'
    )
    command = [
        '-m',
        'torch.distributed.run',
        '--nproc_per_node=2',
        '--standalone',
        str(root / 'tools/train.py'),
    ]
    command += [str(config), '--launcher', 'pytorch', '--work-dir', str(tmp_path / 'two')]
    command += ['--cfg-options', 'model.norm_eval=True', 'train_dataloader.batch_size=2']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    evaluate(None, checkpoint=str(tmp_path / 'two/best.pth'), out=str(tmp_path / 'one/metrics.json'))
    assert data_of(tmp_path / 'two')['scores'] == data_of(tmp_path / 'one')['scores']
    assert data_of(tmp_path / 'two')['classes'] == data_of(tmp_path / 'one')['classes']
