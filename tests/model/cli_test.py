"""The command line as docs/cli.md describes it: options, output, exit statuses, figures."""
import os
import pty
import re
import signal
import subprocess

import pytest

import util  # first: it skips all of this where the oracles are missing
from util import np, onnx, ort

from cli_kit import (DIGITS, ROOT, Running, command, digits_arrays, good, json_of, refused,
                     save_model, write_digits)
from onnx import TensorProto, helper

COMMANDS = ('inspect', 'quantize', 'train', 'eval', 'bench', 'run')
MANUAL = (ROOT / 'docs/cli.md').read_text()


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp('digits')
    calibration, held = write_digits(folder)
    good('quantize', DIGITS, '-o', folder / 'q.onnx', '--data', calibration)
    return type('Work', (), {'folder': folder, 'calibration': calibration, 'held': held,
                             'q': folder / 'q.onnx'})


def scores(path, x, level=ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    s = ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    return s.run(None, {s.get_inputs()[0].name: x})[0]


def keys_in_manual(name):
    """The words in code marks of "* `name`: ..." in the section of JSON keys, the nested ones in
    parentheses left out."""
    item = re.search(rf'^\* `{name}`: (.*?)(?=^\* |^\n|^SQNR)', MANUAL, re.M | re.S).group(1)
    item = re.sub(r'\([^()]*\)', '', item)
    return set(re.findall(r'`(\w+)`', item)) - {'null'}


# --- help and mistakes in the call ----------------------------------------------------------------

def test_help_of_the_program():
    result = good('--help')
    assert result.stderr == ''
    for name in COMMANDS:
        assert re.search(rf'^  {name} ', result.stdout, re.M)
    assert good('-h').stdout == result.stdout
    bare = command()
    assert bare.returncode == 2 and bare.stdout == '' and bare.stderr == result.stdout


def test_version():
    assert re.fullmatch(r'rung \d+\.\d+\.\d+\n', good('--version').stdout)


@pytest.mark.parametrize('name', COMMANDS)
def test_help_of_a_command(name):
    result = good(name, '--help')
    assert result.stderr == '' and result.stdout.startswith(f'Usage: rung {name} MODEL')
    assert 'Example' in result.stdout and good(name, '-h').stdout == result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


@pytest.mark.parametrize('name', COMMANDS)
def test_every_option_in_the_help_is_taken(name):
    """Each --option of the help is known to the command: with --help behind, it prints the help."""
    text = good(name, '--help').stdout
    values = {'--percentile': '99', '--samples': '1', '--seed': '1', '--threads': '1',
              '--batch': '1', '--seconds': '1', '--act-bits': '4', '--weight-bits': '4',
              '--block': '32', '--max-drop': '1', '--epochs': '1', '--batch-epochs': '1',
              '--time-budget': '9', '--freeze-scales': '1', '--chunk': '8', **dict.fromkeys(
                  ['--lr', '--warmup', '--momentum', '--weight-decay', '--clip', '--ema', '--mse',
                   '--cross-entropy', '--dampen', '--checkpoint-seconds', '--freeze-oscillating',
                   '--min-share'], '0.5')}
    options = re.findall(r'^  (?:-\w, )?(--[a-z-]+)( \S)?', text, re.M)
    assert options
    for option, has_value in options:
        words = [option] + ([values.get(option, 'word')] if has_value else [])
        assert good(name, *words, '--help').stdout == text, option


@pytest.mark.parametrize('name', COMMANDS)
def test_mistakes_in_the_call(name):
    refused(name, status=2, says='no model')
    refused(name, DIGITS, '--frobnicate', status=2, says="unknown option '--frobnicate'")
    refused(name, DIGITS, '-z', status=2, says="unknown option '-z'")
    refused(name, DIGITS, '-zq', status=2, says="unknown option '-z'")
    refused(name, DIGITS, 'second', status=2, says='second')
    refused(name, DIGITS, '--help=5', status=2, says='--help takes no value')
    assert f'rung {name} --help' in command(name).stderr


def test_unknown_command():
    refused('frob', status=2, says="'frob'")


@pytest.mark.parametrize('args, says', [
    (('quantize', 'M', '--data', 'random'), '-o FILE'),
    (('quantize', 'M', '-o', 'x.onnx'), '--data'),
    (('quantize', 'M', '-o'), "'-o' wants a value"),
    (('quantize', 'M', '--output'), "'--output' wants a value"),
    (('quantize', 'M', '-o', 'x', '--data', 'random', '--mode', 'dynamite'), 'dynamite'),
    (('quantize', 'M', '-o', 'x', '--data', 'random', '--range', 'huge'), 'huge'),
    (('quantize', 'M', '-o', 'x', '--data', 'random', '--act-type', 'int9'), 'int9'),
    (('quantize', 'M', '-o', 'x', '--data', 'random', '--weight-scheme', 'w'), "'w'"),
    (('quantize', 'M', '-o', 'x', '--percentile', '101'), "--percentile '101'"),
    (('quantize', 'M', '-o', 'x', '--percentile', 'nan'), "--percentile 'nan'"),
    (('quantize', 'M', '-o', 'x', '--samples', '0'), "--samples '0'"),
    (('quantize', 'M', '-o', 'x', '--samples', '12x'), "--samples '12x'"),
    (('quantize', 'M', '-o', 'x', '--seed', '-1'), "--seed '-1'"),
    (('quantize', 'M', '-o', 'x', '--threads', '9999'), "--threads '9999'"),
    (('quantize', 'M', '-o', 'x', '--batch', ''), "--batch ''"),
    (('quantize', 'M', '-o', 'x', '--ops', ''), "--ops ''"),
    (('quantize', 'M', '-o', 'x', '--exclude', ','), "--exclude ','"),
    (('quantize', 'M', '--lr', '1'), '--lr is not an option'),
    (('train', 'M', '-o', 'x', '--lr', '0'), "--lr '0'"),
    (('eval', 'M'), '--data'),
    (('eval', 'M', '--reference'), "'--reference' wants a value"),
    (('bench', 'M', '--seconds', '0'), "--seconds '0'"),
    (('bench', 'M', '--data', 'random'), '--data is not an option'),
    (('run', 'M', '--input', 'image=x.npy'), '--output DIR'),
    (('run', 'M', '--output', 'd'), '--input image=FILE.npy is missing'),
    (('run', 'M', '--output', 'd', '--input', 'imago=x.npy'), 'imago=x.npy'),
    (('run', 'M', '--output', 'd', '--input', 'image'), "'image'"),
])
def test_mistakes_in_options(args, says, tmp_path):
    refused(*(str(DIGITS) if a == 'M' else a for a in args), status=2, says=says, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_input_given_twice(tmp_path):
    np.save(tmp_path / 'x.npy', np.zeros((1, 1, 28, 28), np.float32))
    one = f'image={tmp_path}/x.npy'
    refused('run', DIGITS, '--input', one, '--input', one, '--output', tmp_path / 'o', status=2,
            says='twice')


@pytest.mark.parametrize('level', ['sse2', 'AVX2', ' ', 'avx512'])
def test_a_bad_level_of_the_processor(level):
    refused('inspect', DIGITS, env={'RUNG_CPU': level}, says=['RUNG_CPU', level])


# --- inspect --------------------------------------------------------------------------------------

def test_inspect_json(work):
    for path in (DIGITS, work.q):
        got, model = json_of('inspect', path), onnx.load(path)
        assert set(got) == keys_in_manual('inspect')
        assert got['nodes'] == len(model.graph.node) == sum(got['ops'].values())
        assert got['inputs'] == [{'name': 'image', 'type': 'float32', 'dims': ['N', 1, 28, 28]}]
        assert got['outputs'] == [{'name': 'scores', 'type': 'float32', 'dims': ['N', 10]}]
        assert got['metadata'] == {p.key: p.value for p in model.metadata_props}
        assert got['graph'] == 'digits' and got['opset'] == 13
        assert got['float_islands'] == []
        assert {d['code'] for d in got['diagnostics']} == ({'avx2-saturation'} if path == work.q
                                                           else set())
    assert got['int_macs_share'] == 1 and json_of('inspect', DIGITS)['int_macs_share'] == 0
    # 3x3 convolutions of 28x28x16, 14x14x32 (twice), 7x7x64 and the classifier.
    assert got['macs'] == 9 * (784 * 16 + 196 * 32 * (16 + 32) + 49 * 64 * 32) + 640


def test_inspect_text(work):
    text = good('inspect', work.q).stdout
    assert 'digits, opset 13' in text and '100.0 % of them in integers' in text
    assert 'rung.preprocess = scale=255' in text


def test_names_that_are_no_text(tmp_path):
    """Neither the terminal nor a reader of JSON is steered by names in a file."""
    path = save_model(tmp_path / 'm.onnx', [helper.make_node('Relu', ['XX'], ['y'], 'r')],
                      [('XX', [2])], [('y', [2])])
    for name in (b'\x1b[', b'\xff\xfe', b'\xe2\x82', b'\r\n'):
        (tmp_path / 'odd.onnx').write_bytes(path.read_bytes().replace(b'XX', name))
        assert not set(good('inspect', tmp_path / 'odd.onnx').stdout) & set('\x1b\r\ufffd')
        complaint = command('run', tmp_path / 'odd.onnx', '--output', tmp_path).stderr
        assert not set(complaint) & set('\x1b\r')
        got = json_of('inspect', tmp_path / 'odd.onnx')
        assert len(got['inputs'][0]['name']) == 2


# --- quantize -------------------------------------------------------------------------------------

def quantized(work, name, *options):
    out = work.folder / f'{name}.onnx'
    result = good('quantize', DIGITS, '-o', out, '--data', work.calibration, *options)
    assert result.stdout == ''
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    return model


def constant(model, name):
    return next(onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)


def weight_parameters(model):
    """(scale, zero point) of what each Conv and Gemm reads as its weight."""
    maker = {o: n for n in model.graph.node for o in n.output}
    for n in model.graph.node:
        dq = maker.get(n.input[1]) if n.op_type in ('Conv', 'Gemm') else None
        if dq is not None and dq.op_type == 'DequantizeLinear':
            yield constant(model, dq.input[1]), constant(model, dq.input[2])


def activation_zeros(model):
    return [constant(model, n.input[2]) for n in model.graph.node if n.op_type == 'QuantizeLinear']


def activation_scales(model):
    return {n.input[0]: float(constant(model, n.input[1])) for n in model.graph.node
            if n.op_type == 'QuantizeLinear'}


@pytest.mark.parametrize('method', ['minmax', 'ema', 'percentile', 'entropy', 'mse'])
def test_ranges(work, method):
    model = quantized(work, method, '--mode', 'static', '--range', method, '--method', 'none',
                      '--quiet')
    assert all(s.size > 1 and not z.any() for s, z in weight_parameters(model))
    assert all(z.dtype == np.uint8 for z in activation_zeros(model))
    widest = activation_scales(quantized(work, 'widest', '--range', 'minmax', '--method', 'none'))
    scales = activation_scales(model)
    assert scales.keys() == widest.keys()
    assert all(0 < scales[k] <= widest[k] * (1 + 1e-6) for k in widest)
    x, _ = digits_arrays(work.folder)
    want, got = scores(DIGITS, x), scores(work.folder / f'{method}.onnx', x)
    assert (want.argmax(1) == got.argmax(1)).mean() >= 0.95


def test_percentile_changes_the_ranges(work):
    a = quantized(work, 'p', '--range', 'percentile', '--percentile', '90')
    b = quantized(work, 'p', '--range', 'percentile', '--percentile', '100')
    assert a != b


def test_types_and_schemes(work):
    model = quantized(work, 'i8', '--act-type', 'int8', '--weight-scheme', 'per-tensor')
    assert all(s.size == 1 for s, _ in weight_parameters(model))
    assert all(z.dtype == np.int8 for z in activation_zeros(model))
    assert all(z == 0 for z in activation_zeros(quantized(
        work, 'i8s', '--act-type', 'int8', '--act-symmetric')))
    assert all(z == 128 for z in activation_zeros(quantized(work, 'u8s', '--act-symmetric')))


def test_exclude_and_ops(work):
    def weights(*options):
        return len(list(weight_parameters(quantized(work, 'part', *options))))
    assert weights() == 5
    assert weights('--exclude', 'conv1') == 4
    assert weights('--exclude', 'conv?,fc') == 0
    assert weights('--exclude', 'Gemm') == 4
    assert weights('--exclude', 'conv1', '--exclude', 'conv2') == 3
    assert weights('--ops', 'Gemm') == 1
    assert weights('--ops', 'Conv', '--exclude', 'conv[1]') == 4


def test_samples_and_seed_are_reproducible(work):
    def made(*options):
        quantized(work, 'seed', '--samples', '20', *options)
        return (work.folder / 'seed.onnx').read_bytes()
    first = made('--seed', '7')
    assert made('--seed', '7') == first
    assert made('--seed', '7', '--threads', '1') == first
    assert made('--seed', '8') != first
    assert made() == made('--seed', '0')


def test_a_range_of_samples_is_those_samples(work):
    """--data X@10:40 calibrates as a file of these samples does; so for @A: and @:B."""
    x, y = digits_arrays(work.folder, 'c')
    for part, first, last in (('@10:40', 10, 40), ('@180:', 180, 200), ('@:25', 0, 25)):
        np.savez(work.folder / 'part.npz', x=x[first:last])
        out = [work.folder / f'{n}.onnx' for n in 'ab']
        good('quantize', DIGITS, '-o', out[0], '--data', work.calibration + part)
        good('quantize', DIGITS, '-o', out[1], '--data', f'npz:{work.folder}/part.npz')
        assert out[0].read_bytes() == out[1].read_bytes(), part


def test_preprocess_is_stored_and_used(work):
    quantized(work, 'pre', '--preprocess', 'scale=255,color=gray', '--batch', '8')
    got = json_of('inspect', work.folder / 'pre.onnx')
    assert got['metadata']['rung.preprocess'] == 'scale=255,color=gray'
    bad = json_of('eval', work.q, '--data', work.held, '--preprocess', 'scale=2550')
    assert bad['loss'] > json_of('eval', work.q, '--data', work.held)['loss']


def test_random_data_is_remarked(work):
    out = work.folder / 'random.onnx'
    assert 'remark: random-data' in good('quantize', DIGITS, '-o', out, '--data', 'random',
                                         '--samples', '4').stderr
    assert 'remark: random-data' in good('eval', out, '--data', 'random@0:4').stderr


def test_the_output_is_written_over_the_input(work):
    """A model may be replaced by its quantized self: it is mapped while the new one is written."""
    path = work.folder / 'self.onnx'
    path.write_bytes(DIGITS.read_bytes())
    good('quantize', path, '-o', path, '--data', work.calibration)
    assert path.read_bytes() == work.q.read_bytes()


# --- eval -----------------------------------------------------------------------------------------

def expected(out, y):
    rank = (out > out[np.arange(len(y)), y][:, None]).sum(1)
    shifted = out.astype(np.float64) - out.max(1, keepdims=True)
    loss = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(y)), y]
    return {'samples': len(y), 'top1': 100 * (rank < 1).mean(), 'top5': 100 * (rank < 5).mean(),
            'loss': loss.mean()}


