"""What every metric promises: counts that add up over processes, a report, a table, notes and pictures.

A metric says once, in its constructor, what it gathers and how that adds up over processes, as torchmetrics'
`add_state` does; here it is brought together, scored and started afresh.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.evaluator import BaseMetric

from falconet.report.page.findings import Findings, Score
from falconet.report.text import shown

TABLE_ROWS = 30


class TaskMetric(BaseMetric):
    """The base of the metrics. `process` gathers, `summarise` scores.

    Every process gathers what it saw, and all of it is brought together, so each image counts once.

    Attributes:
        primary: the score that decides which checkpoint is best.
        files: names of what `draw` may write.
        scores: names of all that `evaluate` may return, out of the report.
        report: after `evaluate`, everything that goes into metrics.json; plain values only.
    """

    primary: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    scores: tuple[str, ...]
    default_prefix = ''  # without one mmengine warns

    def __init__(self) -> None:
        super().__init__()
        self.report: dict[str, Any] = {}
        self._declared: dict[str, tuple[Callable[[], Any], str]] = {}
        self._state: dict[str, Any] = {}

    def add_state(self, name: str, start: Callable[[], Any], *, adds_up: Literal['sum', 'list']) -> None:
        """Declare what is gathered under a name in `state`.

        Args:
            name: of it.
            start: returns it as it is before the first batch; called when the data set is known.
            adds_up: over processes: arrays of counts to their 'sum', lists to one 'list'.
        """
        self._declared[name] = (start, adds_up)

    @property
    def state(self) -> dict[str, Any]:
        """What this process has gathered since the last evaluation, by name."""
        if not self._state:
            self._state = {name: start() for name, (start, _) in self._declared.items()}
        return self._state

    @property
    def class_names(self) -> list[str]:
        return self.dataset_meta['classes']  # type: ignore[index]  # set by mmengine before any batch

    def empty_confusion(self) -> np.ndarray:
        """Return a confusion matrix to begin with, int64 (C, C)."""
        return np.zeros((len(self.class_names),) * 2, dtype=np.int64)

    def evaluate(self, size: int) -> dict[str, float]:
        """Bring together what all processes have gathered, score it, and start afresh.

        Args:
            size: samples in the data set; not needed, the counts know.

        Returns:
            Those of `scores` for which there is something to score, each 0 to 1.
        """
        # Every process gets all of it and computes the same: no second exchange for the scores.
        total = {name: _over_processes(self.state[name], how) for name, (_, how) in self._declared.items()}
        self._state = {}
        self.report = self.summarise(total)
        return {name: self.report[name] for name in self.scores if self.report.get(name) is not None}

    @abstractmethod
    def summarise(self, total: Mapping[str, Any]) -> dict[str, Any]:
        """Return the report of what all processes have gathered, by the names it was declared under."""

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Unused: `evaluate` works from the state, not from a list of results."""
        raise RuntimeError(f'{type(self).__name__}.evaluate computes the metrics')

    @abstractmethod
    def table(self) -> Any:
        """Return the report as a rich table."""

    @abstractmethod
    def notes(self) -> list[str]:
        """Return what the mean could hide."""

    @abstractmethod
    def draw(self, folder: Path) -> list[Path]:
        """Write pictures and lists of results into `folder`; return the files."""

    @staticmethod
    def numbers_of(data_batch: Mapping[str, Any], count: int) -> list[int]:
        """Return the number in the data set of each picture of a batch, -1 where it says none."""
        infos = data_batch.get('infos')
        return [-1] * count if infos is None else [info.index for info in infos]

    def findings(self, dataset: Any = None, model: Any = None) -> Findings:
        """Return what a report says of the last evaluation.

        Args:
            dataset: to show pictures of; None leaves them out.
            model: to see where it looked; None leaves that out.
        """
        return Findings([Score(name, self.report.get(name)) for name in self.scores], notes=self.notes())

    def worst(self, dataset: Any, limit: int) -> list[tuple[str, list[tuple[str, Any]]]]:
        """Return the pictures that are most wrong: (caption, [(what it shows, picture)])."""
        return []

    def class_table(
        self,
        title: str,
        numbers: Sequence[str],
        row: Callable[[Mapping[str, Any]], Iterable[str]],
        *,
        words: Sequence[str] = (),
        weakest: str | None = None,
    ) -> Any:
        """Return a table with a row for each class, to go on with.

        Args:
            title, numbers, words: of the table and its columns.
            row: cells of a class, from its entry in the report; class names among them as they are.
            weakest: where there are many classes, show those with the least of this score.
        """
        from rich.table import Table
        from rich.text import Text

        table = Table('class', title=title, title_justify='left')
        for name in (*numbers, *words):
            table.add_column(name, justify='right' if name in numbers else 'left')
        rows = list(self.report['per_class'].items())
        if weakest is not None and len(rows) > TABLE_ROWS:
            table.caption = f'the {TABLE_ROWS} weakest of {len(rows)} classes; all are in metrics.json'
            rows.sort(key=lambda each: 2.0 if each[1][weakest] is None else each[1][weakest])
            rows = rows[:TABLE_ROWS]
        for name, entry in rows:
            # As Text: a class called '[/b]' is no markup.
            table.add_row(Text(shown(name)), *(Text(shown(cell)) if cell else '' for cell in row(entry)))
        table.add_section()
        return table


def rounded(score: float | None) -> str:
    """Return a score for a table."""
    return '-' if score is None else f'{score:.3f}'


def _over_processes(mine: Any, how: str) -> Any:
    if how == 'list':
        return [item for part in all_gather_object(mine) for item in part]
    counts = torch.from_numpy(mine)
    all_reduce(counts)
    return counts.numpy()
