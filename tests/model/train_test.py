"""rung train: accuracy comes back, a killed run goes on as if nothing had happened, mistakes are
named. On the digits network and 28x28 images (examples/digits)."""
import json
import random
import signal
import subprocess
import time

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import util
from cli_kit import (DIGITS, command, digits_split, good, json_of, refused, small_conv,
                     write_idx)

BITS = ['--weight-bits', '4', '--act-bits', '4', '--method', 'none', '--range', 'minmax']

OBSERVED = ['--qconfig', 'fbgemm', '--freeze-scales', '1', '--freeze-oscillating', '0.01']


@pytest.fixture(scope='session')
def digits():
    return digits_split()


@pytest.fixture
def folder(tmp_path, digits):
    for name, (x, y), n in (('train', digits[0], 1500), ('held', digits[1], 400)):
        write_idx(tmp_path / f'{name}.x', x[:n])
        write_idx(tmp_path / f'{name}.y', y[:n])
    return tmp_path


def data(folder, n):
    """(train spec of n images, evaluation spec)."""
    return (f'idx:{folder}/train.x,{folder}/train.y@0:{n}',
            f'idx:{folder}/held.x,{folder}/held.y')


def run_train(folder, out, *more, n=600, epochs=2):
    train, held_out = data(folder, n)
    return ['train', DIGITS, '-o', out, '--data', train, '--eval', held_out, '--epochs', epochs,
            '--quiet', *more]


def test_recovers(folder):
    """At 4 bits by minimum and maximum, training wins back what quantization lost; what the table
    says of the best epoch is what the written model does."""
    record = json_of(*run_train(folder, folder / 'w4.onnx', *BITS, n=1500, epochs=3))
    epochs, best = record['epochs'], record['best']
    assert [e['epoch'] for e in epochs] == list(range(4))
    assert epochs[best]['top1'] >= epochs[0]['top1'] and best > 0
    assert epochs[-1]['loss'] < epochs[1]['loss']
    _, held_out = data(folder, 1)
    result = json_of('eval', folder / 'w4.onnx', '--data', held_out)
    assert abs(result['top1'] - epochs[best]['top1']) < 1e-3
    onnx.checker.check_model(onnx.load(folder / 'w4.onnx'), full_check=True)


def test_page_and_metrics(folder):
    metrics, page = folder / 'm.jsonl', folder / 'page.html'
    good(*run_train(folder, folder / 'a.onnx', *BITS, '--metrics', metrics, '--html', page,
                    '--prepared', folder / 'prepared.onnx'))
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [e['epoch'] for e in lines if e['kind'] == 'epoch'] == [0, 1, 2]
    steps = [e for e in lines if e['kind'] == 'step']
    assert [e['step'] for e in steps] == list(range(1, len(steps) + 1))
    assert all(e['norm'] > 0 and e['rate'] > 0 for e in steps)
    text = page.read_text()
    assert text.startswith('<!DOCTYPE html>') and text.count('<svg') >= 2 and 'kept' in text
    # A prepared model is one to go on from.
    good('train', folder / 'prepared.onnx', '-o', folder / 'b.onnx', '--data', data(folder, 64)[0],
         '--epochs', 1, '--quiet')


def test_float_training_stores_the_preprocessing(folder):
    good('train', DIGITS, '-o', folder / 'f.onnx', '--data', data(folder, 64)[0], '--float',
         '--epochs', 1, '--preprocess', 'scale=128', '--quiet')
    stored = {p.key: p.value for p in onnx.load(folder / 'f.onnx').metadata_props}
    assert stored['rung.preprocess'] == 'scale=128'


def test_prepared_runs_elsewhere(folder):
    """FakeQuantize in ONNX Runtime: what it computes in float is what the integer model does, but
    for codes at a rounding point."""
    good(*run_train(folder, folder / 'q.onnx', *BITS, '--prepared', folder / 'p.onnx', epochs=1))
    onnx.checker.check_model(onnx.load(folder / 'p.onnx'), full_check=True)
    x = np.random.default_rng(1).uniform(0, 1, (64, 1, 28, 28)).astype(np.float32)
    outputs = []
    for name in ('p', 'q'):
        session = ort.InferenceSession(str(folder / f'{name}.onnx'),
                                       providers=['CPUExecutionProvider'])
        outputs.append(session.run(None, {session.get_inputs()[0].name: x})[0])
    error = np.mean((outputs[0] - outputs[1]) ** 2) / np.mean(outputs[1] ** 2)
    assert error < 0.01, error


