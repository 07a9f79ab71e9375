"""Layers of more than 8 bits: quantize --max-drop and --fastest on real networks, what is said
beside what the file holds, the exit statuses; compare --sensitivity beside ONNX Runtime."""
import json

import numpy as np
import onnx
import pytest
from onnx import helper

from cli_kit import json_of, refused, save_model
from util import ort, run, rung_binary, shared_folder

NORMAL = 'scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225'
RESNET20 = 'cifar10_resnet20_akamaster.onnx'


def cifar(part):
    folder = shared_folder() / 'data/cifar10-train-4000-lossless'
    return f'cifar10:{folder}/cifar10_train4000.bin@{part}'


def mixed(source, out, *options, status=0):
    """The object that quantize prints, and its messages."""
    import subprocess
    result = subprocess.run([rung_binary(), 'quantize', str(source), '-o', str(out), '--json',
                             '--quiet', *map(str, options)], capture_output=True, text=True,
                            timeout=600)
    assert result.returncode == status, result.stderr
    return json.loads(result.stdout), result.stderr


def float_layers(path):
    """Conv and Gemm nodes of a file whose weight is float32."""
    g = onnx.load(path).graph
    constants = {t.name for t in g.initializer}
    return {n.name for n in g.node if n.op_type in ('Conv', 'Gemm') and n.input[1] in constants}


def test_three_bit_weights_within_a_budget(tmp_path):
    """Weights of 3 bits cost 20 points; the layers to blame are found, and the figures are those of
    the file."""
    source, out = shared_folder() / 'models' / RESNET20, tmp_path / 'q.onnx'
    options = ['--data', cifar('0:100'), '--eval', cifar('2000:2200'), '--max-drop', 8,
               '--weight-bits', 3, '--method', 'none', '--preprocess', NORMAL]
    said, text = mixed(source, out, *options)
    record = said['mixed']
    assert record['met'] and record['metric'] == 'top1' and record['samples'] == 200
    assert record['int8_drop'] > 12 and record['drop'] <= 8
    now = json_of('eval', out, '--data', cifar('2000:2200'), '--quiet')
    assert now['top1'] == pytest.approx(record['float_top1'] - record['drop'])
    freed = [layer for layer in record['layers'] if layer['level'] == 'float']
    assert 1 <= len(freed) == record['float_layers'] <= 12
    assert {layer['node'].split("'")[1] for layer in freed} == float_layers(out)
    assert sum(layer['macs_share'] for layer in freed) == pytest.approx(record['macs_share'])
    assert sum(layer['macs_share'] for layer in record['layers']) == pytest.approx(1)
    for layer in freed:
        assert layer['node'] in text and not layer['slow']
        assert layer['alone_db'] < 30 and 0 <= layer['alone_agreement'] <= 100
    assert min(record[k] for k in ('median_ms', 'int8_ms', 'float_ms', 'slowdown')) > 0
    ort.InferenceSession(str(out), providers=['CPUExecutionProvider'])


def test_three_bit_activations_get_sixteen(tmp_path):
    """What activations cost, 16 bits of a few of them give back: no layer is float."""
    source, out = shared_folder() / 'models/mlperf_tiny_ic_resnet8.onnx', tmp_path / 'q.onnx'
    said, text = mixed(source, out, '--data', cifar('0:100'), '--eval', cifar('2000:2200'),
                       '--max-drop', 3, '--act-bits', 3, '--method', 'none', '--preprocess',
                       'color=rgb')
    record = said['mixed']
    assert record['met'] and record['int8_drop'] > 20 and record['drop'] <= 3
    wide = {layer['node'] for layer in record['layers'] if layer['level'] == '16-bit'}
    assert 1 <= len(wide) == record['wide_layers'] < len(record['layers'])
    assert record['float_layers'] == 0 and all(node in text for node in wide)
    assert 0 < record['wide_macs_share'] < 1
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    types = {t.data_type for t in model.graph.initializer}
    assert onnx.TensorProto.UINT16 in types and onnx.TensorProto.UINT8 in types
    now = json_of('eval', out, '--data', cifar('2000:2200'), '--quiet')
    assert now['top1'] == pytest.approx(record['float_top1'] - record['drop'])


def test_eight_bits_need_nothing(tmp_path):
    """Within the budget at once: the same bytes as without it."""
    source = shared_folder() / 'models/mlperf_tiny_ic_resnet8.onnx'
    options = ['--data', cifar('0:64'), '--preprocess', 'color=rgb', '--method', 'none']
    said, text = mixed(source, tmp_path / 'q.onnx', *options, '--eval', cifar('500:800'),
                       '--max-drop', 2)
    plain, _ = mixed(source, tmp_path / 'plain.onnx', *options)
    assert said['mixed']['evaluations'] == 1 and said['mixed']['float_layers'] == 0
    assert '0 of ' in text and plain['mixed'] is None
    assert (tmp_path / 'q.onnx').read_bytes() == (tmp_path / 'plain.onnx').read_bytes()


def one_layer(folder):
    """One Gemm, which 2 bits ruin, and samples without labels."""
    rng = np.random.default_rng(1)
    save_model(folder / 'f.onnx', [helper.make_node('Gemm', ['x', 'w', 'b'], ['y'], 'only')],
               [('x', ['N', 16])], [('y', ['N', 8])],
               [('w', rng.normal(size=(16, 8)).astype(np.float32)),
                ('b', np.zeros(8, np.float32))])
    np.save(folder / 'x.npy', rng.normal(size=(200, 16)).astype(np.float32))
    return folder / 'f.onnx', f'npy:{folder}/x.npy'


