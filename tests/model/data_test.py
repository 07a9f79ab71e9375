"""What rung's data readers give, beside NumPy and Pillow: the same bytes and the same floats."""
import gzip
import io
import os
import struct
import subprocess
import zipfile
import zlib

import pytest

np = pytest.importorskip('numpy')
Image = pytest.importorskip('PIL.Image')

from util import program, run, shared_folder  # noqa: E402

IMAGENET = 'scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225'


def tool():
    if 'RUNG_DATA_DUMP' not in os.environ and 'RUNG_BUILD' in os.environ:
        os.environ['RUNG_DATA_DUMP'] = os.environ['RUNG_BUILD'] + '/tests/unit/data_dump'
    return program('RUNG_DATA_DUMP')


def dump(spec, folder, *options):
    """The batches as dicts of arrays."""
    folder.mkdir()
    run(tool(), *options, spec, folder)
    batches = {}
    for path in folder.iterdir():
        number, name, _ = path.name.split('.')
        batches.setdefault(int(number), {})[name] = np.load(path)
    return [batches[i] for i in range(len(batches))]


def joined(batches, name):
    return np.concatenate([b[name] for b in batches])


def assert_same(got, expected, name):
    assert got.shape == expected.shape, name
    assert np.array_equal(got, expected), f'{name}: off by {abs(got - expected).max()}'


def refusal(spec, tmp_path, *options):
    """The sentence with which a set is refused."""
    out = tmp_path / 'refused'
    out.mkdir(exist_ok=True)
    return run(tool(), *options, spec, out, ok=False).stderr


# --- images ---------------------------------------------------------------------------------------

