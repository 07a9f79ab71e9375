"""rung compare: its figures beside ONNX Runtime's, its page in a parser and in Chromium."""
import html.parser
import re
import shutil
import subprocess

import pytest

import util  # first: it skips all of this where the oracles are missing
from util import np, onnx, ort

from cli_kit import (DIGITS, ROOT, digits_arrays, good, json_of, refused, save_model, small_conv,
                     write_digits)
from onnx import TensorProto, helper, numpy_helper

MANUAL = (ROOT / 'docs/cli.md').read_text()
N = 40  # samples that are computed again
HOSTILE = '<script>alert("1")</script>&\'x\''


class Case:
    """A float model, its int8 model, N samples, and what rung says of them."""

    def __init__(self, folder, source, data, x, *options):
        self.source, self.target, self.x, self.data = source, folder / 'q.onnx', x, data
        self.page = folder / 'page.html'
        good('quantize', source, '-o', self.target, '--data', data, '--method', 'none', '--quiet',
             *options)
        self.json = json_of('compare', source, self.target, '--data', data, '--quiet', '--seconds',
                            0.05, '--html', self.page)


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp('digits')
    _, held = write_digits(folder)
    return Case(folder, DIGITS, f'{held}@0:{N}', digits_arrays(folder)[0][:N])


@pytest.fixture(scope='module')
def resnet8(tmp_path_factory):
    shared = util.shared_folder()
    records = shared / 'data/cifar10-train-4000-lossless/cifar10_train4000.bin'
    x = np.fromfile(records, np.uint8, N * 3073).reshape(N, 3073)[:, 1:]
    return Case(tmp_path_factory.mktemp('resnet8'), shared / 'models/mlperf_tiny_ic_resnet8.onnx',
                f'cifar10:{records}@0:{N}', x.reshape(N, 3, 32, 32).astype(np.float32),
                '--weight-scheme', 'per-tensor')


@pytest.fixture(params=['digits', 'resnet8'])
def case(request):
    return request.getfixturevalue(request.param)


# --- the figures, computed again -----------------------------------------------------------------

def run_all(model, feeds, names):
    """The named values of a model, computed by ONNX Runtime."""
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    for name in set(names) - {o.name for o in model.graph.output}:
        extended.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(extended.SerializeToString(), options,
                                   providers=['CPUExecutionProvider'])
    return dict(zip(names, session.run(names, feeds)))


class Pair:
    """x -> QuantizeLinear -> DequantizeLinear -> y of the int8 model, and its float name."""

    def __init__(self, model, q, known):
        constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.q = q
        self.y = next(n.output[0] for n in model.graph.node
                      if n.op_type == 'DequantizeLinear' and n.input[0] == q.output[0])
        self.name = q.input[0] if q.input[0] in known else self.y
        self.scale, zero = float(constants[q.input[1]]), constants[q.input[2]]
        info = np.iinfo(zero.dtype)
        self.zero = int(zero)
        self.lo = (info.min - self.zero) * self.scale
        self.hi = (info.max - self.zero) * self.scale


def pairs_of(source, target):
    known = {o for n in source.graph.node for o in n.output} | {i.name for i in source.graph.input}
    return [Pair(target, n, known) for n in target.graph.node if n.op_type == 'QuantizeLinear']


def alone_model(target, pairs):
    """Each layer reads new inputs, through pairs of their own."""
    m = onnx.ModelProto()
    m.CopyFrom(target)
    nodes = []
    for i, p in enumerate(pairs):
        for n in m.graph.node:
            for k, name in enumerate(n.input):
                if name == p.y:
                    n.input[k] = f'exact{i}_dq'
        params = p.q.input[1:]
        nodes += [helper.make_node('QuantizeLinear', [f'exact{i}', *params], [f'exact{i}_q']),
                  helper.make_node('DequantizeLinear', [f'exact{i}_q', *params], [f'exact{i}_dq'])]
        m.graph.input.append(helper.make_tensor_value_info(f'exact{i}', TensorProto.FLOAT, None))
    rest = list(m.graph.node)
    del m.graph.node[:]
    m.graph.node.extend(nodes + rest)
    return m


def db(signal, error):
    noise = np.sum(np.square(error, dtype=np.float64))
    whole = np.sum(np.square(signal, dtype=np.float64))
    return None if noise == 0 else 10 * np.log10(whole / noise)


