"""Bad input on the command line: one sentence that names the thing, exit status 1 (or 2 for a
mistake in the call), never a crash, never a file left behind. ./check runs it under
AddressSanitizer too."""
import os
import subprocess

import pytest

import util  # first: it skips all of this where the oracles are missing
from util import np, onnx

from cli_kit import DIGITS, command, good, refused, save_model, small_conv, write_idx
from onnx import TensorProto, helper, numpy_helper

Image = pytest.importorskip('PIL.Image')


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """A short model, and an array for it."""
    folder = tmp_path_factory.mktemp('small')
    np.save(folder / 'x.npy', np.random.default_rng(2).normal(size=(2, 3, 6, 6)).astype(np.float32))
    return small_conv(folder / 'small.onnx')


# --- model files ----------------------------------------------------------------------------------

def try_bytes(path, data, n_bad):
    """inspect on these bytes: refused by a sentence, or taken (a flip may hit a weight). Then, what
    was taken is run too."""
    path.write_bytes(data)
    result = command('inspect', path)
    if result.returncode == 0:
        result = command('bench', path, '--seconds', '0.01', '--threads', '1')
    if result.returncode:
        lines = result.stderr.splitlines()
        assert result.returncode == 1 and len(lines) == 1 and lines[0].startswith('rung '), lines
    return n_bad + result.returncode


def test_truncated_at_many_lengths(small, tmp_path):
    """Every length up to 64, then steps. A cut between fields of the message may leave a model (a
    graph without its last parts); none of them may crash."""
    data = small.read_bytes()
    lengths = [*range(64), *range(64, len(data), 17), len(data) - 1]
    n_bad = 0
    for n in lengths:
        n_bad = try_bytes(tmp_path / 'cut.onnx', data[:n], n_bad)
    assert n_bad > 0.9 * len(lengths)
    refused('inspect', tmp_path / 'cut.onnx', says='cut.onnx')


def test_bit_flips(small, tmp_path):
    data, rng, n_bad = small.read_bytes(), np.random.default_rng(11), 0
    names = data.index(b'conv')  # the weights are at the end: flips there are legal models
    for i in range(150):
        flipped = bytearray(data)
        at = int(rng.integers(0, names + 200 if i % 3 else len(data)))
        flipped[at] ^= 1 << int(rng.integers(8))
        n_bad = try_bytes(tmp_path / 'flip.onnx', bytes(flipped), n_bad)
    assert n_bad > 20


@pytest.mark.parametrize('content', [b'', b'\0' * 100, b'\xff' * 100, b'not a model at all\n',
                                     b'PK\x03\x04' + bytes(60)])
def test_no_model_at_all(tmp_path, content):
    path = tmp_path / 'thing.onnx'
    path.write_bytes(content)
    refused('inspect', path, says='thing.onnx')


def test_no_file(tmp_path):
    refused('inspect', tmp_path / 'absent.onnx', says=['absent.onnx', 'No such file'])
    refused('inspect', tmp_path, says=[str(tmp_path), 'not a regular file'])
    refused('eval', DIGITS, '--data', 'random', '--reference', tmp_path / 'r.onnx', says='r.onnx')
    os.mkfifo(tmp_path / 'pipe.onnx')
    refused('inspect', tmp_path / 'pipe.onnx', says='pipe.onnx')


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read every file')
def test_unreadable_model(tmp_path):
    path = small_conv(tmp_path / 'locked.onnx')
    path.chmod(0)
    refused('inspect', path, says=['locked.onnx', 'Permission denied'])


F = TensorProto.FLOAT


def chain(*nodes):
    return [helper.make_node(op, i, o, name, **attributes) for op, i, o, name, attributes in nodes]


