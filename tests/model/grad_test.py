"""Gradients of the operators beside PyTorch's autograd, kinks and ties included.

RUNG_OP_GRAD names the tool tests/unit/op_grad.c: dL/dinputs of a model of one node whose operands
are constants, dL/doutput i being the constant grad_i.
"""
import subprocess

import pytest

np = pytest.importorskip('numpy')
onnx = pytest.importorskip('onnx')
torch = pytest.importorskip('torch', reason='PyTorch is not installed')

from onnx import helper, numpy_helper  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from util import program  # noqa: E402

EPS = np.finfo(np.float32).eps


def rng_of(text):
    return np.random.default_rng(list(text.encode()))


def rung_grads(op, inputs, grads, attrs, version, folder):
    """dL/dinput by operand, None where it has none. inputs: None for absent ones."""
    names = ['' if x is None else f'in_{i}' for i, x in enumerate(inputs)]
    outs = [f'out_{i}' for i in range(len(grads))]
    node = helper.make_node(op, names, outs, **attrs)
    constants = [numpy_helper.from_array(x, n) for x, n in zip(inputs, names) if x is not None]
    constants += [numpy_helper.from_array(g, f'grad_{i}') for i, g in enumerate(grads)]
    shapes = [helper.make_tensor_value_info(o, onnx.TensorProto.FLOAT, None) for o in outs]
    graph = helper.make_graph([node], 'one', [], shapes, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', version)])
    onnx.save(model, folder / 'model.onnx')
    result = subprocess.run([program('RUNG_OP_GRAD'), folder / 'model.onnx', folder],
                            capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    paths = [folder / f'{i}.npy' for i in range(len(inputs))]
    return [np.load(p) if p.exists() else None for p in paths]


def check(op, inputs, forward, folder, version=18, checked=None, **attrs):
    """Every float operand (checked: only these) against float64 autograd of forward(*operands)."""
    rng = rng_of(op + repr(sorted(attrs)))
    inputs = [x if x is None else np.asarray(x) for x in inputs]
    float_at = [i for i, x in enumerate(inputs) if x is not None and x.dtype == np.float32]
    checked = float_at if checked is None else checked
    tensors = [None if x is None else torch.tensor(x) for x in inputs]
    for i in float_at:
        tensors[i] = tensors[i].double().requires_grad_(i in checked)
    outs = forward(*tensors)
    outs = list(outs) if isinstance(outs, (tuple, list)) else [outs]
    grads = [rng.integers(-8, 9, o.shape).astype(np.float32) / 8 for o in outs]
    sum((o * torch.tensor(g).double()).sum() for o, g in zip(outs, grads)).backward()
    got = rung_grads(op, inputs, grads, attrs, version, folder)
    terms = 32 + sum(g.size for g in grads)  # a sum of float32 terms, each of a few roundings
    for i in checked:
        want = tensors[i].grad.numpy() if tensors[i].grad is not None else np.zeros(inputs[i].shape)
        most = max([np.abs(want).max()] + [np.abs(g).max() for g in grads])
        assert got[i].shape == want.shape
        np.testing.assert_allclose(got[i], want, rtol=0, atol=terms * EPS * most,
                                   err_msg=f'{op} input {i}')


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


# --- convolutions and products -------------------------------------------------------------------

CONVS = [  # x, weight, group, stride, dilation, pads
    ((2, 8, 14, 13), (16, 8, 3, 3), 1, (1, 1), (1, 1), (1, 1)),
    ((2, 8, 15, 14), (16, 8, 3, 3), 1, (2, 2), (1, 1), (1, 1)),
    ((2, 12, 9, 11), (12, 1, 3, 3), 12, (2, 1), (1, 1), (1, 1)),
    ((1, 6, 12, 10), (9, 2, 3, 5), 3, (1, 2), (2, 1), (2, 0)),
    ((3, 16, 7, 7), (8, 16, 1, 1), 1, (1, 1), (1, 1), (0, 0)),
]


@pytest.mark.parametrize('case', CONVS, ids=str)
def test_conv(case, tmp_path):
    shape, weight, group, stride, dilation, pad = case
    rng = rng_of(repr(case))
    check('Conv', [normal(rng, *shape), normal(rng, *weight), normal(rng, weight[0])],
          lambda x, w, b: F.conv2d(x, w, b, stride, pad, dilation, group), tmp_path,
          group=group, strides=stride, dilations=dilation, pads=pad + pad)


@pytest.mark.parametrize('group', [1, 2])
def test_conv_transpose(group, tmp_path):
    rng = rng_of(f'transposed {group}')
    check('ConvTranspose', [normal(rng, 2, 6, 5, 4), normal(rng, 6, 4, 3, 3),
                            normal(rng, 4 * group)],
          lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1, group), tmp_path,
          group=group, strides=(2, 2), pads=(1, 1, 1, 1), output_padding=(1, 1))


def test_gemm_and_matmul(tmp_path):
    rng = rng_of('products')
    check('Gemm', [normal(rng, 7, 30), normal(rng, 10, 30), normal(rng, 10)],
          lambda x, w, b: x @ w.T * 0.5 + 2 * b, tmp_path, transB=1, alpha=0.5, beta=2.0)
    check('MatMul', [normal(rng, 2, 4, 9, 16), normal(rng, 2, 4, 16, 9)],
          lambda a, b: a @ b, tmp_path)
    check('MatMul', [normal(rng, 3, 5, 16), normal(rng, 16, 12)], lambda a, b: a @ b, tmp_path)


# --- functions of one element: random numbers, and the places of kinks ---------------------------

KINKS = np.array([-6, -3, -1, 0, 1, 3, 6], np.float32)
FUNCTIONS = [
    ('Abs', torch.abs, {}), ('Celu', lambda x: F.celu(x, 0.5), {'alpha': 0.5}),
    ('Elu', lambda x: F.elu(x, 0.5), {'alpha': 0.5}), ('Erf', torch.erf, {}),
    ('Exp', torch.exp, {}), ('Gelu', F.gelu, {}),
    ('Gelu', lambda x: F.gelu(x, approximate='tanh'), {'approximate': 'tanh'}),
    ('HardSigmoid', F.hardsigmoid, {'alpha': 1 / 6, 'beta': 0.5}),
    ('HardSwish', F.hardswish, {}), ('LeakyRelu', lambda x: F.leaky_relu(x, 0.25), {'alpha': 0.25}),
    ('Mish', F.mish, {}), ('Neg', torch.neg, {}), ('Relu', F.relu, {}), ('Selu', F.selu, {}),
    ('Sigmoid', torch.sigmoid, {}), ('Sign', torch.sign, {}), ('Softplus', F.softplus, {}),
    ('Softsign', F.softsign, {}), ('Tanh', torch.tanh, {}), ('Round', torch.round, {}),
]


@pytest.mark.parametrize('op, forward, attrs', FUNCTIONS,
                         ids=[f'{f[0]}{sorted(f[2])}' for f in FUNCTIONS])
def test_function(op, forward, attrs, tmp_path):
    x = np.concatenate([normal(rng_of(op), 200) * 3, KINKS])
    if op == 'HardSigmoid':  # alpha = 1/6 in float32 puts the kinks beside 3 and -3
        x = x[:200]
    check(op, [x], forward, tmp_path, version=22, **attrs)


def test_functions_of_positive_numbers(tmp_path):
    x = np.abs(normal(rng_of('positive'), 100)) + 0.1
    for op, forward in ('Log', torch.log), ('Sqrt', torch.sqrt), ('Reciprocal', torch.reciprocal):
        check(op, [x], forward, tmp_path)


# --- several operands ----------------------------------------------------------------------------

@pytest.mark.parametrize('shape', [(3, 4, 5), (4, 1), (5,), ()], ids=str)
def test_broadcast(shape, tmp_path):
    rng = rng_of(repr(shape))
    x, y = normal(rng, 3, 4, 5), normal(rng, *shape)
    y = np.asarray(np.sign(y) * (np.abs(y) + 0.2), np.float32)
    for op, forward in (('Add', torch.add), ('Sub', torch.sub), ('Mul', torch.mul),
                        ('Div', torch.div), ('Max', torch.maximum), ('Min', torch.minimum)):
        check(op, [x, y], forward, tmp_path)
    check('Pow', [np.abs(x) + np.float32(0.1), y], torch.pow, tmp_path)


def test_ties_of_operands(tmp_path):
    x, y = np.float32([1, 2, 3, 3]), np.float32([1, 2, 4, 0])
    check('Max', [x, y], torch.maximum, tmp_path)
    check('Min', [x, y], torch.minimum, tmp_path)


def test_pow_at_zero(tmp_path):
    check('Pow', [np.float32([0, 0, 0, 2]), np.float32([0, 1, 2, 0])], torch.pow, tmp_path)


def test_clip(tmp_path):
    # away from the bounds: at them PyTorch gives half where they are tensors, 0 where numbers
    x = np.float32([-2, -1, -0.5, 0, 0.5, 1, 2])
    check('Clip', [x, np.float32(-0.7), np.float32(0.7)], torch.clamp, tmp_path)
    check('Clip', [x, np.float32(0.7)], lambda v, lo: torch.clamp(v, min=lo), tmp_path)


def test_prelu_and_where(tmp_path):
    rng = rng_of('prelu')
    x = normal(rng, 2, 3, 4, 4)
    x[0, 0] = 0
    check('PRelu', [x, normal(rng, 3, 1, 1)], lambda v, s: F.prelu(v, s.reshape(3)), tmp_path)
    check('Where', [rng.random((3, 1)) < 0.5, normal(rng, 3, 4), normal(rng, 4)], torch.where,
          tmp_path)


# --- pools ---------------------------------------------------------------------------------------

def test_pools(tmp_path):
    x = normal(rng_of('pools'), 2, 3, 13, 12)
    relu = np.maximum(x, 0)  # with ties
    window = dict(kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    for v in x, relu:
        check('MaxPool', [v], lambda t: F.max_pool2d(t, 3, 2, 1), tmp_path, **window)
        check('GlobalMaxPool', [v], lambda t: F.adaptive_max_pool2d(t, 1), tmp_path)
    for count in 0, 1:
        check('AveragePool', [x], lambda t: F.avg_pool2d(t, 3, 2, 1, False, bool(count)), tmp_path,
              count_include_pad=count, **window)
    check('GlobalAveragePool', [x], lambda t: F.adaptive_avg_pool2d(t, 1), tmp_path)


# --- normalizations, reductions ------------------------------------------------------------------

def test_normalizations(tmp_path):
    rng = rng_of('norms')
    x, s, b = normal(rng, 4, 6, 5, 5), normal(rng, 6), normal(rng, 6)
    mean, var = normal(rng, 6), np.abs(normal(rng, 6)) + 0.5
    check('BatchNormalization', [x, s, b, mean, var],
          lambda v, s, b, m, q: F.batch_norm(v, m.detach(), q.detach(), s, b, False, 0, 1e-3),
          tmp_path, checked=[0, 1, 2], epsilon=1e-3)
    check('InstanceNormalization', [x, s, b],
          lambda v, s, b: F.instance_norm(v, None, None, s, b, True, 0.1, 1e-3), tmp_path,
          epsilon=1e-3)
    check('GroupNormalization', [x, s, b], lambda v, s, b: F.group_norm(v, 3, s, b, 1e-3),
          tmp_path, version=21, num_groups=3, epsilon=1e-3)
    y = normal(rng, 3, 7, 24)
    check('LayerNormalization', [y, normal(rng, 24), normal(rng, 24)],
          lambda v, s, b: F.layer_norm(v, (24,), s, b, 1e-5), tmp_path, epsilon=1e-5)
    check('RMSNormalization', [y, normal(rng, 24)], lambda v, s: F.rms_norm(v, (24,), s, 1e-5),
          tmp_path, version=23, epsilon=1e-5)
    check('LRN', [x], lambda v: F.local_response_norm(v, 3, 0.5, 0.75, 1.5), tmp_path, size=3,
          alpha=0.5, beta=0.75, bias=1.5)


def test_softmax(tmp_path):
    x = normal(rng_of('softmax'), 3, 5, 11)
    for axis in -1, 1:
        check('Softmax', [x], lambda v: F.softmax(v, axis), tmp_path, axis=axis)
        check('LogSoftmax', [x], lambda v: F.log_softmax(v, axis), tmp_path, axis=axis)


def test_reductions(tmp_path):
    x = normal(rng_of('reductions'), 2, 3, 4, 5)
    x[0, 0, :2] = 2.5  # ties of the maximum
    x[1, 0, 1, 2] = 0
    axes = np.int64([1, 2])
    for op, forward in (('ReduceMean', torch.mean), ('ReduceSum', torch.sum),
                        ('ReduceMax', torch.amax), ('ReduceMin', torch.amin),
                        ('ReduceLogSumExp', torch.logsumexp)):
        check(op, [x, axes], lambda v, a: forward(v, (1, 2), True), tmp_path)
    check('ReduceL2', [x, axes], lambda v, a: torch.linalg.vector_norm(v, 2, (1, 2)), tmp_path,
          keepdims=0)
    check('ReduceL1', [x, axes], lambda v, a: v.abs().sum((1, 2)), tmp_path, keepdims=0)
    check('ReduceProd', [x[..., 0], np.int64([2])], lambda v, a: v.prod(2), tmp_path, keepdims=0)


# --- moves ---------------------------------------------------------------------------------------

def test_moves(tmp_path):
    rng = rng_of('moves')
    x = normal(rng, 2, 8, 4, 6)
    check('Transpose', [x], lambda v: v.permute(0, 2, 3, 1), tmp_path, perm=(0, 2, 3, 1))
    check('Concat', [x, x[:, :3]], lambda a, b: torch.cat((a, b), 1), tmp_path, axis=1)
    check('Split', [x, np.int64([1, 5, 2])], lambda v, s: torch.split(v, (1, 5, 2), 1), tmp_path,
          axis=1)
    check('Slice', [x, np.int64([1, 0]), np.int64([7, 6]), np.int64([1, 3]), np.int64([2, 3])],
          lambda v, *_: v[:, 1:7:2, :, 0:6:3], tmp_path)
    check('Pad', [x, np.int64([0, 0, 1, 2, 0, 0, 3, 1])], lambda v, p: F.pad(v, (2, 1, 1, 3)),
          tmp_path)
    for mode, name in ('reflect', 'reflect'), ('edge', 'replicate'):
        check('Pad', [x, np.int64([0, 0, 1, 2, 0, 0, 3, 1])],
              lambda v, p: F.pad(v, (2, 1, 1, 3), name), tmp_path, mode=mode)
    check('DepthToSpace', [x], lambda v: F.pixel_shuffle(v, 2), tmp_path, blocksize=2, mode='CRD')
    check('Expand', [x[:, :1], np.int64([2, 5, 4, 6])], lambda v, s: v.expand(2, 5, 4, 6), tmp_path)
    check('Gather', [normal(rng, 20, 7), np.int64([[3, 3, 0], [19, 3, 5]])],
          lambda w, i: F.embedding(i, w), tmp_path)
    check('GatherElements', [x[0, 0], np.int64([[0, 0, 1], [3, 0, 1]])],
          lambda v, i: torch.gather(v, 0, i), tmp_path)
    check('CumSum', [x, np.int64(1)], lambda v, a: torch.cumsum(v, 1), tmp_path)


def test_resize(tmp_path):
    x = normal(rng_of('resize'), 2, 3, 5, 6)
    size = np.int64([2, 3, 10, 9])
    check('Resize', [x, None, None, size], lambda v, *_: F.interpolate(v, (10, 9)), tmp_path,
          mode='nearest', coordinate_transformation_mode='asymmetric', nearest_mode='floor')
    for corners, name in (False, 'pytorch_half_pixel'), (True, 'align_corners'):
        for mode, way in ('linear', 'bilinear'), ('cubic', 'bicubic'):
            check('Resize', [x, None, None, size],
                  lambda v, *_: F.interpolate(v, (10, 9), mode=way, align_corners=corners),
                  tmp_path, mode=mode, coordinate_transformation_mode=name)
