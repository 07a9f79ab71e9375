"""The tape on real networks: gradients beside PyTorch's autograd of the same graph, and outputs in
quantization-aware training beside those of the converted model.

RUNG_TRAIN_RUN names the tool tests/unit/train_run.c. Where a bound is needed, PyTorch's own float32
gradients are held beside its float64 ones: ours may be off by a few times as much.
"""
import pytest

np = pytest.importorskip('numpy')
onnx = pytest.importorskip('onnx')

from onnx import numpy_helper  # noqa: E402

from util import program, run, shared_folder  # noqa: E402


def model_path(name):
    path = shared_folder() / 'models' / name
    if not path.exists():
        pytest.skip(f'{name} is not there')
    return path


# --- a small interpreter of ONNX in PyTorch -------------------------------------------------------

def conv(F, x, w, b=None, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), group=1, **_):
    x = F.pad(x, (pads[1], pads[3], pads[0], pads[2]))
    return F.conv2d(x, w, b, tuple(strides), 0, tuple(dilations), group)


def slices(x, starts, ends, axes=None, steps=None):
    axes = range(len(starts)) if axes is None else axes.tolist()
    steps = [1] * len(starts) if steps is None else steps.tolist()
    at = [slice(None)] * x.dim()
    for begin, end, axis, step in zip(starts.tolist(), ends.tolist(), axes, steps):
        at[axis] = slice(begin, min(end, 1 << 60), step)
    return x[tuple(at)]


def pad(torch, x, pads, value=None):
    pads = pads.tolist()
    half = len(pads) // 2
    ends = [p for i in reversed(range(half)) for p in (pads[i], pads[half + i])]
    return torch.nn.functional.pad(x, ends, value=0.0 if value is None else float(value))


def operators(torch, train):
    F = torch.nn.functional

    def batch_norm(x, scale, shift, mean, var, epsilon=1e-5, momentum=0.9, **_):
        if not train:
            return F.batch_norm(x, mean.detach(), var.detach(), scale, shift, False, 0, epsilon)
        return F.batch_norm(x, None, None, scale, shift, True, 0, epsilon)

    def gemm(a, b, c=None, alpha=1.0, beta=1.0, transA=0, transB=0):
        y = alpha * ((a.T if transA else a) @ (b.T if transB else b))
        return y if c is None else y + beta * c

    def reshape(x, shape):
        dims = [x.shape[i] if d == 0 else d for i, d in enumerate(shape.tolist())]
        return x.reshape(dims)

    def unsqueeze(x, axes):
        for axis in sorted(axes.tolist()):
            x = x.unsqueeze(axis)
        return x

    return {
        'Add': lambda a, b: a + b, 'Sub': lambda a, b: a - b, 'Mul': lambda a, b: a * b,
        'Div': lambda a, b: a / b, 'Pow': lambda a, b: a ** b, 'MatMul': lambda a, b: a @ b,
        'Relu': F.relu, 'Erf': torch.erf, 'Sqrt': torch.sqrt, 'Identity': lambda x: x,
        'Conv': lambda *x, **a: conv(F, *x, **a), 'BatchNormalization': batch_norm, 'Gemm': gemm,
        'Clip': lambda x, lo=None, hi=None: torch.clamp(x, lo, hi),
        'Concat': lambda *x, axis: torch.cat(x, axis), 'Reshape': reshape,
        'Flatten': lambda x, axis=1: x.flatten(axis), 'Unsqueeze': unsqueeze,
        'Gather': lambda x, i, axis=0: x.index_select(axis, i.reshape(-1)).reshape(
            x.shape[:axis] + i.shape + x.shape[axis + 1:]),
        'GlobalAveragePool': lambda x: x.mean((2, 3), keepdim=True),
        'ReduceMean': lambda x, axes, keepdims=1: x.mean(axes, keepdim=bool(keepdims)),
        'Pad': lambda x, p, v=None, mode='constant': pad(torch, x, p, v),
        'Shape': lambda x: torch.tensor(x.shape), 'Slice': slices,
        'Softmax': lambda x, axis=-1: x.softmax(axis),
        'Transpose': lambda x, perm: x.permute(perm),
    }