WRONG = {
    'cycle': (chain(('Add', ['x', 'b'], ['a'], 'first', {}), ('Relu', ['a'], ['b'], 'second', {}),
                    ('Relu', ['b'], ['y'], 'third', {})), [], 'cycle'),
    'self cycle': (chain(('Add', ['x', 'a'], ['a'], 'loop', {}), ('Relu', ['a'], ['y'], 'r', {})),
                   [], 'loop'),
    'missing initializer': (chain(('Conv', ['x', 'weight.0'], ['y'], 'conv', {})), [], 'weight.0'),
    'missing producer': (chain(('Add', ['x', 'nowhere'], ['y'], 'sum', {})), [], 'nowhere'),
    'made twice': (chain(('Relu', ['x'], ['y'], 'one', {}), ('Relu', ['x'], ['y'], 'two', {})), [],
                   "'y'"),
    'channels': (chain(('Conv', ['x', 'w'], ['y'], 'conv7', {})),
                 [('w', np.zeros((4, 5, 3, 3), np.float32))], 'conv7'),
    'rank': (chain(('Conv', ['x', 'w'], ['y'], 'conv7', {})), [('w', np.zeros((4, 3), np.float32))],
             'conv7'),
    'group': (chain(('Conv', ['x', 'w'], ['y'], 'conv7', {'group': 2})),
              [('w', np.zeros((4, 3, 3, 3), np.float32))], 'conv7'),
    'strides': (chain(('MaxPool', ['x'], ['y'], 'pool7',
                       {'kernel_shape': [2, 2], 'strides': [0, 1]})), [], 'pool7'),
    'huge pads': (chain(('Conv', ['x', 'w'], ['y'], 'conv7', {'pads': [1 << 62] * 4})),
                  [('w', np.zeros((4, 3, 3, 3), np.float32))], 'conv7'),
    'huge kernel': (chain(('AveragePool', ['x'], ['y'], 'pool7', {'kernel_shape': [1 << 40, 2]})),
                    [], 'pool7'),
    'reshape': (chain(('Reshape', ['x', 's'], ['y'], 'view7', {})), [('s', np.array([7, -1]))],
                'view7'),
    'huge reshape': (chain(('Reshape', ['x', 's'], ['y'], 'view7', {})),
                     [('s', np.array([1 << 40, 1 << 40]))], 'view7'),
    'matmul': (chain(('MatMul', ['x', 'w'], ['y'], 'mm7', {})),
               [('w', np.zeros((5, 5), np.float32))], 'mm7'),
    'broadcast': (chain(('Add', ['x', 'w'], ['y'], 'add7', {})),
                  [('w', np.zeros((7,), np.float32))], 'add7'),
    'no input': (chain(('Relu', [], ['y'], 'relu7', {})), [], 'relu7'),
    'axis': (chain(('Concat', ['x', 'x'], ['y'], 'cat7', {'axis': 9})), [], 'cat7'),
    'expand': (chain(('Expand', ['x', 's'], ['y'], 'grow7', {})),
               [('s', np.array([1 << 20, 1 << 20, 1 << 20, 6]))], 'grow7'),
    'if': (chain(('If', ['c'], ['y'], 'branch7', {
        k: helper.make_graph(chain(('Identity', ['x'], [k], k, {})), k, [],
                             [helper.make_tensor_value_info(k, F, None)])
        for k in ('then_branch', 'else_branch')})), [('c', np.array(True))], 'branch7'),
    'unknown operator': (chain(('Frobnicate', ['x'], ['y'], 'frob7', {})), [], 'Frobnicate'),
}


@pytest.mark.parametrize('what', WRONG)
def test_wrong_model(what, tmp_path):
    nodes, constants, says = WRONG[what]
    path = save_model(tmp_path / 'wrong.onnx', nodes, [('x', [1, 3, 6, 6])], [('y', None)],
                      constants, check=False)
    np.save(tmp_path / 'x.npy', np.ones((1, 3, 6, 6), np.float32))
    refused('run', path, '--input', f'x={tmp_path}/x.npy', '--output', tmp_path / 'o', says=says)
    refused('bench', path, says=says)
    # Where there is nothing to quantize, calibration does not begin.
    alone = what in ('if', 'unknown operator')
    refused('quantize', path, '-o', tmp_path / 'q.onnx', '--data', 'random@0:2', '--quiet',
            says='nothing is left to quantize' if alone else says)
    assert {p.name for p in tmp_path.iterdir()} <= {'wrong.onnx', 'x.npy'}


def test_a_custom_operator_is_kept_and_named(tmp_path):
    """inspect shows a model that rung cannot execute, and says why; execution names the node."""
    nodes = [helper.make_node('Whirl', ['x'], ['y'], 'whirl7', domain='com.example')]
    path = save_model(tmp_path / 'custom.onnx', nodes, [('x', [1, 4])], [('y', [1, 4])],
                      domains=['com.example'])
    assert 'whirl7' in good('inspect', path).stdout
    assert 'not-executable' in good('inspect', path, '--json').stdout
    refused('bench', path, says=['whirl7', 'com.example'])


