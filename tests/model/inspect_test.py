"""The diagnostics of rung inspect: models made by hand, each with one thing to be found, and sound
models with nothing."""
import re

import pytest

import util  # first: it skips all of this where the oracles are missing
from util import np, onnx, ort

from cli_kit import ROOT, good, json_of
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


class Net:
    """Nodes in order, Q/DQ pairs by a call; everything is float32 [1, 4, 6, 6] unless said."""

    def __init__(self):
        self.nodes, self.constants, self.outputs = [], [], []
        self.inputs = [helper.make_tensor_value_info('x', FLOAT, [1, 4, 6, 6])]

    def constant(self, name, array):
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op, inputs, name, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [f'{name}_y'], name=name, **attributes))
        return f'{name}_y'

    def quantize(self, v, zero=0, kind=np.uint8, scale=0.05):
        self.constant(f'{v}_s', np.float32(scale))
        self.constant(f'{v}_z', np.array(zero, kind))
        self.nodes.append(helper.make_node('QuantizeLinear', [v, f'{v}_s', f'{v}_z'], [f'{v}_q'],
                                           name=f'{v}_Q'))
        return f'{v}_q'

    def dequantize(self, codes, scale, zero, name, **attributes):
        self.nodes.append(helper.make_node('DequantizeLinear', [codes, scale, zero], [name],
                                           name=f'{name}_DQ', **attributes))
        return name

    def pair(self, v, zero=0, kind=np.uint8, scale=0.05):
        codes = self.quantize(v, zero, kind, scale)
        return self.dequantize(codes, f'{v}_s', f'{v}_z', f'{v}_d')

    def weight(self, codes, name='w', zeros=None):
        """Per channel on axis 0, scale 0.01."""
        codes = np.asarray(codes, np.int8)
        self.constant(f'{name}_q', codes)
        self.constant(f'{name}_s', np.full(len(codes), 0.01, np.float32))
        self.constant(f'{name}_z', np.zeros(len(codes), np.int8) if zeros is None else zeros)
        return self.dequantize(f'{name}_q', f'{name}_s', f'{name}_z', name, axis=0)

    def bias(self, n, name='b', scale=0.05 * 0.01, kind=np.int32):
        self.constant(f'{name}_q', np.arange(n, dtype=kind))
        self.constant(f'{name}_s', np.full(n, scale, np.float32))
        self.constant(f'{name}_z', np.zeros(n, kind))
        return self.dequantize(f'{name}_q', f'{name}_s', f'{name}_z', name, axis=0)

    def output(self, v, rank=4):
        self.outputs.append(helper.make_tensor_value_info(v, FLOAT, [None] * rank))

    def found(self, folder):
        """{(code, where)} of inspect, and the messages by code."""
        graph = helper.make_graph(self.nodes, 'net', self.inputs, self.outputs, self.constants)
        model = helper.make_model(graph, ir_version=8,
                                  opset_imports=[helper.make_opsetid('', 13)])
        onnx.checker.check_model(model)
        onnx.save(model, str(folder / 'm.onnx'))
        self.messages = {}
        found = set()
        text = good('inspect', folder / 'm.onnx').stdout
        for d in json_of('inspect', folder / 'm.onnx')['diagnostics']:
            assert set(d) == {'code', 'where', 'message'}
            assert f"{d['code']}: {d['where']}: {d['message']}" in text
            self.messages[d['code']] = d['message']
            found.add((d['code'], d['where']))
        return found


def small_weight(n=8, c=4):
    return np.random.default_rng(0).integers(-60, 61, (n, c, 1, 1))


def convolution(net, x, weight=None, bias=None, name='conv', **attributes):
    weight = net.weight(small_weight()) if weight is None else weight
    return net.node('Conv', [x, weight, bias or net.bias(8)], name, **attributes)