@pytest.mark.parametrize('more', [BITS, OBSERVED], ids=['learned', 'observed'])
def test_same_for_any_threads(more, folder):
    for n in (1, 2, 3):
        good(*run_train(folder, folder / f't{n}.onnx', *more, '--threads', n, '--augment',
                        'crop=2,flip,cutout=4,mixup=0.2', n=300))
    first = (folder / 't1.onnx').read_bytes()
    assert first == (folder / 't2.onnx').read_bytes() == (folder / 't3.onnx').read_bytes()


@pytest.mark.parametrize('more', [BITS, OBSERVED], ids=['learned', 'observed'])
def test_survives_kills(more, folder):
    """Killed at random moments and resumed until it ends: the same bytes as without a break."""
    more = [*more, '--augment', 'crop=2,mixup=0.3', '--ema', '0.99', '--checkpoint-seconds', '0.05']
    begin = time.monotonic()
    good(*run_train(folder, folder / 'whole.onnx', *more))
    took, numbers, kills = time.monotonic() - begin, random.Random(5), 0
    call = [str(word) for word in run_train(folder, folder / 'broken.onnx', *more, '--checkpoint',
                                            folder / 'run', '--resume', '--metrics',
                                            folder / 'broken.jsonl')]
    while True:
        child = subprocess.Popen([util.rung_binary(), *call], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        try:
            child.wait(took * numbers.uniform(0.2, 0.7) if kills < 8 else 300)
            break
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            kills += 1
    assert child.returncode == 0 and kills > 0
    assert (folder / 'whole.onnx').read_bytes() == (folder / 'broken.onnx').read_bytes()
    lines = [json.loads(x) for x in (folder / 'broken.jsonl').read_text().splitlines()]
    steps = [e['step'] for e in lines if e['kind'] == 'step']
    assert steps == sorted(set(steps))
    # The same folder with other options is refused, a damaged file too.
    refused(*call, '--lr', '0.5', says=['other options'])
    path = folder / 'run/checkpoint.bin'
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refused(*call, says=['damaged'])
    path.write_bytes(b'short')
    refused(*call, says=['no checkpoint'])


def scales_of(path):
    """Scales and zero points of a file by name, and its metadata."""
    model = onnx.load(path)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    pairs = {n.input[1]: [constants[i] for i in n.input[1:3]] for n in model.graph.node
             if n.op_type == 'QuantizeLinear'}
    return pairs, {p.key: p.value for p in model.metadata_props}


def test_observed_scales(folder):
    """The presets of QAT observe: what follows the data moves; the model that is deployed says
    nothing of training."""
    train, _ = data(folder, 300)
    base = ['train', DIGITS, '--data', train, '--epochs', 1, '--quiet', '--qconfig', 'x86']
    ways = {'observed': [], 'fixed': ['--scales', 'fixed'], 'learned': ['--scales', 'learned'],
            'bits': ['--weight-bits', 4, '--act-bits', 4]}
    found = {}
    for name, more in ways.items():
        good(*base, '-o', folder / f'{name}.onnx', *more)
        found[name], metadata = scales_of(folder / f'{name}.onnx')
        assert not {'rung.scales', 'rung.observers', 'rung.prepared'} & set(metadata)
    for k, fixed in found['fixed'].items():  # the images' range is always 0 to 1
        assert (found['observed'][k][0] != fixed[0]) == (k != 'image_scale')
        assert (found['learned'][k][0] != fixed[0]) == (k != 'image_scale')
    # A prepared file remembers how it was to go on.
    good(*base, '-o', folder / 'a.onnx', '--prepared', folder / 'p.onnx')
    assert scales_of(folder / 'p.onnx')[1]['rung.scales'] == 'observed'
    refused('train', folder / 'p.onnx', '-o', folder / 'b.onnx', '--data', train, '--quiet',
            '--scales', 'learned', '--freeze-scales', 1, says='observed')
    (folder / 'q.json').write_text('{"base": "x86", "scales": "fixed"}')
    good(*base[:-1], folder / 'q.json', '-o', folder / 'json.onnx')
    assert str(scales_of(folder / 'json.onnx')[0]) == str(found['fixed'])


def test_without_labels(folder):
    x = np.random.default_rng(2).integers(0, 256, (256, 28, 28))
    write_idx(folder / 'x', x)
    record = json_of('train', DIGITS, '-o', folder / 'u.onnx', '--data', f'idx:{folder}/x',
                     '--eval', f'idx:{folder}/x', '--epochs', 4, '--quiet', *BITS)
    epochs = record['epochs']
    assert all(e['top1'] is None and e['accuracy'] is None for e in epochs)
    assert epochs[-1]['loss'] < epochs[1]['loss']
    assert epochs[record['best']]['sqnr_db'] > epochs[0]['sqnr_db']


def test_float_training(folder):
    record = json_of(*run_train(folder, folder / 'f.onnx', '--float', '--lr', '0.0005'))
    assert record['scales'] == 0
    assert record['epochs'][record['best']]['top1'] >= record['epochs'][0]['top1']
    model = onnx.load(folder / 'f.onnx')
    assert any(n.op_type == 'BatchNormalization' for n in model.graph.node)
    good('quantize', folder / 'f.onnx', '-o', folder / 'fq.onnx', '--data', data(folder, 64)[0],
         '--quiet')


def test_numbers_that_explode(folder):
    says = refused('train', DIGITS, '-o', folder / 'n.onnx', '--data', data(folder, 300)[0],
                   '--float', '--optimizer', 'sgd', '--lr', '1000', '--epochs', 9, '--quiet',
                   '--batch-epochs', '0',
                   says=['step', 'not finite'])
    assert "'" in says
    assert not (folder / 'n.onnx').exists()


def test_mistakes_are_found_before_calibration(folder):
    """Whatever options and declared shapes tell: not a sample is looked at before."""
    train, _ = data(folder, 64)
    other = folder / 'other.onnx'
    small_conv(other)
    for more, words in [
            (['--augment', 'turn'], "'turn'"), (['--augment', 'crop=28'], 'crop=28'),
            (['--augment', 'flip,cutout=40'], 'cutout=40'),
            (['--features', '1:nothing'], "'nothing'"), (['--warmup', '3'], 'warm-up of 3'),
            (['--teacher', other], 'output 0'), (['--label-smoothing', '-1'], 'label-smoothing'),
            (['--teacher', 'none', '--mse', '1'], 'teacher')]:
        result = command('train', DIGITS, '-o', folder / 'x.onnx', '--data', train, '--epochs', 3,
                         *more)
        assert result.returncode in (1, 2), more
        assert words in result.stderr and 'calibrating' not in result.stderr, result.stderr
    with_tune = command('tune', DIGITS, '-o', folder / 'x.onnx', '--data', train, '--eval', train,
                        '--max-drop', 0, '--augment', 'crop=28', '--work', folder / 'work')
    assert with_tune.returncode == 1 and 'crop=28' in with_tune.stderr
    assert 'trial:' not in with_tune.stderr


def test_a_rate_that_is_too_high(folder):
    """The model is spoilt, what comes out is the one before training, and a remark says so; with a
    rate that suits there is none."""
    for rate, spoilt in ((3, True), (0.00003, False)):
        call = run_train(folder, folder / 'r.onnx', *BITS, '--optimizer', 'sgd', '--lr', rate,
                         '--json', epochs=1)
        result = good(*call)
        record = json.loads(result.stdout)
        first, last = record['epochs'][0], record['epochs'][-1]
        assert record['diverged'] == spoilt == ('training-diverged' in result.stderr)
        assert (last['eval_loss'] > first['eval_loss']) == spoilt
        assert record['best'] == (0 if spoilt else 1)


def test_mistakes(folder):
    train, _ = data(folder, 64)
    base = ['train', DIGITS, '-o', folder / 'x.onnx', '--data', train, '--quiet']
    plain = [*base, '--method', 'none']
    for more, words in [
            (['--epochs', '0'], '--epochs'), (['--optimizer', 'lbfgs'], 'sgd'),
            (['--schedule', 'up'], 'cosine'), (['--distill', 'much'], 'WEIGHT'),
            (['--distill', '1,'], 'WEIGHT'), (['--features', 'r1'], 'WEIGHT:TENSOR'),
            (['--resume'], '--checkpoint'), (['--float', '--act-bits', '4'], '--float'),
            (['--batch-epochs', '2'], '--float'), (['--chunk', '8'], '--float'),
            (['--scales', 'all'], 'observed'),
            (['--float', '--scales', 'fixed'], '--float'),
            (['--freeze-scales', '0'], '--freeze-scales'),
            (['--freeze-oscillating', '1'], '--freeze-oscillating'),
            (['--momentum', '1'], '--momentum')]:
        refused(*base, *more, status=2, says=words)
    for more, words in [
            (['--augment', 'turn'], "'turn'"), (['--augment', 'crop=1.5'], 'crop'),
            (['--features', '1:nothing'], "'nothing'"), (['--teacher', 'none', '--distill', '1'],
                                                         'teacher'),
            (['--teacher', folder / 'missing.onnx'], 'missing.onnx'),
            (['--checkpoint', DIGITS], 'folder')]:
        refused(*plain, *more, says=words)
    good('quantize', DIGITS, '-o', folder / 'q.onnx', '--data', train, '--quiet')
    refused('train', folder / 'q.onnx', '-o', folder / 'x.onnx', '--data', train, '--quiet',
            says='quantized already')
