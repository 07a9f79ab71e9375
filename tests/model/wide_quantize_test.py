"""16-bit activations from the command line: what --act-type and rules put into the file, and how
near the networks then are to float32; ONNX Runtime's outputs and every level of RUNG_CPU beside."""
import json
import pathlib

import pytest

import util  # first: it skips all of this where the oracles are missing
from util import np, onnx, shared_folder

from cli_kit import good, json_of, refused
from qconfig_test import CHANNELS, N, SIDE, File, network

LEVELS = {'ref': '', 'avx2': 'avx2', 'avxvnni': 'avx_vnni', 'avx512vnni': 'avx512_vnni',
          'amx': 'amx_int8'}
NETWORKS = {  # file, input
    'resnet8': ('mlperf_tiny_ic_resnet8', (3, 32, 32)),
    'resnet20': ('cifar10_resnet20_akamaster', (3, 32, 32)),
    'dscnn': ('mlperf_tiny_kws_dscnn', None),
    'mobilenetv2': ('mobilenetv2_imagenet', (3, 224, 224)),
}


def levels():
    flags = pathlib.Path('/proc/cpuinfo').read_text()
    return [level for level, flag in LEVELS.items() if flag in flags]


def run(model, feeds, folder, level=None):
    """Outputs of `rung run`."""
    inputs = []
    for name, x in feeds.items():
        np.save(folder / 'in.npy', x)
        inputs += ['--input', f'{name}={folder}/in.npy']
    good('run', model, *inputs, '--output', folder / 'out',
         env={'RUNG_CPU': level} if level else {})
    outputs = sorted((folder / 'out').glob('*.npy'))
    return [np.load(o) for o in outputs]


def sqnr(reference, y):
    return 10 * np.log10((reference ** 2).sum() / max(((reference - y) ** 2).sum(), 1e-30))


def with_float_activations(path, target):
    """The same model without its pairs: the error of the weights alone."""
    model = onnx.load(path)
    graph = model.graph
    constants = {t.name for t in graph.initializer}
    makers = {n.output[0]: n for n in graph.node}
    real = {}
    for n in graph.node:
        q = makers.get(n.input[0]) if n.op_type == 'DequantizeLinear' else None
        if q is not None and q.op_type == 'QuantizeLinear' and q.input[0] not in constants:
            real[n.output[0]] = q.input[0]
    for n in graph.node:
        for i, name in enumerate(n.input):
            n.input[i] = real.get(name, name)
    for o in graph.output:
        o.name = real.get(o.name, o.name)
    onnx.save(model, target)
    return target


def quantize(source, target, data, *options):
    good('quantize', source, '-o', target, '--data', data, '--quiet', '--method', 'none', *options)
    return target


@pytest.mark.parametrize('name', NETWORKS)
def test_network(name, tmp_path):
    file, shape = NETWORKS[name]
    source = shared_folder() / 'models' / f'{file}.onnx'
    if not source.exists():
        pytest.skip(f'{source} is not there')
    info = util.session(source).get_inputs()[0]
    shape = shape or tuple(d if isinstance(d, int) else 1 for d in info.shape[1:])
    rng = np.random.default_rng(0)
    scale = 64 if name == 'resnet8' else 1  # it takes pixels
    x = (scale * (rng.standard_normal((12, *shape)) + (2 if scale > 1 else 0))).astype(np.float32)
    np.save(tmp_path / 'x.npy', x[:8])
    feeds = {info.name: x[8:]}
    reference = util.session(source).run(None, feeds)[0].astype(np.float64)
    quality = {}
    for kind in ('uint8', 'uint16', 'int16'):
        path = quantize(source, tmp_path / f'{kind}.onnx', f'npy:{tmp_path}/x.npy', '--act-type',
                        kind)
        y = run(path, feeds, tmp_path)[0]
        weights = with_float_activations(path, tmp_path / 'weights.onnx')
        real = util.session(weights).run(None, feeds)[0].astype(np.float64)
        quality[kind] = sqnr(reference, y), sqnr(real, y)
        if kind == 'uint8':
            continue
        onnx.checker.check_model(str(path), full_check=True)
        report = json_of('inspect', path)
        assert report['activations'].keys() == {kind}
        assert report['float_islands'] == [] and report['int_macs_share'] == 1
        assert not report['diagnostics']
        peer = util.session(path).run(None, feeds)[0]
        assert sqnr(peer.astype(np.float64), y) >= 60, 'ONNX Runtime disagrees'
        for level in levels():
            again = run(path, feeds, tmp_path, level)
            assert util.same_array(again[0], y), level
    print(name, quality)
    for wide in ('uint16', 'int16'):
        assert quality[wide][0] > quality['uint8'][0]
        assert quality[wide][1] >= quality['uint8'][1] + 30


