"""A plan written into a `.tflite` file: the same weights, scales and answers, in operators of its order.

The file is one of `deploy.litert_format`, float32 or quantised. Its convolutions, which stand in the order of
the network's, are replaced by those of the plan's steps; what comes before them is done patch by patch, what
comes after them stays. No tensor gets another scale, so that an INT8 program computes what it did, to the
bit, where the plan has patches only. (The partial sums of slices are rounded to 8 bits each.)
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from falconet.core.errors import UserError
from falconet.deploy.memory.build import build
from falconet.deploy.memory.flatbuffer import PAD, SAME, SLICE, TRANSPOSE, VALID, File
from falconet.deploy.memory.network import Convolution, Unit
from falconet.deploy.memory.plan import Plan
from falconet.deploy.memory.steps import Step, Steps

ADD, CONCATENATE, MEAN, REVERSE = 0, 2, 40, 105  # BuiltinOperator
ROWS_AND_COLUMNS = (1, 2)


def rewrite(content: bytes, units: Sequence[Unit], plan: Plan) -> bytes:
    """Return a file's content with the network run by a plan.

    Args:
        content: of a program for one picture, float32 or quantised, without a plan.
        units: of `deploy.memory.network.read_network`.
        plan: for pictures of its size, with rules that pad as TensorFlow does and add up slices apart.

    Raises:
        UserError: the file is of another network.
    """
    return _Rewriting(File(content), units, plan).run()


class _Rewriting:
    def __init__(self, file: File, units: Sequence[Unit], plan: Plan) -> None:
        self.file, self.units, self.plan = file, units, plan
        self.steps: Steps = build(units, plan)
        self.operators: list[Any] = []
        # Tensors of the file by the number of the plan's; and the plain tensor whose scale each has.
        self.tensors: dict[int, int] = {0: int(file.graph.inputs[0])}
        self.like: dict[int, int] = {}
        self.plain = self._match()
        self.before = self._before()
        self.weights: dict[tuple[Any, ...], int] = {}

    def run(self) -> bytes:
        """Return the new content."""
        replaced = self._replaced()
        maps = self._maps()
        for step in self.steps.steps:
            self._write(step)
        # What read the plain maps reads the plan's.
        renamed = {plain: self.tensors[each] for plain, each in zip(maps, self.steps.maps, strict=True)}
        rest = [each for each in self.file.graph.operators if id(each) not in replaced]
        for operator in rest:
            operator.inputs = [renamed.get(int(each), int(each)) for each in operator.inputs]
        self.file.graph.operators = self._early(rest)
        self.file.graph.outputs = [renamed.get(int(each), int(each)) for each in self.file.graph.outputs]
        self.file.simplify()
        return self.file.pack()

    def _early(self, rest: Sequence[Any]) -> list[Any]:
        """Return all operators, those of the head as soon as they can run: a map is let go in time."""
        there = {*map(int, self.file.graph.inputs)}
        maps = {self.tensors[each] for each in self.steps.maps}
        ordered, waiting = [], list(rest)
        for operator in self.operators:
            ordered.append(operator)
            there.add(int(operator.outputs[0]))
            if int(operator.outputs[0]) not in maps:
                continue
            for each in list(waiting):
                if all(self.file.is_constant(one) or int(one) in there for one in each.inputs):
                    ordered.append(each)
                    waiting.remove(each)
                    there |= {*map(int, each.outputs)}
        return [*ordered, *waiting]

    def _match(self) -> dict[Convolution, Any]:
        """Return the file's operator for each convolution."""
        wanted = [
            each
            for unit in self.units
            for each in (unit.expand, unit.depthwise, unit.project)
            if each is not None
        ]
        found = self.file.convolutions()
        for convolution, operator in zip(wanted, found, strict=False):
            weight = [int(side) for side in self.file.tensor(operator.inputs[1]).shape]
            inputs = 1 if convolution.depthwise else convolution.in_channels
            cells = convolution.kernel**2 * inputs * convolution.out_channels
            if int(np.prod(weight)) != cells:
                raise UserError(
                    f'a convolution of the file has weights of {weight}, where the network has {cells} '
                    'numbers: it is the program of another checkpoint'
                )
        if len(found) < len(wanted):
            raise UserError(f'the file has {len(found)} convolutions, the network {len(wanted)}')
        return dict(zip(wanted, found, strict=False))

    def _before(self) -> list[Any]:
        """Return the operators between the picture and the first convolution."""
        tensor = int(self.plain[self._first()].inputs[0])
        found = []
        while tensor != int(self.file.graph.inputs[0]):
            operator = self.file.maker(tensor)
            found.append(operator)
            tensor = next(int(each) for each in operator.inputs if not self.file.is_constant(each))
        return found[::-1]

    def _first(self) -> Convolution:
        first = self.units[0].project
        assert first is not None
        return first

    def _replaced(self) -> set[int]:
        """Return the ids of the operators that the plan's take the place of."""
        network = {*map(id, self.before), *(id(each) for each in self.plain.values())}
        made = {int(each.outputs[0]) for each in self.plain.values()}
        padded = {int(each.inputs[0]) for each in self.plain.values()}
        sums = [each for unit in self.units if (each := self._sum(unit)) is not None]
        for operator in self.file.graph.operators:
            inputs = [int(each) for each in operator.inputs if not self.file.is_constant(each)]
            kind = self.file.kind(operator)
            inside = len(inputs) == 2 and all(each in made for each in inputs)
            pads = kind == PAD and int(operator.outputs[0]) in padded
            if pads or (kind == ADD and inside and operator in sums):
                network.add(id(operator))
                made.add(int(operator.outputs[0]))
        return network

    def _sum(self, unit: Unit) -> Any:
        """Return the file's operator that adds a unit's shortcut, or None."""
        if unit.shortcut == 'none' or unit.project is None or unit.depthwise is None:
            return None
        last = unit.project if unit.shortcut == 'bottleneck' else unit.depthwise
        made = int(self.plain[last].outputs[0])
        return next(each for each in self.file.readers(made) if self.file.kind(each) == ADD)

    def _maps(self) -> list[int]:
        """Return the plain tensors of the network's maps, finest first."""
        found = []
        for unit in self.units:
            for tap in unit.taps:
                if tap == 'expanded':
                    assert unit.expand is not None
                    found.append(int(self.plain[unit.expand].outputs[0]))
                elif unit.shortcut == 'bottleneck' and unit.depthwise is not None:
                    found.append(int(self._sum(unit).outputs[0]))
                else:
                    assert unit.project is not None
                    found.append(int(self.plain[unit.project].outputs[0]))
        return found

    def _write(self, step: Step) -> None:
        shape = self.steps.shapes[step.output]
        sides = [1, shape.height, shape.width, shape.channels]
        inputs = [self.tensors[each] for each in step.inputs]
        if step.kind == 'cast':  # and all else that normalises
            self._normalise(step, inputs[0], sides)
            return
        if step.kind in ('scale', 'shift'):
            self.tensors[step.output] = inputs[0]
            return
        like = self._like(step, inputs)
        if step.kind == 'turn' and self._is_averaged(like):  # an average is the same either way round
            self.tensors[step.output] = inputs[0]
            return
        output = self.tensors[step.output] = self.file.new_tensor(like, sides, step.kind)
        self.like[output] = like
        file, numbers = self.file, self.file.numbers
        if step.kind == 'slice':
            top, _, left, _ = step.box
            begin, size = numbers([0, top, left, 0]), numbers(sides)
            self._append(SLICE, 'Slice', [inputs[0], begin, size], output)
        elif step.kind == 'channels':
            begin, size = numbers([0, 0, 0, step.part[0]]), numbers(sides)
            self._append(SLICE, 'Slice', [inputs[0], begin, size], output)
        elif step.kind == 'turn':
            self._append(REVERSE, 'ReverseV2', [inputs[0], numbers([*ROWS_AND_COLUMNS])], output)
        elif step.kind == 'pad':
            above, below, left, right = step.zeros
            zeros = numbers([0, 0, above, below, left, right, 0, 0], shape=(4, 2))
            self._append(PAD, 'Pad', [inputs[0], zeros], output)
        elif step.kind == 'join':
            axis = ROWS_AND_COLUMNS[step.axis - 2]
            self._append(CONCATENATE, 'Concatenation', inputs, output, axis=axis, fusedActivationFunction=0)
        elif step.kind == 'add':
            activation = file.RELU6 if step.relu6 else 0
            self._append(ADD, 'Add', inputs, output, fusedActivationFunction=activation)
        else:
            self._convolve(step, inputs[0], output)

    def _like(self, step: Step, inputs: Sequence[int]) -> int:
        """Return the plain tensor that has the type and scale of what a step makes."""
        if step.convolution is not None:
            return int(self.plain[step.convolution].outputs[0])
        if step.kind == 'add':
            for unit in self.units:
                if unit.shortcut == 'none' or unit.depthwise is None:
                    continue
                last = unit.project if unit.shortcut == 'bottleneck' else unit.depthwise
                own = [int(self.plain[each].outputs[0]) for each in (last,) if each is not None]
                ends = {self.like.get(each, each) for each in inputs}
                if len(ends) > 1 and own[0] in ends:
                    return int(self._sum(unit).outputs[0])
        return self.like.get(inputs[-1], inputs[-1])

    def _is_averaged(self, plain: int) -> bool:
        readers = self.file.readers(plain)
        return bool(readers) and all(self.file.kind(each) == MEAN for each in readers)

    def _convolve(self, step: Step, tensor: int, output: int) -> None:
        convolution = step.convolution
        assert convolution is not None
        operator = copy.copy(self.plain[convolution])
        operator.builtinOptions = copy.copy(operator.builtinOptions)
        operator.builtinOptions.padding = SAME if any(step.zeros) else VALID
        if not step.relu6:
            operator.builtinOptions.fusedActivationFunction = 0
        operator.inputs = [tensor, *self._weights(step, operator)]
        operator.outputs = [output]
        self.operators.append(operator)

    def _weights(self, step: Step, operator: Any) -> list[int]:
        convolution = step.convolution
        assert convolution is not None
        key = (convolution, step.part)
        weight, *bias = [int(each) for each in operator.inputs[1:]]
        first, end = step.part
        axis = 3 if convolution.depthwise else 0
        is_projection = any(unit.project == convolution and unit.depthwise for unit in self.units)
        whole = not end or end - first == (
            convolution.in_channels if is_projection else convolution.out_channels
        )
        turn = self.plan.turned and convolution.kernel > 1
        if key not in self.weights:
            if whole and not turn:
                self.weights[key] = weight
            else:
                cut = None if whole else (3 if is_projection else axis, first, end)
                self.weights[key] = self.file.changed(
                    weight, cut=cut, turned=ROWS_AND_COLUMNS if turn else ()
                )
        if bias and not whole and not is_projection:
            bias_key = (convolution, step.part, 'bias')
            if bias_key not in self.weights:
                self.weights[bias_key] = self.file.changed(bias[0], cut=(0, first, end))
            bias = [self.weights[bias_key]]
        elif bias and not step.bias:
            bias_key = (convolution, 'none')
            if bias_key not in self.weights:
                self.weights[bias_key] = self.file.changed(bias[0], zero=True)
            bias = [self.weights[bias_key]]
        return [self.weights[key], *bias]

    def _normalise(self, step: Step, tensor: int, sides: Sequence[int]) -> None:
        """Do what the file does before its first convolution to one patch."""
        for operator in self.before:
            if self.file.kind(operator) == TRANSPOSE or self.file.kind(operator) == PAD:
                continue  # patches have their channels last already, and are padded as the plan says
            own = copy.copy(operator)
            made = self.file.new_tensor(int(operator.outputs[0]), sides, 'normalised')
            own.inputs = [
                self.file.channels_last(int(each)) if self.file.is_constant(each) else tensor
                for each in operator.inputs
            ]
            own.outputs = [made]
            self.operators.append(own)
            self.like[made] = int(operator.outputs[0])
            tensor = made
        self.tensors[step.output] = tensor

    def _append(self, kind: int, name: str, inputs: Sequence[int], output: int, **options: Any) -> None:
        self.operators.append(self.file.new_operator(kind, name, inputs, output, **options))