def sqnr(want, got):
    want, got = want.astype(np.float64), got.astype(np.float64)
    return 10 * np.log10((want ** 2).sum() / ((want - got) ** 2).sum())


def outputs_of_rung(path, x, folder):
    np.save(folder / 'all.npy', x)
    good('run', path, '--input', f'image={folder}/all.npy', '--output', folder / 'out')
    return np.load(folder / 'out/scores.npy')


def test_eval_of_the_float_model(work):
    x, y = digits_arrays(work.folder)
    got, want = json_of('eval', DIGITS, '--data', work.held), expected(scores(DIGITS, x), y)
    assert set(got) == keys_in_manual('eval')
    for key, value in want.items():
        # Printed with four decimals; float32 sums in another order move the loss by 1e-6.
        assert got[key] == pytest.approx(value, abs=1e-4), key
    assert got['agreement'] is None and got['sqnr_db'] is None and got['outputs_sqnr_db'] == {}
    assert got['seconds'] > 0


def test_eval_against_a_reference(work):
    x, y = digits_arrays(work.folder)
    a, b = scores(DIGITS, x), outputs_of_rung(work.q, x, work.folder)
    got = json_of('eval', work.q, '--data', work.held, '--reference', DIGITS)
    for key, value in expected(b, y).items():
        assert got[key] == pytest.approx(value, abs=1e-4), key
    assert got['agreement'] == pytest.approx(100 * (a.argmax(1) == b.argmax(1)).mean(), abs=1e-4)
    assert got['sqnr_db'] == pytest.approx(sqnr(a, b), abs=1e-3)
    assert got['outputs_sqnr_db'] == {'scores': got['sqnr_db']}