@pytest.fixture(scope='module')
def net(tmp_path_factory):
    folder = tmp_path_factory.mktemp('net')
    network(folder / 'net.onnx')
    x = np.random.default_rng(1).standard_normal((N, CHANNELS, SIDE, SIDE)).astype(np.float32)
    np.save(folder / 'x.npy', x)
    return folder


def by_rules(net, rules, *options):
    (net / 'rules.json').write_text(json.dumps({'rules': rules}))
    return File(quantize(net / 'net.onnx', net / 'rules.onnx', f'npy:{net}/x.npy', '--qconfig',
                         net / 'rules.json', *options))


def types(file):
    return {name: zero.dtype for name, (_, zero) in file.pairs.items()}


def check_runs(net, islands=()):
    """ONNX Runtime agrees, and every level gives the same bytes."""
    feeds = {'x': np.load(net / 'x.npy')}
    y = run(net / 'rules.onnx', feeds, net)[0]
    peer = util.session(net / 'rules.onnx').run(None, feeds)[0]
    assert sqnr(peer.astype(np.float64), y) > 30 and np.max(np.abs(peer - y)) < 0.02
    for level in levels():
        assert util.same_array(run(net / 'rules.onnx', feeds, net, level)[0], y), level
    found = [island['op'] for island in json_of('inspect', net / 'rules.onnx')['float_islands']]
    assert found == list(islands)


def test_a_rule_for_one_node(net):
    """Its operand and its result have 16 bits; others that read them get one more pair."""
    file = by_rules(net, [{'name': 'second', 'set': {'act_type': 'uint16'}}])
    got = types(file)
    assert got['s1'] == got['c2'] == np.uint16
    assert got['s1_narrow'] == got['c2_narrow'] == np.uint8
    assert all(t == np.uint8 for name, t in got.items() if name not in ('s1', 'c2'))
    assert [o.version for o in file.model.opset_import] == [21]
    readers = {n.name: file.maker[n.input[0]].input[0] for n in file.model.graph.node
               if n.name in ('second', 'third', 'tanh')}
    assert readers == {'second': 's1_q', 'third': 's1_narrow_q', 'tanh': 'c2_narrow_q'}
    scale, narrow = file.pairs['s1'][0], file.pairs['s1_narrow'][0]
    assert narrow == pytest.approx(scale * 65535 / 255, rel=1e-5)
    check_runs(net)
    codes = {d['code'] for d in json_of('inspect', net / 'rules.onnx')['diagnostics']}
    assert 'mixed-types' not in codes


def test_the_bias_is_at_the_scale_that_its_node_reads(net):
    file = by_rules(net, [{'name': 'second', 'set': {'act_type': 'int16'}}])
    node = {n.name: n for n in file.model.graph.node}['second']
    bias, weight = (file.maker[node.input[i]] for i in (2, 1))
    want = np.float32(file.pairs['s1'][0]) * file.constants[weight.input[1]]
    assert np.array_equal(file.constants[bias.input[1]], want.astype(np.float32))


def test_what_moves_follows(net):
    """Flatten's operand and result are of one width, whichever side asks."""
    for name, wide in (('head', {'f', 'g', 'z'}), ('flat', {'f', 'g'})):
        got = types(by_rules(net, [{'name': name, 'set': {'act_type': 'uint16'}}]))
        assert {n for n, t in got.items() if t == np.uint16} == wide, name
        check_runs(net, ('Softmax',) if name == 'head' and got.get('z_narrow') is None else ())


def test_a_rule_for_a_tensor(net):
    file = by_rules(net, [{'tensor': 'p1', 'set': {'act_type': 'uint16'}}])
    got = types(file)
    assert {n for n, t in got.items() if t == np.uint16} == {'p1'}
    check_runs(net)


def test_16_and_8_bits_of_few(net):
    """Codes of 4 bits behind a tensor of 16."""
    file = by_rules(net, [{'set': {'act_bits': 4}}, {'name': 'second',
                                                     'set': {'act_type': 'uint16'}}])
    assert 's1' not in file.clips and 's1_narrow' in file.clips
    check_runs(net, ('Clip',))  # that of the graph's input


def test_all_but_softmax(net):
    file = by_rules(net, [], '--act-type', 'uint16')
    assert set(types(file).values()) == {np.dtype(np.uint16)}
    check_runs(net, ('Softmax',))
    report = json_of('inspect', net / 'rules.onnx')
    assert 'no kernel of 16 bits' in report['float_islands'][0]['reason']


def test_bits_and_16_bit_types_exclude_each_other(net):
    refused('quantize', net / 'net.onnx', '-o', net / 'no.onnx', '--data', f'npy:{net}/x.npy',
            '--act-type', 'int16', '--act-bits', '6', says=['6 bits', 'int16'])
