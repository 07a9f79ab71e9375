"""The engine beside ONNX Runtime: float networks within 1e-4, quantized ones to the byte.

RUNG_ENGINE_RUN names the tool tests/unit/engine_run.c. On a processor with VNNI ONNX Runtime
computes quantized Conv, Gemm, MatMul, Add, Mul, Concat and pools exactly, and rung must give its
bytes; elsewhere, and for operators that it computes in float32, one code may differ.
"""
import os
import pathlib
import subprocess

import pytest

import util
from util import np, onnx, ort

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

LEVELS = ['ref', 'avx2', 'avxvnni', 'avx512vnni', 'amx']


def has_vnni():
    info = pathlib.Path('/proc/cpuinfo')
    return info.exists() and 'vnni' in info.read_text()


def run_engine(folder, model, feeds, threads=2, level=None):
    """Outputs of the tool, and its lines."""
    out = folder / 'out'
    out.mkdir(exist_ok=True)
    inputs = []
    for i, (name, x) in enumerate(feeds.items()):
        np.save(folder / f'in{i}.npy', x)
        inputs.append(f'{name}={folder}/in{i}.npy')
    environment = dict(os.environ, RUNG_CPU=level) if level else os.environ
    result = subprocess.run([util.program('RUNG_ENGINE_RUN'), str(model), str(out), str(threads)] +
                            inputs, capture_output=True, text=True, timeout=600, env=environment)
    assert result.returncode == 0, result.stderr
    files = sorted(out.glob('*.npy'), key=lambda p: int(p.stem))
    return [np.load(f) for f in files], result.stdout.splitlines()


def can_run(level):
    flags = pathlib.Path('/proc/cpuinfo').read_text()
    needs = {'ref': '', 'avx2': 'avx2', 'avxvnni': 'avx_vnni', 'avx512vnni': 'avx512_vnni',
             'amx': 'amx_int8'}[level]
    return needs in flags


def optimized(model):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(str(model), options, providers=['CPUExecutionProvider'])


def islands(lines):
    return [line for line in lines if line.startswith('island')]


# --- single operators ----------------------------------------------------------------------------