def forward(torch, model, feeds, weights, train):
    """Outputs; weights: tensors by initializer name."""
    table = operators(torch, train)
    values = {'': None, **feeds, **weights}
    for node in model.graph.node:
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        attrs = {k: v.decode() if isinstance(v, bytes) else v for k, v in attrs.items()}
        if node.op_type == 'Constant':
            value = torch.tensor(numpy_helper.to_array(attrs['value']))
            dtype = next(v.dtype for v in weights.values() if v.is_floating_point())
            values[node.output[0]] = value.to(dtype) if value.is_floating_point() else value
            continue
        values[node.output[0]] = table[node.op_type](*(values[i] for i in node.input), **attrs)
    return [values[o.name] for o in model.graph.output]


def torch_gradients(torch, model, feeds, grads, dtype, train):
    weights = {}
    for t in model.graph.initializer:
        value = torch.tensor(numpy_helper.to_array(t))
        weights[t.name] = value.to(dtype).requires_grad_() if value.is_floating_point() else value
    inputs = {k: torch.tensor(v).to(dtype) if v.dtype == np.float32 else torch.tensor(v)
              for k, v in feeds.items()}
    ys = forward(torch, model, inputs, weights, train)
    sum((y * torch.tensor(g).to(dtype)).sum() for y, g in zip(ys, grads)).backward()
    return ([y.detach().numpy() for y in ys],
            {k: w.grad.double().numpy() for k, w in weights.items() if w.grad is not None})


def rung_gradients(model, feeds, grads, mode, folder):
    args = []
    for name, value in feeds.items():
        np.save(folder / f'{name}.npy', value)
        args.append(f'{name}={folder / name}.npy')
    for i, g in enumerate(grads):
        np.save(folder / f'dy_{i}.npy', g)
    lines = run(program('RUNG_TRAIN_RUN'), 'gradients', model, folder, mode, *args).stdout
    found = [line.split('\t') for line in lines.splitlines()]
    return ([np.load(folder / f'y_{i}.npy') for i in range(len(grads))],
            {name: np.load(folder / f'grad_{k}.npy') for kind, k, name in found if kind == 'grad'})


def distance(a, b):
    return np.linalg.norm(a.astype(np.float64) - b) / (np.linalg.norm(b) + 1e-30)


def compare(name, feeds, mode, folder, untrained=()):
    """untrained: weights that rung does not take for parameters."""
    torch = pytest.importorskip('torch', reason='PyTorch is not installed')
    torch.manual_seed(0)
    path = model_path(name)
    model = onnx.load(path)
    train = mode == 'float'
    rng = np.random.default_rng(1)
    shapes, _ = torch_gradients(torch, model, feeds, [np.float32(0)] * len(model.graph.output),
                                torch.float32, train)
    grads = [rng.standard_normal(y.shape).astype(np.float32) for y in shapes]
    ys, want = torch_gradients(torch, model, feeds, grads, torch.float64, train)
    ys32, single = torch_gradients(torch, model, feeds, grads, torch.float32, train)
    got_ys, got = rung_gradients(path, feeds, grads, mode, folder)
    for a, b, c in zip(got_ys, ys32, ys):
        assert distance(a, c) <= 8 * distance(b, c) + 1e-6
    assert {k for k in want if k not in got and np.linalg.norm(want[k]) > 0} == set(untrained)
    # A kink (Relu at 0) that falls otherwise in float32 shows in every gradient behind it.
    bound = 8 * max(distance(single[k], want[k]) for k in got) + 1e-6
    for k in got:
        assert distance(got[k].reshape(want[k].shape), want[k]) <= bound, k


