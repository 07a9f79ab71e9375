"""rung train under mpirun: K processes are one with K times the batch; what ends one ends all, with
one sentence and no damaged file. On the digits network (examples/digits) and on ResNet-20."""
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

import util
from cli_kit import DIGITS, digits_split, good, json_of, refused, write_idx

BITS = ['--weight-bits', '4', '--act-bits', '4', '--method', 'none', '--range', 'minmax']
# Open MPI refuses root otherwise; processes on few cores yield to one another.
ENVIRONMENT = {'OMPI_ALLOW_RUN_AS_ROOT': '1', 'OMPI_ALLOW_RUN_AS_ROOT_CONFIRM': '1',
               'OMPI_MCA_mpi_yield_when_idle': '1', 'OMP_NUM_THREADS': '1'}


def has_mpi():
    linked = subprocess.run(['ldd', util.rung_binary()], capture_output=True, text=True).stdout
    return 'libmpi' in linked


@pytest.fixture
def mpi():
    if not shutil.which('mpirun'):
        pytest.skip('no mpirun')
    if not has_mpi():
        pytest.skip('rung was built without MPI')


@pytest.fixture(scope='session')
def digits():
    return digits_split()


@pytest.fixture
def folder(tmp_path, digits):
    """301 images: the last step is not whole, and odd numbers are to be split."""
    for name, (x, y) in zip(('train', 'held'), digits):
        write_idx(tmp_path / f'{name}.x', x[:301])
        write_idx(tmp_path / f'{name}.y', y[:301])
    return tmp_path


def call(folder, out, *more, train='train', model=DIGITS):
    return [str(word) for word in (
        'train', model, '-o', folder / out, '--data', f'idx:{folder}/{train}.x,{folder}/{train}.y',
        '--eval', f'idx:{folder}/held.x,{folder}/held.y', '--threads', 1, *more)]


def command(n, *words):
    return ['mpirun', '-n', str(n), '--oversubscribe', *map(str, words)]


def ranks(n, *words, status=0, timeout=120, program=None):
    """rung as n processes; what does not end by itself fails."""
    result = subprocess.run(command(n, program or util.rung_binary(), *words), text=True,
                            capture_output=True, errors='replace', timeout=timeout,
                            env={**os.environ, **ENVIRONMENT})
    assert 'Sanitizer' not in result.stderr and 'runtime error' not in result.stderr, result.stderr
    assert (result.returncode == 0) == (status == 0), result.stderr
    return result


def one_differs(first, other, *, timeout=60):
    """Two processes with different calls: both fail, one sentence of rung comes out of it."""
    script = 'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then exec "$@"; fi; exec ' + ' '.join(
        f"'{word}'" for word in [util.rung_binary(), *first])
    result = subprocess.run(command(2, 'sh', '-c', script, 'sh', util.rung_binary(), *other),
                            capture_output=True, text=True, timeout=timeout,
                            env={**os.environ, **ENVIRONMENT})
    assert result.returncode != 0
    return sentence(result)


def sentence(result):
    lines = [line for line in result.stderr.splitlines() if line.startswith('rung train: ')]
    assert len(lines) == 1, result.stderr
    return result.stderr[result.stderr.index(lines[0]):].replace('\n', ' ')


def lines_of(path, kind):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [e for e in lines if e['kind'] == kind]


def weights(path):
    graph = onnx.load(path).graph
    return {t.name: numpy_helper.to_array(t) for t in graph.initializer}


def assert_close(a, b, rtol):
    """Parameters of two models, each against the size of its tensor."""
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    for name, values in a.items():
        size = np.abs(values.astype(np.float64)).max(initial=0)
        np.testing.assert_allclose(b[name].astype(np.float64), values.astype(np.float64), rtol=rtol,
                                   atol=rtol * size, err_msg=name)


# --- the result -----------------------------------------------------------------------------------

HOW = {
    'learned': [*BITS, '--augment', 'crop=2,mixup=0.3', '--optimizer', 'sgd', '--lr', '0.0005'],
    'adamw': [*BITS, '--augment', 'crop=2,flip', '--ema', '0.9'],
    'observed': ['--qconfig', 'fbgemm', '--optimizer', 'sgd', '--lr', '0.0005'],
    'float': ['--float', '--batch-epochs', 0, '--optimizer', 'sgd', '--lr', '0.0005'],
}


