"""What the benchmarks measure: networks, their real input, and rung and ONNX Runtime to run them.

RUNG_BIN names the command; RUNG_SHARED the folder with models/ and data/; RUNG_PHOTOS a folder with
one JPEG for each ImageNet class, flat or in class folders: its place in name order is the class.
Of the photographs only positions that end in 0 (calibration), 3 and 7 (evaluation) are used.
"""
import dataclasses
import json
import os
import pathlib
import subprocess

import numpy as np
import onnxruntime as ort
from PIL import Image

NORMALISED = 'scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,color=rgb'
PHOTO = 'resize=256,crop=224,' + NORMALISED
SMALL_PHOTO = 'resize=256,crop=224,scale=127.5,mean=1:1:1,color=rgb'
N_CALIBRATION = 500  # CIFAR-10 images; the others are for evaluation


@dataclasses.dataclass
class Subject:
    file: str
    kind: str               # where its input comes from, see READERS
    preprocess: str = ''
    size: tuple = ()        # width and height of its input
    integer: bool = False   # no float island may be inside
    classes: bool = False   # the last axis of the first output holds scores of classes


SUBJECTS = {
    'resnet8': Subject('mlperf_tiny_ic_resnet8.onnx', 'cifar', 'color=rgb', integer=True,
                       classes=True),
    'resnet20': Subject('cifar10_resnet20_akamaster.onnx', 'cifar', NORMALISED, integer=True,
                        classes=True),
    'resnet32': Subject('cifar10_resnet32_akamaster.onnx', 'cifar', NORMALISED, integer=True,
                        classes=True),
    'resnet44': Subject('cifar10_resnet44_akamaster.onnx', 'cifar', NORMALISED, integer=True,
                        classes=True),
    'resnet56': Subject('cifar10_resnet56_akamaster.onnx', 'cifar', NORMALISED, integer=True,
                        classes=True),
    'mobilenetv1': Subject('mobilenet_v1_0.25_224_imagenet.onnx', 'photos', SMALL_PHOTO,
                           integer=True, classes=True),
    'mobilenetv2': Subject('mobilenetv2_imagenet.onnx', 'photos', PHOTO, integer=True,
                           classes=True),
    'squeezenet': Subject('squeezenet1.1_imagenet.onnx', 'photos', PHOTO, integer=True,
                          classes=True),
    'super_resolution': Subject('super_resolution_x3.onnx', 'photos',
                                'resize=224x224,color=gray,scale=255', integer=True),
    'vww': Subject('mlperf_tiny_vww_mobilenetv1_025_96.onnx', 'photos',
                   'resize=96x96,scale=255,color=rgb', integer=True, classes=True),
    'dscnn': Subject('mlperf_tiny_kws_dscnn.onnx', 'random', integer=True, classes=True),
    'autoencoder': Subject('mlperf_tiny_ad01_autoencoder.onnx', 'random', integer=True),
}
for _name in ('RFB-320', 'RFB-320_simplified', 'RFB-320_without_postprocessing', 'RFB-640',
              'slim-320_without_postprocessing'):
    SUBJECTS['ultraface_' + _name] = Subject(
        f'ultraface/version-{_name}.onnx', 'faces', 'scale=128,mean=0.9921875,color=rgb',
        (640, 480) if '640' in _name else (320, 240), classes=True)
for _name, _size in (('n_320_320', 320), ('n_640_640', 640), ('n_dynamic', 320),
                     ('s_320_320', 320), ('s_dynamic', 320)):
    SUBJECTS['yunet_' + _name] = Subject(f'yunet/yunet_{_name}.onnx', 'faces', 'color=bgr',
                                         (_size, _size))


class Missing(Exception):
    """A part that this measurement needs is not there."""


def rung_binary():
    path = os.environ.get('RUNG_BIN', '')
    if not pathlib.Path(path).is_file():
        raise Missing('RUNG_BIN names no program')
    return path


def shared_folder():
    path = pathlib.Path(os.environ.get('RUNG_SHARED', '/nonexistent'))
    if not path.is_dir():
        raise Missing('RUNG_SHARED names no folder')
    return path


