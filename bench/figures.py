"""Figures of the whole road beside ONNX Runtime: python bench/figures.py [WHAT ...] [--json FILE]

WHAT (default: all):
  float    float32 outputs of rung beside ONNX Runtime's, every convolutional network, real input
  int8     accuracy, agreement and SQNR of rung's int8 files and of ONNX Runtime's quantize_static
           (QDQ, per channel, MinMax) with the same calibration images
  bytes    rung's int8 files: onnx.checker, islands, size, and ONNX Runtime's outputs beside rung's
  levels   the same bytes at every level of the processor
--work DIR keeps the files made (default: a temporary folder). Environment: see subjects.py. Speed
is measured by peers.py, calibration by calibration.py.
"""
import argparse
import json
import pathlib
import tempfile

import numpy as np
import onnx

import subjects as sub
from subjects import SUBJECTS

LEVELS = {'ref': '', 'avx2': 'avx2', 'avxvnni': 'avx_vnni', 'avx512vnni': 'avx512_vnni',
          'amx': 'amx_int8'}
N_EVALUATION = {'cifar': None, 'photos': 200, 'faces': 8, 'random': 200}


def sqnr(reference, y):
    error = ((reference.astype(np.float64) - y) ** 2).sum()
    return 10 * np.log10((reference.astype(np.float64) ** 2).sum() / error) if error else np.inf


def worst_sqnr(references, outputs):
    return min(sqnr(r, y) for r, y in zip(references, outputs))


# --- float ----------------------------------------------------------------------------------------

def float_figures(name, work):
    x, _ = sub.samples(name, 'evaluation', 4)
    path = sub.model_path(name)
    theirs, ours = sub.ort_outputs(path, x), sub.rung_outputs(path, x, work / 'run')
    differences = [np.abs(a - b).max() / np.abs(a).max() for a, b in zip(theirs, ours)]
    assert all(a.shape == b.shape for a, b in zip(theirs, ours))
    return {'model': name, 'outputs': len(theirs), 'difference': float(max(differences))}


def float_table(names, work):
    records = [float_figures(n, work) for n in names]
    sub.table('float32: largest difference / largest magnitude, beside ONNX Runtime',
              ['network', 'outputs', 'difference'],
              [[r['model'], r['outputs'], f'{r["difference"]:.1e}'] for r in records])
    return records


# --- int8 accuracy --------------------------------------------------------------------------------

def quantized_by_onnx_runtime(name, work):
    import onnxruntime.quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class OneByOne(q.CalibrationDataReader):
        def __init__(self, key, x):
            self.feeds = iter([{key: x[i:i + 1]} for i in range(len(x))])

        def get_next(self):
            return next(self.feeds, None)

    prepared, out = work / f'{name}.prepared.onnx', work / f'{name}.ort.onnx'
    if out.exists():
        return out
    quant_pre_process(str(sub.model_path(name)), str(prepared), skip_symbolic_shape=True)
    key = sub.session(prepared).get_inputs()[0].name
    q.quantize_static(str(prepared), str(out),
                      OneByOne(key, sub.samples(name, 'calibration')[0]),
                      quant_format=q.QuantFormat.QDQ, per_channel=True,
                      activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
                      calibrate_method=q.CalibrationMethod.MinMax)
    return out


def judged(name, references, outputs, labels=None):
    figures = {'sqnr': float(worst_sqnr(references, outputs))}
    if SUBJECTS[name].classes:
        first, best = references[0].argmax(-1), outputs[0].argmax(-1)
        figures['agreement'] = float(100 * (first == best).mean())
        if labels is not None:
            figures['top1'] = float(100 * (best.reshape(-1) == labels).mean())
    return figures


def int8_figures(name, work):
    x, labels = sub.samples(name, 'evaluation', N_EVALUATION[SUBJECTS[name].kind])
    if name not in CLASSIFIERS:
        labels = None
    references = sub.ort_outputs(sub.model_path(name), x)
    ours, peer = sub.quantized(name, work), quantized_by_onnx_runtime(name, work)
    y = sub.rung_outputs(ours, x, work / 'run', threads=2)
    return {'model': name, 'samples': len(x), 'float': judged(name, references, references, labels),
            'rung': judged(name, references, y, labels),
            'onnxruntime': judged(name, references, sub.ort_outputs(peer, x), labels),
            'share': ours.stat().st_size / sub.model_path(name).stat().st_size,
            'onnxruntime_share': peer.stat().st_size / sub.model_path(name).stat().st_size}


CLASSIFIERS = ('resnet8', 'resnet20', 'resnet32', 'resnet44', 'resnet56', 'mobilenetv1',
               'mobilenetv2', 'squeezenet')


def int8_table(names, work):
    records = [int8_figures(n, work) for n in names]

    def columns(figures):
        top1 = f'{figures["top1"]:.2f}' if 'top1' in figures else '-'
        return [top1, f'{figures["agreement"]:.2f}', f'{figures["sqnr"]:.2f}']
    sub.table('int8: top-1, agreement with float (%), SQNR (dB), bytes int8 / float',
              ['network', 'samples', 'float top-1', 'rung top-1', 'agreement', 'SQNR', 'share',
               'ORT top-1', 'agreement', 'SQNR', 'share'],
              [[r['model'], r['samples'], columns(r['float'])[0], *columns(r['rung']),
                f'{r["share"]:.4f}', *columns(r['onnxruntime']), f'{r["onnxruntime_share"]:.4f}']
               for r in records])
    return records