def sound(kind=np.uint8, zero=0):
    net = Net()
    y = convolution(net, net.pair('x', zero, kind))
    net.output(net.pair(net.node('Relu', [y], 'relu'), zero, kind))
    return net


@pytest.mark.parametrize('kind, zero', [(np.uint8, 0), (np.int8, -128)])
def test_a_sound_model_has_no_remarks(tmp_path, kind, zero):
    assert sound(kind, zero).found(tmp_path) == set()


def test_a_float_model_has_no_remarks(tmp_path):
    net = Net()
    net.output(net.node('Conv', ['x', net.constant('w', np.ones((8, 4, 1, 1), np.float32))], 'c'))
    assert net.found(tmp_path) == set()


# --- the graph -----------------------------------------------------------------------------------

def test_tied_weights(tmp_path):
    net = Net()
    w = net.constant('w', np.ones((4, 4, 3, 3), np.float32))
    y = net.node('Conv', ['x', w], 'one', pads=[1] * 4)
    net.output(net.node('Conv', [y, w], 'two', pads=[1] * 4))
    assert net.found(tmp_path) == {('tied-weights', 'w')}
    assert "2 nodes" in net.messages['tied-weights'] and "'one'" in net.messages['tied-weights']


def test_tied_weights_behind_one_dequantize(tmp_path):
    net = Net()
    w = net.weight(np.ones((4, 4, 3, 3)))
    y = net.pair(net.node('Conv', [net.pair('x'), w], 'one', pads=[1] * 4))
    net.output(net.pair(net.node('Conv', [y, w], 'two', pads=[1] * 4)))
    assert net.found(tmp_path) == {('tied-weights', 'w_q')}


def test_unused_things(tmp_path):
    net = Net()
    net.constant('spare', np.ones(3, np.float32))
    net.inputs.append(helper.make_tensor_value_info('ignored', FLOAT, [1]))
    net.node('Neg', ['x'], 'lost')
    net.output(net.node('Relu', ['x'], 'r'))
    assert net.found(tmp_path) == {('unused-initializer', 'spare'), ('unused-input', 'ignored'),
                                   ('unused-output', "Neg 'lost'")}
    assert '12 bytes' in net.messages['unused-initializer']


# --- pairs ---------------------------------------------------------------------------------------

def test_lone_quantize(tmp_path):
    net = sound()
    codes = net.quantize('relu_y_d')
    net.output(net.node('Cast', [codes], 'cast', to=FLOAT))
    assert net.found(tmp_path) == {('lone-quantize', "QuantizeLinear 'relu_y_d_Q'")}


def test_lone_dequantize(tmp_path):
    net = sound()
    codes = net.node('Reshape', ['relu_y_q', net.constant('s', np.array([1, -1], np.int64))], 'r')
    net.output(net.dequantize(codes, 'relu_y_s', 'relu_y_z', 'late'), rank=2)
    found = net.found(tmp_path)
    assert ('lone-dequantize', "DequantizeLinear 'late_DQ'") in found
    assert "Reshape 'r'" in net.messages['lone-dequantize']


def test_pair_mismatch(tmp_path):
    net = sound()
    codes = net.quantize('relu_y_d')
    other = net.constant('other', np.float32(0.07))
    net.output(net.dequantize(codes, other, 'relu_y_d_z', 'wrong'))
    found = net.found(tmp_path)
    assert found == {('pair-mismatch', "DequantizeLinear 'wrong_DQ'")}


def test_no_integer_kernel(tmp_path):
    net = sound()
    net.output(net.pair(net.node('Mod', ['relu_y_d', 'relu_y_d'], 'mod', fmod=1)))
    assert net.found(tmp_path) == {('no-integer-kernel', "Mod 'mod'")}


def test_missing_quantize(tmp_path):
    net = Net()
    net.output(convolution(net, net.pair('x')))
    assert net.found(tmp_path) == {('missing-quantize', "Conv 'conv'")}
    assert json_of('inspect', tmp_path / 'm.onnx')['float_islands'][0]['node'] == "Conv 'conv'"