def model_path(name):
    return shared_folder() / 'models' / SUBJECTS[name].file


# --- real input -----------------------------------------------------------------------------------

def cifar_file():
    return shared_folder() / 'data/cifar10-train-4000-lossless/cifar10_train4000.bin'


def cifar_pixels():
    records = np.fromfile(cifar_file(), np.uint8).reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(int)


def photo_files():
    """(class, file) of the photographs that may be used."""
    root = pathlib.Path(os.environ.get('RUNG_PHOTOS', '/nonexistent'))
    entries = sorted(p for p in root.glob('*') if p.is_dir() or p.suffix == '.JPEG')
    if len(entries) != 1000:
        raise Missing('RUNG_PHOTOS names no folder of 1,000 classes')
    found = [(i, next(iter(sorted(p.glob('*'))), None) if p.is_dir() else p)
             for i, p in enumerate(entries) if i % 10 in (0, 3, 7)]
    return [(i, p) for i, p in found if p]


def photo_trees(folder):
    """Class folders, most of them empty, with links: for calibration and for evaluation."""
    trees = folder / 'calibration', folder / 'evaluation'
    if trees[0].exists():
        return trees
    files = photo_files()
    for tree in trees:
        for i in range(1000):
            (tree / f'{i:04}').mkdir(parents=True)
    for i, file in files:
        (trees[i % 10 != 0] / f'{i:04}' / 'x.jpeg').symlink_to(file.resolve())
    return trees


def keys_of(preprocess):
    return dict(part.split('=') for part in preprocess.split(',') if part)


def resized(image, keys):
    """As rung's resize= and crop=."""
    if 'resize' not in keys:
        return image
    if 'x' in keys['resize']:
        return image.resize([int(n) for n in keys['resize'].split('x')], Image.BILINEAR)
    scale = int(keys['resize']) / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.BILINEAR)
    crop = int(keys['crop'])
    left, top = (image.width - crop) // 2, (image.height - crop) // 2
    return image.crop((left, top, left + crop, top + crop))


def normalised(x, keys):
    """uint8 [n, c, h, w] as the network's input."""
    if keys.get('color') == 'bgr':
        x = x[:, ::-1]
    x = x.astype(np.float32) / np.float32(keys.get('scale', 1))
    for key, apply in (('mean', np.subtract), ('std', np.divide)):
        if key in keys:
            values = np.array(keys[key].split(':'), np.float32).reshape(1, -1, 1, 1)
            x = apply(x, values)
    return np.ascontiguousarray(x)


def pixels_of(image, keys):
    image = resized(image.convert('L' if keys.get('color') == 'gray' else 'RGB'), keys)
    x = np.asarray(image)
    return x[None] if x.ndim == 2 else x.transpose(2, 0, 1)


def read_cifar(subject, part, count):
    pixels, labels = cifar_pixels()
    where = slice(0, N_CALIBRATION) if part == 'calibration' else slice(N_CALIBRATION, None)
    x = normalised(pixels[where][:count], keys_of(subject.preprocess))
    return x, labels[where][:count]


def read_photos(subject, part, count):
    keys = keys_of(subject.preprocess)
    files = [(i, p) for i, p in photo_files() if (i % 10 == 0) == (part == 'calibration')][:count]
    pixels = np.stack([pixels_of(Image.open(p), keys) for _, p in files])
    return normalised(pixels, keys), np.array([i for i, _ in files])


def read_faces(subject, part, count):
    """The detectors' own pictures, then flipped and cropped ones for more samples."""
    keys, found = keys_of(subject.preprocess), []
    images = [Image.open(p).convert('RGB')
              for p in sorted((shared_folder() / 'models/ultraface').glob('*.jpg'))]
    for margin in (range(0, 40, 2) if part == 'calibration' else range(1, 40, 2)):
        for image in images:
            box = (margin * 3, margin, image.width - margin * 2, image.height - margin)
            found.append(pixels_of(image.crop(box).resize(subject.size, Image.BILINEAR), keys))
    return normalised(np.stack(found[:count]), keys), None