def picture(w, h, channels, seed=0):
    """Smooth shapes under noise: JPEG and the filters have something to do."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w]
    planes = [127 + 90 * np.sin(x / (5 + 3 * c) + seed) * np.cos(y / (7 + 2 * c))
              for c in range(channels)]
    noisy = np.stack(planes, -1) + rng.normal(0, 20, (h, w, channels))
    out = np.clip(noisy, 0, 255).astype(np.uint8)
    return out[..., 0] if channels == 1 else out


def exif_turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def write_pictures(folder):
    """One file for each kind that Pillow can write; returns the names."""
    folder.mkdir()
    rgb = Image.fromarray(picture(67, 45, 3))
    gray = Image.fromarray(picture(50, 61, 1, 3))
    rgba = Image.fromarray(picture(40, 33, 4, 2))
    deep = (picture(31, 37, 1, 4).astype(np.uint16) << 8) | picture(31, 37, 1, 5)
    for q, sub in ((95, 0), (75, 1), (40, 2), (90, 2)):
        rgb.save(folder / f'rgb_q{q}_s{sub}.jpg', quality=q, subsampling=sub)
    rgb.save(folder / 'progressive.jpeg', progressive=True)
    rgb.save(folder / 'turned.JPG', exif=exif_turned())
    rgb.save(folder / 'restart.jpg', restart_marker_blocks=4)
    rgb.save(folder / 'keep_rgb.jpg', keep_rgb=True)
    gray.save(folder / 'gray.jpg')
    rgb.convert('CMYK').save(folder / 'cmyk.jpg')
    Image.fromarray(picture(43, 29, 4, 6), 'CMYK').save(folder / 'cmyk_any.jpg', quality=90)
    rgb.resize((1, 1)).save(folder / 'one.jpg')
    rgb.save(folder / 'rgb.png')
    gray.save(folder / 'gray.PNG')
    rgba.save(folder / 'rgba.png')
    rgba.convert('LA').save(folder / 'la.png')
    rgb.quantize(50).save(folder / 'palette.png')
    rgb.quantize(4).save(folder / 'palette_bits.png', bits=2)
    rgb.quantize(16).save(folder / 'palette_clear.png', transparency=3)
    rgb.save(folder / 'clear_colour.png', transparency=(1, 2, 3))
    gray.convert('1').save(folder / 'bits.png')
    Image.fromarray(deep).save(folder / 'deep.png')
    for name, depth, colour, channels in (('deep_rgb', 16, 2, 3), ('deep_rgba', 16, 6, 4),
                                          ('deep_la', 16, 4, 2), ('gray2', 2, 0, 1),
                                          ('gray4', 4, 0, 1)):
        (folder / f'{name}.png').write_bytes(raw_png(23, 19, depth, colour, channels))
    return sorted(os.listdir(folder))


def raw_png(w, h, depth, colour, channels):
    """Kinds of PNG that Pillow reads but does not write."""
    row = (w * channels * depth + 7) // 8
    data = np.random.default_rng(depth + colour).integers(0, 256, (h, row), dtype=np.uint8)
    lines = b''.join(b'\0' + line.tobytes() for line in data)

    def chunk(kind, body):
        crc = struct.pack('>I', zlib.crc32(kind + body))
        return struct.pack('>I', len(body)) + kind + body + crc
    head = struct.pack('>IIBBBBB', w, h, depth, colour, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(lines))
            + chunk(b'IEND', b''))


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'pictures'
    write_pictures(folder)
    return folder


def pillow_rgb(path):
    image = Image.open(path)
    if image.mode.startswith('I'):  # 16 bits: rung takes the high byte; Pillow's convert varies
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert('RGB')
    return image.convert('RGB')


def options_of(text):
    return dict(part.split('=') for part in text.split(',')) if text else {}


def sides(text):
    return [int(v) for v in text.split('x')]


def resize(image, text):
    size = sides(text)
    w, h = image.size
    if len(size) == 1 and w <= h:
        size = [size[0], int(size[0] * h / w)]
    elif len(size) == 1:
        size = [int(size[0] * w / h), size[0]]
    return stretch(image, size)


def stretch(image, size):
    """Columns, then rows: the order of Pillow to 12, and of 13 unless the height shrinks much more
    than the width. The other order rounds some pixels to a neighbouring level."""
    return image.resize((size[0], image.height), Image.BILINEAR).resize(size, Image.BILINEAR)


def crop(image, text):
    size = sides(text) * 2
    x, y = (int(round((a - b) / 2.0)) for a, b in zip(image.size, size))
    return image.crop((x, y, x + size[0], y + size[1]))


def channel_values(text):
    values = np.array([float(v) for v in text.split(':')], np.float32)
    return values if len(values) == 3 else values.repeat(3)


def reference(image, text):
    """The preprocessing of data.h in Pillow and float32 NumPy."""
    o = options_of(text)
    if 'resize' in o:
        image = resize(image, o['resize'])
    if 'crop' in o:
        image = crop(image, o['crop'])
    if o.get('color') == 'gray':
        image = image.convert('L')
    x = np.asarray(image).astype(np.float32)
    x = x[..., None] if x.ndim == 2 else x
    x = x[..., ::-1] if o.get('color') == 'bgr' else x
    c = x.shape[-1]
    x = x / np.float32(float(o.get('scale', 1)))
    x = (x - channel_values(o.get('mean', '0'))[:c]) / channel_values(o.get('std', '1'))[:c]
    return x if o.get('layout') == 'nhwc' else x.transpose(2, 0, 1)


def test_decoding_is_pillows(pictures, tmp_path):
    names = sorted(os.listdir(pictures))
    batches = dump(pictures, tmp_path / 'out', '-p', 'color=rgb')
    assert len(batches) == len(names)
    for name, b in zip(names, batches):
        expected = reference(pillow_rgb(pictures / name), '')
        assert b['input'].shape == (1, *expected.shape), name
        assert_same(b['input'][0], expected, name)


def test_gray_files_stay_gray(pictures, tmp_path):
    names = sorted(os.listdir(pictures))
    gray = {'gray.jpg', 'gray.PNG', 'la.png', 'bits.png', 'deep.png', 'deep_la.png', 'gray2.png',
            'gray4.png'}
    for name, b in zip(names, dump(pictures, tmp_path / 'out')):
        assert b['input'].shape[1] == (1 if name in gray else 3), name


@pytest.mark.parametrize('text', [
    'resize=32,color=rgb', 'resize=200,color=rgb', 'resize=45,crop=45,color=rgb',
    'resize=30x50,color=rgb', 'resize=67x20,color=rgb', 'resize=20x45,color=rgb',
    'resize=300x1,color=rgb',
    'resize=25,crop=24,color=rgb', 'resize=40x31,crop=17x8,color=rgb',
    'resize=64,crop=33,color=gray', 'resize=64,crop=33,color=bgr,' + IMAGENET,
    'resize=23,crop=21x20,scale=127.5,mean=1,layout=nhwc,color=rgb',
    'resize=40,crop=40,color=gray,scale=3,mean=0.1,std=0.7', 'resize=29,layout=nhwc,' + IMAGENET,
    'resize=7,crop=5,mean=127,std=128,color=bgr,layout=nhwc', 'crop=1,color=rgb',
    'resize=1,color=rgb',
])
def test_preprocessing_is_pillows(pictures, tmp_path, text):
    names = sorted(os.listdir(pictures))
    for name, b in zip(names, dump(pictures, tmp_path / 'out', '-p', text)):
        expected = reference(pillow_rgb(pictures / name), text)
        assert_same(b['input'][0], expected, name)


def test_sizes_at_random(tmp_path):
    rng = np.random.default_rng(7)
    folder = tmp_path / 'one'
    folder.mkdir()
    for i in range(60):
        w, h, to_w, to_h = (int(v) for v in rng.integers(1, 150, 4))
        image = Image.fromarray(picture(w, h, 3, i))
        image.save(folder / 'a.png')
        text = f'resize={to_w}x{to_h}'
        if i % 2:
            text += f',crop={int(rng.integers(1, to_w + 1))}x{int(rng.integers(1, to_h + 1))}'
        got = dump(folder, tmp_path / f'out{i}', '-p', text)[0]['input'][0]
        assert np.array_equal(got, reference(image, text)), (w, h, text)
        if 'crop' not in text:
            pillow = np.asarray(image.resize((to_w, to_h), Image.BILINEAR)).transpose(2, 0, 1)
            assert abs(got - pillow).max() <= 1, (w, h, text)


def test_batches_order_and_workers(tmp_path):
    root = tmp_path / 'set'
    expected = []
    for label, name in enumerate(('Zebra', 'ant', 'empty', 'ät')):
        (root / name).mkdir(parents=True)
        for i in range(0 if name == 'empty' else 7):
            image = picture(24, 20, 3, len(expected))
            Image.fromarray(image).save(root / name / f'{i}.png')
            expected.append((image.transpose(2, 0, 1).astype(np.float32), label))
    for workers in (1, 2, 4):
        batches = dump(f'images:{root}', tmp_path / f'w{workers}', '-b', 4, '-w', workers)
        assert [len(b['labels']) for b in batches] == [4, 4, 4, 4, 4, 1]
        assert np.array_equal(joined(batches, 'input'), [e[0] for e in expected])
        assert joined(batches, 'labels').tolist() == [e[1] for e in expected]
    some = dump(f'images:{root}@5:12', tmp_path / 'some', '-b', 3)
    assert joined(some, 'labels').tolist() == [e[1] for e in expected[5:12]]
    one, two = (dump(root, tmp_path / f's{i}', '-b', 5, '-s', 3, '-w', 1 + i) for i in range(2))
    assert all(np.array_equal(a['input'], b['input']) for a, b in zip(one, two))
    labels = joined(one, 'labels').tolist()
    assert sorted(labels) == [e[1] for e in expected] and labels != sorted(labels)


def test_truncated_images_are_refused(pictures, tmp_path):
    folder = tmp_path / 'cut'
    folder.mkdir()
    for name in ('rgb_q75_s1.jpg', 'progressive.jpeg', 'cmyk.jpg', 'rgb.png', 'palette.png'):
        data = (pictures / name).read_bytes()
        for n in sorted({0, 1, 3, 10, 50, 200, len(data) // 2, len(data) - 30, len(data) - 3}):
            (folder / name).write_bytes(data[:n])
            assert name in refusal(folder, tmp_path), (name, n)
        (folder / name).unlink()


def test_damaged_images_do_no_harm(pictures, tmp_path):
    """Any byte may be wrong: the tool gives an image or a sentence, and never falls."""
    rng = np.random.default_rng(1)
    folder, out = tmp_path / 'bad', tmp_path / 'out'
    folder.mkdir()
    out.mkdir()
    for name in ('rgb_q75_s1.jpg', 'progressive.jpeg', 'cmyk_any.jpg', 'palette.png',
                 'deep_rgba.png'):
        data = (pictures / name).read_bytes()
        for _ in range(12):
            bad = bytearray(data)
            for at in rng.integers(2, len(data), 3):
                bad[at] = rng.integers(256)
            (folder / name).write_bytes(bad)
            result = subprocess.run([tool(), folder, out], capture_output=True, text=True,
                                    timeout=60)
            refused = result.returncode == 1 and name in result.stderr
            assert result.returncode == 0 or refused, result.stderr
        (folder / name).unlink()


def test_huge_images_are_refused(tmp_path):
    folder = tmp_path / 'huge'
    folder.mkdir()
    small = raw_png(1, 1, 8, 2, 3)
    head = b'IHDR' + struct.pack('>IIBBBBB', 60000, 60000, 8, 2, 0, 0, 0)
    crc = struct.pack('>I', zlib.crc32(head))
    (folder / 'a.png').write_bytes(small[:12] + head + crc + small[33:])
    assert 'megapixels' in refusal(folder, tmp_path)
    jpeg = io.BytesIO()
    Image.fromarray(picture(8, 8, 3)).save(jpeg, 'JPEG')
    data = bytearray(jpeg.getvalue())
    at = data.index(b'\xff\xc0') + 5
    data[at:at + 4] = struct.pack('>HH', 65000, 65000)
    (folder / 'a.png').unlink()
    (folder / 'b.jpg').write_bytes(data)
    assert 'megapixels' in refusal(folder, tmp_path)


# --- arrays ---------------------------------------------------------------------------------------

TYPES = ['f2', 'f4', 'f8', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', '?']


@pytest.mark.parametrize('kind', TYPES)
def test_npy_types(tmp_path, kind):
    x = np.random.default_rng(0).integers(0, 2, (5, 2, 3)).astype(kind)
    np.save(tmp_path / 'x.npy', x)
    batches = dump(tmp_path / 'x.npy', tmp_path / 'out', '-b', 2)
    got = joined(batches, 'input')
    assert got.dtype == x.dtype and np.array_equal(got, x) and len(batches) == 3


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
@pytest.mark.parametrize('kind', ['i1', 'i4', 'i8', 'u1', 'u8'])
def test_npz(tmp_path, save, kind):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 3, 4)).astype(np.float32), rng.integers(0, 99, 9).astype(kind)
    save(tmp_path / 'a.npz', x=x, y=y)
    got = dump(tmp_path / 'a.npz', tmp_path / 'a', '-b', 4)
    assert np.array_equal(joined(got, 'input'), x)
    assert np.array_equal(joined(got, 'labels'), y)
    save(tmp_path / 'b.npz', ids=y, mask=x)
    got = dump(f'npz:{tmp_path}/b.npz@2:', tmp_path / 'b', '-b', 100)
    assert got[0].keys() == {'ids', 'mask'}
    assert np.array_equal(got[0]['ids'], y[2:]) and np.array_equal(got[0]['mask'], x[2:])


def test_npz_in_zip64(tmp_path):
    data = io.BytesIO()
    np.save(data, np.arange(12, dtype=np.float32).reshape(4, 3))
    with zipfile.ZipFile(tmp_path / 'z.npz', 'w') as z:
        with z.open('x.npy', 'w', force_zip64=True) as f:
            f.write(data.getvalue())
        z.comment = b'a comment'
    got = dump(tmp_path / 'z.npz', tmp_path / 'out', '-b', 4)
    assert np.array_equal(got[0]['input'].ravel(), np.arange(12))


def test_npz_that_lie_are_refused(tmp_path):
    np.savez_compressed(tmp_path / 'a.npz', x=np.zeros((50, 40), np.float32), y=np.arange(50))
    data = (tmp_path / 'a.npz').read_bytes()
    path = tmp_path / 'b.npz'
    for n in range(0, len(data), 7):
        path.write_bytes(data[:n])
        assert 'b.npz' in refusal(path, tmp_path), n
    x = np.zeros((3, 2))
    for wrong in (dict(x=x, y=np.zeros(3)), dict(x=x, y=np.zeros(4, int)),
                  dict(x=x, y=np.array([0, 1, -2])), dict(a=np.zeros(3), b=np.zeros(4)),
                  dict(x=np.float32(1)), dict(x=np.zeros((0, 3)))):
        np.savez(path, **wrong)
        assert 'b.npz' in refusal(path, tmp_path), wrong


def test_npy_that_cannot_be_read(tmp_path):
    path = tmp_path / 'x.npy'
    for array, word in ((np.zeros((3, 2), '>f4'), 'big-endian'), (np.zeros((3, 2), 'c8'), '"<c8"'),
                        (np.zeros((3, 2), order='F'), 'Fortran'), (np.array(['a', 'b']), '"<U1"'),
                        (np.zeros(3, [('a', 'f4')]), 'structured'),
                        (np.zeros((2,) * 9), 'dimensions')):
        np.save(path, array)
        assert word in refusal(path, tmp_path)


def test_random_is_normal_and_seeded_by_place(tmp_path):
    a = joined(dump('random', tmp_path / 'a', '-b', 50), 'x')
    b = joined(dump('random@3:7', tmp_path / 'b', '-w', 2), 'x')
    assert a.shape == (256, 3, 4, 5) and np.array_equal(a[3:7], b)
    assert abs(a.mean()) < 0.05 and abs(a.std() - 1) < 0.05  # 15,360 values: 6 standard errors


# --- raw images -----------------------------------------------------------------------------------

def idx(array):
    shape = struct.pack(f'>{array.ndim}I', *array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


def test_idx_plain_and_gzip(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (11, 9, 7), dtype=np.uint8), rng.integers(0, 10, 11, dtype=np.uint8)
    for end, pack in (('', bytes), ('.gz', gzip.compress)):
        images, labels = (tmp_path / f'x-{kind}-ubyte{end}'
                          for kind in ('images-idx3', 'labels-idx1'))
        images.write_bytes(pack(idx(x)))
        labels.write_bytes(pack(idx(y)))
        for i, spec in enumerate((f'{images}', f'idx:{images},{labels}')):
            got = dump(spec, tmp_path / f'out{end}{i}', '-b', 11)[0]
            assert np.array_equal(got['input'][:, 0], x) and np.array_equal(got['labels'], y)
    got = dump(f'idx:{images}', tmp_path / 'none', '-b', 11, '-p', 'resize=14,color=rgb')[0]
    assert 'labels' not in got
    expected = [reference(Image.fromarray(v).convert('RGB'), 'resize=14') for v in x]
    assert np.array_equal(got['input'], expected)


def test_cifar10(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (5, 3, 32, 32), dtype=np.uint8), np.arange(5, dtype=np.uint8)
    (tmp_path / 'c.bin').write_bytes(b''.join(bytes([b]) + a.tobytes() for a, b in zip(x, y)))
    got = dump(tmp_path / 'c.bin', tmp_path / 'a', '-b', 5)[0]
    assert np.array_equal(got['input'], x) and np.array_equal(got['labels'], y)
    text = 'resize=40,crop=36,' + IMAGENET
    got = dump(f'cifar10:{tmp_path}/c.bin', tmp_path / 'b', '-b', 5, '-p', text)[0]
    expected = [reference(Image.fromarray(v.transpose(1, 2, 0)), text) for v in x]
    assert np.array_equal(got['input'], expected)


def test_real_mnist(tmp_path):
    path = shared_folder() / 'data/mnist/heldout3000-images-idx3-ubyte.gz'
    x = np.frombuffer(gzip.open(path).read()[16:], np.uint8).reshape(-1, 1, 28, 28)
    got = dump(path, tmp_path / 'out', '-b', 1000)
    assert np.array_equal(joined(got, 'input'), x)
    assert len(np.unique(got[0]['labels'])) == 10