@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('n', [2, 3])
def test_is_one_with_the_batch_of_all(mpi, folder, how, n):
    """Sums are added in another order, and that is all: losses, gradients and rates of every step,
    figures of every epoch and the parameters in the end are those of one process."""
    more = [*HOW[how], '--epochs', 2]
    one = json_of(*call(folder, 'one.onnx', *more, '--batch', 20 * n, '--metrics', folder / 'one',
                        *prepared(folder, 'one', how)))
    result = ranks(n, *call(folder, 'all.onnx', *more, '--batch', 20, '--metrics', folder / 'all',
                            '--json', *prepared(folder, 'all', how)))
    assert result.stderr.count('training  0/602') == 1
    record = json.loads(result.stdout)
    assert record['batch'] == one['batch'] == 20 * n
    assert record['steps'] == one['steps'] and record['best'] == one['best']
    assert record['ranks'] == n and one['ranks'] == 1
    for kind, keys in (('step', ('loss', 'norm', 'rate', 'accuracy')),
                       ('epoch', ('loss', 'accuracy', 'top1', 'eval_loss'))):
        first, other = lines_of(folder / 'one', kind), lines_of(folder / 'all', kind)
        assert len(first) == len(other)
        for key, (a, b) in itertools.product(keys, zip(first, other)):
            assert (a[key] is None) == (b[key] is None)
            assert a[key] is None or abs(a[key] - b[key]) <= 1e-4 * abs(a[key]), (key, a, b)
    end = 'onnx' if how == 'float' else 'prepared'
    assert_close(folder / f'one.{end}', folder / f'all.{end}', 1e-4)


def prepared(folder, name, how):
    return [] if how == 'float' else ['--prepared', folder / f'{name}.prepared']


@pytest.mark.parametrize('bits', [8, 4])
def test_resnet20(mpi, tmp_path, bits):
    """A few steps, distilled on images without labels; 25 of them: the last step has one, which two
    of three processes have nothing of."""
    model = util.shared_folder() / 'models/cifar10_resnet20_akamaster.onnx'
    images = np.random.default_rng(3).normal(0, 1, (25, 3, 32, 32)).astype(np.float32)
    np.savez(tmp_path / 'x.npz', x=images)
    for n, batch in ((1, 12), (3, 4)):
        words = ['train', model, '-o', tmp_path / f'{n}.onnx', '--data', f'npz:{tmp_path}/x.npz',
                 '--weight-bits', bits, '--act-bits', bits, '--method', 'none', '--epochs', 2,
                 '--batch', batch, '--metrics', tmp_path / f'{n}', '--prepared',
                 tmp_path / f'{n}.prepared', '--threads', 1, '--quiet']
        good(*words) if n == 1 else ranks(n, *words)
    one, all_ = lines_of(tmp_path / '1', 'step'), lines_of(tmp_path / '3', 'step')
    assert len(one) == len(all_) == 6
    for a, b in zip(one, all_):
        assert abs(a['loss'] - b['loss']) <= 1e-3 * a['loss'], (a, b)
        assert abs(a['norm'] - b['norm']) <= 1e-3 * a['norm'], (a, b)
    assert_close(tmp_path / '1.prepared', tmp_path / '3.prepared', 1e-3)


def test_one_process_writes_the_same_bytes(mpi, folder):
    more = [*BITS, '--epochs', 1, '--quiet']
    good(*call(folder, 'plain.onnx', *more))
    ranks(1, *call(folder, 'one.onnx', *more))
    assert (folder / 'plain.onnx').read_bytes() == (folder / 'one.onnx').read_bytes()


@pytest.mark.parametrize('range_, method', [
    ('minmax', 'none'), ('mse', 'none'), ('percentile', 'none'), ('entropy', 'none'),
    ('ema', 'none'), ('mse', 'auto')])
def test_calibration_is_split(mpi, folder, range_, method):
    """Steps too small to move anything leave the model as calibrated: what three processes saw is
    what one did, moving averages included."""
    more = ['--range', range_, '--method', method, '--epochs', 1, '--lr', '1e-9', '--quiet']
    good(*call(folder, 'one.onnx', *more))
    ranks(3, *call(folder, 'all.onnx', *more))
    assert (folder / 'one.onnx').read_bytes() == (folder / 'all.onnx').read_bytes()


def test_statistics_of_the_batch(mpi, tmp_path):
    """Those of each process's own samples, as of one process's parts of a batch."""
    model = util.shared_folder() / 'models/mlperf_tiny_kws_dscnn.onnx'
    spec = onnx.load(model).graph.input[0]
    shape = [d.dim_value for d in spec.type.tensor_type.shape.dim][1:]
    x = np.random.default_rng(4).normal(0, 1, (50, *shape)).astype(np.float32)
    np.savez(tmp_path / 'x.npz', x=x, y=np.arange(50) % 10)
    more = ['--data', f'npz:{tmp_path}/x.npz', '--float', '--epochs', 2, '--batch-epochs', 2,
            '--threads', 1, '--optimizer', 'sgd', '--lr', '1e-4', '--quiet']
    good('train', model, '-o', tmp_path / 'one.onnx', '--batch', 24, '--chunk', 8, *more)
    ranks(3, 'train', model, '-o', tmp_path / 'all.onnx', '--batch', 8, *more)
    assert_close(tmp_path / 'one.onnx', tmp_path / 'all.onnx', 1e-4)