def assert_db(ours, theirs, within):
    """Beyond 100 dB it is the rounding of float32 that is seen."""
    ours, theirs = (100 if v is None else min(v, 100) for v in (ours, theirs))
    assert abs(ours - theirs) < within


def test_tensors(case):
    source, target = onnx.load(case.source), onnx.load(case.target)
    pairs, feeds = pairs_of(source, target), {source.graph.input[0].name: case.x}
    x = run_all(source, feeds, [p.name for p in pairs if p.name not in feeds])
    x.update(feeds)
    y = run_all(target, feeds, [p.y for p in pairs])
    exact = {f'exact{i}': x[p.name] for i, p in enumerate(pairs)}
    alone = run_all(alone_model(target, pairs), {**feeds, **exact}, [p.y for p in pairs])
    tensors = case.json['tensors']
    assert [t['name'] for t in tensors] == [p.name for p in pairs] and case.json['unmatched'] == 0
    for t, p in zip(tensors, pairs):
        v = x[p.name]
        codes = np.rint(v / np.float32(p.scale)) * p.scale
        # A value on the border of two codes may fall to either: other sums in float32.
        assert_db(t['sqnr_db'], db(v, v - y[p.y]), 0.1)
        assert_db(t['own_db'], db(v, v - alone[p.y]), 0.1)
        assert_db(t['codes_db'], db(v, v - np.clip(codes, p.lo, p.hi)), 0.01)
        clipped = 100 * np.mean((codes < p.lo) | (codes > p.hi))
        assert abs(t['clipped'] - clipped) < 300 / v.size  # a value or two
        assert np.allclose([t['min'], t['max']], [v.min(), v.max()], rtol=1e-4, atol=1e-5)
        assert np.allclose([t['clip_min'], t['clip_max']], [p.lo, p.hi]) and t['zero'] == p.zero
        assert len(t['histogram']) == 96 and abs(sum(t['histogram']) - v.size) < 1
        counts = np.histogram(v, 96, (t['min'], t['max']))[0]
        assert np.sum(np.abs(np.cumsum(counts) - np.cumsum(t['histogram'])) < 0.02 * v.size) >= 90


def test_tensors_come_from_each_other(digits):
    tensors = digits.json['tensors']
    assert tensors[0]['node'] == 'input of the model' and tensors[0]['inputs'] == []
    assert all(i < k for k, t in enumerate(tensors) for i in t['inputs'])
    assert all(t['inputs'] for t in tensors[1:])
    add = next(t for t in tensors if t['op'] == 'Add')
    assert len(add['inputs']) == 2
    noisy = [tensors[i]['sqnr_db'] for i in add['inputs'] if tensors[i]['sqnr_db'] is not None]
    assert add['inputs_db'] == pytest.approx(min(noisy))


def test_weights(case):
    target = onnx.load(case.target)
    constants = {t.name: numpy_helper.to_array(t) for t in target.graph.initializer}
    scales = {n.input[0]: constants[n.input[1]] for n in target.graph.node
              if n.op_type == 'DequantizeLinear' and n.input[0] in constants}
    layers = [n for n in target.graph.node if n.op_type in ('Conv', 'Gemm', 'MatMul')]
    assert len(case.json['weights']) == len(layers)
    for w, n in zip(case.json['weights'], layers):
        codes, scale = constants[w['name']].astype(int), scales[w['name']]
        gemm = n.op_type == 'Gemm' and not any(a.name == 'transB' and a.i for a in n.attribute)
        largest = np.abs(np.moveaxis(codes, 1 if gemm else 0, 0)).reshape(w['channels'], -1).max(1)
        assert w['max_code'] == largest.tolist() and w['per_channel'] == (scale.size > 1)
        assert w['coarse_channels'] == np.sum((largest <= 7) & (np.array(w['max']) > 0))
        assert np.all(np.abs(np.array(w['max']) - largest * scale) <= 0.51 * scale)
        rms = np.sqrt(np.mean(np.square(codes * (scale if scale.size == 1 else 1.0))))
        assert 20 < w['sqnr_db'] < 60
        if scale.size == 1:  # rounding errors are uniform over a step
            uniform = 20 * np.log10(rms / scale.item() * 12 ** 0.5)
            assert w['sqnr_db'] == pytest.approx(uniform, abs=1)


