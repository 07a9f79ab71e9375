"""Latency beside ONNX Runtime, OpenVINO and LiteRT, interleaved in one run.

python bench/peers.py RUNG MODEL[:INT8] ... [--work DIR] [--torch PYTHON] [--threads N,..]
                      [--batch N,..] [--size HxW] [--rounds N] [--busy] [--peak G] [--json FILE]
                      [--svg FILE]

Each round times every engine for a fraction of a second, one after the other, so that a machine
whose speed drifts is fair to all; rounds begin with another engine each, and between two engines
there is a pause in which the threads of the one before stop to spin. The figure of an engine is
the median over its rounds, ratios are medians of the rounds' ratios. --busy, for a machine that
others use too: the 10th percentile within a round, the best of the rounds, and ratios of those.

INT8 is a quantized file (QDQ), run by every engine. With --work each peer runs its own best file
instead (peer_files.py makes and keeps them there): ONNX Runtime's static quantization, OpenVINO's
by NNCF, LiteRT's published ones (RUNG_LITERT names a Python that has ai-edge-litert); OpenVINO also
runs the float model in float32 and, where the processor has it, in bfloat16. --torch: a Python with
torchvision, whose ResNet-18, ResNet-50, MobileNetV3-Large and EfficientNet-B0 are measured, too.
All get the same random input, bound once: no peer pays for Python's copies. --size: height and
width where a model leaves them open (default 224x224). --peak: GMAC/s of VPDPBUSD on one core, as
`kernels_test --bench` prints it: rung's share of it is shown.
"""
import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import peer_files
import peer_plot
from peer_files import session as make_session

