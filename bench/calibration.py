"""Wall time and peak memory of calibration: python bench/calibration.py [--samples 100,300]

rung quantize (minmax, percentile, entropy, mse) beside ONNX Runtime's quantize_static (MinMax,
Percentile, Entropy), MobileNetV2 on photographs, and rung alone on YuNet 320 with 300 samples. Each
in a process of its own. ONNX Runtime's Percentile and Entropy keep every tensor of every sample:
they are measured with the smallest number only. Environment: see subjects.py.
"""
import argparse
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

import subjects as sub

METHODS = ('minmax', 'percentile', 'entropy', 'mse')
PEER_METHODS = ('MinMax', 'Percentile', 'Entropy')
HEADS = ['network', 'method', 'samples', 'seconds', 'peak MB']


def peak_kb(pid):
    """The most memory that was resident at once; wait4 would count the caller's, too."""
    try:
        lines = pathlib.Path(f'/proc/{pid}/status').read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith('VmHWM')), 0)


def measured(*command):
    """Seconds, and the peak of resident memory in MB, read every 20 ms."""
    start, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL,
                                   stderr=messages)
        while process.poll() is None:
            peak = max(peak, peak_kb(process.pid))
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        if process.returncode:
            messages.seek(0)
            raise RuntimeError(f'{command[0]}: {messages.read().decode().strip()}')
    return seconds, peak / 1024


def photo_tree(count, folder):
    """A flat folder with links to the first photographs."""
    tree = folder / f'photos{count}'
    if not tree.exists():
        tree.mkdir()
        for i, file in sub.photo_files()[:count]:
            (tree / f'{i:04}.jpeg').symlink_to(file.resolve())
    return tree


def quantize_beside(count, method):
    """One run of ONNX Runtime, in this process: decodes each photograph when it is asked for."""
    import onnxruntime.quantization as q
    subject, folder = sub.SUBJECTS['mobilenetv2'], pathlib.Path(tempfile.mkdtemp())
    keys = sub.keys_of(subject.preprocess)

    class Reader(q.CalibrationDataReader):
        def __init__(self):
            self.files = iter(sub.photo_files()[:count])

        def get_next(self):
            item = next(self.files, None)
            if item is None:
                return None
            pixels = sub.pixels_of(sub.Image.open(item[1]), keys)
            return {'input': sub.normalised(pixels[None], keys)}

    q.quantize_static(str(sub.model_path('mobilenetv2')), str(folder / 'out.onnx'), Reader(),
                      quant_format=q.QuantFormat.QDQ, per_channel=True,
                      activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
                      calibrate_method=q.CalibrationMethod[method])


def rung_figures(model, data, count, method, folder, *flags):
    seconds, megabytes = measured(sub.rung_binary(), 'quantize', model, '-o', folder / 'out.onnx',
                                  '--data', data, '--range', method, '--quiet', *flags)
    return [model.name, f'rung {method}', count, f'{seconds:.1f}', f'{megabytes:.0f}']


def mobilenet_rows(counts, folder):
    model, preprocess = sub.model_path('mobilenetv2'), sub.SUBJECTS['mobilenetv2'].preprocess
    for count in counts:
        tree = photo_tree(count, folder)
        for method in METHODS:
            yield rung_figures(model, f'images:{tree}', count, method, folder,
                               '--preprocess', preprocess)
        for method in PEER_METHODS[:3 if count == min(counts) else 1]:
            seconds, megabytes = measured(sys.executable, __file__, '--beside',
                                          json.dumps([count, method]))
            yield [model.name, f'ORT {method}', count, f'{seconds:.1f}', f'{megabytes:.0f}']


def detector_rows(folder):
    x, _ = sub.samples('yunet_n_320_320', 'calibration')
    file = folder / 'faces.npy'
    np.save(file, np.tile(x, (300 // len(x) + 1, 1, 1, 1))[:300])
    for method in METHODS:
        yield rung_figures(sub.model_path('yunet_n_320_320'), f'npy:{file}', 300, method, folder)


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument('--samples', default='100,300')
    parse.add_argument('--beside', help=argparse.SUPPRESS)
    args = parse.parse_args()
    if args.beside:
        return quantize_beside(*json.loads(args.beside))
    counts = [int(n) for n in args.samples.split(',')]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        rows = []
        for row in itertools.chain(detector_rows(folder), mobilenet_rows(counts, folder)):
            print(*row, file=sys.stderr, flush=True)
            rows.append(row)
    sub.table('Calibration', HEADS, rows)


if __name__ == '__main__':
    main()