def test_totals(case):
    call = ('--data', case.data, '--quiet')
    judged = {'float': json_of('eval', case.source, *call),
              'int8': json_of('eval', case.target, '--reference', case.source, *call)}
    for name, model in (('float', case.source), ('int8', case.target)):
        one = case.json[name]
        assert (one['top1'], one['top5']) == (judged[name]['top1'], judged[name]['top5'])
        assert one['file'] == str(model) and one['file_bytes'] == model.stat().st_size
        assert 0 < one['constant_bytes'] <= one['file_bytes']
        assert 0 < one['p10_ms'] <= one['median_ms'] <= one['p90_ms']
    assert case.json['agreement'] == judged['int8']['agreement'] and case.json['samples'] == N
    assert case.json['sqnr_db'] == pytest.approx(judged['int8']['sqnr_db'], abs=0.05)
    changed = sum(c['samples'] for c in case.json['changes'])
    assert changed == round(N * (1 - case.json['agreement'] / 100))
    assert case.json['data'] == case.data and case.json['speedup'] > 0


def test_worst_layers_and_advice(case):
    tensors, worst = case.json['tensors'], case.json['worst']
    own = [tensors[w['tensor']]['own_db'] for w in worst]
    assert own == sorted(own) and len(worst) == min(10, len({w['tensor'] for w in worst}))
    others = [t['own_db'] for i, t in enumerate(tensors) if t['own_db'] is not None and
              t['op'] not in ('MaxPool', 'Flatten', 'Reshape', 'Transpose') and
              i not in [w['tensor'] for w in worst]]
    assert all(o >= own[-1] for o in others)
    for option in re.findall(r'--[a-z-]+', ' '.join(w['advice'] for w in worst)):
        assert option in good('quantize', '--help').stdout, option


def collapsed(folder):
    """One output channel has large weights, for an input that is hardly there: one scale for all
    leaves few codes to the others."""
    rng = np.random.default_rng(1)
    w, mix = rng.normal(size=(16, 16, 3, 3)), rng.normal(size=(4, 16, 1, 1))
    w[0, 0] *= 100
    nodes = [helper.make_node('Conv', ['x', 'w'], ['c'], HOSTILE, pads=[1] * 4),
             helper.make_node('Conv', ['c', 'm'], [HOSTILE], 'mix')]
    save_model(folder / 'f.onnx', nodes, [('x', ['N', 16, 8, 8])], [(HOSTILE, ['N', 4, 8, 8])],
               [('w', w.astype(np.float32)), ('m', mix.astype(np.float32))])
    x = rng.normal(size=(8, 16, 8, 8))
    x[:, 0] *= 0.02
    np.save(folder / 'x.npy', x.astype(np.float32))
    good('quantize', folder / 'f.onnx', '-o', folder / 'q.onnx', '--data', folder / 'x.npy',
         '--weight-scheme', 'per-tensor', '--method', 'none', '--quiet')
    return folder / 'f.onnx', folder / 'q.onnx', '--data', folder / 'x.npy', '--quiet'


def test_collapse_of_weights_is_named(tmp_path):
    call = collapsed(tmp_path)
    report = json_of('compare', *call)
    layer = [w for w in report['worst'] if report['tensors'][w['tensor']]['name'] in ('c', HOSTILE)]
    assert any('--weight-scheme per-channel' in w['advice'] for w in layer), report['worst']
    assert max(w['coarse_channels'] for w in report['weights']) >= 4
    assert '--weight-scheme' in good('compare', *call).stdout


def test_equalized_channels_are_held_against_rescaled_values(tmp_path):
    """Equalization as in Nagel 2019, by hand: names stay, channels of c are 2^k times as large."""
    call = collapsed(tmp_path)
    model, factors = onnx.load(tmp_path / 'f.onnx'), 2.0 ** np.linspace(-4, 4, 16)
    w, mix = model.graph.initializer
    for t, f in ((w, factors.reshape(16, 1, 1, 1)), (mix, 1 / factors.reshape(1, 16, 1, 1))):
        scaled = (numpy_helper.to_array(t) * f).astype(np.float32)
        t.CopyFrom(numpy_helper.from_array(scaled, t.name))
    onnx.save(model, tmp_path / 'e.onnx')
    good('quantize', tmp_path / 'e.onnx', '-o', tmp_path / 'q.onnx', '--data', tmp_path / 'x.npy',
         '--method', 'none', '--quiet')
    report, same = json_of('compare', *call), json_of('compare', tmp_path / 'e.onnx', *call[1:])
    assert [t['rescaled_channels'] for t in report['tensors']] == [0, 16, 0]
    assert all(t['rescaled_channels'] == 0 for t in same['tensors'])
    for a, b in zip(report['tensors'] + report['weights'], same['tensors'] + same['weights']):
        assert abs(a['sqnr_db'] - b['sqnr_db']) < 0.5, (a['name'], a['sqnr_db'], b['sqnr_db'])


