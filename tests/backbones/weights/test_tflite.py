"""Weights read out of a `.tflite` file compute what LiteRT computes with that file."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from falconet.backbones import MobileNetV2
from falconet.backbones.table2 import plan_network, units
from falconet.backbones.weights.files import read_weight_file
from falconet.backbones.weights.split import split_weights
from falconet.heads import DeepLabV3Head, LinearHead

WIDTH, SIDE = 0.35, 64
EXTRA = "pip install -e '.[litert]'"


class Writer:
    """A `.tflite` network in the making."""

    def __init__(self, stored: str = 'float32') -> None:
        self.schema: Any = pytest.importorskip('ai_edge_litert.schema_py_generated', reason=EXTRA)
        self.stored = stored
        self.model = self.schema.ModelT()
        self.graph = self.schema.SubGraphT()
        self.model.version, self.model.operatorCodes, self.model.subgraphs = 3, [], [self.graph]
        self.model.buffers = [self.schema.BufferT()]
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs = [self.tensor((1, SIDE, SIDE, 3))]
        self.now, self.shape = self.graph.inputs[0], (1, SIDE, SIDE, 3)

    def tensor(self, shape: tuple[int, ...], data: np.ndarray | None = None, scale: Any = None) -> int:
        tensor = self.schema.TensorT()
        kind = 'float32' if data is None else data.dtype.name
        tensor.shape, tensor.type = list(shape), getattr(self.schema.TensorType, kind.upper())
        tensor.name = f'tensor {len(self.graph.tensors)}'
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        if scale is not None:
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale = np.asarray(scale, np.float32)
            tensor.quantization.zeroPoint = np.zeros(len(scale), np.int64)
            tensor.quantization.quantizedDimension = 0
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(
        self, kind: str, inputs: list[int], shape: tuple[int, ...], options: str = '', **given: Any
    ) -> int:
        code = self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 3
        operator = self.schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes)
        self.model.operatorCodes.append(code)
        operator.inputs, operator.outputs = inputs, [self.tensor(shape)]
        if options:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self.schema, f'{options}T')()
            for name, value in given.items():
                setattr(operator.builtinOptions, name, value)
        self.graph.operators.append(operator)
        self.now, self.shape = operator.outputs[0], shape
        return self.now

    def weight(self, values: np.ndarray) -> int:
        if self.stored == 'float16':  # as converters write it: made whole by an operator
            half = self.tensor(values.shape, values.astype(np.float16))
            here = self.now, self.shape
            whole = self.operator('DEQUANTIZE', [half], values.shape)
            self.now, self.shape = here
            return whole
        if self.stored == 'int8' and values.shape[0] > 1:
            scale = np.abs(values).max(axis=tuple(range(1, values.ndim))) / 127
            rounded = np.round(values / scale.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
            return self.tensor(values.shape, rounded, scale)
        return self.tensor(values.shape, values)

    def conv(
        self, conv: nn.Conv2d, norm: nn.Module | None, activation: str, *, stride: int = 1, rate: int = 1
    ) -> int:
        weight, bias = folded(conv, norm)
        sides = (-(-self.shape[1] // stride), -(-self.shape[2] // stride))
        given: dict[str, Any] = {'padding': self.schema.Padding.SAME, 'strideH': stride, 'strideW': stride}
        given |= {'dilationHFactor': rate, 'dilationWFactor': rate}
        given['fusedActivationFunction'] = getattr(self.schema.ActivationFunctionType, activation)
        is_depthwise = conv.groups > 1
        kind = 'DEPTHWISE_CONV_2D' if is_depthwise else 'CONV_2D'
        stored = weight.transpose((1, 2, 3, 0) if is_depthwise else (0, 2, 3, 1))
        inputs = [self.now, self.weight(np.ascontiguousarray(stored)), self.tensor(bias.shape, bias)]
        if is_depthwise:
            given['depthMultiplier'] = 1
        options = 'DepthwiseConv2DOptions' if is_depthwise else 'Conv2DOptions'
        return self.operator(kind, inputs, (1, *sides, len(bias)), options, **given)

    def backbone(self, backbone: MobileNetV2, *, taps: tuple[str, ...], output_stride: int = 32) -> None:
        layers, _ = plan_network(width=WIDTH, taps=taps, output_stride=output_stride)
        modules = dict(backbone.named_modules())
        convs = [each for each in modules.values() if isinstance(each, nn.Conv2d)]
        norms = [each for each in modules.values() if isinstance(each, nn.BatchNorm2d)]
        start = (self.now, self.shape)
        for unit, conv, norm in zip(units(), convs, norms, strict=False):
            plan = layers[unit.layer]
            first = unit.role == 'expand' or (unit.role == 'depthwise' and unit.stage == 0)
            start = (self.now, self.shape) if first else start
            strides = unit.role in ('stem', 'depthwise')
            self.conv(
                conv,
                norm,
                'NONE' if unit.role == 'project' else 'RELU6',
                stride=plan.stride if strides else 1,
                rate=plan.dilation if unit.role == 'depthwise' else 1,
            )
            if unit.role == 'project' and start[1] == self.shape and unit.block > 0:
                self.operator('ADD', [start[0], self.now], self.shape, 'AddOptions')

    def mean(self, *, keep: bool) -> None:
        axes = self.tensor((2,), np.array([1, 2], np.int32))
        channels = self.shape[3]
        shape = (1, 1, 1, channels) if keep else (1, channels)
        self.operator('MEAN', [self.now, axes], shape, 'ReducerOptions', keepDims=keep)

    def write(self, path: Path) -> Path:
        import flatbuffers

        self.graph.outputs = [self.now]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), b'TFL3')
        path.write_bytes(builder.Output())
        return path


def folded(conv: nn.Conv2d, norm: Any) -> tuple[np.ndarray, np.ndarray]:
    weight = conv.weight.detach()
    if norm is None:
        return weight.numpy(), conv.bias.detach().numpy()  # type: ignore[union-attr]
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    bias = (norm.bias - norm.running_mean * scale).detach()
    return (weight * scale.view(-1, 1, 1, 1)).numpy(), bias.numpy()


def shaken(*modules: nn.Module) -> None:
    torch.manual_seed(0)
    for module in (each for whole in modules for each in whole.eval().modules()):
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.1)


def run(path: Path, images: Tensor) -> Tensor:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]['index'], images.permute(0, 2, 3, 1).numpy())
    interpreter.invoke()
    return torch.from_numpy(interpreter.get_tensor(interpreter.get_output_details()[0]['index']))


def options(**more: Any) -> dict[str, Any]:
    return {'width': WIDTH, 'padding': 'same', 'norm_eps': 1e-3, **more}


@torch.no_grad()
@pytest.mark.parametrize(('stored', 'tolerance'), [('float32', 1e-4), ('float16', 1e-4), ('int8', 0.1)])
def test_a_classifier_computes_what_litert_computes(tmp_path: Path, stored: str, tolerance: float) -> None:
    """With 8-bit weights LiteRT also rounds what goes between the layers."""
    theirs = MobileNetV2(**options())
    head = LinearHead(theirs.channels, theirs.strides, num_classes=11)
    shaken(theirs, head)
    writer = Writer(stored)
    writer.backbone(theirs, taps=('last',))
    writer.mean(keep=False)
    weight, bias = (each.detach().numpy() for each in (head.fc.weight, head.fc.bias))
    inputs = [writer.now, writer.weight(weight), writer.tensor(bias.shape, bias)]
    writer.operator('FULLY_CONNECTED', inputs, (1, 11), 'FullyConnectedOptions')
    path = writer.write(tmp_path / 'x.tflite')
    parts = split_weights(read_weight_file(path)[0], source='x')
    ours = MobileNetV2(**options()).eval()
    ours.load_state_dict(parts.backbone)
    images = torch.rand(1, 3, SIDE, SIDE) * 2 - 1
    features = ours(images)[0].mean((2, 3))
    logits = features @ parts.classifier['weight'].T + parts.classifier['bias']
    expected = run(path, images)
    assert expected.std() > 0.3  # or the comparison would say nothing
    assert (logits - expected).abs().max() < tolerance


@torch.no_grad()
@pytest.mark.parametrize('pooled_first', [True, False])
def test_a_deeplab_computes_what_litert_computes_whichever_branch_runs_first(
    tmp_path: Path, pooled_first: bool
) -> None:
    theirs = MobileNetV2(**options(taps=('stage7',), output_stride=8))
    head = DeepLabV3Head(theirs.channels, theirs.strides, num_classes=5)
    shaken(theirs, head)
    writer = Writer()
    writer.backbone(theirs, taps=('stage7',), output_stride=8)
    cells, shape = writer.now, writer.shape
    found = {}
    for branch in ('pool', 'cells') if pooled_first else ('cells', 'pool'):
        writer.now, writer.shape = cells, shape
        layer: Any = head.pool if branch == 'pool' else head.branches[0]
        if branch == 'pool':
            writer.mean(keep=True)
        found[branch] = writer.conv(layer[0], layer[1], 'RELU')
        if branch == 'pool':
            size = writer.tensor((2,), np.array(shape[1:3], np.int32))
            found[branch] = writer.operator(
                'RESIZE_BILINEAR', [writer.now, size], (*shape[:3], 256), 'ResizeBilinearOptions'
            )
    writer.operator(
        'CONCATENATION', [found['pool'], found['cells']], (*shape[:3], 512), 'ConcatenationOptions', axis=3
    )
    writer.conv(head.project[0], head.project[1], 'RELU')  # type: ignore[arg-type]
    writer.conv(head.classifier, None, 'NONE')
    path = writer.write(tmp_path / 'x.tflite')
    parts = split_weights(read_weight_file(path)[0], source='x')
    assert not parts.unsure_branches
    ours = MobileNetV2(**options(taps=('stage7',), output_stride=8)).eval()
    ours.load_state_dict(parts.backbone)
    again = DeepLabV3Head(ours.channels, ours.strides, num_classes=5).eval()
    again.load_state_dict(again.translate(parts.layout, parts.rest), strict=False)
    images = torch.rand(1, 3, SIDE, SIDE) * 2 - 1
    expected = run(path, images).permute(0, 3, 1, 2)
    assert expected.std() > 0.1
    assert (again(ours(images)) - expected).abs().max() < 1e-3


@pytest.mark.parametrize(('padding', 'fits'), [((0, 1), True), ((1, 1), False), ((1, 0), False)])
def test_keras_pads_an_even_picture_before_the_layer(
    tmp_path: Path, padding: tuple[int, int], fits: bool
) -> None:
    writer = Writer()
    both = writer.tensor((4, 2), np.array([(0, 0), padding, padding, (0, 0)], np.int32))
    writer.operator('PAD', [writer.now, both], (1, SIDE + sum(padding), SIDE + sum(padding), 3), 'PadOptions')
    writer.conv(nn.Conv2d(3, 8, 3, stride=2), None, 'RELU6', stride=2)
    writer.graph.operators[-1].builtinOptions.padding = writer.schema.Padding.VALID
    path = writer.write(tmp_path / 'x.tflite')
    if fits:
        assert list(read_weight_file(path)[0]) == ['000/CONV_2D/weight', '000/CONV_2D/bias']
    else:
        with pytest.raises(ValueError, match='layer 1 does not pad as "SAME" does'):
            read_weight_file(path)


@pytest.mark.parametrize(('scale', 'zero', 'fits'), [(1 / 127.5, 127, True), (1 / 255, 0, False)])
def test_an_8_bit_input_must_mean_pixels_from_minus_one_to_one(
    tmp_path: Path, scale: float, zero: int, fits: bool
) -> None:
    writer = Writer()
    writer.conv(nn.Conv2d(3, 8, 3, stride=2), None, 'RELU6', stride=2)
    picture = writer.graph.tensors[0]
    picture.type, picture.quantization = (
        writer.schema.TensorType.UINT8,
        writer.schema.QuantizationParametersT(),
    )
    picture.quantization.scale, picture.quantization.zeroPoint = [scale], [zero]
    path = writer.write(tmp_path / 'x.tflite')
    if fits:
        assert len(read_weight_file(path)[0]) == 2
    else:
        with pytest.raises(ValueError, match='it takes pixels from 0 to 1, expected -1 to 1'):
            read_weight_file(path)


def test_without_its_reader_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'ai_edge_litert', None)
    (tmp_path / 'x.tflite').write_bytes(b'x')
    with pytest.raises(ValueError, match=r'x\.tflite: reading it needs the extra: .*litert'):
        read_weight_file(tmp_path / 'x.tflite')


def test_a_cut_file_another_file_and_other_padding_are_refused(tmp_path: Path) -> None:
    writer = Writer()
    conv = nn.Conv2d(3, 8, 3, stride=2)
    writer.conv(conv, None, 'RELU6', stride=2)
    writer.graph.operators[0].builtinOptions.padding = writer.schema.Padding.VALID
    path = writer.write(tmp_path / 'x.tflite')
    with pytest.raises(ValueError, match=r'x\.tflite: .*layer 0 does not pad as "SAME" does'):
        read_weight_file(path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:3], b'', b'no flatbuffer at all'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r'x\.tflite: not a readable \.tflite network, or truncated'):
            read_weight_file(path)