# --- interruption ---------------------------------------------------------------------------------

def children(pid):
    listed = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(pid)], capture_output=True,
                            text=True)
    return [int(word) for word in listed.stdout.split()]


def modified(path):
    return path.stat().st_mtime_ns if path.exists() else 0


def kill_one(words, n, checkpoint, after, number):
    """Starts n processes and kills one of them so many seconds after they wrote a checkpoint (while
    they start, Open MPI 4.1's mpirun itself may miss a death); True: mpirun and all others then
    ended, False: the run was through before."""
    before = modified(checkpoint)
    run = subprocess.Popen(command(n, util.rung_binary(), *words), stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, env={**os.environ, **ENVIRONMENT})
    try:
        end = time.monotonic() + 60
        while modified(checkpoint) == before and run.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(after)
        started = children(run.pid)
        if run.poll() is not None or len(started) < n:
            return run.wait(60) != 0
        os.kill(started[number % n], signal.SIGKILL)
        status = run.wait(60)
        while any(os.path.exists(f'/proc/{pid}') for pid in started):
            assert time.monotonic() < end
            time.sleep(0.01)
        return status != 0
    finally:
        run.kill()
        run.wait()


def assert_whole_or_missing(folder):
    written = folder / 'broken.onnx'
    assert not written.exists() or written.read_bytes() == (folder / 'whole.onnx').read_bytes()


def test_survives_the_death_of_one(mpi, folder):
    """Killed at random moments, resumed until it ends: the bytes of a run without a break."""
    more = [*BITS, '--augment', 'crop=2,mixup=0.3', '--epochs', 12, '--batch', 8, '--quiet']
    ranks(2, *call(folder, 'whole.onnx', *more))
    words = call(folder, 'broken.onnx', *more, '--checkpoint', folder / 'run', '--resume',
                 '--checkpoint-seconds', '0.02', '--metrics', folder / 'broken.jsonl')
    numbers, kills = random.Random(7), 0
    for number in range(4):
        kills += kill_one(words, 2, folder / 'run/checkpoint.bin', numbers.uniform(0, 0.3),
                          number)
        assert_whole_or_missing(folder)
    assert kills > 0
    ranks(2, *words)
    assert (folder / 'whole.onnx').read_bytes() == (folder / 'broken.onnx').read_bytes()
    steps = [e['step'] for e in lines_of(folder / 'broken.jsonl', 'step')]
    assert steps == sorted(set(steps)) and steps[0] == 1
    # A process that is killed while it writes cannot take its half-written file away.
    assert len(list(folder.glob('**/*.tmp*'))) <= kills


def test_another_number_goes_on_with_the_same_batch(mpi, folder):
    more = [*BITS, '--epochs', 6, '--quiet', '--checkpoint', folder / 'run', '--resume',
            '--checkpoint-seconds', '0.02']
    kill_one(call(folder, 'a.onnx', *more, '--batch', 12), 2, folder / 'run/checkpoint.bin', 0, 0)
    shutil.copytree(folder / 'run', folder / 'kept')
    refused(*call(folder, 'b.onnx', *more, '--batch', 12), says=['other options'])
    good(*call(folder, 'one.onnx', *more, '--batch', 24, '--prepared', folder / 'one.prepared'))
    shutil.rmtree(folder / 'run')
    (folder / 'kept').rename(folder / 'run')
    ranks(3, *call(folder, 'three.onnx', *more, '--batch', 8, '--prepared',
                   folder / 'three.prepared'))
    assert_close(folder / 'one.prepared', folder / 'three.prepared', 1e-4)


# --- failures -------------------------------------------------------------------------------------

def test_not_finite_names_step_and_layer(mpi, folder):
    result = ranks(2, *call(folder, 'nan.onnx', '--float', '--batch-epochs', 0, '--optimizer',
                            'sgd', '--lr', '1000', '--epochs', 20, '--quiet'), status=1)
    said = sentence(result)
    assert 'step ' in said and 'is the first node' in said and 'rank' not in said
    assert not (folder / 'nan.onnx').exists()


@pytest.mark.parametrize('n', [2, 3])
def test_not_finite_in_one_process_only(mpi, tmp_path, n):
    """One sample is bad: the process that has it names the layer, for all."""
    x = np.random.default_rng(5).uniform(0, 1, (24, 1, 28, 28)).astype(np.float32)
    x[17] = np.inf
    np.savez(tmp_path / 'x.npz', x=x, y=np.arange(24) % 10)
    result = ranks(n, 'train', DIGITS, '-o', tmp_path / 'o.onnx', '--data', f'npz:{tmp_path}/x.npz',
                   '--float', '--batch-epochs', 0, '--batch', 24 // n, '--epochs', 1, '--quiet',
                   status=1)
    said = sentence(result)
    assert 'step 1' in said and 'is the first node' in said, said


