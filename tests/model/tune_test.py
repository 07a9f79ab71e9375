"""rung tune on small networks: where it ends and what it says, kills and what goes on behind them,
records that are damaged, exit statuses, its page."""
import json
import signal
import subprocess
import time

import pytest

from cli_kit import DIGITS, Running, refused, small_conv, write_digits
from util import np, onnx, ort, rung_binary

TRIALS = ['float', 'dynamic', 'weights', 'static', 'static-auto', 'static-adaround',
          'static-mixed', 'qat', 'qat-long']


@pytest.fixture(scope='module')
def setting(tmp_path_factory):
    """A small network, and samples labelled with its own decisions: float is right on all."""
    folder = tmp_path_factory.mktemp('tune')
    small_conv(folder / 'net.onnx')
    session = ort.InferenceSession(str(folder / 'net.onnx'), providers=['CPUExecutionProvider'])
    rng = np.random.default_rng(2)
    for name, n in (('train', 96), ('eval', 160)):
        x = rng.normal(size=(n, 3, 6, 6)).astype(np.float32)
        y = np.concatenate([session.run(None, {'x': x[i:i + 1]})[0] for i in range(n)]).argmax(1)
        np.savez(folder / f'{name}.npz', x=x, y=y.astype(np.int64))
    return folder


def options(setting, out, max_drop, *more):
    return ['tune', setting / 'net.onnx', '-o', out, '--data', f'npz:{setting}/train.npz',
            '--eval', f'npz:{setting}/eval.npz', '--max-drop', max_drop, *more]


def tune(*args, status=0):
    """The object, and what standard error says."""
    result = subprocess.run([rung_binary(), *map(str, args), '--json'], capture_output=True,
                            text=True, timeout=600)
    assert result.returncode == status, result.stderr
    assert 'Sanitizer' not in result.stderr and 'runtime error' not in result.stderr
    return json.loads(result.stdout), result.stderr


def by_name(said):
    return {t['trial']: t for t in said['trials']}


HARD = ['--weight-bits', 2, '--act-bits', 2, '--epochs', 3, '--batch', 32]


def test_eight_bits_end_in_ptq(setting, tmp_path):
    out, page = tmp_path / 'q.onnx', tmp_path / 'q.html'
    said, _ = tune(*options(setting, out, 20, '--html', page))
    trials = by_name(said)
    assert list(trials) == TRIALS and said['met'] and said['metric'] == 'top1'
    assert trials['float']['top1'] == 100 and trials['float']['drop'] == 0
    assert trials['static']['state'] == 'done' and trials['static']['drop'] <= 20
    for name in TRIALS[4:]:
        assert trials[name]['state'] == 'untried' and 'not needed' in trials[name]['note']
    assert 'post-training quantization is enough' in said['reason']
    best = trials[said['best']]
    assert best['bytes'] == out.stat().st_size and best['best_ms'] > 0
    (kept,) = (tmp_path / 'q.onnx.tune').glob(f'{said["best"]}-*.onnx')
    assert kept.read_bytes() == out.read_bytes()
    onnx.checker.check_model(str(out), full_check=True)
    html = page.read_text()
    assert 'side by side' in html and '<svg' in html and 'recommended' in html


def test_the_figures_are_those_of_the_file(setting, tmp_path):
    out = tmp_path / 'q.onnx'
    said, _ = tune(*options(setting, out, 0, '--no-train', '--prefer', 'size', *HARD[:4]), status=3)
    now = json.loads(subprocess.run(
        [rung_binary(), 'eval', out, '--data', f'npz:{setting}/eval.npz', '--reference',
         setting / 'net.onnx', '--json', '--quiet'], capture_output=True, check=True).stdout)
    best = by_name(said)[said['best']]
    assert now['top1'] == pytest.approx(best['top1'], abs=1e-3)
    assert now['agreement'] == pytest.approx(best['agreement'], abs=1e-3)
    assert best['drop'] == pytest.approx(100 - now['top1'], abs=1e-3)


