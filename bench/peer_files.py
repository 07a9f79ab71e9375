"""The quantized files of the peers, each made by the peer's own tool; for peers.py.

Latency does not depend on the numbers, so random samples calibrate all of them; the settings are
those that the peer's documentation recommends for x86: ONNX Runtime's quantize_static behind its
quant_pre_process (QDQ, per channel, uint8 activations and int8 weights), NNCF's default on
OpenVINO's own model, `rung quantize --method none`. LiteRT's int8 files are those that were
published with the networks of MLPerf Tiny.
"""
import pathlib
import subprocess
import sys

import numpy as np
import onnxruntime

SAMPLES = 8
LITERT = {'mlperf_tiny_ic_resnet8': 'pretrainedResnet_quant',
          'mlperf_tiny_vww_mobilenetv1_025_96': 'vww_96_int8',
          'mlperf_tiny_kws_dscnn': 'kws_ref_model', 'mlperf_tiny_ad01_autoencoder': 'ad01_int8'}


def sample_feeds(feed):
    """Random inputs of batch 1, in the shapes of a feed."""
    rng = np.random.default_rng(1)
    return [{name: rng.standard_normal((1, *x.shape[1:])).astype(x.dtype)
             for name, x in feed.items()} for _ in range(SAMPLES)]


def rung_file(rung, path, feed, out):
    arrays = out.with_suffix('.npz')
    samples = sample_feeds(feed)
    np.savez(arrays, **{name: np.concatenate([s[name] for s in samples]) for name in feed})
    subprocess.run([rung, 'quantize', path, '-o', str(out), '--data', f'npz:{arrays}', '--method',
                    'none', '--quiet'], check=True, stdout=subprocess.DEVNULL)


def ort_file(path, feed, out):
    import onnx
    import onnxruntime.quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process
    model, raised = onnx.load(path), out.with_suffix('.opset13.onnx')
    if max(o.version for o in model.opset_import if o.domain in ('', 'ai.onnx')) < 13:
        model = onnx.version_converter.convert_version(model, 13)
    onnx.save(model, raised)
    prepared = out.with_suffix('.prepared.onnx')
    quant_pre_process(str(raised), str(prepared), skip_symbolic_shape=True)

    class Reader(q.CalibrationDataReader):
        def __init__(self):
            self.feeds = iter(sample_feeds(feed))

        def get_next(self):
            return next(self.feeds, None)

    q.quantize_static(str(prepared), str(out), Reader(), quant_format=q.QuantFormat.QDQ,
                      per_channel=True, activation_type=q.QuantType.QUInt8,
                      weight_type=q.QuantType.QInt8)


def nncf_file(path, feed, out):
    import nncf
    import openvino
    model = openvino.Core().read_model(path)
    model.reshape({name: (1, *x.shape[1:]) for name, x in feed.items()})
    data = nncf.Dataset(sample_feeds(feed))
    openvino.save_model(nncf.quantize(model, data, subset_size=SAMPLES), str(out),
                        compress_to_fp16=False)


def made(folder, path, feed, rung):
    """{peer: its int8 file}; what is there already stays. A peer that fails or is not installed is
    named and left out."""
    stem = pathlib.Path(path).stem
    makers = {'rung': ('rung.onnx', lambda out: rung_file(rung, path, feed, out)),
              'ORT': ('ort.onnx', lambda out: ort_file(path, feed, out)),
              'OpenVINO': ('openvino.xml', lambda out: nncf_file(path, feed, out))}
    files = {}
    for peer, (ending, make) in makers.items():
        out = folder / f'{stem}.{ending}'
        try:
            if not out.exists():
                make(out)
            files[peer] = str(out)
        except Exception as e:  # whatever the peer's tool throws
            print(f'{stem}: no int8 file of {peer}: {e}', file=sys.stderr)
    published = pathlib.Path(path).parent / 'mlperf-tiny-tflite' / f'{LITERT.get(stem, "")}.tflite'
    if published.is_file():
        files['LiteRT'] = str(published)
    return files


def export_torchvision(python, folder, names):
    """Paths of torchvision's networks; `python` has torch."""
    script = pathlib.Path(__file__).with_name('torchvision_models.py')
    wanted = [folder / f'{n}.onnx' for n in names]
    missing = [p.stem for p in wanted if not p.exists()]
    if missing:
        subprocess.run([python, str(script), str(folder), *missing], check=True)
    return [str(p) for p in wanted]


def session(path, threads=1):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