def test_a_budget_that_is_not_met(tmp_path):
    source, data = one_layer(tmp_path)
    out = tmp_path / 'q.onnx'
    said, text = mixed(source, out, '--data', data, '--eval', data, '--max-drop', 1,
                       '--weight-bits', 2, '--method', 'none', status=3)
    record = said['mixed']
    assert not record['met'] and record['metric'] == 'agreement' and record['float_top1'] is None
    assert record['drop'] == record['int8_drop'] > 1 and record['float_layers'] == 0
    assert '--max-drop 1 is not met' in text
    onnx.checker.check_model(onnx.load(out), full_check=True)
    agreed = json_of('eval', out, '--reference', source, '--data', data, '--quiet')['agreement']
    assert agreed == pytest.approx(100 - record['drop'])


def test_mistakes_in_the_call(tmp_path):
    source, data = one_layer(tmp_path)
    out = tmp_path / 'q.onnx'
    base = ['quantize', source, '-o', out, '--data', data]
    refused(*base, '--max-drop', 1, status=2, says='--eval is missing')
    refused(*base, '--eval', data, status=2, says='--max-drop is missing')
    refused(*base, '--eval', data, '--max-drop', -1, status=2, says='--max-drop')
    refused('quantize', source, '-o', out, '--mode', 'weights', '--fastest', status=2,
            says='--mode static')
    assert not out.exists()


def test_fastest(tmp_path):
    """Whatever this machine finds: the record and the file agree."""
    source = shared_folder() / 'models/mlperf_tiny_kws_dscnn.onnx'
    out = tmp_path / 'q.onnx'
    said, text = mixed(source, out, '--data', 'random@0:16', '--method', 'none', '--fastest')
    record = said['mixed']
    slow = {layer['node'] for layer in record['layers'] if layer['slow']}
    assert slow == {layer['node'] for layer in record['layers'] if layer['level'] == 'float'}
    assert all(node in text for node in slow) and 'met' not in record
    run(rung_binary(), 'bench', out, '--seconds', '0.05')


def chain(folder):
    """Three fully connected layers: a layer's effect can be had by excluding the others."""
    rng = np.random.default_rng(2)
    nodes, constants, at = [], [], 'x'
    for i in range(3):
        nodes += [helper.make_node('Gemm', [at, f'w{i}', f'b{i}'], [f'g{i}'], f'fc{i}')]
        constants += [(f'w{i}', rng.normal(size=(12, 12)).astype(np.float32)),
                      (f'b{i}', rng.normal(size=12).astype(np.float32))]
        at = f'g{i}'
        if i < 2:
            nodes.append(helper.make_node('Relu', [at], [f'r{i}'], f'relu{i}'))
            at = f'r{i}'
    np.save(folder / 'x.npy', rng.normal(size=(50, 12)).astype(np.float32))
    return save_model(folder / 'f.onnx', nodes, [('x', ['N', 12])], [(at, ['N', 12])], constants)


def test_effects_are_those_of_a_model_with_one_layer(tmp_path):
    """Beside ONNX Runtime, on a model in which all other layers are excluded."""
    source, data = chain(tmp_path), f'npy:{tmp_path}/x.npy'
    base = ['--data', data, '--method', 'none', '--weight-bits', 4, '--act-bits', 6]
    mixed(source, tmp_path / 'q.onnx', *base)
    record = json_of('compare', source, tmp_path / 'q.onnx', '--data', data, '--sensitivity',
                     '--seconds', '0.01', '--quiet')
    assert record['sensitivity_samples'] == 50
    x = np.load(tmp_path / 'x.npy')

    def ort_output(path):
        return ort.InferenceSession(str(path), providers=['CPUExecutionProvider']).run(
            None, {'x': x})[0]

    want = ort_output(source)
    for i in range(3):
        others = ','.join(f'fc{k}' for k in range(3) if k != i)
        mixed(source, tmp_path / 'one.onnx', *base, '--exclude', others)
        error = ort_output(tmp_path / 'one.onnx') - want
        db = 10 * np.log10((want ** 2).sum() / (error ** 2).sum())
        layer = next(t for t in record['tensors'] if t['node'] == f"Gemm 'fc{i}'")
        assert layer['output_db'] == pytest.approx(db, abs=0.05)
        assert layer['macs_share'] == pytest.approx(1 / 3) and layer['int8_ms'] > 0
        assert 0 <= layer['output_agreement'] <= 100 and layer['output_top1'] is None
    worst = [record['tensors'][w['tensor']]['output_db'] for w in record['worst']]
    assert worst == sorted(worst)


def test_reports_of_effects(tmp_path):
    """The text and the page have them where they were asked for, and only there."""
    source, data = chain(tmp_path), f'npy:{tmp_path}/x.npy'
    mixed(source, tmp_path / 'q.onnx', '--data', data, '--method', 'none')
    pages = []
    for option in ([], ['--sensitivity']):
        page = tmp_path / 'page.html'
        text = run(rung_binary(), 'compare', source, tmp_path / 'q.onnx', '--data', data, '--html',
                   page, '--seconds', '0.01', '--quiet', *option).stdout
        assert ('in float but for this layer' in text) == bool(option)
        pages.append(page.read_text())
    assert 'alone in integers' not in pages[0] and pages[1].count('alone in integers') >= 3