def test_what_cannot_be_met_is_status_3(setting, tmp_path):
    out = tmp_path / 'q.onnx'
    said, text = tune(*options(setting, out, 0, *HARD), status=3)
    trials = by_name(said)
    assert not said['met'] and 'nothing that was tried keeps the drop' in said['reason']
    assert 'is not kept' in text and out.exists()
    assert trials['qat']['epochs'] == 3 and trials['qat-long']['epochs'] == 9
    answers = [t for t in trials.values() if t['state'] == 'done' and t['answer']]
    assert trials[said['best']]['drop'] == min(t['drop'] for t in answers)
    assert trials['dynamic']['state'] == 'done' and not trials['dynamic']['answer']
    assert said['ptq']['seconds'] > 0 and said['qat']['epochs'] == 12


def test_the_least_share_of_what_was_asked_for(setting, tmp_path):
    """It is what --min-share says, half without it; trials do not depend on it."""
    for call, share in (((), 0.5), (('--min-share', 100), 1), (('--min-share', 0), 0)):
        said, _ = tune(*options(setting, tmp_path / 'q.onnx', 0, '--no-train', *call, *HARD[:4]),
                       status=3)
        trials = by_name(said)
        mixed, static = trials['static-mixed'], trials['static']
        assert said['min_share'] == share and static['asked_macs_share'] == 1
        assert mixed['asked_macs_share'] == pytest.approx(
            mixed['int_macs_share'] - mixed['wide_share'])
        assert mixed['answer'] == (mixed['asked_macs_share'] >= share)
        assert trials['dynamic']['asked_macs_share'] == 0
        assert mixed['kept'] == (call != ())
    refused('tune', setting / 'net.onnx', '-o', tmp_path / 'r.onnx', '--data', 'random', '--eval',
            'random', '--max-drop', 1, '--min-share', 101, says='min-share', status=2)


def test_bits_of_a_qconfig_are_what_is_asked_for(setting, tmp_path):
    config = tmp_path / 'few.json'
    config.write_text(json.dumps({'base': 'default', 'rules': [
        {'op': 'Conv', 'set': {'weight_bits': 3, 'act_bits': 4}}]}))
    said, _ = tune(*options(setting, tmp_path / 'q.onnx', 100, '--qconfig', config))
    assert (said['weight_bits'], said['act_bits']) == (3, 4)
    assert not by_name(said)['dynamic']['answer'] and said['best'] == 'static'


def test_trials_are_used_again(setting, tmp_path):
    out = tmp_path / 'q.onnx'
    first, _ = tune(*options(setting, out, 0, '--no-train', *HARD[:4]), status=3)
    bytes_first = out.read_bytes()
    again, text = tune(*options(setting, out, 0, '--no-train', *HARD[:4]), status=3)
    assert out.read_bytes() == bytes_first and 'calibrating' not in text
    for name, t in by_name(again).items():
        if t['state'] == 'done' and name != 'float':
            assert t['kept'] and t['best_ms'] == by_name(first)[name]['best_ms']
    # Another drop uses all but the search for it; other settings use nothing.
    other, _ = tune(*options(setting, out, 0.3, '--no-train', *HARD[:4]), status=3)
    assert by_name(other)['static']['kept'] and not by_name(other)['static-mixed']['kept']
    other, _ = tune(*options(setting, out, 0, '--no-train', '--seed', 1, *HARD[:4]), status=3)
    assert not any(t['kept'] for t in other['trials'])


def test_damaged_trials_are_made_anew(setting, tmp_path):
    out, work = tmp_path / 'q.onnx', tmp_path / 'work'
    call = options(setting, out, 20, '--work', work)
    tune(*call)
    before = out.read_bytes()
    (record,) = work.glob('static-*.json')
    record.write_text(record.read_text().replace('"top1"', '"top0"'))
    (model,) = work.glob('weights-*.onnx')
    model.write_bytes(model.read_bytes()[:-1])
    said, _ = tune(*call)
    trials = by_name(said)
    assert not trials['static']['kept'] and not trials['weights']['kept']
    assert trials['dynamic']['kept'] and out.read_bytes() == before