@pytest.mark.parametrize('dims', [[1 << 40, 1 << 40], [-5, 3], [1 << 62], [1 << 33, 1]])
def test_absurd_dimensions_of_an_initializer(dims, tmp_path):
    model = onnx.load(save_model(tmp_path / 'm.onnx', chain(('Add', ['x', 'w'], ['y'], 'a', {})),
                                 [('x', ['N', 3])], [('y', ['N', 3])],
                                 [('w', np.zeros(3, np.float32))]))
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    onnx.save(model, tmp_path / 'm.onnx')
    refused('inspect', tmp_path / 'm.onnx', says="'w'")


@pytest.mark.parametrize('dims', [[1 << 40, 1 << 40], [1 << 62, 4], [1 << 31, 1 << 10]])
def test_absurd_dimensions_of_an_input(dims, tmp_path):
    path = save_model(tmp_path / 'm.onnx', chain(('Relu', ['x'], ['y'], 'a', {})), [('x', dims)],
                      [('y', dims)])
    refused('bench', path)


def test_external_data(tmp_path):
    path = small_conv(tmp_path / 'm.onnx')
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location='m.bin', size_threshold=0)
    good('bench', path, '--seconds', '0.01')
    whole = (tmp_path / 'm.bin').read_bytes()
    (tmp_path / 'm.bin').write_bytes(whole[:50])
    refused('bench', path, says='m.bin')
    (tmp_path / 'm.bin').unlink()
    refused('bench', path, says='m.bin')
    model = onnx.load(path, load_external_data=False)
    for t in model.graph.initializer:
        for entry in t.external_data:
            if entry.key == 'location':
                entry.value = '../../../etc/passwd'
    path.write_bytes(model.SerializeToString())
    refused('inspect', path, says='../../../etc/passwd')


# --- data -----------------------------------------------------------------------------------------

def pictures(folder, n=4):
    for i in range(n):
        (folder / f'class{i % 2}').mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 20, 3), 20 * i, np.uint8)).save(
            folder / f'class{i % 2}/p{i}.jpg')
    return folder


IMAGE = ('--preprocess', 'resize=6x6,scale=255', '--quiet')


def test_pictures_are_fine(small, tmp_path):
    good('eval', small, '--data', f'images:{pictures(tmp_path / "p")}', *IMAGE)


@pytest.mark.parametrize('name, spoil', [
    ('class0/p2.jpg', lambda p: p.write_bytes(p.read_bytes()[:200])),
    ('class1/p1.jpg', lambda p: p.write_bytes(b'\xff\xd8 no picture')),
    ('class1/p3.jpg', lambda p: p.write_bytes(b'')),
    ('class0/a.png', lambda p: p.write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(30))),
    ('class0/link.jpg', lambda p: p.symlink_to('nowhere.jpg')),
])
def test_a_spoilt_picture(small, tmp_path, name, spoil):
    folder = pictures(tmp_path / 'p')
    spoil(folder / name)
    for command_ in (('eval', small), ('quantize', small, '-o', tmp_path / 'q.onnx')):
        refused(*command_, '--data', f'images:{folder}', *IMAGE, says=os.path.basename(name))
    assert sorted(p.name for p in tmp_path.iterdir()) == ['p']


def test_pictures_of_many_sizes(small, tmp_path):
    folder = pictures(tmp_path / 'p')
    Image.fromarray(np.zeros((9, 30, 3), np.uint8)).save(folder / 'class1/wide.jpg')
    refused('eval', small, '--data', f'images:{folder}', '--preprocess', 'scale=255', '--quiet',
            says=['wide.jpg', '3x9x30'])
    refused('eval', small, '--data', f'images:{folder}', '--preprocess', 'crop=64', '--quiet',
            says='crop')


