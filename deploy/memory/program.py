"""Programs that keep to an amount of memory: as torch has them, and as `.tflite` files."""

from typing import Any, NamedTuple

from torch import Tensor

from falconet.core.errors import UserError
from falconet.deploy.memory.execute import apply
from falconet.deploy.memory.flatbuffer import arena_of
from falconet.deploy.memory.plan import RULES, Plan
from falconet.deploy.memory.rewrite import rewrite
from falconet.deploy.memory.search import SHARES, Search, too_little
from falconet.deploy.memory.sizes import in_kilobytes
from falconet.deploy.program import Program, fixed_size
from falconet.tasks.model import VisionModel


class PlannedProgram(Program):
    """Pictures to answers, by a plan for pictures as the model's transforms make them.

    Args:
        model: whose weights it takes.
        plan: for pictures of the network's size, `plan.rules.pictures` being set.
        raw: end at the outputs of the head's `forward`.

    Raises:
        UserError: as `Program`.
    """

    def __init__(self, model: VisionModel, plan: Plan, **options: Any) -> None:
        self.plan: Plan | None = None
        super().__init__(model, **options)
        self.backbone = apply(self.backbone, plan, scale=self.scale, shift=self.shift)
        self.plan = plan

    def _images(self, pictures: Tensor) -> Tensor:
        """Return the pictures as they are: the plan's steps normalise them patch by patch."""
        return super()._images(pictures) if self.plan is None else pictures


def search_for(model: VisionModel, *, int8: bool) -> Search:
    """Return the search for a model's plans, for pictures as its transforms make them.

    In INT8 blocks are not sliced: every partial sum would be rounded to eight bits.

    Raises:
        UserError: the backbone is no MobileNetV2, or pictures come in several sizes.
    """
    rules = RULES['int8' if int8 else 'float32']
    options = {'most_slices': 1} if int8 else {}
    return Search(model.backbone, fixed_size(model), rules, **options)


def planned_program(model: VisionModel, budget: int, *, batch: int = 1, raw: bool = False) -> PlannedProgram:
    """Return a program whose backbone keeps to `budget` bytes, for `batch` float32 pictures at a time.

    Raises:
        UserError: no plan fits, or as `search_for`.
    """
    search = search_for(model, int8=False)
    found = search.fitting(budget // batch)
    if found is None:
        raise too_little(search, budget, batch=batch)
    return PlannedProgram(model, found, raw=raw)


class Fitted(NamedTuple):
    """A `.tflite` file's content, the plan in it, and the bytes of LiteRT's arena for all its tensors."""

    content: bytes
    plan: Plan
    arena: int


def fitted(content: bytes, model: VisionModel, budget: int, *, int8: bool, raw: bool = False) -> Fitted:
    """Return a `.tflite` file of a model with its arena within `budget` bytes.

    Args:
        content: of the file without a plan, for one picture.
        model: whose program it is.
        budget: bytes of LiteRT's arena, the picture, the head and all gaps included.
        int8: it was quantised.
        raw: it ends at the head's outputs.

    Raises:
        UserError: no plan fits, what follows the backbone alone needs more, or as `search_for`.
    """
    search, smallest, rest = search_for(model, int8=int8), None, 0
    for share in SHARES:
        found = search.cheapest(int(share * budget))
        if found is None:
            break
        made = rewrite(content, search.units, found)
        arena, _, rest = arena_of(made)
        if arena <= budget:
            return Fitted(made, found, arena)
        smallest = min(arena, smallest or arena)
    if rest > budget:
        what = 'the head' if raw else 'the head and its decoding'
        hint = '' if raw else 'add --raw to leave decoding out, or '
        raise UserError(
            f'{in_kilobytes(budget)} are too few: what follows the backbone ({what}) needs '
            f'{in_kilobytes(rest)} by itself: {hint}ask for that much'
        )
    raise too_little(search, budget)