def test_a_mistake_in_all(mpi, folder):
    missing = [*call(folder, 'o.onnx', '--metrics', folder / 'missing/m', '--quiet')]
    assert 'missing/m' in sentence(ranks(2, *missing, status=1))
    assert 'no-model' in sentence(ranks(2, *call(folder, 'o.onnx', model='no-model'), status=1))
    assert not (folder / 'o.onnx').exists()


def test_a_mistake_in_one(mpi, folder, tmp_path):
    """The others wait for it nowhere, and all have its sentence."""
    right = call(folder, 'o.onnx', *BITS, '--quiet')
    other = call(folder, 'o.onnx', *BITS, '--quiet', train='missing')
    said = one_differs(right, other)
    assert 'rank 1: ' in said and 'missing.x' in said
    assert 'rank 1: ' in one_differs(right, call(folder, 'o.onnx', *BITS, model='no-model'))
    assert 'other options' in one_differs(right, [*right, '--lr', '0.5'])
    assert 'other options' in one_differs(right, [*right, '--act-bits', '5'])
    assert 'come apart' in one_differs(right, [*right, '--exclude', 'Conv'])
    assert not (folder / 'o.onnx').exists()


def test_an_image_that_one_cannot_read(mpi, tmp_path):
    """In the middle of an epoch, in the process that has it."""
    numbers = np.random.default_rng(6)
    for i in range(40):
        path = tmp_path / 'images' / str(i % 10) / f'{i:02}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers.integers(0, 256, (28, 28)).astype(np.uint8)).save(path)
    words = ['train', DIGITS, '-o', tmp_path / 'o.onnx', '--data', f'images:{tmp_path}/images',
             '--float', '--batch-epochs', 0, '--batch', 4, '--epochs', 1, '--quiet']
    ranks(2, *words)
    path = tmp_path / 'images/3/23.png'
    path.write_bytes(path.read_bytes()[:60])
    (tmp_path / 'o.onnx').unlink()
    said = sentence(ranks(2, *words, status=1))
    assert '23.png' in said and 'rank ' in said
    assert not (tmp_path / 'o.onnx').exists()


# --- from C ---------------------------------------------------------------------------------------

@pytest.fixture
def ranks_run():
    build = os.environ.get('RUNG_BUILD', '/nonexistent')
    path = pathlib.Path(build, 'tests/unit/ranks_run')
    return path if path.exists() else pathlib.Path(util.program('RUNG_RANKS_RUN'))


def test_steps_with_samples_of_their_own(mpi, ranks_run, tmp_path):
    """rung_trainer_step over processes with 7 and 8, or 5 samples each."""
    losses = {}
    for n in (1, 2, 3):
        result = ranks(n, DIGITS, tmp_path / f'{n}.onnx', program=ranks_run)
        losses[n] = [float(line) for line in result.stdout.split()]
    assert len(losses[1]) == 3 and losses[1][2] < losses[1][0]
    for n in (2, 3):
        np.testing.assert_allclose(losses[n], losses[1], rtol=1e-4)
        assert_close(tmp_path / '1.onnx', tmp_path / f'{n}.onnx', 1e-4)


def test_memory_that_is_out_in_one(mpi, ranks_run, tmp_path):
    """Wherever that is: while reading, calibrating, making the trainer, in a step."""
    allocations, failures = 1, 0
    while allocations < 1 << 20:
        out = tmp_path / f'{allocations}.onnx'
        result = subprocess.run(command(2, ranks_run, DIGITS, out, allocations), timeout=60,
                                capture_output=True, text=True, env={**os.environ, **ENVIRONMENT})
        if result.returncode == 0:
            break
        said = [s for s in result.stderr.splitlines() if s.startswith('ranks_run: ')]
        assert len(said) == 1 and 'rank 1: ' in said[0] and 'memory' in said[0], result.stderr
        assert not out.exists()
        failures += 1
        allocations = allocations * 8 // 5 + 1
    assert result.returncode == 0 and failures > 8


# --- processes that cannot meet -------------------------------------------------------------------

def test_copies_are_refused(folder):
    """The launcher's word says that there are others; without MPI, or with another one, each would
    do the whole work."""
    name = 'PMI_SIZE' if has_mpi() else 'OMPI_COMM_WORLD_SIZE'
    says = ['each finds itself alone'] if has_mpi() else ['built without MPI', '-Dmpi=enabled']
    said = refused(*call(folder, 'o.onnx', '--quiet'), env={name: '2', **ENVIRONMENT},
                   says=says[:1])
    assert said and not (folder / 'o.onnx').exists()
    good(*call(folder, 'o.onnx', *BITS, '--epochs', 1, '--quiet'), env={name: '1'})
