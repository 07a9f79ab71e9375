"""rung quantize on real networks: the files it writes, their accuracy, and ONNX Runtime's own
quantization (per channel, static, MinMax) with the same images beside it.

Photographs are optional: RUNG_PHOTOS names a folder of 1,000 JPEG files, one for each ImageNet
class, whose place in name order is the class. Only positions that end in 0, 3 or 7 are used: those
that end in 0 for calibration, the others for evaluation.
"""
import collections
import json
import os
import pathlib

import pytest

from util import np, onnx, ort, run, rung_binary, shared_folder

quantization = pytest.importorskip('onnxruntime.quantization')
from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: E402

NORMALISED = 'scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,color=rgb'
PHOTO = 'resize=256,crop=224,' + NORMALISED
SMALL_PHOTO = 'resize=256,crop=224,scale=127.5,mean=1:1:1,color=rgb'
CIFAR = {
    'resnet8': ('mlperf_tiny_ic_resnet8.onnx', 'color=rgb'),
    'resnet20': ('cifar10_resnet20_akamaster.onnx', NORMALISED),
    'resnet56': ('cifar10_resnet56_akamaster.onnx', NORMALISED),
}
PHOTOS = {
    'mobilenetv2': ('mobilenetv2_imagenet.onnx', PHOTO),
    'mobilenetv1': ('mobilenet_v1_0.25_224_imagenet.onnx', SMALL_PHOTO),
    'squeezenet': ('squeezenet1.1_imagenet.onnx', PHOTO),
}
N_CALIBRATION = 500
INTEGER_OPS = {'QLinearConv', 'QLinearAdd', 'QGemm', 'QLinearGlobalAveragePool', 'QLinearConcat'}


def model_path(name):
    return shared_folder() / 'models' / {**CIFAR, **PHOTOS}[name][0]


def preprocessed(pixels, preprocess):
    """uint8 [n, 3, h, w] as the network's input."""
    keys = dict(part.split('=') for part in preprocess.split(','))
    x = pixels.astype(np.float32) / np.float32(keys.get('scale', 1))
    for key, apply in (('mean', np.subtract), ('std', np.divide)):
        if key in keys:
            values = np.array(keys[key].split(':'), np.float32).reshape(1, 3, 1, 1)
            x = apply(x, values)
    return x


def session_of(path, optimized=None):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if optimized:
        options.optimized_model_filepath = str(optimized)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])


def scores(path, x, batch=50):
    s = session_of(path)
    name = s.get_inputs()[0].name
    parts = [s.run(None, {name: x[i:i + batch]})[0] for i in range(0, len(x), batch)]
    return np.concatenate(parts).reshape(len(x), -1).astype(np.float64)


def sqnr(reference, y):
    return 10 * np.log10((reference ** 2).sum() / ((reference - y) ** 2).sum())


def accuracy(y, labels):
    return 100 * (y.argmax(1) == labels).mean()


class OneByOne(quantization.CalibrationDataReader):
    def __init__(self, name, x):
        self.feeds = iter([{name: x[i:i + 1]} for i in range(len(x))])

    def get_next(self):
        return next(self.feeds, None)


def quantized_by_onnx_runtime(model, x, folder):
    prepared, out = folder / 'prepared.onnx', folder / 'ort.onnx'
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared), str(out), OneByOne(session_of(model).get_inputs()[0].name, x),
        quant_format=quantization.QuantFormat.QDQ, per_channel=True,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax)
    return out


def check_file(path, model, folder):
    """Valid, small, and all in integers when ONNX Runtime runs it."""
    onnx.checker.check_model(str(path), full_check=True)
    ratio = path.stat().st_size / model.stat().st_size
    print(f'{model.name}: {ratio:.4f} of the float file')
    # Each output channel costs 12 bytes (two scales, a bias): MobileNetV1 0.25 has one for every
    # 124 weights, ResNet-20 one for every 390.
    if model.stat().st_size > 1 << 20:
        assert ratio <= (0.28 if model.name.startswith('mobilenet_v1') else 0.27)
    optimized = folder / 'optimized.onnx'
    session_of(path, optimized)
    ops = collections.Counter(n.op_type for n in onnx.load(str(optimized)).graph.node)
    assert not {'Conv', 'Gemm', 'MatMul', 'Add', 'Relu', 'Clip', 'GlobalAveragePool'} & set(ops)
    assert INTEGER_OPS & set(ops)


def evaluated(path, model, spec):
    text = run(rung_binary(), 'eval', path, '--reference', model, '--data', spec, '--json',
               '--quiet').stdout
    return json.loads(text)


def compare(name, got, y, peer, reference, labels):
    """Prints the figures and holds rung to float and to its peer. y, peer: by ONNX Runtime."""
    figures = {'rung': sqnr(reference, y), 'onnxruntime': sqnr(reference, peer)}
    floats, ours = accuracy(reference, labels), accuracy(y, labels)
    print(f'{name}: SQNR rung {figures["rung"]:.2f} dB, onnxruntime {figures["onnxruntime"]:.2f} '
          f'dB; top-1 float {floats:.2f}, rung {ours:.2f} (in rung {got["top1"]:.2f}), '
          f'onnxruntime {accuracy(peer, labels):.2f}')
    assert figures['rung'] >= figures['onnxruntime']
    return floats


