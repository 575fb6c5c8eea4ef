"""What every metric shares: a state declared once, brought together, scored and started afresh."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import falconet.tasks.metric
from falconet.tasks.metric import TaskMetric


class Counting(TaskMetric):
    """Counts the samples of each class and keeps their numbers."""

    primary = 'share'
    files = ()
    scores = ('share', 'absent')

    def __init__(self) -> None:
        super().__init__()
        self.add_state('counts', lambda: np.zeros(len(self.class_names), np.int64), adds_up='sum')
        self.add_state('numbers', list, adds_up='list')

    def process(self, data_batch: Any, data_samples: Any) -> None:
        for number, label in data_samples:
            self.state['counts'][label] += 1
            self.state['numbers'].append(number)

    def summarise(self, total: Any) -> dict[str, Any]:
        counts = total['counts']
        share = counts[0] / counts.sum() if counts.sum() else None
        return {'share': share, 'absent': None, 'numbers': total['numbers']}

    def table(self) -> None: ...

    def notes(self) -> list[str]:
        return []

    def draw(self, folder: Path) -> list[Path]:
        return []


def counting() -> Counting:
    metric = Counting()
    metric.dataset_meta = {'classes': ['cat', 'dog']}
    return metric


def test_an_evaluation_scores_what_was_gathered_and_starts_afresh() -> None:
    metric = counting()
    metric.process(None, [(7, 0), (8, 1)])
    metric.process(None, [(9, 1), (10, 1)])
    assert metric.evaluate(4) == {'share': 0.25}
    assert metric.report['numbers'] == [7, 8, 9, 10]
    metric.process(None, [(1, 0)])
    assert metric.evaluate(1) == {'share': 1.0}
    assert metric.evaluate(0) == {}


def test_counts_of_all_processes_are_summed_and_lists_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        falconet.tasks.metric, 'all_reduce', lambda counts: counts.add_(counts.new_tensor([2, 4]))
    )
    monkeypatch.setattr(falconet.tasks.metric, 'all_gather_object', lambda mine: [mine, [20, 21]])
    metric = counting()
    metric.process(None, [(7, 0)])
    assert metric.evaluate(7) == {'share': pytest.approx(3 / 7)}
    assert metric.report['numbers'] == [7, 20, 21]


def test_mmengines_own_way_to_the_scores_is_closed() -> None:
    with pytest.raises(RuntimeError, match=r'Counting\.evaluate computes'):
        counting().compute_metrics([])


@pytest.mark.parametrize('weakest', ['score', None])
def test_of_many_classes_the_weakest_are_shown_and_those_without_a_score_last(weakest: str | None) -> None:
    metric = counting()
    metric.report = {'per_class': {str(n): {'score': None if n == 3 else n / 100} for n in range(40, -1, -1)}}
    table = metric.class_table('x', ['score'], lambda row: [str(row['score'])], weakest=weakest)
    names = [str(cell) for cell in table.columns[0].cells]
    if weakest is None:
        assert names == [str(n) for n in range(40, -1, -1)]
    else:
        assert names == [str(n) for n in range(31) if n != 3]
        assert table.caption == 'the 30 weakest of 41 classes; all are in metrics.json'