# --- layers --------------------------------------------------------------------------------------

def test_weight_zero_point(tmp_path):
    net = Net()
    zeros = np.array([0, 0, 3, 0, 0, -1, 0, 0], np.int8)
    net.output(net.pair(convolution(net, net.pair('x'), net.weight(small_weight(), zeros=zeros))))
    assert net.found(tmp_path) == {('weight-zero-point', "Conv 'conv'")}
    assert '2 of 8' in net.messages['weight-zero-point']


@pytest.mark.parametrize('bias, words', [('float', 'not an integer constant'), ('int8', 'int8')])
def test_bias_not_int32(tmp_path, bias, words):
    net = Net()
    x, w = net.pair('x'), net.weight(small_weight())
    b = (net.constant('b', np.zeros(8, np.float32)) if bias == 'float'
         else net.bias(8, kind=np.int8))
    net.output(net.pair(convolution(net, x, w, b)))
    assert net.found(tmp_path) == {('bias-not-int32', "Conv 'conv'")}
    assert words in net.messages['bias-not-int32']


def test_bias_scale(tmp_path):
    net = Net()
    net.output(net.pair(convolution(net, net.pair('x'), bias=net.bias(8, scale=0.001))))
    assert net.found(tmp_path) == {('bias-scale', "Conv 'conv'")}
    assert '8 of 8' in net.messages['bias-scale']


# --- ONNX Runtime on x86 -------------------------------------------------------------------------

