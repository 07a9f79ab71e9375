"""One table: the digits network in float32, quantized by every mode, and trained in 4 bits.

python compare.py RUNG FOLDER: FOLDER holds what prepare.py wrote; the models go there too.
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
FLOAT = HERE / "digits.onnx"
EPOCHS = 8


def idx(folder, name):
    return f"idx:{folder}/{name}-images-idx3-ubyte,{folder}/{name}-labels-idx1-ubyte"


def rung_json(rung, *args):
    return json.loads(subprocess.run([rung, *map(str, args), "--json"], check=True,
                                     stdout=subprocess.PIPE).stdout)


def make_models(rung, folder):
    """[(name, file, seconds that making it took)]; the float network is there already."""
    few, many = idx(folder, "calibration"), idx(folder, "train")
    bits = ["--weight-bits", 4, "--act-bits", 4]
    calls = [
        ("dynamic", ["quantize", "--mode", "dynamic"]),
        ("weight-only", ["quantize", "--mode", "weights"]),
        ("static", ["quantize", "--data", few]),
        ("static, 4 bits", ["quantize", "--data", few, *bits]),
        ("QAT, 4 bits", ["train", "--data", many + "@0:3500", "--eval", many + "@3500:4000", *bits,
                         "--samples", 500, "--epochs", EPOCHS]),
    ]
    models = [("float32", FLOAT, 0.0)]
    for name, (command, *options) in calls:
        out = folder / f"digits_{name.replace(', ', '_').replace(' ', '_')}.onnx"
        print(f"{name} ...", flush=True)
        begin = time.perf_counter()
        subprocess.run([rung, command, FLOAT, "-o", out, *map(str, options), "--quiet"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        models.append((name, out, time.perf_counter() - begin))
    return models


def latencies(rung, models, rounds=3):
    """Medians, measured in turns, so that all meet the same machine."""
    times = {name: [] for name, _, _ in models}
    for _ in range(rounds):
        for name, path, _ in models:
            bench = rung_json(rung, "bench", path, "--threads", 1, "--seconds", 0.3)
            times[name].append(bench["median_ms"])
    return {name: statistics.median(t) for name, t in times.items()}


def onnxruntime_accuracy(path, x, y):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    top1 = np.concatenate([session.run(None, {"image": x[i:i + 50]})[0].argmax(1)
                           for i in range(0, len(x), 50)])
    return 100 * (top1 == y).mean()


def read_heldout(folder):
    images = (folder / "heldout-images-idx3-ubyte").read_bytes()[16:]
    labels = (folder / "heldout-labels-idx1-ubyte").read_bytes()[8:]
    x = np.frombuffer(images, np.uint8).reshape(-1, 1, 28, 28).astype(np.float32)
    return x / np.float32(255), np.frombuffer(labels, np.uint8)


def main(rung, folder):
    folder = pathlib.Path(folder)
    models = make_models(rung, folder)
    x, y = read_heldout(folder)
    ms = latencies(rung, models)
    print(f"\n{'':16}{'accuracy':>10}{'agreement':>12}{'ONNX Runtime':>14}{'bytes':>10}"
          f"{'latency':>12}{'time spent':>12}")
    for name, path, seconds in models:
        score = rung_json(rung, "eval", path, "--data", idx(folder, "heldout"), "--reference",
                          FLOAT, "--quiet")
        print(f"{name:16}{score['top1']:8.2f} %{score['agreement']:10.2f} %"
              f"{onnxruntime_accuracy(path, x, y):12.2f} %{path.stat().st_size:10,}"
              f"{ms[name]:9.4f} ms{seconds:10.1f} s")
    print("\nAccuracy on 1,000 images held apart, by rung and by ONNX Runtime from the same files."
          "\nAgreement: same digit as the float32 network. Latency: one image, one thread, median."
          f"\nQAT: {EPOCHS} epochs on 3,500 images, from what static quantization gives; the best "
          "epoch on 500 others.")


if __name__ == "__main__":
    main(*sys.argv[1:])
