"""rung quantize --qconfig: what the presets and rules put into the file, numbers checked against
their definitions with the same data; the files are valid and ONNX Runtime runs them."""
import json

import pytest

import util  # first: it skips all of this where the oracles are missing
from util import np, onnx, ort, shared_folder

from cli_kit import good, json_of, refused
from onnx import TensorProto, helper, numpy_helper

N, CHANNELS, SIDE = 32, 4, 8
RESNET8 = 'mlperf_tiny_ic_resnet8.onnx'
PRESETS = {  # type of activations, bits of their parameters, one scale per weight
    'default': (np.uint8, 8, False),
    'x86': (np.uint8, 7, False),
    'fbgemm': (np.uint8, 7, False),
    'onednn': (np.uint8, 8, False),
    'qnnpack': (np.uint8, 8, True),
    'ort': (np.int8, 8, False),
    'tflite': (np.int8, 8, False),
}


def network(path):
    """Conv 'first' + Relu, AveragePool, Sigmoid, Conv 'second', Tanh, Concat of a Conv and that,
    Gemm 'head', Softmax."""
    rng = np.random.default_rng(7)
    weights = {'w1': (8, CHANNELS, 3, 3), 'b1': (8,), 'w2': (8, 8, 1, 1), 'b2': (8,),
               'w3': (8, 8, 1, 1), 'w4': (10, 16), 'b4': (10,)}
    initializers = [numpy_helper.from_array(rng.standard_normal(dims).astype(np.float32), name)
                    for name, dims in weights.items()]
    nodes = [
        helper.make_node('Conv', ['x', 'w1', 'b1'], ['c1'], name='first', pads=[1] * 4),
        helper.make_node('Relu', ['c1'], ['r1'], name='relu'),
        helper.make_node('AveragePool', ['r1'], ['p1'], name='pool', kernel_shape=[2, 2],
                         strides=[2, 2]),
        helper.make_node('Sigmoid', ['p1'], ['s1'], name='sigmoid'),
        helper.make_node('Conv', ['s1', 'w2', 'b2'], ['c2'], name='second'),
        helper.make_node('Tanh', ['c2'], ['t2'], name='tanh'),
        helper.make_node('Conv', ['s1', 'w3'], ['c3'], name='third'),
        helper.make_node('Concat', ['c3', 't2'], ['j'], name='join', axis=1),
        helper.make_node('GlobalAveragePool', ['j'], ['g'], name='global'),
        helper.make_node('Flatten', ['g'], ['f'], name='flat'),
        helper.make_node('Gemm', ['f', 'w4', 'b4'], ['z'], name='head', transB=1),
        helper.make_node('Softmax', ['z'], ['y'], name='softmax', axis=1),
    ]
    graph = helper.make_graph(
        nodes, 'net', [helper.make_tensor_value_info('x', TensorProto.FLOAT,
                                                     ['n', CHANNELS, SIDE, SIDE])],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, ['n', 10])], initializers)
    onnx.save(helper.make_model(graph, ir_version=8,
                                opset_imports=[helper.make_opsetid('', 13)]), str(path))


class File:
    """A quantized model: the pair of each tensor, by the float tensor's name, and the weights."""

    def __init__(self, path):
        self.model = onnx.load(str(path))
        onnx.checker.check_model(self.model, full_check=True)
        graph = self.model.graph
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.maker = {o: n for n in graph.node for o in n.output}
        self.pairs, self.clips, self.weights = {}, {}, {}
        for n in graph.node:
            if n.op_type == 'QuantizeLinear':
                self.add_pair(n)
            if n.op_type in ('Conv', 'Gemm', 'MatMul'):
                dq = self.maker.get(n.input[1])
                self.weights[n.name] = [self.constants[i] for i in dq.input[:2]] if dq else None

    def add_pair(self, q):
        name = q.output[0].removesuffix('_q')
        self.pairs[name] = (self.constants[q.input[1]].item(), self.constants[q.input[2]])
        clip = self.maker.get(q.input[0])
        if clip is not None and clip.op_type == 'Clip':
            self.clips[name] = [self.constants[i].item() for i in clip.input[1:]]


def quantize(source, target, data, *options):
    good('quantize', source, '-o', target, '--data', data, '--quiet', *options)
    return File(target)