def pairs_that_saturate(columns):
    """columns: [outputs, K] in the order that ONNX Runtime multiplies them in."""
    columns = columns.astype(int)[:, :columns.shape[1] // 2 * 2]
    a, b = columns[:, ::2], columns[:, 1::2]
    sums = 255 * np.maximum(a, 0) + 255 * np.maximum(b, 0)
    lows = 255 * np.minimum(a, 0) + 255 * np.minimum(b, 0)
    return int(((sums > 32767) | (lows < -32768)).sum()), a.size


CASES = {
    'pointwise': ((8, 4, 1, 1), {}),
    'taps before channels': ((8, 4, 3, 3), {'pads': [1] * 4}),
    'odd K': ((6, 1, 3, 3), {'pads': [1] * 4}),
    'grouped': ((8, 2, 3, 3), {'group': 2, 'pads': [1] * 4}),
}


@pytest.mark.parametrize('case', CASES)
def test_avx2_saturation_of_convolutions(tmp_path, case):
    dims, attributes = CASES[case]
    codes = np.random.default_rng(3).integers(-127, 128, dims)
    net = Net()
    channels = dims[1] * attributes.get('group', 1)
    net.inputs = [helper.make_tensor_value_info('x', FLOAT, [1, channels, 6, 6])]
    y = net.node('Conv', [net.pair('x'), net.weight(codes)], 'conv', **attributes)
    net.output(net.pair(y))
    found = net.found(tmp_path)
    risky, total = pairs_that_saturate(codes.transpose(0, 2, 3, 1).reshape(dims[0], -1))
    assert found == {('avx2-saturation', "Conv 'conv'"), ('avx2-saturation', 'model')}
    assert f'{risky} of {total} weight pairs in 1 layers' in net.messages['avx2-saturation']


@pytest.mark.parametrize('transposed', [0, 1])
def test_avx2_saturation_of_gemm(tmp_path, transposed):
    codes = np.random.default_rng(4).integers(-127, 128, (8, 10) if transposed else (10, 8))
    net = Net()
    net.inputs = [helper.make_tensor_value_info('x', FLOAT, [1, 10])]
    net.constant('w_q', codes.astype(np.int8))
    net.constant('w_s', np.float32(0.01))
    net.constant('w_z', np.int8(0))
    w = net.dequantize('w_q', 'w_s', 'w_z', 'w')
    net.output(net.pair(net.node('Gemm', [net.pair('x'), w], 'gemm', transB=transposed)), rank=2)
    risky, total = pairs_that_saturate(codes if transposed else codes.T)
    assert ('avx2-saturation', 'model') in net.found(tmp_path)
    assert f'{risky} of {total} weight pairs' in net.messages['avx2-saturation']


@pytest.mark.parametrize('a, b, risky', [(64, 64, 0), (64, 65, 1), (-64, -64, 0), (-64, -65, 1),
                                         (127, -127, 0), (127, 1, 0), (127, 2, 1)])
def test_saturation_begins_at_129(tmp_path, a, b, risky):
    net = Net()
    net.inputs = [helper.make_tensor_value_info('x', FLOAT, [1, 2, 6, 6])]
    w = net.weight(np.array([a, b]).reshape(1, 2, 1, 1))
    net.output(net.pair(net.node('Conv', [net.pair('x'), w], 'conv')))
    assert len(net.found(tmp_path)) == 2 * risky


def test_depthwise_does_not_saturate(tmp_path):
    net = Net()
    w = net.weight(np.full((4, 1, 3, 3), 127))
    net.output(net.pair(net.node('Conv', [net.pair('x'), w], 'conv', group=4)))
    assert net.found(tmp_path) == set()


def left_in_float(folder):
    """Operators that ONNX Runtime runs in float32."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / 'optimized.onnx')
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(str(folder / 'm.onnx'), options, providers=['CPUExecutionProvider'])
    ops = {n.op_type for n in onnx.load(str(folder / 'optimized.onnx')).graph.node}
    return ops & {'Conv', 'FusedConv', 'Add', 'Relu', 'Clip'}


def test_int8_add(tmp_path):
    net = Net()
    x = net.pair('x', -20, np.int8)
    net.output(net.pair(net.node('Add', [x, x], 'add'), -20, np.int8, 0.1))
    assert net.found(tmp_path) == {('ort-int8', "Add 'add'")}


def test_mixed_types(tmp_path):
    net = Net()
    net.output(net.pair(convolution(net, net.pair('x')), -20, np.int8))
    assert net.found(tmp_path) == {('mixed-types', "Conv 'conv'")}
    assert 'uint8' in net.messages['mixed-types'] and 'int8' in net.messages['mixed-types']


@pytest.mark.parametrize('clamp, zero, remarked', [
    ('Relu', 0, False), ('Relu', 10, True), ((0, 6), 0, True), ((0, 12.75), 0, False),
    ((0, 20), 0, False), ((-1, 20), 0, False), ((-0.5, 20), 10, False), ((-0.2, 20), 10, True),
])
def test_clamps(tmp_path, clamp, zero, remarked):
    net = Net()
    y = convolution(net, net.pair('x'))
    if clamp == 'Relu':
        y = net.node('Relu', [y], 'clamp')
    else:
        bounds = [net.constant(f'c{i}', np.float32(c)) for i, c in enumerate(clamp)]
        y = net.node('Clip', [y, *bounds], 'clamp')
    net.output(net.pair(y, zero))
    assert net.found(tmp_path) == ({('ort-clamp', "Conv 'conv'")} if remarked else set())
    assert bool(left_in_float(tmp_path)) == remarked


# --- the manual ----------------------------------------------------------------------------------

def test_every_code_is_in_the_manual():
    manual = (ROOT / 'docs/diagnostics.md').read_text()
    codes = set()
    for path in sorted((ROOT / 'src').glob('*/*.c')):
        codes |= set(re.findall(r'diagnose\([^"]*?"([a-z0-9-]+)"', path.read_text()))
    assert codes >= {'avx2-saturation', 'tied-weights', 'rule-unused', 'mixed-types'}
    missing = {c for c in codes if f'| `{c}` |' not in manual}
    assert not missing