def test_clipping_is_named(tmp_path):
    """Calibrated on small values, compared on large ones."""
    small_conv(tmp_path / 'f.onnx')
    x = np.random.default_rng(2).normal(size=(8, 3, 6, 6)).astype(np.float32)
    np.save(tmp_path / 'x.npy', x)
    np.save(tmp_path / 'big.npy', 3 * x)
    good('quantize', tmp_path / 'f.onnx', '-o', tmp_path / 'q.onnx', '--data', tmp_path / 'x.npy',
         '--method', 'none')
    report = json_of('compare', tmp_path / 'f.onnx', tmp_path / 'q.onnx', '--data',
                     tmp_path / 'big.npy')
    assert 'Clipping' in report['worst'][0]['advice'] and '--range' in report['worst'][0]['advice']
    assert report['tensors'][report['worst'][0]['tensor']]['clipped'] > 1


def test_codes_of_few_bits_reach_as_far_as_their_clip(tmp_path):
    """Behind a Relu, which becomes the Clip, and elsewhere, where the Clip is a node more."""
    folder = tmp_path / 'digits'
    folder.mkdir()
    _, held = write_digits(folder)
    good('quantize', DIGITS, '-o', tmp_path / 'q.onnx', '--data', f'{held}@0:{N}', '--method',
         'none', '--act-bits', 4, '--quiet')
    report = json_of('compare', DIGITS, tmp_path / 'q.onnx', '--data', f'{held}@0:{N}')
    assert report['unmatched'] == 0
    for t in report['tensors']:
        steps = (t['clip_max'] - t['clip_min']) / t['scale']
        assert steps == pytest.approx(15, abs=1e-3), t['name']
    assert 'Wide codes' not in str([w['advice'] for w in report['worst']])


# --- the call ------------------------------------------------------------------------------------

def test_keys_are_those_of_the_manual(digits):
    item = re.search(r'^\* `compare`: (.*?)(?=^\* `bench`)', MANUAL, re.M | re.S).group(1)
    words = set(re.findall(r'`(\w+)`', item))

    def keys(o):
        if isinstance(o, dict):
            return set(o) | set().union(*map(keys, o.values()))
        return set().union(*map(keys, o)) if isinstance(o, list) and o else set()
    assert keys(digits.json) - words == set()
    outer = set(re.findall(r'`(\w+)`', re.sub(r'\([^()]*\)', '', item)))
    assert set(digits.json) == outer - {'null'}


def test_samples_are_chosen_by_seed(digits):
    call = ('compare', digits.source, digits.target, '--data', digits.data, '--quiet', '--seconds',
            0.05, '--samples', 7)
    first, again, other = (json_of(*call, '--seed', s) for s in (1, 1, 2))
    assert first['samples'] == 7 and first['tensors'] == again['tensors'] != other['tensors']
    assert json_of(*call, '--threads', 1, '--seed', 1)['sqnr_db'] == pytest.approx(first['sqnr_db'])


def test_text(digits):
    text = good('compare', digits.source, digits.target, '--data', digits.data, '--quiet').stdout
    for words in ('float ', 'int8 ', 'times smaller', 'agreement', 'SQNR', 'alone', 'network'):
        assert words in text
    assert max(map(len, text.splitlines())) <= 100


def test_mistakes(digits, tmp_path):
    f, q, d = digits.source, digits.target, ('--data', digits.data)
    refused('compare', f, q, status=2, says='--data')
    refused('compare', f, *d, status=2, says='two models')
    refused('compare', f, q, q, *d, status=2, says='left over')
    small = small_conv(tmp_path / 'small.onnx')
    refused('compare', small, q, *d, says=['output', 'not one network'])
    refused('compare', f, f, *d, says='no QuantizeLinear')
    two = save_model(tmp_path / 'two.onnx', [helper.make_node('Relu', ['x'], ['y']),
                                             helper.make_node('Neg', ['x'], ['z'])],
                     [('x', ['N', 3])], [('y', ['N', 3]), ('z', ['N', 3])])
    refused('compare', two, q, *d, says='outputs')