def test_eval_does_not_depend_on_batches_and_threads(work):
    kept = []
    for options in ((), ('--batch', '7'), ('--batch', '300'), ('--threads', '1'), ('--quiet',)):
        got = json_of('eval', work.q, '--data', work.held, *options)
        del got['seconds']
        kept.append(got)
    assert all(k == kept[0] for k in kept), kept


def test_eval_without_labels(work):
    images = work.held.split(',')[0]
    got = json_of('eval', work.q, '--data', images, '--reference', DIGITS)
    assert got['top1'] is got['top5'] is got['loss'] is None and got['agreement'] > 90


def test_eval_of_a_model_against_itself(work):
    got = json_of('eval', DIGITS, '--data', work.held + '@0:16', '--reference', DIGITS)
    assert got['agreement'] == 100 and got['sqnr_db'] is None and got['samples'] == 16
    text = good('eval', DIGITS, '--data', work.held + '@0:16', '--reference', DIGITS).stdout
    assert 'no difference from the reference' in text and 'top-1' in text


def test_eval_takes_plain_paths(work):
    x, y = digits_arrays(work.folder)
    np.savez(work.folder / 'plain.npz', x=x, y=y)
    got = json_of('eval', work.q, '--data', work.folder / 'plain.npz')
    assert got['top1'] == json_of('eval', work.q, '--data', work.held)['top1']


