"""rung quantize --mode dynamic and --mode weights beside ONNX Runtime: small models, and ALBERT.

Files pass onnx's full check and load in ONNX Runtime. Dynamic models give ONNX Runtime's bytes for
one product (on processors with VNNI; elsewhere its sums saturate); a deep network amplifies the
last bit of a float sum into another code, so there the decisions are compared. Weight-only models
differ from ONNX Runtime's evaluation, unoptimised, by the order of float sums only.
"""
import csv
import pathlib
import re

import pytest

import util
from cli_kit import good, refused
from engine_test import LEVELS, can_run, has_vnni
from util import np, onnx, ort

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

EPS = np.finfo(np.float32).eps


def save(path, nodes, constants, inputs, output_shape, opset=13):
    graph = helper.make_graph(
        nodes, 'g',
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(v, n) for n, v in constants.items()])
    opsets = [helper.make_opsetid('', opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def quantize(source, target, *options):
    good('quantize', source, '-o', target, *options)
    model = onnx.load(target)
    onnx.checker.check_model(model, full_check=True)
    return model


def run_rung(folder, model, feeds, level=None):
    out = folder / 'out'
    inputs = []
    for i, (name, x) in enumerate(feeds.items()):
        np.save(folder / f'in{i}.npy', x)
        inputs += ['--input', f'{name}={folder}/in{i}.npy']
    good('run', model, *inputs, '--output', out, env={'RUNG_CPU': level} if level else None)
    return np.load(next(out.glob('*.npy')))


def optimized(model, folder):
    """ONNX Runtime as it comes, and the operators it runs."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / 'optimized.onnx')
    session = ort.InferenceSession(str(model), options, providers=['CPUExecutionProvider'])
    return session, [n.op_type for n in onnx.load(folder / 'optimized.onnx').graph.node]


def cosine(a, b):
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return a @ b / np.sqrt((a @ a) * (b @ b))


# --- single operators ----------------------------------------------------------------------------

def matrix_model(folder, op, k=256, n=72):
    rng = np.random.default_rng(1)
    w = rng.standard_normal((n, k) if op == 'Gemm' else (k, n)).astype(np.float32) / 16
    constants = {'w': w, 'b': rng.standard_normal(n).astype(np.float32)}
    shape = [6, k] if op == 'Gemm' else [2, 3, k]
    nodes = [helper.make_node('Gemm', ['x', 'w', 'b'], ['y'], transB=1)] if op == 'Gemm' else \
        [helper.make_node('MatMul', ['x', 'w'], ['m']), helper.make_node('Add', ['m', 'b'], ['y'])]
    save(folder / 'float.onnx', nodes, constants, [('x', TensorProto.FLOAT, shape)],
         shape[:-1] + [n])
    return folder / 'float.onnx', {'x': rng.standard_normal(shape).astype(np.float32)}


@pytest.mark.parametrize('scheme', ['per-channel', 'per-tensor'])
@pytest.mark.parametrize('op', ['MatMul', 'Gemm'])
def test_dynamic_product(tmp_path, op, scheme):
    source, feeds = matrix_model(tmp_path, op)
    target = tmp_path / 'q.onnx'
    model = quantize(source, target, '--mode', 'dynamic', '--weight-scheme', scheme)
    assert [n.op_type for n in model.graph.node] == [
        'DynamicQuantizeLinear', 'MatMulInteger', 'Cast', 'Mul', 'Mul', 'Add']
    session, ops = optimized(target, tmp_path)
    got = run_rung(tmp_path, target, feeds)
    if has_vnni():
        plain = util.session(target).run(None, feeds)[0]
        assert util.same_array(plain, got)
        # Fused, ONNX Runtime joins the last product and sum: a few units in the last place.
        fused = session.run(None, feeds)[0]
        assert np.abs(fused - got).max() <= 8 * EPS * np.abs(got).max()
    want = util.session(source).run(None, feeds)[0]
    assert cosine(got, want) > 0.999
    assert 'MatMul' not in ops and 'Gemm' not in ops
    for level in filter(can_run, LEVELS):
        assert util.same_array(got, run_rung(tmp_path, target, feeds, level))


@pytest.mark.parametrize('groups', [1, 2, 8])
def test_dynamic_conv(tmp_path, groups):
    rng = np.random.default_rng(2)
    constants = {'w': rng.standard_normal((16, 8 // groups, 3, 3)).astype(np.float32),
                 'b': rng.standard_normal(16).astype(np.float32)}
    save(tmp_path / 'float.onnx',
         [helper.make_node('Conv', ['x', 'w', 'b'], ['y'], group=groups, pads=[1, 1, 0, 2],
                           strides=[2, 1])], constants,
         [('x', TensorProto.FLOAT, [2, 8, 9, 10])], [2, 16, 4, 11])
    model = quantize(tmp_path / 'float.onnx', tmp_path / 'q.onnx', '--mode', 'dynamic', '--ops',
                     'Conv')
    assert 'ConvInteger' in [n.op_type for n in model.graph.node]
    feeds = {'x': rng.standard_normal((2, 8, 9, 10)).astype(np.float32)}
    got = run_rung(tmp_path, tmp_path / 'q.onnx', feeds)
    optimized(tmp_path / 'q.onnx', tmp_path)
    if has_vnni():
        assert util.same_array(util.session(tmp_path / 'q.onnx').run(None, feeds)[0], got)
    assert cosine(got, util.session(tmp_path / 'float.onnx').run(None, feeds)[0]) > 0.999
    assert util.same_array(got, run_rung(tmp_path, tmp_path / 'q.onnx', feeds, 'ref'))


FORMS = {
    'int8': ['--weight-bits', 8],
    'int8 block': ['--weight-bits', 8, '--block', 64],
    'uint8': ['--weight-bits', 8, '--weight-asymmetric'],
    'int4': ['--weight-bits', 4],
    'int4 block 16': ['--weight-bits', 4, '--block', 16],
    'uint4': ['--weight-bits', 4, '--weight-asymmetric'],
}


@pytest.mark.parametrize('k', [256, 250, 33])
@pytest.mark.parametrize('op', ['MatMul', 'Gemm'])
@pytest.mark.parametrize('form', FORMS)
def test_weights_product(tmp_path, form, op, k):
    source, feeds = matrix_model(tmp_path, op, k)
    target = tmp_path / 'q.onnx'
    quantize(source, target, '--mode', 'weights', *FORMS[form])
    session, ops = optimized(target, tmp_path)
    got, plain = run_rung(tmp_path, target, feeds), util.session(target).run(None, feeds)[0]
    # Sums of k float32 products in another order; |x| |w| bounds what is summed.
    reach = np.abs(feeds['x']).max() * k / 4
    assert np.abs(got - plain).max() <= k * EPS * reach
    if '4' in form:
        assert 'MatMulNBits' in ops
        assert cosine(session.run(None, feeds)[0], got) > 0.9999  # its activations are int8
    want = util.session(source).run(None, feeds)[0]
    assert cosine(got, want) > (0.9999 if '8' in form else 0.99)
    for level in filter(can_run, LEVELS):
        other = run_rung(tmp_path, target, feeds, level)
        assert np.abs(got - other).max() <= k * EPS * reach


@pytest.mark.parametrize('form', ['int8', 'int4', 'uint4'])
def test_weights_table(tmp_path, form):
    rng = np.random.default_rng(3)
    save(tmp_path / 'float.onnx', [helper.make_node('Gather', ['t', 'i'], ['y'])],
         {'t': rng.standard_normal((50, 37)).astype(np.float32)},
         [('i', TensorProto.INT64, [2, 5])], [2, 5, 37])
    quantize(tmp_path / 'float.onnx', tmp_path / 'q.onnx', '--mode', 'weights', *FORMS[form])
    feeds = {'i': rng.integers(-50, 50, (2, 5))}
    optimized(tmp_path / 'q.onnx', tmp_path)
    assert util.same_array(run_rung(tmp_path, tmp_path / 'q.onnx', feeds),
                           util.session(tmp_path / 'q.onnx').run(None, feeds)[0])


def test_mistakes(tmp_path):
    source, _ = matrix_model(tmp_path, 'MatMul')
    q = ['quantize', source, '-o', tmp_path / 'q.onnx']
    refused(*q, '--mode', 'dynamic', '--pairs', 'layers', status=2, says='--pairs')
    refused(*q, '--mode', 'dynamic', '--method', 'smooth', says='needs samples')
    refused(*q, '--mode', 'weights', '--method', 'gptq', says='needs samples')
    refused(*q, '--mode', 'weights', '--method', 'smooth', says='gptq, awq and hqq')
    refused(*q, '--data', 'random', '--method', 'hqq', says='static')
    refused(*q, '--mode', 'dynamic', '--block', 32, status=2, says='--block')
    refused(*q, '--mode', 'weights', '--block', 48, says='48')
    refused(*q, '--mode', 'weights', '--weight-bits', 5, says='5 bits')
    refused(*q, '--mode', 'weights', '--weight-scheme', 'per-tensor', says='per tensor')
    refused(*q, '--mode', 'dynamic', '--weight-bits', 4, says='4 bits')
    refused(*q, '--mode', 'dynamic', '--exclude', 'Linear', says='nothing is left')
    assert not (tmp_path / 'q.onnx').exists()


# --- ALBERT --------------------------------------------------------------------------------------

TOKEN = re.compile(r'(%\([0-9]{3}\)|\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\||\(|\)|\.|=|#|-|\+'
                   r'|\\|/|:|~|@|\?|>>?|\*|\$|%[0-9]{2}|[0-9])')


def albert():
    root = util.shared_folder() / 'models'
    if not (root / 'rxnmapper_albert_mlm.onnx').exists():
        pytest.skip('no ALBERT')
    return root / 'rxnmapper_albert_mlm.onnx', root / 'rxnmapper'


def masked_reactions(folder, every, longest, first=0):
    """Ids, attention and targets (-1: not masked) of every so-many-th reaction that is not longer;
    every seventh token is masked."""
    vocab = {t: i for i, t in enumerate((folder / 'vocab.txt').read_text().split('\n')) if t}
    with open(folder / 'example_rxns.csv') as f:
        rows = [r['rxn'] for r in csv.DictReader(f)][first::every]
    tokens = [[vocab['[CLS]'], *(vocab.get(t, vocab['[UNK]']) for t in TOKEN.findall(r)),
               vocab['[SEP]']] for r in rows]
    tokens = [t for t in tokens if len(t) <= longest]
    ids = np.zeros((len(tokens), longest), np.int64)
    attention, targets = np.zeros(ids.shape, np.float32), np.full(ids.shape, -1)
    for i, t in enumerate(tokens):
        ids[i, :len(t)], attention[i, :len(t)] = t, 1
        for p in range(1, len(t) - 1):
            if (p + i) % 7 == 3:
                targets[i, p], ids[i, p] = t[p], vocab['[MASK]']
    return {'input_ids': ids, 'attention_mask': attention}, targets


def accuracy(logits, targets):
    masked = targets >= 0
    return 100 * (logits.argmax(-1)[masked] == targets[masked]).mean()


def share_of_float(model):
    """Bytes of quantized weights, scales and zero points, over those of the float weights."""
    constants = {t.name: t for t in model.graph.initializer}
    used, whole = set(), 0
    for n in model.graph.node:
        if n.op_type not in ('DequantizeLinear', 'MatMulInteger', 'Mul'):
            continue
        names = [i for i in n.input if i in constants and i not in used]
        if n.op_type == 'Mul':
            names = [i for i in names if i.endswith('_scale')]
        if n.op_type != 'Mul' and names:
            weight = names[0]
            whole += 4 * int(np.prod(constants[weight].dims))
        used.update(names)
    return sum(len(constants[i].raw_data) for i in used) / whole


def test_albert_float(tmp_path):
    source, folder = albert()
    feeds, _ = masked_reactions(folder, 60, 128)
    want = util.session(source).run(None, feeds)[0]
    got = run_rung(tmp_path, source, feeds)
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


@pytest.mark.parametrize('mode, options, share, close, correct', [
    ('dynamic', [], 0.27, 0.999, 98.3),
    ('weights', FORMS['int8'], 0.27, 0.999, 98.3),
    ('weights', FORMS['int4'], 0.16, 0.995, 98.0),
])
def test_albert(tmp_path, mode, options, share, close, correct):
    source, folder = albert()
    feeds, targets = masked_reactions(folder, 4, 128)
    model = quantize(source, tmp_path / 'q.onnx', '--mode', mode, *options)
    assert share_of_float(model) <= share
    want = util.session(source).run(None, feeds)[0]
    got = run_rung(tmp_path, tmp_path / 'q.onnx', feeds)
    peer = optimized(tmp_path / 'q.onnx', tmp_path)[0].run(None, feeds)[0]
    real = feeds['attention_mask'] > 0
    figures = (cosine(got[real], want[real]), accuracy(got, targets), accuracy(want, targets))
    print(mode, *options, 'cosine %.5f, accuracy %.2f, float %.2f' % figures)
    assert figures[0] >= close and figures[1] >= correct
    assert cosine(got[real], peer[real]) >= close
    assert abs(accuracy(peer, targets) - figures[1]) <= 0.5


def test_albert_levels(tmp_path):
    """avx2 and avxvnni differ in their integer products only: the same bytes. At the other levels
    the float steps between the products differ in the order of their sums, too."""
    source, folder = albert()
    feeds = {k: v[:2] for k, v in masked_reactions(folder, 60, 128)[0].items()}
    quantize(source, tmp_path / 'q.onnx', '--mode', 'dynamic')
    outputs = {level: run_rung(tmp_path, tmp_path / 'q.onnx', feeds, level)
               for level in filter(can_run, LEVELS)}
    real = feeds['attention_mask'] > 0
    for level, got in outputs.items():
        assert cosine(got[real], outputs['ref'][real]) > 0.999, level
    if 'avxvnni' in outputs:
        assert util.same_array(outputs['avx2'], outputs['avxvnni'])


def sqnr(got, want):
    got, want = got.astype(np.float64), want.astype(np.float64)
    return 10 * np.log10((want ** 2).sum() / ((got - want) ** 2).sum())


@pytest.mark.parametrize('options, plain, least', [
    (['--mode', 'static'], None, 36.3),  # NNCF for transformers: 35.3 dB, ONNX Runtime 8.6 dB
    (['--mode', 'dynamic'], [], 36.3),  # ONNX Runtime: 34.2 dB
    (['--mode', 'weights', '--weight-bits', 4], [], 24.5),
])
def test_albert_methods(tmp_path, options, plain, least):
    """With samples that are not those of the evaluation: better than without, and than the peers
    on the same tokens."""
    source, folder = albert()
    seen, _ = masked_reactions(folder, 4, 128, first=1)
    np.savez(tmp_path / 'seen.npz', **{k: v[:64] for k, v in seen.items()})
    feeds, targets = masked_reactions(folder, 8, 128)
    real = feeds['attention_mask'] > 0
    want = util.session(source).run(None, feeds)[0]
    figures = []
    for more in ([] if plain is None else [plain]) + [['--data', f'npz:{tmp_path}/seen.npz',
                                                       '--batch', 8]]:
        quantize(source, tmp_path / 'q.onnx', *options, *more, '--quiet')
        got = run_rung(tmp_path, tmp_path / 'q.onnx', feeds)
        figures.append(sqnr(got[real], want[real]))
    peer = util.session(tmp_path / 'q.onnx').run(None, feeds)[0]
    print(*options, 'dB', *('%.2f' % f for f in figures), 'accuracy %.2f, float %.2f' %
          (accuracy(got, targets), accuracy(want, targets)))
    assert figures[-1] >= least and figures == sorted(figures)
    assert accuracy(got, targets) >= accuracy(want, targets) - 0.4
    assert cosine(got[real], peer[real]) >= 0.999


def test_magika_float(tmp_path):
    model = util.shared_folder() / 'models/magika/model.onnx'
    if not model.exists():
        pytest.skip('no magika')
    text = pathlib.Path(__file__).read_bytes()[:2048]
    feeds = {'bytes': np.frombuffer(text, np.uint8).astype(np.int32)[None]}
    want = util.session(model).run(None, feeds)[0]
    got = run_rung(tmp_path, model, feeds)
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
