"""Runs a LiteRT int8 file on float samples: python bench/litert.py MODEL X.npy Y.npy
or times it on zeros: python bench/litert.py MODEL --time SECONDS THREADS (JSON: median_ms, p10_ms)

Apart from the rest: ai-edge-litert may have a Python environment of its own. What the network gives
before its Softmax is written, as the ONNX files of the same networks have none.
"""
import json
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main(file, x_file, y_file):
    it = Interpreter(file, experimental_preserve_all_tensors=True)
    it.allocate_tensors()
    fed, x = it.get_input_details()[0], np.load(x_file)
    last = [d for d in it._get_ops_details() if d['op_name'] != 'DELEGATE'][-1]
    read = last['inputs' if last['op_name'] == 'SOFTMAX' else 'outputs'][0]
    (scale, zero) = fed['quantization']
    y_scale, y_zero = next(d for d in it.get_tensor_details() if d['index'] == read)['quantization']
    if x.ndim == 4:
        x = x.transpose(0, 2, 3, 1)
    found = []
    for codes in np.clip(np.rint(x / np.float32(scale)) + zero, -128, 127).astype(np.int8):
        it.set_tensor(fed['index'], codes[None])
        it.invoke()
        found.append((it.get_tensor(read).astype(np.float32) - y_zero) * np.float32(y_scale))
    np.save(y_file, np.concatenate(found))


def timed(file, seconds, threads):
    it = Interpreter(file, num_threads=threads)
    it.allocate_tensors()
    fed = it.get_input_details()[0]
    it.set_tensor(fed['index'], np.zeros(fed['shape'], fed['dtype']))
    times, begin = [], time.perf_counter()
    while time.perf_counter() - begin < seconds or len(times) < 5:
        start = time.perf_counter()
        it.invoke()
        times.append((time.perf_counter() - start) * 1e3)
    print(json.dumps({'median_ms': float(np.median(times)),
                      'p10_ms': float(np.percentile(times, 10))}))


if __name__ == '__main__':
    if sys.argv[2] == '--time':
        timed(sys.argv[1], float(sys.argv[3]), int(sys.argv[4]))
    else:
        main(*sys.argv[1:])