@pytest.fixture(scope='module')
def net(tmp_path_factory):
    folder = tmp_path_factory.mktemp('net')
    network(folder / 'net.onnx')
    x = np.random.default_rng(1).standard_normal((N, CHANNELS, SIDE, SIDE)).astype(np.float32)
    np.save(folder / 'x.npy', x)
    return folder


@pytest.fixture(scope='module')
def files(net):
    return {name: quantize(net / 'net.onnx', net / f'{name}.onnx', f'npy:{net}/x.npy',
                           '--qconfig', name, '--method', 'none') for name in PRESETS}


def floats(net, *names):
    """Tensors of the float network on the calibration data, by ONNX Runtime."""
    model = onnx.load(str(net / 'net.onnx'))
    for name in names:
        if name not in ('x', 'y'):
            model.graph.output.append(helper.make_empty_tensor_value_info(name))
    x = np.load(net / 'x.npy')
    session = ort.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    kept = {o.name: v for o, v in zip(session.get_outputs(), session.run(None, {'x': x}))}
    return [x if name == 'x' else kept[name] for name in names]


def with_rules(net, rules, base=None, options=()):
    path = net / 'rules.json'
    path.write_text(json.dumps({**({'base': base} if base else {}), 'rules': rules}))
    return quantize(net / 'net.onnx', net / 'rules.onnx', f'npy:{net}/x.npy', '--qconfig', path,
                    '--method', 'none', *options)


# --- presets -------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', PRESETS)
def test_types_and_schemes(files, name):
    kind, _, per_tensor = PRESETS[name]
    file = files[name]
    assert {zero.dtype for _, zero in file.pairs.values()} == {np.dtype(kind)}
    for weight, (codes, scales) in file.weights.items():
        assert codes.dtype == np.int8 and abs(codes.astype(int)).max() == 127, weight
        assert scales.size == (1 if per_tensor else len(codes)), weight
    text = next(p.value for p in file.model.metadata_props if p.key == 'rung.quantized')
    assert f'qconfig={name}' in text


@pytest.mark.parametrize('name', PRESETS)
def test_onnx_runtime_agrees(net, files, name):
    x = np.load(net / 'x.npy')
    [y] = floats(net, 'y')
    session = ort.InferenceSession(str(net / f'{name}.onnx'), providers=['CPUExecutionProvider'])
    got = session.run(None, {'x': x})[0]
    sqnr = 10 * np.log10((y ** 2).sum() / ((y - got) ** 2).sum())
    ours = json_of('eval', net / f'{name}.onnx', '--reference', net / 'net.onnx', '--data',
                   f'npy:{net}/x.npy', '--quiet')['sqnr_db']
    print(f'{name}: {sqnr:.1f} dB by ONNX Runtime, {ours:.1f} by rung')
    assert min(sqnr, ours) > 20


@pytest.mark.parametrize('name', ['ort', 'tflite'])
def test_minmax_parameters(net, files, name):
    """(max - min) / 255, the zero point where ONNX Runtime puts it."""
    for tensor, value in zip(('x', 'r1', 'z'), floats(net, 'x', 'r1', 'z')):
        lo, hi = min(value.min(), 0), max(value.max(), 0)
        scale, zero = files[name].pairs[tensor]
        assert scale == pytest.approx((hi - lo) / 255, rel=1e-5), tensor
        assert abs(int(zero) - (-128 - lo / scale)) <= 0.51, tensor


def test_ort_is_what_onnx_runtime_writes(net, files):
    """quantize_static with the same samples: scales of activations and weights, zero points."""
    quantization = pytest.importorskip('onnxruntime.quantization')
    x = np.load(net / 'x.npy')

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.feeds = iter([{'x': x}])

        def get_next(self):
            return next(self.feeds, None)

    quantization.quantize_static(str(net / 'net.onnx'), str(net / 'peer.onnx'), Reader(),
                                 per_channel=True)
    peer = onnx.load(str(net / 'peer.onnx'))
    constants = {t.name: numpy_helper.to_array(t) for t in peer.graph.initializer}
    for tensor in ('x', 'r1', 'c2', 'z'):
        scale, zero = files['ort'].pairs[tensor]
        assert scale == pytest.approx(constants[f'{tensor}_scale'].item(), rel=1e-5)
        assert int(zero) == constants[f'{tensor}_zero_point'].item()
        assert zero.dtype == constants[f'{tensor}_zero_point'].dtype
    for node, weight in (('first', 'w1'), ('second', 'w2')):
        codes, scales = files['ort'].weights[node]
        assert scales == pytest.approx(constants[f'{weight}_scale'], rel=1e-5)
        assert abs(codes.astype(int) - constants[f'{weight}_quantized']).max() <= 1