def read_random(subject, part, count):
    """Shaped like coefficients of sound: smooth along time, falling along frequency."""
    rng = np.random.default_rng(0 if part == 'calibration' else 1)
    count = count or 200
    if 'kws' in subject.file:
        noise = rng.normal(0, 12, (count, 1, 49, 10)).cumsum(2) / np.sqrt(np.arange(1, 11)) / 3
        return noise.astype(np.float32), None
    x = rng.normal(0, 4, (count, 5, 128)).cumsum(2) / 4 - 30
    return x.reshape(count, 640).astype(np.float32), None


READERS = {'cifar': read_cifar, 'photos': read_photos, 'faces': read_faces, 'random': read_random}


def samples(name, part, count=None):
    """(x, labels or None) of part 'calibration' or 'evaluation'; at most count."""
    subject = SUBJECTS[name]
    return READERS[subject.kind](subject, part, count)


# --- programs -------------------------------------------------------------------------------------

def run(*args, level=None):
    environment = dict(os.environ, RUNG_CPU=level) if level else None
    result = subprocess.run([str(a) for a in args], capture_output=True, text=True,
                            timeout=900, env=environment)
    if result.returncode:
        raise RuntimeError(f'{" ".join(map(str, args))}: {result.stderr.strip()}')
    return result.stdout


def inspect(path):
    return json.loads(run(rung_binary(), 'inspect', path, '--json'))


def session(path, threads=1):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])


def batches(path, x):
    """x in the pieces that the model takes."""
    first = session(path).get_inputs()[0].shape[0]
    step = first if isinstance(first, int) else max(1, min(100, 20_000_000 // x[0].size // 4))
    return [x[i:i + step] for i in range(0, len(x), step)]


def stacked(parts):
    return [np.concatenate([p[k] for p in parts]) for k in range(len(parts[0]))]


def ort_outputs(path, x):
    s = session(path)
    name = s.get_inputs()[0].name
    return stacked([s.run(None, {name: part}) for part in batches(path, x)])


def rung_outputs(path, x, folder, level=None, threads=1):
    """Of `rung run`, in the model's order."""
    s, parts = session(path), []
    folder.mkdir(parents=True, exist_ok=True)
    names = [''.join(c if c.isascii() and (c.isalnum() or c in '._-') else '_' for c in o.name)
             for o in s.get_outputs()]
    for part in batches(path, x):
        np.save(folder / 'input.npy', part)
        run(rung_binary(), 'run', path, '--input', f'{s.get_inputs()[0].name}={folder}/input.npy',
            '--output', folder, '--threads', threads, level=level)
        parts.append([np.load(folder / f'{n}.npy') for n in names])
    return stacked(parts)


def calibration_data(name, folder):
    """The data argument of rung quantize, and its preprocessing."""
    subject = SUBJECTS[name]
    if subject.kind == 'cifar':
        return f'cifar10:{cifar_file()}@0:{N_CALIBRATION}', subject.preprocess
    if subject.kind == 'photos':
        return f'images:{photo_trees(folder)[0]}', subject.preprocess
    file = folder / f'{name}.npy'
    np.save(file, samples(name, 'calibration')[0])
    return f'npy:{file}', ''


def quantized(name, folder, *flags):
    """Path of rung's int8 file, made when it is not there."""
    out = folder / f'{name}{"".join(flags)}.int8.onnx'
    if not out.exists():
        data, preprocess = calibration_data(name, folder)
        run(rung_binary(), 'quantize', model_path(name), '-o', out, '--data', data, '--quiet',
            *(['--preprocess', preprocess] if preprocess else []), *flags)
    return out


def table(title, heads, rows):
    """A table in columns, as Markdown."""
    cells = [[str(c) for c in row] for row in [heads, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    lines = ['| ' + ' | '.join(c.ljust(w) for c, w in zip(row, widths)) + ' |' for row in cells]
    lines.insert(1, '|' + '|'.join('-' * (w + 2) for w in widths) + '|')
    print(f'\n{title}\n\n' + '\n'.join(lines), flush=True)
