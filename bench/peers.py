"""Latency beside ONNX Runtime (and OpenVINO where it is installed), interleaved in one run.

python bench/peers.py RUNG MODEL[:INT8] ... [--threads N] [--batch N] [--rounds N] [--json FILE]

Each round times every engine for a fraction of a second, one after the other, so that a machine whose
speed drifts is fair to all; the figure of an engine is the median over its rounds, ratios are medians
of the rounds' ratios. INT8 is the quantized file (QDQ), run by every engine.
"""
import argparse
import json
import statistics
import subprocess
import time

import numpy as np
import onnxruntime

SECONDS = 0.4


class Rung:
    def __init__(self, rung, path, threads, batch):
        self.call = [rung, "bench", path, "--json", "--threads", str(threads), "--seconds",
                     str(SECONDS)] + (["--batch", str(batch)] if batch > 1 else [])

    def time(self):
        done = subprocess.run(self.call, check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout)["median_ms"]


def median_ms(run):
    times, begin = [], time.perf_counter()
    run()
    while time.perf_counter() - begin < SECONDS or len(times) < 5:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def random_feed(inputs, batch):
    rng = np.random.default_rng(0)
    feed = {}
    for name, shape, kind in inputs:
        dims = [d if isinstance(d, int) and d > 0 else (batch if i == 0 else 224)
                for i, d in enumerate(shape)]
        feed[name] = (rng.standard_normal(dims).astype(np.float32) if "float" in kind
                      else np.zeros(dims, np.int64))
    return feed


class OnnxRuntime:
    def __init__(self, path, threads, batch):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options,
                                                    providers=["CPUExecutionProvider"])
        self.feed = random_feed([(i.name, i.shape, i.type) for i in self.session.get_inputs()],
                                batch)

    def time(self):
        return median_ms(lambda: self.session.run(None, self.feed))


class OpenVino:
    def __init__(self, path, threads, batch):
        import openvino
        core = openvino.Core()
        model = core.read_model(path)
        feed = random_feed([(p.any_name, [d.get_length() if d.is_static else 0
                                          for d in p.partial_shape], str(p.element_type) + "float")
                            for p in model.inputs], batch)
        model.reshape({name: x.shape for name, x in feed.items()})
        self.request = core.compile_model(model, "CPU", {
            "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
        self.feed = feed

    def time(self):
        return median_ms(lambda: self.request.infer(self.feed))


def engines(rung, float_path, int8_path, threads, batch):
    made = {"rung f32": Rung(rung, float_path, threads, batch),
            "ORT f32": OnnxRuntime(float_path, threads, batch)}
    if int8_path:
        made["rung int8"] = Rung(rung, int8_path, threads, batch)
        made["ORT int8"] = OnnxRuntime(int8_path, threads, batch)
        try:
            made["OpenVINO int8"] = OpenVino(int8_path, threads, batch)
        except ImportError:
            pass
    return made


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("rung")
    parse.add_argument("models", nargs="+")
    parse.add_argument("--threads", type=int, default=1)
    parse.add_argument("--batch", type=int, default=1)
    parse.add_argument("--rounds", type=int, default=7)
    parse.add_argument("--json")
    args = parse.parse_args()
    records = []
    for pair in args.models:
        float_path, _, int8_path = pair.partition(":")
        made = engines(args.rung, float_path, int8_path, args.threads, args.batch)
        rounds = [{name: e.time() for name, e in made.items()} for _ in range(args.rounds)]
        ms = {name: statistics.median(r[name] for r in rounds) for name in made}

        def ratio(a, b):
            return statistics.median(r[a] / r[b] for r in rounds)
        ratios = {"rung f32 / ORT f32": ratio("rung f32", "ORT f32")}
        if int8_path:
            ratios["rung f32 / rung int8"] = ratio("rung f32", "rung int8")
            for peer in set(made) & {"ORT int8", "OpenVINO int8"}:
                ratios[f"rung int8 / {peer}"] = ratio("rung int8", peer)
        records.append({"model": float_path, "threads": args.threads, "batch": args.batch,
                        "ms": ms, "ratios": ratios})
        print(float_path.split("/")[-1], "  ".join(f"{k} {v:.3f} ms" for k, v in ms.items()))
        print("   ", "  ".join(f"{k} {v:.2f}" for k, v in sorted(ratios.items())), flush=True)
    if args.json:
        with open(args.json, "w") as f:
            json.dump(records, f, indent=1)


if __name__ == "__main__":
    main()