# --- CIFAR-10 -------------------------------------------------------------------------------------

def cifar():
    path = shared_folder() / 'data/cifar10-train-4000-lossless/cifar10_train4000.bin'
    records = np.fromfile(path, np.uint8).reshape(-1, 3073)
    return path, records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(int)


@pytest.mark.parametrize('name', CIFAR)
def test_cifar(name, tmp_path):
    model, out, preprocess = model_path(name), tmp_path / 'int8.onnx', CIFAR[name][1]
    path, pixels, labels = cifar()
    run(rung_binary(), 'quantize', model, '-o', out, '--data', f'cifar10:{path}@0:{N_CALIBRATION}',
        '--preprocess', preprocess, '--quiet')
    check_file(out, model, tmp_path)
    x, labels = preprocessed(pixels, preprocess), labels[N_CALIBRATION:]
    peer = quantized_by_onnx_runtime(model, x[:N_CALIBRATION], tmp_path)
    x = x[N_CALIBRATION:]
    reference, y = scores(model, x), scores(out, x)
    got = evaluated(out, model, f'cifar10:{path}@{N_CALIBRATION}:{len(pixels)}')
    floats = compare(name, got, y, scores(peer, x), reference, labels)
    assert got['samples'] == len(x)
    assert got['top1'] >= floats - 0.3
    assert abs(got['sqnr_db'] - sqnr(reference, y)) < 0.3


@pytest.mark.parametrize('method', ['minmax', 'ema', 'percentile', 'entropy', 'mse'])
def test_range_methods(method, tmp_path):
    model, out = model_path('resnet8'), tmp_path / 'int8.onnx'
    path, _, _ = cifar()
    run(rung_binary(), 'quantize', model, '-o', out, '--data', f'cifar10:{path}@0:500',
        '--preprocess', 'color=rgb', '--range', method, '--quiet')
    got = evaluated(out, model, f'cifar10:{path}@500:1500')
    print(f'resnet8 {method}: {got["sqnr_db"]:.2f} dB')
    assert got['sqnr_db'] > 28


def test_variants(tmp_path):
    """int8 activations, symmetric ones, per tensor, exclusions: all load and are near float."""
    model, out = model_path('resnet8'), tmp_path / 'int8.onnx'
    path, pixels, _ = cifar()
    x = preprocessed(pixels[500:1000], 'color=rgb')
    reference = scores(model, x)
    for flags, least in ((['--act-type', 'int8'], 30), (['--act-symmetric'], 24),
                         (['--act-type', 'int8', '--act-symmetric'], 24),
                         (['--weight-scheme', 'per-tensor'], 15), (['--exclude', 'Gemm'], 30),
                         (['--ops', 'Conv'], 30)):
        run(rung_binary(), 'quantize', model, '-o', out, '--data', f'cifar10:{path}@0:500',
            '--preprocess', 'color=rgb', '--quiet', *flags)
        onnx.checker.check_model(str(out), full_check=True)
        found = sqnr(reference, scores(out, x))
        print(f'{" ".join(flags)}: {found:.2f} dB')
        assert found > least


# --- photographs ----------------------------------------------------------------------------------

def photo_folders(tmp_path):
    """Two trees of 1,000 class folders, most of them empty, with links to the photographs."""
    root = pathlib.Path(os.environ.get('RUNG_PHOTOS', '/nonexistent'))
    files = sorted(root.glob('*.JPEG'))
    if len(files) != 1000:
        pytest.skip('RUNG_PHOTOS names no folder of 1,000 photographs')
    for i, file in enumerate(files):
        for part, digits in (('calibration', '0'), ('evaluation', '37')):
            folder = tmp_path / part / f'{i:04}'
            folder.mkdir(parents=True)
            if str(i)[-1] in digits:
                (folder / 'x.jpeg').symlink_to(file)
    return tmp_path / 'calibration', tmp_path / 'evaluation'


def photo_pixels(folder):
    image = pytest.importorskip('PIL.Image')
    pixels, labels = [], []
    for file in sorted(folder.glob('*/x.jpeg')):
        im = image.open(file).convert('RGB')
        scale = 256 / min(im.size)
        im = im.resize([round(side * scale) for side in im.size], image.BILINEAR)
        left, top = (im.width - 224) // 2, (im.height - 224) // 2
        pixels.append(np.asarray(im.crop((left, top, left + 224, top + 224))).transpose(2, 0, 1))
        labels.append(int(file.parent.name))
    return np.stack(pixels), np.array(labels)


@pytest.mark.parametrize('name', PHOTOS)
def test_photographs(name, tmp_path):
    model, out, preprocess = model_path(name), tmp_path / 'int8.onnx', PHOTOS[name][1]
    calibration, evaluation = photo_folders(tmp_path)
    run(rung_binary(), 'quantize', model, '-o', out, '--data', f'images:{calibration}',
        '--preprocess', preprocess, '--quiet')
    check_file(out, model, tmp_path)
    peer = quantized_by_onnx_runtime(
        model, preprocessed(photo_pixels(calibration)[0], preprocess), tmp_path)
    pixels, labels = photo_pixels(evaluation)
    x = preprocessed(pixels, preprocess)
    got = evaluated(out, model, f'images:{evaluation}')
    compare(name, got, scores(out, x), scores(peer, x), scores(model, x), labels)
    assert got['samples'] == len(x)
