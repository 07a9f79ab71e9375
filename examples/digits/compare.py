"""One table: the digits network in float32 and int8, by rung and by ONNX Runtime.

python compare.py RUNG FOLDER: FOLDER holds what prepare.py and `rung quantize` wrote.
"""
import json
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np
import onnxruntime

HERE = pathlib.Path(__file__).parent


def rung_json(rung, *args):
    return json.loads(subprocess.run([rung, *map(str, args), "--json"], check=True,
                                     stdout=subprocess.PIPE).stdout)


def read_idx(folder):
    images = (folder / "heldout-images-idx3-ubyte").read_bytes()[16:]
    labels = (folder / "heldout-labels-idx1-ubyte").read_bytes()[8:]
    x = np.frombuffer(images, np.uint8).reshape(-1, 1, 28, 28).astype(np.float32)
    return x / np.float32(255), np.frombuffer(labels, np.uint8)


def onnxruntime_row(path, x, y, float_top1):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    top1 = np.concatenate([session.run(None, {"image": x[i:i + 50]})[0].argmax(1)
                           for i in range(0, len(x), 50)])
    times = []
    for i in range(300):
        begin = time.perf_counter()
        session.run(None, {"image": x[i:i + 1]})
        times.append(time.perf_counter() - begin)
    agreement = 100 if float_top1 is None else 100 * (top1 == float_top1).mean()
    return 100 * (top1 == y).mean(), statistics.median(times) * 1e3, agreement, top1


def main(rung, folder):
    folder = pathlib.Path(folder)
    models = {"float32": HERE / "digits.onnx", "int8": folder / "digits_int8.onnx"}
    data = f"idx:{folder}/heldout-images-idx3-ubyte,{folder}/heldout-labels-idx1-ubyte"
    x, y = read_idx(folder)
    float_top1 = None
    print(f"{'':26}{'accuracy':>10}{'bytes':>10}{'latency':>12}{'agreement':>12}")
    for name, path in models.items():
        bench = rung_json(rung, "bench", path, "--threads", 1, "--seconds", 1)
        score = rung_json(rung, "eval", path, "--data", data, "--reference", models["float32"],
                          "--quiet")
        rows = [("rung", score["top1"], bench["median_ms"], score["agreement"])]
        top1, latency, agreement, classes = onnxruntime_row(path, x, y, float_top1)
        float_top1 = classes if float_top1 is None else float_top1
        rows.append(("ONNX Runtime", top1, latency, agreement))
        for engine, accuracy, ms, agree in rows:
            print(f"{name + ', ' + engine:26}{accuracy:8.2f} %{path.stat().st_size:10,}"
                  f"{ms:9.4f} ms{agree:10.2f} %")
    print("\nLatency: one image, one thread, median. Agreement: same digit as the float32 network.")


if __name__ == "__main__":
    main(*sys.argv[1:])