def test_other_names_are_not_compared(digits, tmp_path):
    model = onnx.load(digits.source)
    made = {o for n in model.graph.node for o in n.output} - {o.name for o in model.graph.output}
    for n in model.graph.node:
        n.input[:] = [i + '_' if i in made else i for i in n.input]
        n.output[:] = [o + '_' if o in made else o for o in n.output]
    del model.graph.value_info[:]
    onnx.save(model, tmp_path / 'other.onnx')
    report = json_of('compare', tmp_path / 'other.onnx', digits.target, '--data', digits.data,
                     '--quiet')
    assert report['unmatched'] == len(digits.json['tensors']) - len(report['tensors']) > 0


def test_page_is_written_whole_or_not(digits, tmp_path):
    page = tmp_path / 'page.html'
    page.write_text('before')
    call = ('compare', digits.source, digits.target, '--quiet', '--html')
    refused(*call, page, '--data', digits.data + '0', says='')
    assert page.read_text() == 'before'
    refused(*call, tmp_path / 'none/page.html', '--data', digits.data, says='none')
    good(*call, page, '--data', digits.data)
    assert page.read_text().endswith('</html>\n')
    assert [p.name for p in tmp_path.iterdir()] == ['page.html']


# --- the page ------------------------------------------------------------------------------------

class Page(html.parser.HTMLParser):
    """Every element is closed in its turn; what is loaded from elsewhere is collected."""
    VOID = {'meta', 'link', 'path', 'circle', 'rect'}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.loads = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.loads += [v for k, v in attributes if k in ('src', 'href') and v != 'data:,']
        assert not any(k.startswith('on') for k, _ in attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, words):
        self.words.append(words)


def test_page_is_sound(case):
    text = case.page.read_text()
    page = Page(text)
    names = [tag for tag, _ in page.tags]
    assert 'script' not in names and page.loads == []
    assert 'url(' not in text and '@import' not in text
    viewport = {'name': 'viewport', 'content': 'width=device-width, initial-scale=1'}
    assert ('meta', viewport) in page.tags
    assert 'prefers-color-scheme:dark' in text and 'nan' not in text.replace('nano', '')
    assert names.count('article') == len(case.json['worst'])
    assert names.count('svg') == 1 + len(case.json['worst']) + min(12, len(case.json['weights']))
    words = ' '.join(page.words)
    assert all(t['node'] in words and t['name'] in words for t in case.json['tensors'])


def test_names_are_escaped(tmp_path):
    good('compare', *collapsed(tmp_path), '--html', tmp_path / 'page.html')
    text = (tmp_path / 'page.html').read_text()
    page = Page(text)
    assert '<script' not in text and HOSTILE in ' '.join(page.words).replace('\n', '')
    assert [t for t, _ in page.tags].count('article') >= 2


@pytest.fixture(scope='module')
def chromium():
    names = ('chromium', 'chromium-browser', 'google-chrome')
    path = next(filter(None, map(shutil.which, names)), None)
    if not path:
        pytest.skip('there is no Chromium')
    return path


def browse(chromium, folder, page, *options):
    """The page as the browser has laid it out: [client width, scroll width, background]; nothing
    may be on its console."""
    probe = ('<script>document.title=JSON.stringify([document.documentElement.clientWidth,'
             'document.documentElement.scrollWidth,'
             'getComputedStyle(document.body).backgroundColor])'
             '</script></body>')
    (folder / 'probe.html').write_text(page.read_text().replace('</body>', probe))
    result = subprocess.run(
        [chromium, '--headless=new', '--no-sandbox', '--disable-gpu', '--enable-logging=stderr',
         f'--user-data-dir={folder}/profile', '--virtual-time-budget=2000', *options, '--dump-dom',
         f'file://{folder}/probe.html'], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert 'CONSOLE' not in result.stderr, result.stderr
    return eval(re.search(r'<title>(\[.*?\])</title>', result.stdout).group(1))


@pytest.mark.parametrize('width', [390, 1200])
def test_page_in_a_browser(chromium, digits, tmp_path, width):
    client, scroll, light = browse(chromium, tmp_path, digits.page, f'--window-size={width},900')
    assert scroll <= client <= width + 120, 'the page scrolls sideways'
    *_, dark = browse(chromium, tmp_path, digits.page, '--force-dark-mode',
                      '--blink-settings=preferredColorScheme=0')
    brightness = [sum(map(int, re.findall(r'\d+', c)[:3])) for c in (light, dark)]
    assert brightness[0] > 700 and brightness[1] < 120