def image(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize('mode', ['float', 'frozen'])
def test_resnet20(mode, tmp_path):
    compare('cifar10_resnet20_akamaster.onnx', {'input': image((4, 3, 32, 32))}, mode, tmp_path)


def test_mobilenet_v1(tmp_path):
    path = model_path('mobilenet_v1_0.25_224_imagenet.onnx')
    name = onnx.load(path).graph.input[0].name
    compare(path.name, {name: image((2, 3, 224, 224))}, 'frozen', tmp_path,
            untrained=['const_0', 'const_6'])  # the bounds of its Clips


def test_albert(tmp_path):
    rng = np.random.default_rng(0)
    mask = np.ones((2, 24), np.float32)
    mask[1, 17:] = 0
    feeds = {'input_ids': rng.integers(0, 500, (2, 24)), 'attention_mask': mask}
    compare('rxnmapper_albert_mlm.onnx', feeds, 'frozen', tmp_path, untrained=['pos'])


@pytest.mark.parametrize('name,shape,bits,steps,observed', [
    ('cifar10_resnet20_akamaster.onnx', (4, 3, 32, 32), 8, 4, None),
    ('cifar10_resnet20_akamaster.onnx', (4, 3, 32, 32), 4, 4, None),
    ('mobilenetv2_imagenet.onnx', (2, 3, 224, 224), 8, 3, None),
    ('mlperf_tiny_kws_dscnn.onnx', (4, 1, 49, 10), 8, 4, None),
    ('cifar10_resnet20_akamaster.onnx', (4, 3, 32, 32), 8, 4, 'x86'),
    ('cifar10_resnet20_akamaster.onnx', (4, 3, 32, 32), 4, 4, 'default'),
    ('mobilenetv2_imagenet.onnx', (2, 3, 224, 224), 8, 3, 'qnnpack'),
    ('mlperf_tiny_kws_dscnn.onnx', (4, 1, 49, 10), 8, 4, 'x86'),
])
def test_outputs_in_training_are_deployed(name, shape, bits, steps, observed, tmp_path):
    """observed: a qconfig whose scales and zero points follow ranges; None: they are learned."""
    np.save(tmp_path / 'x.npy', image(shape, 3))
    lines = run(program('RUNG_TRAIN_RUN'), 'deployed', model_path(name), tmp_path, bits, steps,
                tmp_path / 'x.npy', *([observed] if observed else [])).stdout.splitlines()
    assert lines == [f'step\t{i}\t0' for i in range(steps)]


# --- observed scales ------------------------------------------------------------------------------

BATCH, STEPS = 8, 12


def small_network(path):
    """Conv, Relu, Conv, Relu, Flatten, Gemm; its weights by name."""
    rng = np.random.default_rng(4)
    w = {'w1': rng.standard_normal((8, 3, 3, 3)) / 4, 'b1': rng.standard_normal(8) / 8,
         'w2': rng.standard_normal((4, 8, 3, 3)) / 8, 'b2': rng.standard_normal(4) / 8,
         'w3': rng.standard_normal((5, 144)) / 12, 'b3': rng.standard_normal(5) / 8}
    w = {k: v.astype(np.float32) for k, v in w.items()}
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [make('Conv', ['x', 'w1', 'b1'], ['c1'], kernel_shape=[3, 3]),
             make('Relu', ['c1'], ['r1']),
             make('Conv', ['r1', 'w2', 'b2'], ['c2'], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
             make('Relu', ['c2'], ['r2']), make('Flatten', ['r2'], ['f']),
             make('Gemm', ['f', 'w3', 'b3'], ['y'], transB=1)]
    graph = onnx.helper.make_graph(
        nodes, 'small', [info('x', onnx.TensorProto.FLOAT, ['n', 3, 8, 8])],
        [info('y', onnx.TensorProto.FLOAT, ['n', 5])],
        [numpy_helper.from_array(v, k) for k, v in w.items()])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 13)]), path)
    return w