def assert_same_models(work, whole):
    assert [p.name for p in sorted(work.glob('*.onnx'))] == \
        [p.name for p in sorted(whole.glob('*.onnx'))]
    for path in work.glob('*.onnx'):
        assert path.read_bytes() == (whole / path.name).read_bytes(), path.name
    assert not list(work.glob('*.run'))  # checkpoints are cleared away


def test_killed_between_trials(setting, tmp_path):
    """kill -9: what was finished is kept, and the models are those of a run without a break."""
    whole, work = tmp_path / 'whole', tmp_path / 'work'
    tune(*options(setting, tmp_path / 'a.onnx', 0, '--work', whole, *HARD), status=3)
    call = options(setting, tmp_path / 'b.onnx', 0, '--work', work, *HARD)
    for word in ('trial: static, auto', 'trial: QAT\n'):
        assert Running(*call).interrupt(word, signal.SIGKILL) == -signal.SIGKILL
    trials = by_name(tune(*call, status=3)[0])
    assert all(trials[k]['kept'] for k in TRIALS[3:7]) and not trials['qat']['kept']
    assert_same_models(work, whole)


def test_killed_in_training(setting, tmp_path):
    """It goes on from the checkpoint, with the same bytes at the end; a damaged one begins anew."""
    whole, work = tmp_path / 'whole', tmp_path / 'work'
    hard = [*HARD, '--epochs', 25]
    tune(*options(setting, tmp_path / 'a.onnx', 0, '--work', whole, *hard), status=3)
    call = options(setting, tmp_path / 'b.onnx', 0, '--work', work, *hard)
    for damaged in (False, True):
        for path in work.glob('qat*'):
            path.unlink()
        process = subprocess.Popen([rung_binary(), *map(str, call)], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        while not list(work.glob('qat-*.run/checkpoint.bin')):
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        (checkpoint,) = work.glob('qat-*.run/checkpoint.bin')
        if damaged:
            checkpoint.write_bytes(checkpoint.read_bytes()[:-3])
        trials = by_name(tune(*call, status=3)[0])
        assert trials['static-mixed']['kept'] and not trials['qat']['kept']
        assert trials['qat']['epochs'] == 25
        assert_same_models(work, whole)


def test_a_time_budget(setting, tmp_path):
    """One second: training has as many epochs as fit, or none."""
    out = tmp_path / 'q.onnx'
    said, _ = tune(*options(setting, out, 0, '--time-budget', 1, *HARD[:4], '--epochs', 100000),
                   status=3)
    trials = by_name(said)
    assert trials['static']['state'] == 'done' and out.exists()
    assert trials['qat']['state'] == 'untried' or trials['qat']['epochs'] < 100000
    assert 'time' in trials['qat']['note'] and trials['qat-long']['state'] == 'untried'


def test_digits(tmp_path):
    data, held = write_digits(tmp_path)
    said, _ = tune('tune', DIGITS, '-o', tmp_path / 'q.onnx', '--data', data, '--eval', held,
                   '--max-drop', 1, '--samples', 100, '--threads', 1)
    trials = by_name(said)
    assert said['met'] and trials['static']['state'] == 'done'
    assert trials['static']['bytes'] < 0.4 * trials['float']['bytes']
    text = subprocess.run([rung_binary(), 'tune', DIGITS, '-o', tmp_path / 'q.onnx', '--data', data,
                           '--eval', held, '--max-drop', '1', '--samples', '100', '--threads', '1'],
                          capture_output=True, text=True, check=True).stdout
    assert 'recommended: post-training quantization is enough' in text and '<- recommended' in text


def test_mistakes(setting, tmp_path):
    out = tmp_path / 'q.onnx'
    call = options(setting, out, 1)
    refused(*[a for a in call if a not in ('--eval', f'npz:{setting}/eval.npz')], status=2,
            says='--eval is missing')
    refused(*call[:-2], status=2, says='--max-drop is missing')
    refused(*call, '--prefer', 'speed', status=2, says='latency or size')
    refused(*call, '--method', 'auto', status=2, says='not an option of this command')
    refused(*call, '--no-train', '--epochs', 2, status=2, says='--no-train')
    refused(*call, '--work', '/dev/null', says=['/dev/null', 'folder'])
    assert not out.exists()