# --- bench ----------------------------------------------------------------------------------------

def test_bench(work):
    got = json_of('bench', work.q, '--threads', '1', '--batch', '2', '--seconds', '0.2')
    assert set(got) == keys_in_manual('bench')
    assert 0 < got['p10_ms'] <= got['median_ms'] <= got['p90_ms']
    assert got['threads'] == 1 and got['batch'] == 2 and got['runs'] >= 5
    assert got['macs'] == 2 * json_of('inspect', work.q)['macs'] and got['int_macs_share'] == 1
    # The rate is printed with three decimals, the median with five.
    rate = got['macs'] / got['median_ms'] / 1e6
    assert got['gmacs_per_s'] == pytest.approx(rate, abs=1e-3, rel=1e-5 / got['median_ms'])
    assert got['load_ms'] > 0 and got['peak_rss_mb'] > 1
    assert json_of('bench', work.q, '--seconds', '0.1')['threads'] == len(os.sched_getaffinity(0))
    assert json_of('bench', work.q, '--seconds', '0.1', '--threads', '3')['threads'] == 3


def test_bench_with_given_input(work, tmp_path):
    """Height and width that a model leaves open are taken from the array, its type is not."""
    model, file, shape = tmp_path / 'open.onnx', tmp_path / 'x.npy', ['N', 1, 'H', 'W']
    save_model(model, [helper.make_node('Conv', ['x', 'w'], ['y'])], [('x', shape)],
               [('y', ['N', 2, 'P', 'Q'])], [('w', np.ones((2, 1, 3, 3), np.float32))])
    refused('bench', model, says='dimension 2 (H)')
    np.save(file, np.zeros((3, 1, 12, 22), np.float32))
    got = json_of('bench', model, '--input', f'x={file}', '--seconds', '0.1')
    assert got['macs'] == 3 * 2 * 9 * 10 * 20 and got['batch'] == 3
    refused('bench', model, '--input', f'x={file}', '--batch', '2', status=2, says='--batch')
    np.save(file, np.zeros((3, 1, 12, 22)))
    refused('bench', model, '--input', f'x={file}', says='float64')


