"""Accuracy of `rung quantize` beside its peers: python bench/accuracy.py [NETWORK ...] [options]

Each network is quantized from the same calibration samples by ONNX Runtime (QDQ, per channel;
MinMax and Percentile), by NNCF with its defaults, by rung with `--method auto`, which is rung's
default, and with `--method none`; LiteRT's own int8 file is run where it was published. Judged on
other samples: SQNR in dB against the float model (the worst output, or each of them), top-1,
agreement of top-1 with the float model. CIFAR-10: calibration on 500 images, the other 3,500 judge;
photographs: calibration on every other one; sound: synthetic.

--work DIR keeps what was made: the figures of a peer are not measured twice. --ours: peers are
taken from there only. --flags 'MORE FLAGS': for rung. Environment: see subjects.py; RUNG_LITERT
names a Python that has ai-edge-litert (default: this one). A peer that is not installed is left
out by name.
"""
import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

import numpy as np

import calibration as cal
import subjects as sub

NETWORKS = ('resnet20', 'resnet56', 'resnet8', 'mobilenetv2', 'squeezenet', 'mobilenetv1', 'vww',
            'ultraface_RFB-320', 'ultraface_RFB-320_without_postprocessing',
            'yunet_n_320_320', 'dscnn', 'autoencoder')
DETECTORS = {'ultraface_RFB-320': (320, 240),
             'ultraface_RFB-320_without_postprocessing': (320, 240),
             'yunet_n_320_320': (320, 320)}
LITERT = {'resnet8': 'pretrainedResnet_quant', 'vww': 'vww_96_int8', 'dscnn': 'kws_ref_model',
          'autoencoder': 'ad01_int8'}
N_SOUND = 300


# --- data -----------------------------------------------------------------------------------------

def keys_of(name):
    keys = sub.keys_of(sub.SUBJECTS[name].preprocess)
    if name in DETECTORS:  # they look at faces; here at photographs
        keys['resize'] = '{}x{}'.format(*DETECTORS[name])
    return keys


def preprocess_of(name):
    return ','.join(f'{key}={value}' for key, value in keys_of(name).items())


def photo_files(part):
    return [f for i, f in enumerate(sub.photo_files()) if i % 2 == (part == 'evaluation')]


def samples(name, part):
    """(x, labels or None)."""
    kind = sub.SUBJECTS[name].kind
    if kind == 'random':
        return sub.read_random(sub.SUBJECTS[name], part, N_SOUND)
    if kind == 'cifar':
        return sub.samples(name, part)
    from PIL import Image
    keys, files = keys_of(name), photo_files(part)
    pixels = np.stack([sub.pixels_of(Image.open(f), keys) for _, f in files])
    labels = np.array([i for i, _ in files]) if name not in DETECTORS and name != 'vww' else None
    return sub.normalised(pixels, keys), labels


def calibration_data(name, work):
    """The data argument of rung quantize, and its preprocessing."""
    kind = sub.SUBJECTS[name].kind
    if kind == 'cifar':
        return sub.calibration_data(name, work)
    if kind == 'random':
        file = work / f'{name}.npy'
        np.save(file, samples(name, 'calibration')[0])
        return f'npy:{file}', ''
    tree = work / 'photographs'
    if not tree.exists():
        tree.mkdir()
        for i, file in photo_files('calibration'):
            (tree / f'{i:04}.jpeg').symlink_to(file.resolve())
    return f'images:{tree}', preprocess_of(name)


# --- peers: each gives outputs for x --------------------------------------------------------------

