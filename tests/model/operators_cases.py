"""Random attributes and shapes, operator by operator: seeded, so every run has the same cases."""
import dataclasses

import numpy as np


@dataclasses.dataclass
class Case:
    op: str
    inputs: list  # None: absent
    attributes: dict
    outputs: int = 1
    opset: int = 21
    name: str = ''


def floats(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def ints(rng, *shape, kind=np.int64, lo=-9, hi=10):
    return rng.integers(lo, hi, shape).astype(kind)


def i64(*v):
    return np.array(v, np.int64)


def dims(rng, rank, lo=1, hi=5):
    return [int(d) for d in rng.integers(lo, hi + 1, rank)]


def pick(rng, items):
    return items[int(rng.integers(len(items)))]


# --- windows -------------------------------------------------------------------------------------

def window(rng, n, size):
    """Kernel, strides, dilations and pads that fit an input of these sizes."""
    kernel = dims(rng, n, 1, 3)
    dilations = dims(rng, n, 1, 2)
    pads = [int(rng.integers(0, k)) for k in kernel * 2]
    for i in range(n):
        size[i] = max(size[i], (kernel[i] - 1) * dilations[i] + 1)
    return {'kernel_shape': kernel, 'strides': dims(rng, n, 1, 3), 'dilations': dilations,
            'pads': pads}


def conv(rng):
    n = pick(rng, [1, 2, 2, 2, 3])
    size = dims(rng, n, 1, 7)
    attributes = window(rng, n, size)
    group, per, out = dims(rng, 3, 1, 3)
    if pick(rng, [0, 0, 1]):
        attributes['dilations'] = [1] * n  # the reference's SAME ignores them
        attributes.pop('pads')
        attributes['auto_pad'] = pick(rng, ['SAME_UPPER', 'SAME_LOWER', 'VALID'])
    x = floats(rng, int(rng.integers(1, 3)), group * per, *size)
    w = floats(rng, group * out, per, *attributes['kernel_shape'])
    bias = pick(rng, [None, floats(rng, group * out)])
    return Case('Conv', [x, w, bias][:2 if bias is None else 3], {**attributes, 'group': group})


def conv_transpose(rng):
    n = pick(rng, [1, 2, 2])
    size = dims(rng, n, 2, 5)
    attributes = window(rng, n, size)
    attributes['pads'] = [0] * (2 * n)
    attributes['output_padding'] = [int(rng.integers(0, s)) for s in attributes['strides']]
    attributes['dilations'] = [1] * n
    cin, cout = dims(rng, 2, 1, 3)
    x = floats(rng, 1, cin, *size)
    w = floats(rng, cin, cout, *attributes['kernel_shape'])
    return Case('ConvTranspose', [x, w, floats(rng, cout)], attributes)


def max_pool(rng):
    n = pick(rng, [1, 2, 2])
    size = dims(rng, n, 2, 9)
    attributes = window(rng, n, size)
    x = floats(rng, *dims(rng, 2, 1, 3), *size)
    return Case('MaxPool', [x], {**attributes, 'ceil_mode': pick(rng, [0, 1])})


def average_pool(rng):
    n = pick(rng, [1, 2, 2])
    size = dims(rng, n, 2, 9)
    attributes = window(rng, n, size)
    attributes['dilations'] = [1] * n
    x = floats(rng, *dims(rng, 2, 1, 3), *size)
    return Case('AveragePool', [x], {**attributes, 'count_include_pad': pick(rng, [0, 1])})


def global_pool(rng):
    x = floats(rng, *dims(rng, pick(rng, [3, 4, 5])))
    return Case(pick(rng, ['GlobalAveragePool', 'GlobalMaxPool']), [x], {})


# --- products ------------------------------------------------------------------------------------

def gemm(rng):
    m, k, n = dims(rng, 3, 1, 6)
    ta, tb = pick(rng, [0, 1]), pick(rng, [0, 1])
    c = pick(rng, [None, floats(rng, n), floats(rng, m, n), floats(rng, m, 1), floats(rng)])
    a, b = floats(rng, *((k, m) if ta else (m, k))), floats(rng, *((n, k) if tb else (k, n)))
    return Case('Gemm', [a, b] + ([] if c is None else [c]),
                {'transA': ta, 'transB': tb, 'alpha': float(rng.uniform(0.5, 2)),
                 'beta': float(rng.uniform(0.5, 2))})


def matmul(rng):
    m, k, n = dims(rng, 3, 1, 5)
    batch = dims(rng, pick(rng, [0, 1, 2]), 1, 3)
    other = [pick(rng, [1, d]) for d in batch][int(rng.integers(0, len(batch) + 1)):]
    a = floats(rng, *pick(rng, [(k,), (m, k), (*batch, m, k)]))
    b = floats(rng, *pick(rng, [(k,), (k, n), (*other, k, n)]))
    return Case('MatMul', [a, b], {})


def matmul_integer(rng):
    m, k, n = dims(rng, 3, 1, 6)
    a = ints(rng, m, k, kind=np.uint8, lo=0, hi=256)
    b = ints(rng, k, n, kind=np.int8, lo=-128, hi=128)
    zero = np.array(rng.integers(0, 256), np.uint8)
    return Case('MatMulInteger', [a, b, zero, np.array(rng.integers(-128, 128), np.int8)], {})


def conv_integer(rng):
    size = dims(rng, 2, 3, 6)
    attributes = window(rng, 2, size)
    attributes['dilations'] = [1, 1]
    x = ints(rng, 1, 2, *size, kind=np.uint8, lo=0, hi=256)
    w = ints(rng, 3, 2, *attributes['kernel_shape'], kind=np.uint8, lo=0, hi=256)
    return Case('ConvInteger', [x, w, np.array(rng.integers(0, 256), np.uint8)], attributes)


# --- elementwise ---------------------------------------------------------------------------------

def broadcast_pair(rng):
    shape = dims(rng, int(rng.integers(0, 5)))
    one = [pick(rng, [1, d]) for d in shape]
    other = [d if o == 1 else pick(rng, [1, d]) for d, o in zip(shape, one)]
    cut = int(rng.integers(0, len(shape) + 1))
    pair = [one, other[cut:]]
    return pair if pick(rng, [0, 1]) else pair[::-1]


def binary(rng):
    op = pick(rng, ['Add', 'Sub', 'Mul', 'Div', 'Less', 'Greater', 'Equal', 'LessOrEqual',
                    'GreaterOrEqual', 'Max', 'Min'])
    a, b = broadcast_pair(rng)
    kind = pick(rng, [np.float32, np.float32, np.int32, np.int64, np.float64])
    if np.issubdtype(kind, np.integer):
        x, y = ints(rng, *a, kind=kind, lo=0), ints(rng, *b, kind=kind, lo=1)
    else:
        x, y = floats(rng, *a).astype(kind), floats(rng, *b).astype(kind)
    return Case(op, [x, y], {})


def where(rng):
    a, b = broadcast_pair(rng)
    return Case('Where', [ints(rng, *a, lo=0, hi=2).astype(bool), floats(rng, *b), floats(rng)], {})


def variadic(rng):
    shape = dims(rng, 3)
    inputs = [floats(rng, *[pick(rng, [1, d]) for d in shape])
              for _ in range(int(rng.integers(1, 5)))]
    return Case(pick(rng, ['Sum', 'Mean', 'Max', 'Min']), inputs, {})


def unary(rng):
    op, lo, hi = pick(rng, [
        ('Abs', -9, 9), ('Ceil', -9, 9), ('Cos', -9, 9), ('Elu', -5, 5), ('Erf', -3, 3),
        ('Exp', -5, 5), ('Floor', -9, 9), ('HardSigmoid', -5, 5), ('HardSwish', -5, 5),
        ('LeakyRelu', -5, 5), ('Log', 0.01, 9), ('Mish', -5, 5), ('Neg', -9, 9),
        ('Reciprocal', 0.1, 9), ('Relu', -9, 9), ('Round', -9, 9), ('Selu', -5, 5),
        ('Sigmoid', -9, 9), ('Sign', -2, 2), ('Sin', -9, 9), ('Softplus', -9, 9),
        ('Softsign', -9, 9), ('Sqrt', 0, 9), ('Tanh', -5, 5), ('Celu', -5, 5), ('Gelu', -5, 5)])
    x = rng.uniform(lo, hi, dims(rng, int(rng.integers(0, 5)))).astype(np.float32)
    alpha = op in ('Elu', 'LeakyRelu', 'Celu', 'HardSigmoid') and pick(rng, [0, 1])
    attributes = {'alpha': float(rng.uniform(0.1, 2))} if alpha else {}
    if op == 'Gelu':
        attributes['approximate'] = pick(rng, ['none', 'tanh'])
    return Case(op, [x], attributes, opset=22)


def clip(rng):
    lo, hi = np.float32(-0.5), np.float32(0.7)
    return Case('Clip', [floats(rng, *dims(rng, 3)), pick(rng, [lo, None]), hi], {})


def prelu(rng):
    shape = dims(rng, 4)
    slope = floats(rng, *pick(rng, [(shape[1], 1, 1), (1,), shape]))
    return Case('PRelu', [floats(rng, *shape), slope], {})


def cast(rng):
    kinds = [(np.float32, 1), (np.int32, 6), (np.int64, 7), (np.float64, 11), (np.float16, 10),
             (np.bool_, 9), (np.uint8, 2), (np.int8, 3)]
    return Case('Cast', [(rng.uniform(0, 100, dims(rng, 3))).astype(pick(rng, kinds)[0])],
                {'to': pick(rng, kinds)[1]})


# --- movement ------------------------------------------------------------------------------------

def anything(rng, shape):
    kind = pick(rng, [np.float32, np.int64, np.uint8, np.float16, np.bool_])
    return rng.integers(0, 100, shape).astype(kind)


def transpose(rng):
    rank = int(rng.integers(1, 6))
    return Case('Transpose', [anything(rng, dims(rng, rank))],
                pick(rng, [{}, {'perm': [int(i) for i in rng.permutation(rank)]}]))


def slice_(rng):
    shape = dims(rng, int(rng.integers(1, 5)), 1, 7)
    n = int(rng.integers(1, len(shape) + 1))
    axes = rng.permutation(len(shape))[:n]
    axes = [int(a - len(shape) if pick(rng, [0, 1]) else a) for a in axes]
    starts, ends = ints(rng, n), ints(rng, n)
    steps = np.array([pick(rng, [1, 2, 3, -1, -2]) for _ in range(n)], np.int64)
    return Case('Slice', [anything(rng, shape), starts, ends, i64(*axes), steps], {})


def concat(rng):
    shape = dims(rng, int(rng.integers(1, 5)))
    axis = int(rng.integers(-len(shape), len(shape)))
    inputs = []
    for _ in range(int(rng.integers(1, 5))):
        shape[axis] = int(rng.integers(0, 4))
        inputs.append(floats(rng, *shape))
    return Case('Concat', inputs, {'axis': axis})


def split(rng):
    shape = dims(rng, int(rng.integers(1, 4)), 1, 7)
    axis = int(rng.integers(0, len(shape)))
    n = int(rng.integers(1, 4))
    cuts = sorted(int(c) for c in rng.integers(0, shape[axis] + 1, n - 1))
    sizes = np.diff([0, *cuts, shape[axis]]).astype(np.int64)
    return Case('Split', [anything(rng, shape), sizes], {'axis': axis}, outputs=n)


def pad(rng):
    shape = dims(rng, int(rng.integers(1, 5)), 2, 5)
    mode = pick(rng, ['constant', 'reflect', 'edge', 'wrap'])
    lo = -1 if mode == 'constant' else 0
    pads = ints(rng, 2 * len(shape), lo=lo, hi=2)
    value = [np.float32(1.5)] if mode == 'constant' else []
    return Case('Pad', [floats(rng, *shape), pads, *value], {'mode': mode})


def tile(rng):
    shape = dims(rng, int(rng.integers(1, 5)))
    return Case('Tile', [anything(rng, shape), ints(rng, len(shape), lo=0, hi=4)], {})


def expand(rng):
    a, b = broadcast_pair(rng)
    return Case('Expand', [floats(rng, *a), i64(*b)], {})


def gather(rng):
    shape = dims(rng, int(rng.integers(1, 4)))
    axis = int(rng.integers(-len(shape), len(shape)))
    index = ints(rng, *dims(rng, int(rng.integers(0, 3))), lo=-shape[axis], hi=shape[axis])
    return Case('Gather', [anything(rng, shape), index], {'axis': axis})


def gather_elements(rng):
    shape = dims(rng, int(rng.integers(1, 4)))
    axis = int(rng.integers(0, len(shape)))
    index_shape = list(shape)
    index_shape[axis] = int(rng.integers(1, 5))
    index = ints(rng, *index_shape, lo=-shape[axis], hi=shape[axis])
    return Case('GatherElements', [anything(rng, shape), index], {'axis': axis})


def blocks(rng):
    b = int(rng.integers(1, 4))
    n, c, h, w = dims(rng, 4, 1, 3)
    if pick(rng, [0, 1]):
        return Case('SpaceToDepth', [floats(rng, n, c, h * b, w * b)], {'blocksize': b})
    return Case('DepthToSpace', [floats(rng, n, c * b * b, h, w)],
                {'blocksize': b, 'mode': pick(rng, ['DCR', 'CRD'])})


def reshape(rng):
    a, b, c = dims(rng, 3)
    shape = pick(rng, [(a * b, c), (-1, c), (0, -1), (0, 0, c), (a, b * c, 1, 1), (-1,)])
    return Case('Reshape', [anything(rng, (a, b, c)), i64(*shape)], {})


def flatten(rng):
    rank = int(rng.integers(1, 5))
    return Case('Flatten', [floats(rng, *dims(rng, rank))],
                {'axis': int(rng.integers(-rank, rank + 1))})


def resize(rng):
    n = pick(rng, [1, 2, 2])
    size = dims(rng, n, 1, 6)
    mode = pick(rng, ['nearest', 'linear', 'linear', 'cubic'])
    attributes = {'mode': mode, 'coordinate_transformation_mode': pick(
        rng, ['half_pixel', 'pytorch_half_pixel', 'align_corners', 'asymmetric'])}
    if mode == 'nearest':
        attributes['nearest_mode'] = pick(
            rng, ['round_prefer_floor', 'round_prefer_ceil', 'floor', 'ceil'])
    # Powers of two: the reference's coordinates are in double, a tie may fall the other way.
    scale = [pick(rng, [0.5, 1, 2, 4]) for _ in range(n)]
    size = [s * 2 for s in size]
    x = floats(rng, 1, 2, *size)
    if pick(rng, [0, 1]):
        return Case('Resize', [x, None, np.array([1, 1, *scale], np.float32)], attributes)
    return Case('Resize', [x, None, None, i64(1, 2, *[int(s * f) for s, f in zip(size, scale)])],
                attributes)


# --- reductions and normalizations ---------------------------------------------------------------

def reduce(rng):
    op = pick(rng, ['ReduceMean', 'ReduceSum', 'ReduceMax', 'ReduceMin', 'ReduceProd', 'ReduceL1',
                    'ReduceL2', 'ReduceSumSquare', 'ReduceLogSumExp'])
    shape = dims(rng, int(rng.integers(1, 5)), 1, 4)
    n = int(rng.integers(1, len(shape) + 1))
    axes = [int(a) - pick(rng, [0, len(shape)]) for a in rng.permutation(len(shape))[:n]]
    keep = {'keepdims': pick(rng, [0, 1])}
    x = floats(rng, *shape)
    if pick(rng, [0, 1]):
        return Case(op, [x, i64(*axes)], keep)
    if op == 'ReduceSum':
        return Case(op, [x], keep)
    return Case(op, [x], {**keep, 'axes': axes}, opset=13)


def arg(rng):
    shape = dims(rng, int(rng.integers(1, 5)), 1, 4)
    return Case(pick(rng, ['ArgMax', 'ArgMin']), [ints(rng, *shape, lo=0, hi=4).astype(np.float32)],
                {'axis': int(rng.integers(-len(shape), len(shape))), 'keepdims': pick(rng, [0, 1]),
                 'select_last_index': pick(rng, [0, 1])})


def softmax(rng):
    shape = dims(rng, int(rng.integers(1, 5)))
    return Case(pick(rng, ['Softmax', 'LogSoftmax']), [floats(rng, *shape) * 5],
                {'axis': int(rng.integers(-len(shape), len(shape)))})


def batch_norm(rng):
    n, c, *size = dims(rng, int(rng.integers(2, 6)))
    var = rng.uniform(0.5, 2, c).astype(np.float32)
    return Case('BatchNormalization',
                [floats(rng, n, c, *size), floats(rng, c), floats(rng, c), floats(rng, c), var],
                {'epsilon': 1e-3})


def layer_norm(rng):
    shape = dims(rng, int(rng.integers(1, 5)), 2, 5)
    axis = int(rng.integers(0, len(shape)))
    return Case('LayerNormalization', [floats(rng, *shape), floats(rng, *shape[axis:]),
                                       floats(rng, *shape[axis:])], {'axis': axis})


def instance_norm(rng):
    n, c, *size = dims(rng, int(rng.integers(3, 6)), 2, 5)
    return Case('InstanceNormalization', [floats(rng, n, c, *size), floats(rng, c), floats(rng, c)],
                {})


def lrn(rng):
    shape = dims(rng, 4, 1, 6)
    return Case('LRN', [floats(rng, *shape)], {'size': pick(rng, [1, 3, 5]), 'alpha': 0.5,
                                              'beta': 0.7, 'bias': 1.5})


# --- quantization --------------------------------------------------------------------------------

KINDS = [np.uint8, np.int8, np.uint16, np.int16]


def quantize(rng):
    kind = pick(rng, KINDS)
    top = np.iinfo(kind)
    shape = dims(rng, 3)
    axis = int(rng.integers(0, 3))
    n = pick(rng, [(), (shape[axis],)])
    scale = rng.uniform(0.01, 0.1, n).astype(np.float32)
    zero = rng.integers(top.min, top.max, n).astype(kind)
    return Case('QuantizeLinear', [floats(rng, *shape) * 5, scale, zero], {'axis': axis})


def dequantize(rng):
    kind = pick(rng, KINDS + [np.int32])
    top = np.iinfo(np.int16 if kind == np.int32 else kind)
    shape = dims(rng, 3)
    axis = int(rng.integers(0, 3))
    n = pick(rng, [(), (shape[axis],)])
    scale = rng.uniform(0.01, 0.1, n).astype(np.float32)
    zero = np.zeros(n, kind) if kind == np.int32 else rng.integers(top.min, top.max, n).astype(kind)
    x = rng.integers(top.min, top.max, shape).astype(kind)
    return Case('DequantizeLinear', [x, scale, zero], {'axis': axis})


def dequantize_blocked(rng):
    shape = dims(rng, 3, 2, 6)
    axis = int(rng.integers(0, 3))
    block = int(rng.integers(2, 4))
    shape[axis] = block * int(rng.integers(1, 4))
    scales = [s // block if i == axis else s for i, s in enumerate(shape)]
    return Case('DequantizeLinear',
                [ints(rng, *shape, kind=np.int8), rng.uniform(0.01, 1, scales).astype(np.float32),
                 ints(rng, *scales, kind=np.int8)], {'axis': axis, 'block_size': block})


def dynamic_quantize(rng):
    return Case('DynamicQuantizeLinear', [floats(rng, *dims(rng, 3, 2, 6))], {}, outputs=3)


GENERATORS = {  # how many of each
    conv: 60, conv_transpose: 25, max_pool: 40, average_pool: 40, global_pool: 8, gemm: 20,
    matmul: 30, matmul_integer: 8, conv_integer: 12, binary: 60, where: 10, variadic: 12, unary: 90,
    clip: 6, prelu: 8, cast: 30, transpose: 20, slice_: 50, concat: 15, split: 15, pad: 30,
    tile: 10, expand: 15, gather: 15, gather_elements: 10, blocks: 15, reshape: 15, flatten: 8,
    resize: 60, reduce: 50, arg: 20, softmax: 15, batch_norm: 10, layer_norm: 12, instance_norm: 6,
    lrn: 6, quantize: 25, dequantize: 20, dequantize_blocked: 10, dynamic_quantize: 6,
}


def all_cases():
    cases = []
    for make, count in GENERATORS.items():
        for i in range(count):
            case = make(np.random.default_rng([i, *make.__name__.encode()]))
            case.name = f'{make.__name__.strip("_")}{i}'
            cases.append(case)
    return cases