def test_tflite_fixed_outputs(files):
    pairs = files['tflite'].pairs
    for tensor, scale, zero in (('s1', 1 / 256, -128), ('y', 1 / 256, -128), ('t2', 1 / 128, 0)):
        assert pairs[tensor][0] == scale and int(pairs[tensor][1]) == zero, tensor
    assert pairs['p1'] == pairs['r1']  # AVERAGE_POOL_2D: one set of parameters
    assert pairs['c3'] == pairs['j']   # CONCATENATION, but for the fixed tanh
    ort_pairs = files['ort'].pairs
    assert ort_pairs['p1'] != ort_pairs['r1'] and ort_pairs['y'][0] == pytest.approx(1 / 255)


@pytest.mark.parametrize('reduced, full', [('x86', 'onednn'), ('fbgemm', 'default')])
def test_reduce_range(net, reduced, full):
    """With the same range (minmax) the scale is 255/127 times as large: codes are in [0, 127]."""
    files = [quantize(net / 'net.onnx', net / 'm.onnx', f'npy:{net}/x.npy', '--qconfig', name,
                      '--range', 'minmax', '--method', 'none') for name in (reduced, full)]
    for tensor in ('x', 'r1', 'z'):
        [value] = floats(net, tensor)
        scales = [f.pairs[tensor][0] for f in files]
        assert scales[0] / scales[1] == pytest.approx(255 / 127, rel=1e-5)
        codes = np.rint(value / scales[0]) + int(files[0].pairs[tensor][1])
        assert codes.min() >= 0 and codes.max() <= 127


def test_a_preset_is_not_improved_unasked(net, files):
    plain = quantize(net / 'net.onnx', net / 'auto.onnx', f'npy:{net}/x.npy', '--qconfig', 'ort')
    assert plain.pairs == files['ort'].pairs


@pytest.mark.parametrize('name', ['x86', 'qnnpack', 'ort', 'tflite'])
def test_resnet8(tmp_path, name):
    folder = shared_folder()
    model = folder / 'models' / RESNET8
    data = f'cifar10:{next((folder / "data/cifar10-train-4000-lossless").iterdir())}'
    file = quantize(model, tmp_path / 'q.onnx', f'{data}@0:200', '--qconfig', name,
                    '--preprocess', 'color=rgb')
    kind, bits, _ = PRESETS[name]
    assert {zero.dtype for _, zero in file.pairs.values()} == {np.dtype(kind)}
    assert file.pairs['input'][0] == pytest.approx(255 / (2 ** bits - 1), rel=0.02)
    ort.InferenceSession(str(tmp_path / 'q.onnx'), providers=['CPUExecutionProvider'])
    found = json_of('eval', tmp_path / 'q.onnx', '--reference', model, '--data',
                    f'{data}@1000:1500', '--quiet')
    print(name, found['sqnr_db'], found['agreement'])
    assert found['sqnr_db'] > 24 and found['agreement'] > 96


# --- rules ---------------------------------------------------------------------------------------

def test_rules_by_node_operator_and_tensor(net):
    file = with_rules(net, [
        {'op': 'Conv', 'set': {'weight_bits': 4}},
        {'name': 'second', 'set': {'weight_bits': 8, 'weight_scheme': 'per-tensor'}},
        {'tensor': 'w4', 'set': {'weight_bits': 3}},
        {'name': 'third', 'set': {'exclude': True}},
        {'tensor': 'z', 'set': {'range': 'minmax'}},
    ])
    largest = {name: abs(w[0].astype(int)).max() if w else None for name, w in file.weights.items()}
    assert largest == {'first': 7, 'second': 127, 'third': None, 'head': 3}
    assert file.weights['second'][1].size == 1 and file.weights['first'][1].size == 8
    [z] = floats(net, 'z')
    assert file.pairs['z'][0] == pytest.approx((z.max() - z.min()) / 255, rel=1e-5)