# --- bytes beside ONNX Runtime --------------------------------------------------------------------

def tapped(path, folder):
    """The model with the results of every QuantizeLinear among its outputs, in their order."""
    model = onnx.load(path)
    codes = [n.output[0] for n in model.graph.node if n.op_type == 'QuantizeLinear']
    zero = {n.output[0]: n.input[2] for n in model.graph.node if n.op_type == 'QuantizeLinear'}
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    for name in codes:
        model.graph.output.append(onnx.helper.make_tensor_value_info(
            name, kinds.get(zero[name], onnx.TensorProto.UINT8), None))
    out = folder / 'tapped.onnx'
    onnx.save(model, out)
    return out, codes, model


def producer(model, codes):
    """The operator before a QuantizeLinear, through Relu and Clip."""
    by_output = {o: n for n in model.graph.node for o in n.output}
    node = by_output[by_output[codes].input[0]]
    while node.op_type in ('Relu', 'Clip') and node.input[0] in by_output:
        node = by_output[node.input[0]]
    return f'{node.op_type} making {codes}'


def first_difference(path, x, work):
    """The first tensor whose codes differ: the operator that makes it, and how much they differ."""
    model_path, names, model = tapped(path, work)
    theirs = sub.ort_outputs(model_path, x)
    ours = sub.rung_outputs(model_path, x, work / 'run')
    n = len(theirs) - len(names)
    for name, a, b in zip(names, theirs[n:], ours[n:]):
        if not np.array_equal(a, b):
            largest = int(np.abs(a.astype(int) - b.astype(int)).max())
            return (f'{producer(model, name)}: {np.mean(a != b):.1e} of codes, '
                    f'by {largest} at most')
    return 'a float island'


def bytes_figures(name, work):
    path = sub.quantized(name, work)
    onnx.checker.check_model(str(path), full_check=True)
    x, _ = sub.samples(name, 'evaluation', N_EVALUATION[SUBJECTS[name].kind])
    theirs, ours = sub.ort_outputs(path, x), sub.rung_outputs(path, x, work / 'run', threads=2)
    share = sum((a != b).sum() for a, b in zip(theirs, ours)) / sum(a.size for a in theirs)
    same = judged(name, theirs, ours)
    return {'model': name, 'samples': len(x), 'different': float(share),
            'top1_equal': same.get('agreement'),
            'sqnr': same['sqnr'], 'islands': sub.inspect(path)['float_islands'],
            'bytes': path.stat().st_size,
            'share': path.stat().st_size / sub.model_path(name).stat().st_size,
            'first': first_difference(path, x[:8], work) if share else ''}


def bytes_table(names, work):
    records = [bytes_figures(n, work) for n in names]

    def percent(x):
        return '-' if x is None else f'{x:.2f}'
    sub.table('int8 files run by ONNX Runtime and by rung (all pass onnx.checker)',
              ['network', 'samples', 'values that differ', 'top-1 equal', 'islands', 'share',
               'first difference'],
              [[r['model'], r['samples'], f'{r["different"]:.1e}', percent(r['top1_equal']),
                len(r['islands']), f'{r["share"]:.4f}', r['first']] for r in records])
    return records


# --- levels of the processor ----------------------------------------------------------------------

def levels_figures(name, work):
    path, (x, _) = sub.quantized(name, work), sub.samples(name, 'evaluation', 4)
    flags = pathlib.Path('/proc/cpuinfo').read_text().split()
    outputs = {level: sub.rung_outputs(path, x, work / 'run', level=level)
               for level, flag in LEVELS.items() if not flag or flag in flags}
    first = next(iter(outputs.values()))
    same = all(a.tobytes() == b.tobytes() for y in outputs.values() for a, b in zip(first, y))
    return {'model': name, 'levels': list(outputs), 'same': same}


def levels_table(names, work):
    records = [levels_figures(n, work) for n in names]
    sub.table('int8 at every level of the processor', ['network', 'levels', 'same bytes'],
              [[r['model'], ' '.join(r['levels']), r['same']] for r in records])
    return records


TABLES = {'float': float_table, 'int8': int8_table, 'bytes': bytes_table, 'levels': levels_table}


def main():
    parse = argparse.ArgumentParser(description=__doc__,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument('what', nargs='*', default=list(TABLES))
    parse.add_argument('--networks', help='names, separated by commas (default: all)')
    parse.add_argument('--work', type=pathlib.Path)
    parse.add_argument('--json')
    args = parse.parse_args()
    work = args.work or pathlib.Path(tempfile.mkdtemp(prefix='figures'))
    work.mkdir(exist_ok=True)
    found = {}
    for what in args.what:
        names = args.networks.split(',') if args.networks else list(SUBJECTS)
        if what == 'int8' and not args.networks:
            names = [n for n in names if n in CLASSIFIERS]
        found[what] = TABLES[what](names, work)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()
