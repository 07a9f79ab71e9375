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
