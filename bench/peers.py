"""Latency beside ONNX Runtime (and OpenVINO where it is installed), interleaved in one run.

python bench/peers.py RUNG MODEL[:INT8] ... [--threads N] [--batch N] [--size HxW] [--rounds N]
                      [--busy] [--json FILE]

Each round times every engine for a fraction of a second, one after the other, so that a machine
whose speed drifts is fair to all; rounds begin with another engine each, and between two engines
there is a pause in which the threads of the one before stop to spin. The figure of an engine is
the median over its rounds, ratios are medians of the rounds' ratios. --busy, for a machine that
others use too: the 10th percentile within a round, the best of the rounds, and ratios of those.
INT8 is the quantized file (QDQ), run by every engine. All get the same random input, bound once:
no peer pays for Python's copies. --size: height and width where a model leaves them open (default
224x224).
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnxruntime

SECONDS = 0.4
PAUSE = 0.1
QUANTILES = {"median_ms": 50, "p10_ms": 10}


class Rung:
    def __init__(self, rung, path, threads, feed, key):
        self.key, self.folder = key, tempfile.TemporaryDirectory()
        self.call = [rung, "bench", path, "--json", "--threads", str(threads), "--seconds",
                     str(SECONDS)]
        for i, (name, x) in enumerate(feed.items()):
            file = pathlib.Path(self.folder.name) / f"{i}.npy"
            np.save(file, x)
            self.call += ["--input", f"{name}={file}"]

    def time(self):
        done = subprocess.run(self.call, check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout)[self.key]


def run_ms(run, key):
    times, begin = [], time.perf_counter()
    for _ in range(3):
        run()
    while time.perf_counter() - begin < SECONDS or len(times) < 5:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.percentile(times, QUANTILES[key])) * 1e3


def make_session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def random_feed(path, batch, size):
    rng = np.random.default_rng(0)
    feed = {}
    for i in make_session(path, 1).get_inputs():
        dims = [d if isinstance(d, int) and d > 0 else
                batch if k == 0 else size[k - 2] if len(i.shape) == 4 and k > 1 else 1
                for k, d in enumerate(i.shape)]
        feed[i.name] = (rng.standard_normal(dims).astype(np.float32) if "float" in i.type
                        else np.zeros(dims, np.int64))
    return feed


class OnnxRuntime:
    def __init__(self, path, threads, feed, key):
        self.key, self.session = key, make_session(path, threads)
        self.binding = self.session.io_binding()
        for name, x in feed.items():
            self.binding.bind_cpu_input(name, x)
        for y in self.session.get_outputs():
            self.binding.bind_output(y.name)

    def time(self):
        return run_ms(lambda: self.session.run_with_iobinding(self.binding), self.key)


class OpenVino:
    def __init__(self, path, threads, feed, key):
        import openvino
        core, self.key, self.feed = openvino.Core(), key, feed
        model = core.read_model(path)
        model.reshape({name: x.shape for name, x in feed.items()})
        self.request = core.compile_model(model, "CPU", {
            "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
        for name, x in feed.items():
            self.request.set_tensor(name, openvino.Tensor(x, shared_memory=True))

    def time(self):
        return run_ms(lambda: self.request.infer(share_outputs=True), self.key)


def engines(rung, float_path, int8_path, threads, feed, key):
    made = {"rung f32": Rung(rung, float_path, threads, feed, key),
            "ORT f32": OnnxRuntime(float_path, threads, feed, key)}
    if int8_path:
        made["rung int8"] = Rung(rung, int8_path, threads, feed, key)
        made["ORT int8"] = OnnxRuntime(int8_path, threads, feed, key)
        try:
            made["OpenVINO int8"] = OpenVino(int8_path, threads, feed, key)
        except ImportError:
            pass
    return made


def timed_round(made, first):
    names, ms = list(made), {}
    for name in names[first:] + names[:first]:
        time.sleep(PAUSE)
        ms[name] = made[name].time()
    return ms


def pairs(made):
    yield "rung f32", "ORT f32"
    if "rung int8" in made:
        yield "rung f32", "rung int8"
    for peer in ("ORT int8", "OpenVINO int8"):
        if peer in made:
            yield "rung int8", peer


def summary(made, rounds, busy):
    """Milliseconds by engine, and ratios."""
    if busy:
        ms = {name: min(r[name] for r in rounds) for name in made}
        return ms, {f"{a} / {b}": ms[a] / ms[b] for a, b in pairs(made)}
    ms = {name: statistics.median(r[name] for r in rounds) for name in made}
    return ms, {f"{a} / {b}": statistics.median(r[a] / r[b] for r in rounds)
                for a, b in pairs(made)}


def measure(args, pair):
    float_path, _, int8_path = pair.partition(":")
    feed = random_feed(float_path, args.batch, [int(n) for n in args.size.split("x")])
    made = engines(args.rung, float_path, int8_path, args.threads, feed,
                   "p10_ms" if args.busy else "median_ms")
    rounds = [timed_round(made, i % len(made)) for i in range(args.rounds)]
    ms, ratios = summary(made, rounds, args.busy)
    print(pathlib.Path(float_path).name, "  ".join(f"{k} {v:.3f} ms" for k, v in ms.items()))
    print("   ", "  ".join(f"{k} {v:.2f}" for k, v in ratios.items()), flush=True)
    return {"model": float_path, "threads": args.threads, "batch": args.batch, "ms": ms,
            "ratios": ratios}


def main():
    parse = argparse.ArgumentParser(description=__doc__,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("rung")
    parse.add_argument("models", nargs="+")
    parse.add_argument("--threads", type=int, default=1)
    parse.add_argument("--batch", type=int, default=1)
    parse.add_argument("--size", default="224x224")
    parse.add_argument("--rounds", type=int, default=7)
    parse.add_argument("--busy", action="store_true")
    parse.add_argument("--json")
    args = parse.parse_args()
    records = [measure(args, pair) for pair in args.models]
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