def prepared(name, work):
    """The float model as peers like it: optimized, opset 13 or later."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process
    out = work / f'{name}.prepared.onnx'
    if not out.exists():
        model = onnx.load(sub.model_path(name))
        if max(o.version for o in model.opset_import if o.domain in ('', 'ai.onnx')) < 13:
            model = onnx.version_converter.convert_version(model, 13)
        raised = work / f'{name}.opset13.onnx'
        onnx.save(model, raised)
        quant_pre_process(str(raised), str(out), skip_symbolic_shape=True)
    return out


def onnx_runtime(name, work, x, method):
    import onnxruntime.quantization as q
    source, out = prepared(name, work), work / f'{name}.ort{method}.onnx'
    key = sub.session(source).get_inputs()[0].name
    given = samples(name, 'calibration')[0]

    class Reader(q.CalibrationDataReader):
        """In pieces: Percentile would keep every tensor of every sample otherwise."""

        def __init__(self):
            self.feeds = iter(())

        def __len__(self):
            return len(given)

        def set_range(self, start_index, end_index):
            self.feeds = iter([{key: given[i:i + 1]} for i in range(start_index, end_index)])

        def get_next(self):
            return next(self.feeds, None)

    q.quantize_static(str(source), str(out), Reader(), quant_format=q.QuantFormat.QDQ,
                      per_channel=True, activation_type=q.QuantType.QUInt8,
                      weight_type=q.QuantType.QInt8, calibrate_method=q.CalibrationMethod[method],
                      extra_options={'CalibStridedMinMax': 10})
    return sub.ort_outputs(out, x)


def nncf_defaults(name, work, x):
    import nncf
    import onnx
    source, out = prepared(name, work), work / f'{name}.nncf.onnx'
    key = sub.session(source).get_inputs()[0].name
    given = samples(name, 'calibration')[0]
    data = nncf.Dataset([{key: given[i:i + 1]} for i in range(len(given))])
    onnx.save(nncf.quantize(onnx.load(source), data, subset_size=len(given)), out)
    return sub.ort_outputs(out, x)


def litert_python():
    return os.environ.get('RUNG_LITERT', sys.executable)


def litert_own(name, work, x):
    """Of its int8 file, before its Softmax: the ONNX files have none."""
    np.save(work / 'litert.x.npy', x)
    file = sub.shared_folder() / f'models/mlperf-tiny-tflite/{LITERT[name]}.tflite'
    sub.run(litert_python(), pathlib.Path(__file__).with_name('litert.py'), file,
            work / 'litert.x.npy', work / 'litert.y.npy')
    return [np.load(work / 'litert.y.npy')]


PEERS = {
    'ORT MinMax': lambda *a: onnx_runtime(*a, 'MinMax'),
    'ORT Percentile': lambda *a: onnx_runtime(*a, 'Percentile'),
    'NNCF': nncf_defaults,
    'LiteRT': litert_own,
}


def is_there(peer, name):
    if peer == 'NNCF':
        return importlib.util.find_spec('nncf') is not None
    if peer == 'LiteRT':
        return name in LITERT and not subprocess.run(
            [litert_python(), '-c', 'import ai_edge_litert'], stderr=subprocess.DEVNULL).returncode
    return True


# --- figures --------------------------------------------------------------------------------------

def sqnr(reference, y):
    error = ((reference.astype(np.float64) - y) ** 2).sum()
    return 10 * np.log10((reference.astype(np.float64) ** 2).sum() / error) if error else np.inf


def softmax(y):
    e = np.exp(y - y.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def judged(name, references, outputs, labels):
    figures = {'sqnr': [float(sqnr(r, y)) for r, y in zip(references, outputs)]}
    if name in LITERT and sub.SUBJECTS[name].classes:  # its files end in a Softmax
        figures['softmax'] = float(sqnr(softmax(references[0]), softmax(outputs[0])))
    if sub.SUBJECTS[name].classes and name not in DETECTORS:
        want, got = references[0].argmax(-1).reshape(-1), outputs[0].argmax(-1).reshape(-1)
        figures['agreement'] = float(100 * (want == got).mean())
        if labels is not None:
            figures['top1'] = float(100 * (got == labels).mean())
    return figures


def sqnr_of(figures):
    """The figures that count: of UltraFace both outputs, of others the worst."""
    return figures['sqnr'] if len(figures['sqnr']) == 2 else [min(figures['sqnr'])]


def peer_figures(peer, name, work, x, references, labels, measure):
    kept = work / f'{name}.{peer}.json'
    if kept.exists():
        return json.loads(kept.read_text())
    if not measure:
        return None
    with contextlib.redirect_stdout(sys.stderr):
        figures = judged(name, references, PEERS[peer](name, work, x), labels)
    kept.write_text(json.dumps(figures))
    return figures


def rung_figures(name, work, x, references, labels, method, flags):
    data, preprocess = calibration_data(name, work)
    out = work / f'{name}.rung-{method}.onnx'
    seconds, megabytes = cal.measured(
        sub.rung_binary(), 'quantize', sub.model_path(name), '-o', out, '--data', data, '--quiet',
        '--method', method, *(['--preprocess', preprocess] if preprocess else []), *flags)
    figures = judged(name, references, sub.rung_outputs(out, x, work / 'run', threads=2), labels)
    return dict(figures, seconds=seconds, megabytes=megabytes)


def figures_of(name, work, measure_peers=True, methods=('auto', 'none'), flags=()):
    """By the name of who made the int8 model; 'float': the model itself."""
    x, labels = samples(name, 'evaluation')
    references = sub.ort_outputs(sub.model_path(name), x)
    found = {'float': judged(name, references, references, labels)}
    for peer in PEERS:
        if is_there(peer, name):
            figures = peer_figures(peer, name, work, x, references, labels, measure_peers)
            found.update({peer: figures} if figures else {})
    for method in methods:
        found[f'rung {method}'] = rung_figures(name, work, x, references, labels, method, flags)
    return found


def margins(found):
    """rung auto less the best peer: of each SQNR that counts, and of the agreement. Beside LiteRT
    behind the Softmax too, which its file has."""
    peers = [f for who, f in found.items() if who in PEERS]
    own = found['rung auto']
    db = [a - max(p) for a, p in zip(sqnr_of(own), zip(*map(sqnr_of, peers)))]
    if 'softmax' in found.get('LiteRT', {}):
        db.append(own['softmax'] - found['LiteRT']['softmax'])
    agreement = (own['agreement'] - max(p['agreement'] for p in peers)
                 if 'agreement' in own else 0.0)
    return db, agreement


def cell(figures):
    if figures is None:
        return ''
    words = [', '.join(f'{db:.1f}' for db in sqnr_of(figures)) + ' dB']
    words += [f'softmax {figures["softmax"]:.1f}'] if 'softmax' in figures else []
    words += [f'{figures["top1"]:.2f}'] if 'top1' in figures else []
    words += [f'agree {figures["agreement"]:.2f}'] if 'agreement' in figures else []
    return ', '.join(words)


def row(name, found):
    own = found.get('rung auto')
    margin = ''
    if own and any(who in PEERS for who in found):
        db, agreement = margins(found)
        margin = f'{min(db):+.1f} dB, {agreement:+.2f}'
    cost = f'{own["seconds"]:.1f} s, {own["megabytes"]:.0f} MB' if own else ''
    top1 = found['float'].get('top1')
    return [name, '' if top1 is None else f'{top1:.2f}', *[cell(found.get(p)) for p in PEERS],
            cell(found.get('rung none')), cell(own), margin, cost]


HEADS = ['network', 'float top-1', *PEERS, 'rung none', 'rung auto', 'auto - best peer',
         'cost of auto']


def main():
    parse = argparse.ArgumentParser(description=__doc__,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument('networks', nargs='*', default=NETWORKS)
    parse.add_argument('--work', type=pathlib.Path)
    parse.add_argument('--ours', action='store_true')
    parse.add_argument('--methods', default='auto,none')
    parse.add_argument('--flags', default='')
    parse.add_argument('--json')
    args = parse.parse_args()
    work = args.work or pathlib.Path(tempfile.mkdtemp(prefix='accuracy'))
    work.mkdir(exist_ok=True)
    found = {}
    for name in args.networks:
        found[name] = figures_of(name, work, not args.ours, args.methods.split(','),
                                 shlex.split(args.flags))
        print(*row(name, found[name]), sep=' | ', file=sys.stderr, flush=True)
    sub.table('SQNR against float, top-1 and agreement with float (%)', HEADS,
              [row(name, f) for name, f in found.items()])
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()
