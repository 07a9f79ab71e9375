"""16-bit activations in the engine: the operators of engine_test with uint16 and int16 codes, on
one side or on both, beside ONNX Runtime, which computes them in float32 between the pairs. Its
optimizer is off: it would make MatMulNBits of a MatMul, with activations of 8 bits (75 codes
off)."""
import pytest

import util
from engine_test import CLOSE, EXACT, I64, LEVELS, VIEWS, Builder, can_run, islands, run_engine
from util import np, onnx

from onnx import TensorProto, helper  # noqa: E402


def reduce_mean(b):
    """As opset 21 has it: axes are an input."""
    axes = b.constant(np.array([2, 3], I64))
    return [b.pair(b.node('ReduceMean', [b.input((2, 3, 5, 7)), axes], keepdims=0), 0.01, 128)]


CASES = {**EXACT, **CLOSE, 'reduce_mean': reduce_mean}
NO_KERNEL = ['softmax', 'conv_transpose', 'conv_transpose_output_padding']
# Their output has its input's parameters, so that both are of one width.
SHARED = [name for name in CASES if name.startswith(
    ('max_pool', 'transpose', 'reshape', 'squeeze', 'slice', 'split', 'depth_to', 'space_to', 'pad',
     'expand', 'tile', 'gather', 'resize'))]


class Wide(Builder):
    """Pairs of 16 bits where an 8-bit one would stand, 256 codes for one; the range is the same."""

    def __init__(self, seed, inputs, outputs):
        super().__init__(seed, opset=21)
        self.kinds = {True: inputs, False: outputs}
        self.n_pairs = 0

    def save(self, path, outputs):
        super().save(path, outputs)
        model = onnx.load(path)
        model.ir_version = 10
        onnx.save(model, path)

    def pair(self, x, scale, zero, kind=np.uint8):
        kind = self.kinds[any(x == name for name, _ in self.inputs)]
        if kind == 'alternating':
            kind = np.uint16 if self.n_pairs % 2 else np.uint8
        self.n_pairs += 1
        lowest = np.iinfo(kind).min
        if np.dtype(kind).itemsize == 1:
            return super().pair(x, scale, zero + lowest, kind)
        return super().pair(x, scale / 256, zero * 256 + 77 + lowest, kind)

    def bias(self, w_scales, x_scale=0.04):
        """The same reals, whatever the scale of the input."""
        wide = np.dtype(self.kinds[True]).itemsize == 2
        b = self.rng.integers(-9000, 9000, w_scales.shape).astype(np.int32) * (256 if wide else 1)
        scale = self.constant(np.float32(x_scale / 256 if wide else x_scale) * w_scales)
        zero = self.constant(np.zeros(w_scales.shape, np.int32))
        return self.node('DequantizeLinear', [self.constant(b), scale, zero], axis=0)


SIDES = {
    'uint16': (np.uint16, np.uint16), 'int16': (np.int16, np.int16),
    'uint16 to uint8': (np.uint16, np.uint8), 'uint8 to uint16': (np.uint8, np.uint16),
    'int16 to int8': (np.int16, np.int8),
}


def check(name, sides, tmp_path):
    b = Wide(7, *sides)
    outputs = CASES[name](b)
    path = tmp_path / 'm.onnx'
    b.save(path, outputs)
    feeds = b.feeds()
    ours, lines = run_engine(tmp_path, path, feeds)
    if name in NO_KERNEL:
        assert '16 bits' in islands(lines)[0]
    else:
        assert not islands(lines), islands(lines)
        assert any('step\tint' in line for line in lines) or name in VIEWS
    theirs = util.session(path).run(None, feeds)
    for output, mine, other in zip(outputs, ours, theirs):
        assert mine.shape == other.shape
        assert np.ptp(other) > 0, 'the case says nothing'
        step = b.scales[output]
        assert np.max(np.abs(mine - other)) <= 1.001 * step
        assert np.mean(np.abs(mine - other) > 0.001 * step) <= 0.02
    for level in filter(can_run, LEVELS):
        for threads in (1, 3):
            again, _ = run_engine(tmp_path, path, feeds, threads=threads, level=level)
            assert all(util.same_array(a, c) for a, c in zip(ours, again)), level


@pytest.mark.parametrize('sides', SIDES)
@pytest.mark.parametrize('name', CASES)
def test_operator(name, sides, tmp_path):
    if name in SHARED and len({np.dtype(k).itemsize for k in SIDES[sides]}) > 1:
        pytest.skip('its operands are of one width')
    check(name, SIDES[sides], tmp_path)


@pytest.mark.parametrize('name', ['add', 'mul', 'concat_channels', 'concat_rows', 'add_rows',
                                  'sub_first_repeats'])
def test_operands_of_two_widths(name, tmp_path):
    check(name, ('alternating', np.uint16), tmp_path)
    check(name, ('alternating', np.uint8), tmp_path)


@pytest.mark.parametrize('kind', [np.uint16, np.int16])
def test_codes_at_the_border(kind, tmp_path):
    """Inputs and outputs that are themselves 16-bit."""
    b = Builder(4, opset=21)
    zero = 100 if kind is np.uint16 else -28
    s, z = b.constant(np.float32(0.0004)), b.constant(kind(zero))
    x = b.node('DequantizeLinear', ['x', s, z])
    w, scales = b.weights((6, 4, 3, 3), 0)
    y = b.node('QuantizeLinear', [b.node('Conv', [x, w, b.bias(scales, 0.0004)]), s, z])
    last = b.node('MaxPool', [b.node('DequantizeLinear', [y, s, z])], kernel_shape=[2, 2])
    last = b.node('QuantizeLinear', [last, s, z])
    code = TensorProto.UINT16 if kind is np.uint16 else TensorProto.INT16
    graph = helper.make_graph(
        b.nodes, 'g', [helper.make_tensor_value_info('x', code, [1, 4, 7, 9])],
        [helper.make_tensor_value_info(o, code, None) for o in (y, last)], b.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 21)])
    model.ir_version = 10
    onnx.save(model, tmp_path / 'm.onnx')
    limits = np.iinfo(kind)
    feeds = {'x': b.rng.integers(limits.min, limits.max + 1, (1, 4, 7, 9)).astype(kind)}
    ours, lines = run_engine(tmp_path, tmp_path / 'm.onnx', feeds)
    assert not islands(lines)
    assert not any('quantize' in line for line in lines)
    theirs = util.session(tmp_path / 'm.onnx').run(None, feeds)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype == kind and mine.shape == other.shape
        assert np.max(np.abs(mine.astype(int) - other)) <= 1
        assert np.mean(mine != other) <= 0.02


def test_one_width_behind_another(tmp_path):
    """A pair behind a pair is one step, in integers."""
    b = Wide(3, np.uint8, np.uint8)
    x = b.input((1, 3, 8, 8))
    wide = Builder.pair(b, x, 0.0002, 30000, np.uint16)
    outputs = [b.pair(b.node('Sigmoid', [b.pair(wide, 0.05, 120)]), 1 / 256, 0)]
    b.save(tmp_path / 'm.onnx', outputs)
    feeds = b.feeds()
    ours, lines = run_engine(tmp_path, tmp_path / 'm.onnx', feeds)
    assert sum('rescale' in line for line in lines) == 2 and not islands(lines)
    theirs = util.session(tmp_path / 'm.onnx').run(None, feeds)
    assert np.max(np.abs(ours[0] - theirs[0])) <= 1.001 / 256