SECONDS = 0.4
PAUSE = 0.1
QUANTILES = {"median_ms": 50, "p10_ms": 10}
TORCHVISION = ("resnet18", "resnet50", "mobilenet_v3_large", "efficientnet_b0")


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
        self.macs = json.loads(done.stdout)["macs"]
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
    def __init__(self, path, threads, feed, key, precision="f32"):
        import openvino
        core, self.key, self.feed = openvino.Core(), key, feed
        model = core.read_model(path)
        model.reshape({name: x.shape for name, x in feed.items()})
        self.request = core.compile_model(model, "CPU", {
            "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision}).create_infer_request()
        for name, x in feed.items():
            self.request.set_tensor(name, openvino.Tensor(x, shared_memory=True))

    def time(self):
        return run_ms(lambda: self.request.infer(share_outputs=True), self.key)


class LiteRt:
    def __init__(self, path, threads, key):
        self.key = key
        self.call = [os.environ.get("RUNG_LITERT", sys.executable),
                     str(pathlib.Path(__file__).with_name("litert.py")), path, "--time",
                     str(SECONDS), str(threads)]

    def time(self):
        done = subprocess.run(self.call, check=True, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL)
        return json.loads(done.stdout)[self.key]


def installed(python, module):
    return not subprocess.run([python, "-c", f"import {module}"],
                              stderr=subprocess.DEVNULL).returncode


def openvino_precisions():
    try:
        import openvino
    except ImportError:
        return []
    has = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ["f32", "bf16"] if "BF16" in has else ["f32"]


def makers(rung, float_path, files, threads, feed, key, all_peers):
    """(name, how to make the engine); files: {peer: int8 file}."""
    precisions = openvino_precisions()
    yield "rung f32", lambda: Rung(rung, float_path, threads, feed, key)
    yield "ORT f32", lambda: OnnxRuntime(float_path, threads, feed, key)
    for precision in precisions if all_peers else []:
        yield (f"OpenVINO {precision}",
               lambda p=precision: OpenVino(float_path, threads, feed, key, p))
    if "rung" in files:
        yield "rung int8", lambda: Rung(rung, files["rung"], threads, feed, key)
    if "ORT" in files:
        yield "ORT int8", lambda: OnnxRuntime(files["ORT"], threads, feed, key)
    if "OpenVINO" in files and precisions:
        yield "OpenVINO int8", lambda: OpenVino(files["OpenVINO"], threads, feed, key)
    batch = next(iter(feed.values())).shape[0]
    if "LiteRT" in files and batch == 1 and installed(
            os.environ.get("RUNG_LITERT", sys.executable), "ai_edge_litert"):
        yield "LiteRT int8", lambda: LiteRt(files["LiteRT"], threads, key)


def engines(rung, float_path, *rest):
    """Engines by name; a peer that cannot load its file is named and left out."""
    made = {}
    for name, make in makers(rung, float_path, *rest):
        try:
            made[name] = make()
        except Exception as e:  # whatever the peer throws
            print(f"{float_path}: {name}: {e}", file=sys.stderr)
    return made


def timed_round(made, first):
    names, ms = list(made), {}
    for name in names[first:] + names[:first]:
        time.sleep(PAUSE)
        ms[name] = made[name].time()
    return ms


INT8_PEERS = ("ORT int8", "OpenVINO int8", "LiteRT int8")


def pairs(made):
    for peer in ("ORT f32", "OpenVINO f32"):
        if peer in made:
            yield "rung f32", peer
    if "rung int8" in made:
        yield "rung f32", "rung int8"
        for peer in ("OpenVINO bf16", *INT8_PEERS):
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


def best_peer(ms, ratios):
    """The fastest int8 peer, and rung's time over its."""
    there = [p for p in INT8_PEERS if f"rung int8 / {p}" in ratios]
    best = min(there, key=ms.get, default=None)
    return {"best_peer": best, "ratio_to_best": best and ratios[f"rung int8 / {best}"]}


def measure(args, pair, threads, batch):
    float_path, _, int8_path = pair.partition(":")
    feed = random_feed(float_path, batch, [int(n) for n in args.size.split("x")])
    if any(x.shape[0] != batch for x in feed.values()):
        print(f"{float_path}: its batch is fixed, not {batch}: left out", file=sys.stderr)
        return None
    files = dict.fromkeys(("rung", "ORT", "OpenVINO"), int8_path) if int8_path else {}
    if args.work:
        files = {**peer_files.made(args.work, float_path, feed, args.rung),
                 **({"rung": int8_path} if int8_path else {})}
    made = engines(args.rung, float_path, files, threads, feed,
                   "p10_ms" if args.busy else "median_ms", args.work is not None)
    rounds = [timed_round(made, i % len(made)) for i in range(args.rounds)]
    ms, ratios = summary(made, rounds, args.busy)
    record = {"model": float_path, "threads": threads, "batch": batch, "ms": ms, "ratios": ratios,
              **best_peer(ms, ratios)}
    if args.peak and "rung int8" in made:
        rate = made["rung int8"].macs / ms["rung int8"] / 1e6
        record["share_of_peak"] = rate / (args.peak * threads)
    print(pathlib.Path(float_path).name, f"threads {threads}, batch {batch}:",
          "  ".join(f"{k} {v:.3f} ms" for k, v in ms.items()))
    print("   ", "  ".join(f"{k} {v:.2f}" for k, v in ratios.items()), flush=True)
    return record


def table(records):
    """Markdown: int8 beside the best peer."""
    print("\n| network | batch | threads | rung int8, ms | best int8 peer, ms | ratio | "
          "share of peak |\n|---|---|---|---|---|---|---|")
    for r in records:
        if r["best_peer"]:
            share = f'{100 * r["share_of_peak"]:.0f} %' if "share_of_peak" in r else ""
            print(f'| {pathlib.Path(r["model"]).stem} | {r["batch"]} | {r["threads"]} | '
                  f'{r["ms"]["rung int8"]:.3f} | {r["ms"][r["best_peer"]]:.3f} '
                  f'({r["best_peer"]}) | {r["ratio_to_best"]:.2f} | {share} |')
    found = [r["ratio_to_best"] for r in records if r["best_peer"]]
    if found:
        mean = math.exp(sum(map(math.log, found)) / len(found))
        print(f"\ngeometric mean of the ratios {mean:.2f}: {1 / mean:.2f} times faster")


def numbers(text):
    return [int(n) for n in text.split(",")]


def arguments():
    parse = argparse.ArgumentParser(description=__doc__,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("rung")
    parse.add_argument("models", nargs="*")
    parse.add_argument("--work", type=pathlib.Path)
    parse.add_argument("--torch")
    parse.add_argument("--threads", type=numbers, default=[1])
    parse.add_argument("--batch", type=numbers, default=[1])
    parse.add_argument("--size", default="224x224")
    parse.add_argument("--rounds", type=int, default=7)
    parse.add_argument("--busy", action="store_true")
    parse.add_argument("--peak", type=float)
    parse.add_argument("--json")
    parse.add_argument("--svg")
    args = parse.parse_args()
    if args.torch and not args.work:
        parse.error("--torch needs --work, where the networks are written")
    return args


def main():
    args, records = arguments(), []
    if args.work:
        args.work.mkdir(parents=True, exist_ok=True)
    if args.torch:
        args.models += peer_files.export_torchvision(args.torch, args.work, TORCHVISION)
    for batch in args.batch:
        for threads in args.threads:
            found = [measure(args, pair, threads, batch) for pair in args.models]
            records += [r for r in found if r]
    table(records)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(records, indent=1))
    if args.svg:
        pathlib.Path(args.svg).write_text(peer_plot.svg(records))


if __name__ == "__main__":
    main()