def test_bench_as_text(work):
    text = good('bench', work.q, '--seconds', '0.1', '--profile').stdout
    assert 'all steps' in text and 'conv1' in text and 'median' in text
    assert 'all steps' not in good('bench', work.q, '--seconds', '0.1').stdout


# --- run ------------------------------------------------------------------------------------------

def test_run_equals_onnxruntime(work, tmp_path):
    x, _ = digits_arrays(work.folder)
    want, got = scores(DIGITS, x[:9]), outputs_of_rung(DIGITS, x[:9], tmp_path)
    assert got.dtype == np.float32 and got.shape == want.shape
    assert abs(got - want).max() <= 1e-4 * abs(want).max()


@pytest.mark.parametrize('threads', ['1', '3'])
def test_every_level_gives_the_same_bytes(work, tmp_path, threads):
    x, _ = digits_arrays(work.folder)
    np.save(tmp_path / 'x.npy', x[:5])
    results = set()
    for level in ('ref', 'avx2', 'avxvnni', 'avx512vnni', 'amx', ''):
        args = ('run', work.q, '--input', f'image={tmp_path}/x.npy', '--threads', threads,
                '--output', tmp_path / (level or 'best'))
        result = command(*args, env={'RUNG_CPU': level} if level else {})
        if result.returncode == 1 and 'RUNG_CPU' in result.stderr and level[:1] == 'a':
            continue  # this machine has no such level
        assert result.returncode == 0, result.stderr
        results.add((tmp_path / (level or 'best') / 'scores.npy').read_bytes())
    assert len(results) == 1