class Builder:
    """A QDQ model around one operator."""

    def __init__(self, seed, opset=13):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.constants, self.inputs, self.opset = [], [], [], opset
        self.scales = {}

    def constant(self, array, name=None):
        name = name or f'c{len(self.constants)}'
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op, inputs, n_out=1, **attributes):
        outputs = [f'{op}_{len(self.nodes)}_{i}' for i in range(n_out)]
        self.nodes.append(helper.make_node(op, inputs, outputs, **attributes))
        return outputs[0] if n_out == 1 else outputs

    def pair(self, x, scale, zero, kind=np.uint8):
        s, z = self.constant(np.float32(scale)), self.constant(kind(zero))
        y = self.node('DequantizeLinear', [self.node('QuantizeLinear', [x, s, z]), s, z])
        self.scales[y] = scale
        return y

    def input(self, shape, scale=0.04, zero=117):
        name = f'x{len(self.inputs)}'
        self.inputs.append((name, list(shape)))
        return self.pair(name, scale, zero)

    def weights(self, shape, axis, spread=1.0):
        w = self.rng.integers(-127, 128, shape).astype(np.int8)
        s = (spread * self.rng.uniform(0.5, 1, shape[axis]) / 127).astype(np.float32)
        scale, zero = self.constant(s), self.constant(np.zeros(shape[axis], np.int8))
        return self.node('DequantizeLinear', [self.constant(w), scale, zero], axis=axis), s

    def bias(self, w_scales, x_scale=0.04):
        b = self.rng.integers(-9000, 9000, w_scales.shape).astype(np.int32)
        scale = self.constant(np.float32(x_scale) * w_scales)
        zero = self.constant(np.zeros(w_scales.shape, np.int32))
        return self.node('DequantizeLinear', [self.constant(b), scale, zero], axis=0)

    def save(self, path, outputs):
        y = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
        x = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in self.inputs]
        graph = helper.make_graph(self.nodes, 'g', x, y, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', self.opset)])
        model.ir_version = 8
        onnx.save(model, path)

    def feeds(self):
        return {n: self.rng.normal(0, 2.5, s).astype(np.float32) for n, s in self.inputs}


def conv(b, x=(1, 8, 9, 11), out=12, kernel=(3, 3), relu=False, bias=True, y=(0.11, 120), **a):
    group = a.get('group', 1)
    w, s = b.weights((out, x[1] // group) + tuple(kernel), 0)
    inputs = [b.input(x), w] + ([b.bias(s)] if bias else [])
    v = b.node('Conv', inputs, kernel_shape=list(kernel), **a)
    if relu:
        v = b.node('Relu', [v])
    return [b.pair(v, *y)]


def conv_transpose(b, **a):
    w, s = b.weights((6, 5, 3, 3), 1)
    v = b.node('ConvTranspose', [b.input((1, 6, 5, 7)), w, b.bias(s)], **a)
    return [b.pair(v, 0.09, 131)]


def gemm(b, trans=1):
    w, s = b.weights((10, 33) if trans else (33, 10), 0 if trans else 1)
    return [b.pair(b.node('Gemm', [b.input((7, 33)), w, b.bias(s)], transB=trans), 0.2, 128)]


def matmul(b):
    w, _ = b.weights((24, 10), 1)
    return [b.pair(b.node('MatMul', [b.input((2, 5, 24)), w]), 0.15, 100)]


def binary(b, op, first, second, y=(0.13, 99)):
    return [b.pair(b.node(op, [b.input(first), b.input(second, 0.021, 140)]), *y)]


def binary_constant(b, op, shape, constant):
    c = b.constant(b.rng.integers(0, 256, constant).astype(np.uint8))
    dq = b.node('DequantizeLinear', [c, b.constant(np.float32(0.03)), b.constant(np.uint8(101))])
    return [b.pair(b.node(op, [b.input(shape), dq]), 0.15, 122)]


def scalar(b, op, c, y, x=(0.04, 117), first=False):
    v, c = b.input((2, 3, 5, 7), *x), b.constant(np.float32(c))
    return [b.pair(b.node(op, [c, v] if first else [v, c]), *y)]


def unary(b, op, y, x=(0.04, 117), shape=(2, 3, 5, 7), **a):
    return [b.pair(b.node(op, [b.input(shape, *x)], **a), *y)]


def shared(b, op, extra=(), shape=(1, 6, 8, 10), n_out=1, **a):
    """An operator whose output has its input's parameters."""
    v = b.node(op, [b.input(shape)] + [b.constant(e) if e is not None else '' for e in extra],
               n_out=n_out, **a)
    return [b.pair(o, 0.04, 117) for o in (v if n_out > 1 else [v])]


def concat(b, axis):
    shape = (1, 4, 6, 5)
    parts = [b.input(shape), b.input(shape, 0.021, 140), b.input(shape, 0.05, 9)]
    return [b.pair(b.node('Concat', parts, axis=axis), 0.045, 120)]


def clip(b):
    w, s = b.weights((8, 4, 1, 1), 0)
    v = b.node('Conv', [b.input((1, 4, 6, 6)), w, b.bias(s)])
    v = b.node('Clip', [v, b.constant(np.float32(-0.7)), b.constant(np.float32(3.3))])
    return [b.pair(v, 0.02, 100)]


I64 = np.int64
EXACT = {  # ONNX Runtime computes these in integers (or moves bytes): its bytes
    'conv': conv,
    'conv_relu': lambda b: conv(b, relu=True, y=(0.11, 0)),
    'conv_relu_with_zero': lambda b: conv(b, relu=True, y=(0.11, 30)),
    'conv_clip': clip,
    'conv_no_bias': lambda b: conv(b, bias=False),
    'conv_pointwise': lambda b: conv(b, (2, 40, 7, 7), 33, (1, 1)),
    'conv_first': lambda b: conv(b, (1, 3, 21, 19), 16, (3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
    'conv_asymmetric_pads': lambda b: conv(b, strides=[2, 2], pads=[0, 1, 2, 0]),
    'conv_auto_pad': lambda b: conv(b, strides=[2, 2], auto_pad='SAME_UPPER'),
    'conv_dilated': lambda b: conv(b, dilations=[2, 3], pads=[2, 3, 2, 3]),
    'conv_grouped': lambda b: conv(b, group=4, pads=[1, 1, 1, 1]),
    'conv_depthwise': lambda b: conv(b, (2, 24, 9, 9), 24, group=24, pads=[1, 1, 1, 1]),
    'conv_depthwise_5': lambda b: conv(b, (1, 20, 9, 9), 20, (5, 5), group=20, strides=[2, 2]),
    'conv_multiplier': lambda b: conv(b, (1, 8, 9, 9), 16, group=8, pads=[1, 1, 1, 1]),
    'conv_wide_kernel': lambda b: conv(b, (1, 4, 6, 30), 7, (1, 9)),
    'gemm_transposed': gemm,
    'gemm': lambda b: gemm(b, 0),
    'matmul': matmul,
    'add': lambda b: binary(b, 'Add', (2, 6, 5, 7), (2, 6, 5, 7)),
    'add_scalar': lambda b: binary_constant(b, 'Add', (1, 6, 5, 7), (1,)),
    'mul': lambda b: binary(b, 'Mul', (2, 6, 5, 7), (2, 6, 5, 7)),
    'mul_excite': lambda b: binary(b, 'Mul', (2, 6, 5, 7), (2, 6, 1, 1)),
    'concat_channels': lambda b: concat(b, 1),
    'concat_rows': lambda b: concat(b, 2),
    'max_pool': lambda b: shared(b, 'MaxPool', kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    'max_pool_pads': lambda b: shared(b, 'MaxPool', kernel_shape=[3, 2], pads=[1, 0, 1, 1]),
    'average_pool': lambda b: unary(b, 'AveragePool', (0.03, 118), shape=(1, 9, 8, 8),
                                    kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    'average_pool_count_pad': lambda b: unary(b, 'AveragePool', (0.03, 118), shape=(1, 9, 8, 8),
                                              kernel_shape=[3, 3], pads=[1, 1, 1, 1],
                                              count_include_pad=1),
    'global_average_pool': lambda b: unary(b, 'GlobalAveragePool', (0.01, 128), shape=(2, 9, 7, 7)),
    'transpose': lambda b: shared(b, 'Transpose', perm=[0, 2, 3, 1]),
    'transpose_to_channels': lambda b: shared(b, 'Transpose', perm=[0, 3, 1, 2]),
    'reshape': lambda b: shared(b, 'Reshape', [np.array([2, -1, 4], I64)]),
    'squeeze': lambda b: shared(b, 'Squeeze', [np.array([0], I64)]),
    'slice': lambda b: shared(b, 'Slice', [np.array(v, I64) for v in
                                           ([0, 9], [6, 1], [1, 3], [2, -2])]),
    'split': lambda b: shared(b, 'Split', [np.array([1, 3, 2], I64)], n_out=3, axis=1),
    'depth_to_space': lambda b: shared(b, 'DepthToSpace', shape=(1, 12, 5, 4), blocksize=2),
    'depth_to_space_crd': lambda b: shared(b, 'DepthToSpace', shape=(1, 12, 5, 4), blocksize=2,
                                           mode='CRD'),
    'space_to_depth': lambda b: shared(b, 'SpaceToDepth', blocksize=2),
    'pad': lambda b: shared(b, 'Pad', [np.array([0, 1, 2, 3, 0, 0, 1, 2], I64), np.float32(0)]),
    'pad_crop': lambda b: shared(b, 'Pad', [np.array([0, 0, -2, 3, 0, 0, 1, -2], I64),
                                            np.float32(1.2)]),
    'expand': lambda b: shared(b, 'Expand', [np.array([3, 6, 8, 10], I64)]),
    'tile': lambda b: shared(b, 'Tile', [np.array([1, 2, 1, 3], I64)]),
    'gather': lambda b: shared(b, 'Gather', [np.array([[0, 5, 2], [-1, 3, 3]], I64)], axis=1),
    'gather_one': lambda b: shared(b, 'Gather', [np.array(4, I64)], axis=2),
    'resize_nearest': lambda b: shared(b, 'Resize', [None, np.array([1, 1, 2, 2], np.float32)],
                                       mode='nearest', nearest_mode='floor',
                                       coordinate_transformation_mode='asymmetric'),
    'resize_nearest_odd': lambda b: shared(b, 'Resize', [None, None, np.array([1, 6, 5, 13], I64)],
                                           mode='nearest'),
    'relu_alone': lambda b: unary(b, 'Relu', (0.04, 117)),
    'leaky_relu': lambda b: unary(b, 'LeakyRelu', (0.03, 20), alpha=0.1),
    'neg': lambda b: unary(b, 'Neg', (0.05, 140)),
    'abs': lambda b: unary(b, 'Abs', (0.03, 0)),
    'sigmoid': lambda b: unary(b, 'Sigmoid', (1 / 256, 0)),
}
CLOSE = {  # float32 between the pairs there, or another approximation: at most one code
    'conv_1d': lambda b: conv(b, (2, 8, 31), 12, (5,), strides=[2], pads=[2, 1]),
    'conv_transpose': lambda b: conv_transpose(b, strides=[2, 2], pads=[1, 1, 1, 1]),
    'conv_transpose_output_padding': lambda b: conv_transpose(b, strides=[2, 3],
                                                              output_padding=[1, 2]),
    'add_channel': lambda b: binary_constant(b, 'Add', (1, 6, 5, 7), (6, 1, 1)),
    'add_full_constant': lambda b: binary_constant(b, 'Add', (2, 6, 5, 7), (6, 5, 7)),
    'add_rows': lambda b: binary(b, 'Add', (2, 6, 5, 7), (7,)),
    'add_both': lambda b: binary(b, 'Add', (2, 1, 5, 7), (1, 6, 1, 7)),
    'mul_first_repeats': lambda b: binary(b, 'Mul', (1, 6, 1, 1), (2, 6, 5, 7)),
    'sub': lambda b: binary(b, 'Sub', (2, 6, 5, 7), (2, 6, 5, 7)),
    'sub_first_repeats': lambda b: binary(b, 'Sub', (6, 1, 1), (2, 6, 5, 7)),
    'div_scalar': lambda b: scalar(b, 'Div', 2.5, (0.02, 110)),
    'scalar_div': lambda b: scalar(b, 'Div', 2.5, (0.02, 10), x=(0.01, 2), first=True),
    'pow_scalar': lambda b: scalar(b, 'Pow', 2, (0.1, 0)),
    'min_scalar': lambda b: scalar(b, 'Min', 0.7, (0.03, 120)),
    'max_scalar': lambda b: scalar(b, 'Max', 0.7, (0.03, 20), first=True),
    'sub_scalar': lambda b: scalar(b, 'Sub', 0.7, (0.05, 120), first=True),
    'mul_scalar': lambda b: scalar(b, 'Mul', 0.5, (0.02, 117)),
    'tanh': lambda b: unary(b, 'Tanh', (2 / 255, 127)),
    'hard_swish': lambda b: unary(b, 'HardSwish', (0.03, 20)),
    'hard_sigmoid': lambda b: unary(b, 'HardSigmoid', (1 / 255, 0)),
    'elu': lambda b: unary(b, 'Elu', (0.03, 50)),
    'erf': lambda b: unary(b, 'Erf', (2 / 255, 127)),
    'exp': lambda b: unary(b, 'Exp', (0.5, 0)),
    'softmax': lambda b: unary(b, 'Softmax', (1 / 256, 0), axis=-1),
    'reduce_mean': lambda b: unary(b, 'ReduceMean', (0.01, 128), axes=[2, 3], keepdims=0),
    'resize_linear': lambda b: shared(b, 'Resize', [None, None, np.array([1, 6, 13, 17], I64)],
                                      mode='linear'),
    'resize_align_corners': lambda b: shared(b, 'Resize',
                                             [None, np.array([1, 1, 2.5, 1.5], np.float32)],
                                             mode='linear',
                                             coordinate_transformation_mode='align_corners'),
}


VIEWS = ['reshape', 'squeeze', 'transpose_to_channels']  # no step at all


def check_operator(name, make, tmp_path, exact):
    for seed in range(3):
        b = Builder(seed, opset=14 if name == 'hard_swish' else 13)
        outputs = make(b)
        path = tmp_path / 'm.onnx'
        b.save(path, outputs)
        feeds = b.feeds()
        ours, lines = run_engine(tmp_path, path, feeds)
        assert not islands(lines), islands(lines)
        assert any('step\tint' in line for line in lines) or name in VIEWS
        theirs = optimized(path).run(None, feeds)
        for output, mine, other in zip(outputs, ours, theirs):
            assert mine.shape == other.shape
            assert np.ptp(other) > 0, 'the case says nothing'
            if exact:
                assert util.same_array(mine, other), f'{np.sum(mine != other)} differ'
            else:
                assert np.max(np.abs(mine - other)) <= 1.001 * b.scales[output]
        for level in filter(can_run, LEVELS):
            again, _ = run_engine(tmp_path, path, feeds, threads=1, level=level)
            assert all(util.same_array(a, c) for a, c in zip(ours, again)), level


@pytest.mark.parametrize('name', EXACT)
def test_operator_gives_the_same_bytes(name, tmp_path):
    check_operator(name, EXACT[name], tmp_path, has_vnni())


@pytest.mark.parametrize('name', CLOSE)
def test_operator_is_close(name, tmp_path):
    check_operator(name, CLOSE[name], tmp_path, False)


@pytest.mark.parametrize('kind', [np.uint8, np.int8])
def test_codes_at_the_border(kind, tmp_path):
    """Inputs and outputs that are themselves 8-bit, an output that is also used inside."""
    b = Builder(4)
    zero = 100 if kind is np.uint8 else -28
    s, z = b.constant(np.float32(0.04)), b.constant(kind(zero))
    x = b.node('DequantizeLinear', ['x', s, z])
    w, scales = b.weights((6, 4, 3, 3), 0)
    y = b.node('QuantizeLinear', [b.node('Conv', [x, w, b.bias(scales)]), s, z])
    last = b.node('MaxPool', [b.node('DequantizeLinear', [y, s, z])], kernel_shape=[2, 2])
    last = b.node('QuantizeLinear', [last, s, z])
    code = TensorProto.UINT8 if kind is np.uint8 else TensorProto.INT8
    graph = helper.make_graph(
        b.nodes, 'g', [helper.make_tensor_value_info('x', code, [1, 4, 7, 9])],
        [helper.make_tensor_value_info(o, code, None) for o in (y, last)], b.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)])
    model.ir_version = 8
    onnx.save(model, tmp_path / 'm.onnx')
    limits = np.iinfo(kind)
    feeds = {'x': b.rng.integers(limits.min, limits.max + 1, (1, 4, 7, 9)).astype(kind)}
    ours, lines = run_engine(tmp_path, tmp_path / 'm.onnx', feeds)
    assert not islands(lines)
    assert not any('quantize' in line for line in lines)
    theirs = optimized(tmp_path / 'm.onnx').run(None, feeds)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype == kind and mine.shape == other.shape
        assert np.max(np.abs(mine.astype(int) - other)) <= (0 if has_vnni() else 1)


def test_what_has_no_integer_kernel_is_named(tmp_path):
    b = Builder(1)
    outputs = unary(b, 'Softmax', (1 / 256, 0), axis=1)
    outputs.append(b.node('Sigmoid', [outputs[0]]))
    b.save(tmp_path / 'm.onnx', outputs)
    _, lines = run_engine(tmp_path, tmp_path / 'm.onnx', b.feeds())
    assert ['Softmax' in line for line in islands(lines)] == [True, False]
    assert 'innermost' in islands(lines)[0] and 'not quantized' in islands(lines)[1]


# --- networks ------------------------------------------------------------------------------------

FLOAT = ['cifar10_resnet20_akamaster', 'cifar10_resnet32_akamaster', 'cifar10_resnet44_akamaster',
         'cifar10_resnet56_akamaster', 'mlperf_tiny_ad01_autoencoder', 'mlperf_tiny_ic_resnet8',
         'mlperf_tiny_kws_dscnn', 'mlperf_tiny_vww_mobilenetv1_025_96',
         'mobilenet_v1_0.25_224_imagenet', 'mobilenetv2_imagenet', 'squeezenet1.1_imagenet',
         'super_resolution_x3', 'ultraface/version-RFB-320', 'ultraface/version-RFB-640',
         'ultraface/version-RFB-320_simplified',
         'ultraface/version-slim-320_without_postprocessing',
         'yunet/yunet_n_320_320', 'yunet/yunet_n_dynamic', 'yunet/yunet_s_320_320']
QUANTIZED = ['cifar10_resnet20_akamaster', 'mlperf_tiny_ic_resnet8', 'mlperf_tiny_kws_dscnn',
             'mlperf_tiny_vww_mobilenetv1_025_96', 'mobilenet_v1_0.25_224_imagenet',
             'mobilenetv2_imagenet', 'squeezenet1.1_imagenet', 'super_resolution_x3']


def random_feeds(session, seed, batch):
    """Images in 0..255 for the detectors, which expect them; other inputs are normal."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for i in session.get_inputs():
        shape = [d if isinstance(d, int) else 96 for d in i.shape]
        if not isinstance(i.shape[0], int):
            shape[0] = batch
        feeds[i.name] = rng.standard_normal(shape).astype(np.float32)
    return feeds


def model_path(name):
    path = util.shared_folder() / 'models' / f'{name}.onnx'
    if not path.exists():
        pytest.skip(f'{path} is not there')
    return path


@pytest.mark.parametrize('name', FLOAT)
def test_float_network(name, tmp_path):
    path = model_path(name)
    session = util.session(path)
    feeds = random_feeds(session, 0, 2)
    if name.startswith('yunet'):  # its scores are tiny on noise, below the other side's accuracy
        feeds = {k: 128 + 50 * x for k, x in feeds.items()}
    ours, lines = run_engine(tmp_path, path, feeds)
    assert not islands(lines)
    for mine, other in zip(ours, session.run(None, feeds), strict=True):
        assert mine.shape == other.shape
        assert np.max(np.abs(mine - other)) <= 1e-4 * np.max(np.abs(other))


class Calibration:
    def __init__(self, feeds):
        self.feeds = iter(feeds)

    def get_next(self):
        return next(self.feeds, None)


def quantize(source, target):
    """ONNX Runtime's static quantization, calibrated on noise."""
    quantization = pytest.importorskip('onnxruntime.quantization')
    from onnxruntime.quantization.shape_inference import quant_pre_process
    quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
    session = util.session(target)
    quantization.quantize_static(
        str(target), str(target), Calibration([random_feeds(session, k, 1) for k in range(4)]),
        quant_format=quantization.QuantFormat.QDQ, per_channel=True,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8)


def to_int8(model):
    """The same model with int8 activations: zero points less 128."""
    constants = {t.name: t for t in model.graph.initializer}
    for n in model.graph.node:
        if n.op_type in ('QuantizeLinear', 'DequantizeLinear') and len(n.input) > 2:
            z = constants[n.input[2]]
            if z.data_type == TensorProto.UINT8:
                value = numpy_helper.to_array(z).astype(np.int32) - 128
                z.CopyFrom(numpy_helper.from_array(value.astype(np.int8), z.name))
    del model.graph.value_info[:]
    return model


@pytest.mark.parametrize('name', QUANTIZED)
def test_quantized_network(name, tmp_path):
    path = tmp_path / 'int8.onnx'
    quantize(model_path(name), path)
    session = optimized(path)
    feeds = random_feeds(session, 100, 2)
    ours, lines = run_engine(tmp_path, path, feeds)
    left = [line for line in islands(lines) if 'DepthToSpace' not in line]
    assert not left, left  # ONNX Runtime leaves an operator at a graph's end without a pair
    assert not any('\teval\t' in line for line in lines)
    macs = [line.split('\t')[1:] for line in lines if line.startswith('macs')][0]
    assert macs[0] == macs[1] != '0'
    if has_vnni():
        for mine, other in zip(ours, session.run(None, feeds), strict=True):
            assert util.same_array(mine, other), f'{np.sum(mine != other)} of {mine.size} differ'
    for threads, level in [(1, None), (3, None)] + [(2, v) for v in filter(can_run, LEVELS)]:
        again, _ = run_engine(tmp_path, path, feeds, threads, level)
        assert all(util.same_array(a, b) for a, b in zip(ours, again)), (threads, level)
    onnx.save(to_int8(onnx.load(path)), path)
    again, _ = run_engine(tmp_path, path, feeds)
    assert all(util.same_array(a, b) for a, b in zip(ours, again))