def test_rules_on_a_base_and_options_on_both(net):
    rules = [{'op': 'Gemm', 'set': {'act_symmetric': True}}]
    file = with_rules(net, rules, base='ort')
    assert int(file.pairs['z'][1]) == 0 and int(file.pairs['x'][1]) != 0
    file = with_rules(net, rules, base='ort', options=['--act-type', 'uint8'])
    assert int(file.pairs['z'][1]) == 128 and file.pairs['x'][1].dtype == np.uint8


def test_a_relu_follows_its_convolution(net):
    file = with_rules(net, [{'name': 'first', 'set': {'act_type': 'int8'}}])
    assert file.pairs['r1'][1].dtype == np.int8 and file.pairs['x'][1].dtype == np.uint8


def test_mixed_types_are_remarked(net):
    path = net / 'mixed.json'
    path.write_text('{"rules": [{"name": "second", "set": {"act_type": "int8"}},\n'
                    '{"name": "nobody", "set": {"act_bits": 4}}]}')
    text = good('quantize', net / 'net.onnx', '-o', net / 'mixed.onnx', '--data',
                f'npy:{net}/x.npy', '--quiet', '--qconfig', path, '--method', 'none').stderr
    assert "remark: mixed-types: Conv 'second'" in text
    assert 'remark: rule-unused: rules[1]' in text
    codes = {d['code'] for d in json_of('inspect', net / 'mixed.onnx')['diagnostics']}
    assert 'mixed-types' in codes


@pytest.mark.parametrize('kind', ['uint8', 'int8'])
@pytest.mark.parametrize('bits', [2, 4, 7])
def test_activation_bits(net, kind, bits):
    """A Clip to the ends of the codes before each Q that makes new values; codes stay within."""
    file = with_rules(net, [{'set': {'act_bits': bits, 'act_type': kind}}])
    lowest = -2 ** (bits - 1) if kind == 'int8' else 0
    for tensor, (lo, hi) in file.clips.items():
        scale, zero = file.pairs[tensor]
        floor = 0 if tensor == 'r1' else -np.inf  # its Relu went into the Clip
        assert lo == pytest.approx(max(scale * (lowest - int(zero)), floor), abs=1e-6), tensor
        assert hi == pytest.approx(scale * (lowest + 2 ** bits - 1 - int(zero))), tensor
    assert {'x', 'r1', 'z', 'y'} <= set(file.clips)
    model = file.model
    for tensor in ('x', 'r1', 'z', 'j'):
        model.graph.output.append(helper.make_empty_tensor_value_info(f'{tensor}_q'))
    session = ort.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    for codes in session.run(None, {'x': np.load(net / 'x.npy')})[1:]:
        assert codes.min() >= lowest and codes.max() < lowest + 2 ** bits
        assert len(np.unique(codes)) > 2


def test_clips_are_fused_here(net):
    """The Clip behind a convolution costs nothing: all of the network stays in integers."""
    with_rules(net, [{'set': {'act_bits': 5}}])
    found = json_of('inspect', net / 'rules.onnx')
    assert found['int_macs_share'] == 1
    assert {i['op'] for i in found['float_islands']} <= {'Clip'}  # that of the input


# --- refusals ------------------------------------------------------------------------------------

@pytest.mark.parametrize('options, words', [
    (['--qconfig', 'fbgem'], ['fbgem', 'presets are default, x86']),
    (['--qconfig', 'BAD'], ['bad.json:3: rules[0].set.act_bts', 'keys here are weight_bits']),
    (['--qconfig', 'missing.json'], ['missing.json']),
])
def test_mistakes(net, options, words):
    (net / 'bad.json').write_text('{"base": "x86",\n "rules": [{"set": {\n  "act_bts": 3}}]}')
    options = [str(net / 'bad.json') if o == 'BAD' else o for o in options]
    refused('quantize', net / 'net.onnx', '-o', net / 'no.onnx', '--data', f'npy:{net}/x.npy',
            '--quiet', *options, says=words)
    assert not (net / 'no.onnx').exists()


@pytest.mark.parametrize('options', [['--act-bits', '9'], ['--act-bits', '1'],
                                     ['--mode', 'dynamic', '--qconfig', 'x86']])
def test_misuse(net, options):
    data = [] if '--mode' in options else ['--data', f'npy:{net}/x.npy']
    refused('quantize', net / 'net.onnx', '-o', net / 'no.onnx', *data, *options, status=2)