ODD = ('in/0:a=b', 'in/0:a', 'w = c')


@pytest.fixture
def odd(tmp_path):
    """Three inputs of two types and four outputs whose names are no file names; two collide."""
    nodes = [helper.make_node('Add', [ODD[0], ODD[1]], ['sum/1:x'], 'a'),
             helper.make_node('Mul', [ODD[0], ODD[1]], ['sum:1/x'], 'm'),
             helper.make_node('Add', [ODD[2], ODD[2]], ['twice'], 't'),
             helper.make_node('Relu', ['sum/1:x'], ['sum_1_x'], 'r')]
    path = save_model(tmp_path / 'odd.onnx', nodes,
                      [(ODD[0], ['n', 3]), (ODD[1], [1, 3]), (ODD[2], [4], TensorProto.INT64)],
                      [('sum/1:x', ['n', 3]), ('sum:1/x', ['n', 3]),
                       ('twice', [4], TensorProto.INT64), ('sum_1_x', ['n', 3])])
    rng = np.random.default_rng(1)
    feeds = {ODD[0]: rng.normal(size=(5, 3)).astype(np.float32),
             ODD[1]: rng.normal(size=(1, 3)).astype(np.float32),
             ODD[2]: np.array([1, -2, 3, 1 << 40])}
    args = []
    for i, (name, value) in enumerate(feeds.items()):
        np.save(tmp_path / f'{i}=x.npy', value)
        args += ['--input', f'{name}={tmp_path}/{i}=x.npy']
    return path, feeds, args


def test_run_with_odd_names(odd, tmp_path):
    path, feeds, args = odd
    result = good('run', path, *args, '--output', tmp_path / 'o')
    want = util.session(path).run(None, feeds)
    files = ['sum_1_x.npy', 'sum_1_x@2.npy', 'twice.npy', 'sum_1_x@3.npy']
    assert result.stderr.splitlines() == [f'{tmp_path}/o/{f}' for f in files]
    assert sorted(p.name for p in (tmp_path / 'o').iterdir()) == sorted(files)
    for file, value in zip(files, want):
        assert util.same_array(np.load(tmp_path / 'o' / file), value), file


def test_run_twice_into_one_folder(odd, tmp_path):
    path, _, args = odd
    good('run', path, *args, '--output', tmp_path / 'o')
    good('run', path, *args, '-o', tmp_path / 'o')


# --- progress, signals, pipes ---------------------------------------------------------------------

def in_terminal(*args):
    """What a command writes to a terminal that is its standard error."""
    try:
        master, slave = pty.openpty()
    except OSError as e:
        pytest.skip(f'no terminal can be made here: {e}')
    with subprocess.Popen([util.rung_binary(), *map(str, args)], stdout=subprocess.DEVNULL,
                          stderr=slave) as process:
        os.close(slave)
        seen = b''
        try:
            while part := os.read(master, 4096):
                seen += part
        except OSError:  # Linux says so that the other end is closed
            pass
    os.close(master)
    assert process.returncode == 0, seen
    return seen.decode()