DATA = {
    'no folder': ('images:absent', 'absent'),
    'no file': ('npz:absent.npz', 'absent.npz'),
    'empty folder': ('images:empty', 'empty'),
    'format': ('video:x.mp4', 'video'),
    'plain path': ('letter.txt', 'letter.txt'),
    'absent path': ('absent.npz', 'absent.npz'),
    'not npz': ('npz:letter.txt', 'letter.txt'),
    'not npy': ('npy:letter.txt', 'letter.txt'),
    'not idx': ('idx:letter.txt', 'letter.txt'),
    'not cifar10': ('cifar10:letter.txt', 'letter.txt'),
    'cut npy': ('npy:cut.npy', 'cut.npy'),
    'cut npz': ('npz:cut.npz', 'cut.npz'),
    'empty file': ('npy:empty.npy', 'empty.npy'),
    'objects': ('npy:objects.npy', 'objects.npy'),
    'labels of another number': ('npz:labels.npz', 'labels.npz'),
    'label out of range': ('npz:range.npz', '77'),
    'another size': ('npz:size.npz', "'x'"),
    'another rank': ('npz:rank.npz', "'x'"),
    'another name': ('npz:name.npz', "'x'"),
    'no samples': ('npz:none.npz', 'none.npz'),
    'range': ('npz:good.npz@3:2', '@3:2'),
    'range beyond': ('npz:good.npz@0:99', '99'),
    'range of words': ('npz:good.npz@a:b', '@a:b'),
}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    x = np.random.default_rng(0).normal(size=(4, 3, 6, 6)).astype(np.float32)
    (folder / 'empty').mkdir()
    (folder / 'letter.txt').write_text('Dear reader,\n' * 20)
    (folder / 'empty.npy').write_bytes(b'')
    np.save(folder / 'cut.npy', x)
    np.savez(folder / 'cut.npz', x=x)
    for name in ('cut.npy', 'cut.npz'):
        (folder / name).write_bytes((folder / name).read_bytes()[:300])
    np.save(folder / 'objects.npy', np.array([{}, []], object), allow_pickle=True)
    np.savez(folder / 'good.npz', x=x, y=[0, 1, 2, 3])
    np.savez(folder / 'labels.npz', x=x, y=[0, 1, 2])
    np.savez(folder / 'range.npz', x=x, y=[0, 1, 77, 3])
    np.savez(folder / 'size.npz', x=x[:, :, :5])
    np.savez(folder / 'rank.npz', x=x[0])
    np.savez(folder / 'name.npz', pixels=x, mask=x)
    np.savez(folder / 'none.npz', x=x[:0], y=np.zeros(0, int))
    return folder


def test_good_data(small, data):
    good('eval', small, '--data', 'npz:good.npz', '--quiet', cwd=data)


@pytest.mark.parametrize('what', DATA)
def test_bad_data(what, small, data):
    spec, says = DATA[what]
    before = sorted(p.name for p in data.iterdir())
    refused('eval', small, '--data', spec, '--quiet', says=says, cwd=data)
    if what != 'label out of range':  # calibration reads no labels
        refused('quantize', small, '-o', 'q.onnx', '--data', spec, '--quiet', says=says, cwd=data)
    assert sorted(p.name for p in data.iterdir()) == before


def test_labels_of_another_number(tmp_path):
    write_idx(tmp_path / 'i.idx', np.zeros((5, 28, 28)))
    write_idx(tmp_path / 'l.idx', np.zeros(4))
    refused('eval', DIGITS, '--data', f'idx:{tmp_path}/i.idx,{tmp_path}/l.idx', '--quiet',
            says='l.idx')
    refused('eval', DIGITS, '--data', f'idx:{tmp_path}/l.idx', '--quiet', says='l.idx')


@pytest.mark.parametrize('text, says', [('resize=0', 'resize'), ('zoom=3', 'zoom'),
                                        ('scale=0', 'scale'), ('mean=1:2', 'mean'),
                                        ('std=0', 'std'), ('crop', 'crop'),
                                        ('color=pink', 'pink'), ('scale=nan', 'scale')])
def test_bad_preprocess(text, says, tmp_path):
    refused('eval', DIGITS, '--data', 'random', '--preprocess', text, says=says)
    refused('quantize', DIGITS, '-o', tmp_path / 'q.onnx', '--data', 'random', '--preprocess', text,
            says=says)


def test_references_that_do_not_fit(small, tmp_path):
    path = save_model(tmp_path / 'two.onnx', chain(('Relu', ['x'], ['y'], 'a', {}),
                                                   ('Neg', ['x'], ['z'], 'b', {})),
                      [('x', ['N', 3, 6, 6])], [('y', ['N', 3, 6, 6]), ('z', ['N', 3, 6, 6])])
    refused('eval', small, '--data', 'random@0:2', '--reference', path, says='outputs')
    one = save_model(tmp_path / 'one.onnx', chain(('Relu', ['x'], ['y'], 'a', {})),
                     [('x', ['N', 3, 6, 6])], [('y', ['N', 3, 6, 6])])
    refused('eval', small, '--data', 'random@0:2', '--reference', one, says="'y'")
    refused('eval', small, '--data', 'random@0:2', '--reference', DIGITS, says="'image'")