class Peer:
    """PyTorch's FusedMovingAvgObsFakeQuantize for each pair of the small network, with ranges that
    begin where rung's do. lag: a batch goes through the ranges of those before it, as in rung."""

    def __init__(self, torch, weights, first, preset, lag):
        quantization = torch.ao.quantization
        qconfig = quantization.get_default_qat_qconfig(preset)
        self.torch, self.lag = torch, lag
        self.w = {k: torch.tensor(v) for k, v in weights.items()}
        self.acts = {k: qconfig.activation() for k in ('x', 'r1', 'r2', 'y')}
        self.weights = {k: qconfig.weight() for k in ('w1', 'w2', 'w3')}
        steps = 127 if preset != 'qnnpack' else 255
        for k, q in self.acts.items():
            zero, (scale,) = first[k]
            q.activation_post_process.min_val.copy_(torch.tensor(scale * -zero))
            q.activation_post_process.max_val.copy_(torch.tensor(scale * (steps - zero)))
        for k, q in self.weights.items():
            q(self.w[k])

    def parameters(self, q):
        scale, zero = q.activation_post_process.calculate_qparams()
        return zero.tolist(), scale.tolist()

    def all_parameters(self):
        return {k: self.parameters(q) for k, q in {**self.acts, **self.weights}.items()}

    def see(self, name, x):
        q = self.acts[name]
        if not self.lag:
            return q(x)
        zero, scale = self.parameters(q)
        q.activation_post_process(x)
        # The model that is deployed uses all codes of the type, whatever the range is made for.
        return self.torch.fake_quantize_per_tensor_affine(x, scale[0], zero[0], 0, 255)

    def weight(self, name):
        q = self.weights[name]
        zero, scale = self.parameters(q)
        make, w = self.torch.tensor, self.w[name]
        if len(scale) == 1:
            return self.torch.fake_quantize_per_tensor_affine(w, scale[0], 0, -128, 127)
        return self.torch.fake_quantize_per_channel_affine(
            w, make(scale), make(zero, dtype=self.torch.int32), 0, -128, 127)

    def step(self, x):
        F, w = self.torch.nn.functional, self.w
        x = self.see('x', self.torch.tensor(x))
        x = self.see('r1', F.relu(F.conv2d(x, self.weight('w1'), w['b1'])))
        x = self.see('r2', F.relu(F.conv2d(x, self.weight('w2'), w['b2'], padding=1)))
        self.see('y', F.linear(x.flatten(1), self.weight('w3'), w['b3']))
        for k, q in self.weights.items():  # rung's grow, and are observed before the next forward
            w[k] = w[k] * np.float32(1.05)
            q.activation_post_process(w[k])


@pytest.mark.parametrize('preset,lag', [('fbgemm', True), ('x86', True), ('qnnpack', True),
                                        ('qnnpack', False)])
def test_observed_as_in_pytorch(preset, lag, tmp_path):
    """Every scale and zero point at every step. In PyTorch's own order, where a batch is counted
    before it is quantized, the ranges of data that is always alike agree to half a code. (Its
    reduced ranges clip more while training than deployed: they are not held beside rung's.)"""
    torch = pytest.importorskip('torch', reason='PyTorch is not installed')
    weights = small_network(tmp_path / 'small.onnx')
    x = np.random.default_rng(7).standard_normal((BATCH * STEPS, 3, 8, 8)).astype(np.float32)
    if lag:  # growing data, so that ranges move
        x *= np.repeat(np.linspace(1, 3, STEPS, dtype=np.float32), BATCH).reshape(-1, 1, 1, 1)
    np.save(tmp_path / 'x.npy', x)
    found = [{} for _ in range(STEPS + 1)]
    for line in run(program('RUNG_TRAIN_RUN'), 'observed', tmp_path / 'small.onnx', tmp_path,
                    preset, BATCH, tmp_path / 'x.npy').stdout.splitlines():
        step, name, zero, scales = line.split('\t')
        name = name.removesuffix('_float')  # of an output, before its pair
        found[int(step)][name] = float(zero), [float(s) for s in scales.split()]
    peer = Peer(torch, weights, found[0], preset, lag)
    bound = 1e-4 if lag else 0.5 / 255
    for step, pairs in enumerate(found):
        want = peer.all_parameters()
        assert set(want) <= set(pairs)
        for name, (zero, scale) in want.items():
            np.testing.assert_allclose(pairs[name][1], scale, rtol=bound, err_msg=f'{step} {name}')
            assert abs(pairs[name][0] - zero[0]) <= (1 if step and name in peer.acts else 0)
        if step < STEPS:
            peer.step(x[step * BATCH:(step + 1) * BATCH])
    moved = [found[STEPS][k][1][0] / found[0][k][1][0] - 1 for k in pairs]
    assert max(moved) > 0.02