def test_progress(work):
    args = ('quantize', DIGITS, '-o', work.folder / 'p.onnx', '--data', work.calibration)
    plain = good(*args).stderr
    assert '\r' not in plain and '\033' not in plain
    assert re.search(r'^calibrating  0/200 samples$', plain, re.M)
    assert re.search(r'^calibrating  200/200 samples  [\d.]+/s  \d+:\d\d$', plain, re.M)
    assert 'calibrating' not in good(*args, '--quiet').stderr
    drawn = in_terminal(*args)
    assert re.search(r'\rcalibrating  \[-{20}\] 0/200 samples\033\[K', drawn)
    assert re.search(r'\rcalibrating  \[#{20}\] 200/200 samples  [\d.]+/s  \d+:\d\d\033\[K', drawn)
    assert max(len(line) for line in re.split(r'\r|\n', drawn) if '[' in line) <= 80
    assert 'evaluating' not in in_terminal('eval', work.q, '--data', work.held, '--quiet')
    assert 'evaluating' in in_terminal('eval', work.q, '--data', work.held)


@pytest.mark.parametrize('sig', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_quantize_leaves_nothing(work, tmp_path, sig):
    for number, old in enumerate((None, b'the old file')):
        folder = tmp_path / str(number)
        folder.mkdir()
        if old:
            (folder / 'q.onnx').write_bytes(old)
        # 256 random samples one by one in one thread: seconds.
        job = Running('quantize', DIGITS, '-o', folder / 'q.onnx', '--data', 'random@0:100000')
        assert job.interrupt('calibrating  0/', sig) == -sig
        assert [p.read_bytes() for p in folder.iterdir()] == ([old] if old else [])


def test_interrupted_eval(work):
    job = Running('eval', DIGITS, '--data', 'random@0:1000000')
    assert job.interrupt('evaluating  0/') == -signal.SIGINT


def test_an_ignored_signal_stays_ignored(work, tmp_path):
    """As under nohup: a hang-up does not end the work."""
    run = subprocess.Popen(
        ['/bin/sh', '-c', 'trap "" HUP; exec "$0" "$@"', util.rung_binary(), 'quantize',
         str(DIGITS), '-o', str(tmp_path / 'q.onnx'), '--data', 'random@0:500'],
        stderr=subprocess.PIPE)
    assert b'remark' in run.stderr.readline()
    run.send_signal(signal.SIGHUP)
    run.communicate(timeout=300)
    assert run.returncode == 0 and (tmp_path / 'q.onnx').exists()


def test_a_pipe_that_nobody_reads(work):
    """Ends by SIGPIPE, silently, as programs do; or, where that is ignored, with a sentence."""
    read, write = os.pipe()
    os.close(read)
    for ignored, status in ((False, -signal.SIGPIPE), (True, 1)):
        result = subprocess.run(
            [util.rung_binary(), 'inspect', str(DIGITS)], stdout=write, stderr=subprocess.PIPE,
            restore_signals=not ignored, timeout=60)
        assert result.returncode == status
        assert bool(result.stderr) == ignored
    os.close(write)


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full')
@pytest.mark.parametrize('args', [('inspect', DIGITS), ('inspect', DIGITS, '--json'), ('--help',),
                                  ('--version',), ('run', '--help'),
                                  ('bench', DIGITS, '--seconds', '0.05', '--json'),
                                  ('eval', DIGITS, '--data', 'random@0:2', '--quiet')])
def test_standard_output_is_full(args):
    with open('/dev/full', 'w') as full:
        result = subprocess.run([util.rung_binary(), *map(str, args)], stdout=full, text=True,
                                stderr=subprocess.PIPE, timeout=60)
    assert result.returncode == 1 and 'cannot write to standard output' in result.stderr


def test_standard_streams_may_be_closed(work, tmp_path):
    """A closed standard error must not become the output file; a closed output is a failure."""
    closed = subprocess.run(['/bin/sh', '-c', 'exec "$0" inspect "$1" 1>&-', util.rung_binary(),
                             str(DIGITS)], stderr=subprocess.PIPE, text=True, timeout=60)
    assert closed.returncode == 1 and 'cannot write to standard output' in closed.stderr
    out = tmp_path / 'q.onnx'
    subprocess.run(['/bin/sh', '-c', 'exec "$0" "$@" 0<&- 1>&- 2>&-', util.rung_binary(),
                    'quantize', str(DIGITS), '-o', str(out), '--data', work.calibration],
                   check=True, timeout=120)
    assert out.read_bytes() == work.q.read_bytes()