# --- arrays of run --------------------------------------------------------------------------------

@pytest.mark.parametrize('name, array, says', [
    ('size', np.zeros((1, 3, 5, 6), np.float32), ["'x'", '1x3x5x6']),
    ('rank', np.zeros((3, 6, 6), np.float32), ["'x'", '3x6x6']),
    ('type', np.zeros((1, 3, 6, 6)), "'x'"),
    ('fortran', np.asfortranarray(np.zeros((2, 3, 6, 6), np.float32)), 'fortran.npy'),
    ('big', np.zeros((1, 3, 6, 6), '>f4'), 'big.npy'),
    ('words', np.array(['a', 'b']), 'words.npy'),
])
def test_arrays_that_do_not_fit(small, tmp_path, name, array, says):
    np.save(tmp_path / f'{name}.npy', array)
    refused('run', small, '--input', f'x={tmp_path}/{name}.npy', '--output', tmp_path / 'o',
            says=says)
    assert not (tmp_path / 'o').exists()


def test_array_files(small, tmp_path):
    refused('run', small, '--input', f'x={tmp_path}/absent.npy', '--output', tmp_path,
            says='absent.npy')
    np.save(tmp_path / 'x.npy', np.zeros((1, 3, 6, 6), np.float32))
    whole = (tmp_path / 'x.npy').read_bytes()
    for n in (0, 5, 9, 60, 127, 128, 300, len(whole) - 1):
        (tmp_path / 'cut.npy').write_bytes(whole[:n])
        refused('run', small, '--input', f'x={tmp_path}/cut.npy', '--output', tmp_path / 'o',
                says='cut.npy')
    huge = whole.replace(b'(1, 3, 6, 6)', b'(9999999999,)')
    (tmp_path / 'huge.npy').write_bytes(huge)
    refused('run', small, '--input', f'x={tmp_path}/huge.npy', '--output', tmp_path / 'o',
            says='huge.npy')
    good('run', small, '--input', f'x={tmp_path}/x.npy', '--output', tmp_path / 'o')


# --- writing --------------------------------------------------------------------------------------

QUANTIZE = ('--data', 'random@0:2', '--quiet')


def test_no_output_folder(small, tmp_path):
    refused('quantize', small, '-o', tmp_path / 'no/q.onnx', *QUANTIZE, says='no/q.onnx')
    refused('quantize', small, '-o', tmp_path, *QUANTIZE, says=[str(tmp_path), 'directory'])
    np.save(tmp_path / 'x.npy', np.zeros((1, 3, 6, 6), np.float32))
    refused('run', small, '--input', f'x={tmp_path}/x.npy', '--output', tmp_path / 'no/o',
            says='no/o')
    refused('run', small, '--input', f'x={tmp_path}/x.npy', '--output', tmp_path / 'x.npy',
            says='x.npy')
    assert [p.name for p in tmp_path.iterdir()] == ['x.npy']


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full')
def test_a_full_device(small):
    refused('quantize', small, '-o', '/dev/full', *QUANTIZE, says=['/dev/full', 'disk is full'])


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 64 kB: it must be mounted, which few may."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'rung', str(folder)],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if mounted.returncode:
        pytest.skip('a small tmpfs cannot be mounted here')
    yield folder
    subprocess.run(['umount', str(folder)], check=True)


def test_a_full_disk(small, full_disk):
    """The old file stays, nothing half-written is left."""
    old = full_disk / 'q.onnx'
    good('quantize', small, '-o', old, *QUANTIZE)
    before = old.read_bytes()
    filler = full_disk / 'filler'
    with pytest.raises(OSError):
        filler.write_bytes(bytes(1 << 17))
    refused('quantize', small, '-o', old, *QUANTIZE, says=['q.onnx', 'disk is full'])
    assert old.read_bytes() == before
    assert sorted(p.name for p in full_disk.iterdir()) == ['filler', 'q.onnx']


def test_a_limit_on_file_size(small, tmp_path):
    """The kernel's limit (ulimit -f) is another full disk; its signal must not leave a file."""
    out = tmp_path / 'q.onnx'
    result = subprocess.run(['/bin/sh', '-c', 'ulimit -f 1; exec "$0" "$@"', util.rung_binary(),
                             'quantize', str(small), '-o', str(out), *QUANTIZE], text=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60)
    assert result.returncode == 1 and list(tmp_path.iterdir()) == []
    assert f'rung quantize: {out}: cannot write: File too large' in result.stderr
