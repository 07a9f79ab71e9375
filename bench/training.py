"""Training beside PyTorch: the Fashion-MNIST network (8,026 parameters) and a ResNet-20.

  training.py export OUT.onnx [--seed S]     the Fashion-MNIST network with its initial weights
  training.py pytorch --fashion DIR          PyTorch's accuracy: float, control, QAT, converted
  training.py speed RUNG --fashion DIR [--resnet20 FILE --cifar10 FILE]
                                             samples a second and peak memory, in turns

DIR holds the idx.gz files of Fashion-MNIST, the two FILEs are the ONNX model and CIFAR-10 records.
PyTorch trains as a user of it would: SGD with momentum 0.9, learning rate 0.1 falling by a cosine,
batch 128; QAT at a tenth of that rate, observers and all as get_default_qat_qconfig('fbgemm') has
them, but for the bits.
"""
import argparse
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
import torch
import torch.ao.quantization as tq
from torch import nn

CLASSES = 10
RATE, QAT_RATE, BATCH = 0.1, 0.01, 128


def block(inputs, outputs, stride, groups=1, kernel=3):
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups,
                                   bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        self.blocks = nn.Sequential(block(1, 16, 1), block(16, 32, 2), block(32, 32, 2, 32),
                                    block(32, 64, 1, 1, 1))
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(64, CLASSES)

    def forward(self, x):
        return self.dequant(self.linear(self.pool(self.blocks(self.quant(x))).flatten(1)))

    def fuse(self):
        tq.fuse_modules_qat(self, [[f"blocks.{i}.{j}" for j in range(3)] for i in range(4)],
                            inplace=True)


class Residual(nn.Module):
    """A basic block whose shortcut drops pixels and pads channels (He 2015, option A)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = block(inputs, outputs, stride)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
                                    nn.BatchNorm2d(outputs))
        self.stride, self.pad = stride, (outputs - inputs) // 2
        self.add = torch.ao.nn.quantized.FloatFunctional()

    def forward(self, x):
        y = self.second(self.first(x))
        if self.stride > 1:
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return self.add.add_relu(y, x)

    def fuse(self):
        tq.fuse_modules_qat(self, [["first.0", "first.1", "first.2"], ["second.0", "second.1"]],
                            inplace=True)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        widths = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)]
        widths += [(64, 64, 1)] * 2
        self.stem = block(3, 16, 1)
        self.blocks = nn.Sequential(*[Residual(*width) for width in widths])
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(64, CLASSES)

    def forward(self, x):
        x = self.blocks(self.stem(self.quant(x)))
        return self.dequant(self.linear(self.pool(x).flatten(1)))

    def fuse(self):
        tq.fuse_modules_qat(self, [["stem.0", "stem.1", "stem.2"]], inplace=True)
        for residual in self.blocks:
            residual.fuse()


def to_onnx(net, path):
    """Written node by node, so that BatchNormalization stays a node."""
    nodes, weights = [], []

    def constant(name, tensor):
        weights.append(numpy_helper.from_array(tensor.detach().numpy(), name))
        return name

    at = "image"
    for i, (conv, norm, _) in enumerate(net.blocks):
        nodes.append(helper.make_node(
            "Conv", [at, constant(f"conv{i}.weight", conv.weight)], [f"conv{i}"], f"conv{i}",
            kernel_shape=conv.kernel_size, strides=conv.stride, group=conv.groups,
            pads=conv.padding * 2))
        stats = [constant(f"norm{i}.{name}", getattr(norm, name))
                 for name in ("weight", "bias", "running_mean", "running_var")]
        nodes.append(helper.make_node("BatchNormalization", [f"conv{i}"] + stats, [f"norm{i}"],
                                      f"norm{i}", epsilon=norm.eps))
        nodes.append(helper.make_node("Relu", [f"norm{i}"], [f"relu{i}"], f"relu{i}"))
        at = f"relu{i}"
    nodes += [helper.make_node("GlobalAveragePool", [at], ["pool"], "pool"),
              helper.make_node("Flatten", ["pool"], ["flat"], "flatten"),
              helper.make_node("Gemm", ["flat", constant("linear.weight", net.linear.weight),
                                        constant("linear.bias", net.linear.bias)], ["scores"],
                               "linear", transB=1)]
    graph = helper.make_graph(
        nodes, "fashion", [helper.make_tensor_value_info("image", TensorProto.FLOAT,
                                                         ["n", 1, 28, 28])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", CLASSES])], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
              path)


def read_idx(path):
    raw = gzip.decompress(path.read_bytes())
    dims = [int.from_bytes(raw[4 + 4 * i:8 + 4 * i], "big") for i in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(dims)


def load(folder, kind):
    folder = pathlib.Path(folder)
    images, labels = (read_idx(next(folder.glob(f"{kind}-{what}*.gz")))
                      for what in ("images", "labels"))
    return (torch.from_numpy(images.astype(np.float32)[:, None] / 255),
            torch.from_numpy(labels.astype(np.int64)))


def train(net, data, epochs, rate, seed):
    """Seconds that it took."""
    x, y = data
    order = torch.Generator().manual_seed(seed)
    steps = epochs * (len(x) // BATCH)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    net.train()
    begin = time.perf_counter()
    for _ in range(epochs):
        shuffled = torch.randperm(len(x), generator=order)
        for first in range(0, len(x) - BATCH + 1, BATCH):
            at = shuffled[first:first + BATCH]
            loss = nn.functional.cross_entropy(net(x[at]), y[at])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return time.perf_counter() - begin


@torch.no_grad()
def accuracy(net, data):
    net.eval()
    x, y = data
    right = sum(int((net(x[i:i + 500]).argmax(1) == y[i:i + 500]).sum())
                for i in range(0, len(x), 500))
    return 100 * right / len(x)


def qconfig(weight_bits):
    """get_default_qat_qconfig('fbgemm') with fewer bits for the weights."""
    if weight_bits == 8:
        return tq.get_default_qat_qconfig("fbgemm")
    top = 2 ** (weight_bits - 1)
    return tq.QConfig(activation=tq.get_default_qat_qconfig("fbgemm").activation,
                      weight=tq.FakeQuantize.with_args(
                          observer=tq.MovingAveragePerChannelMinMaxObserver, quant_min=-top,
                          quant_max=top - 1, dtype=torch.qint8,
                          qscheme=torch.per_channel_symmetric))


def prepare(net, weight_bits):
    net.train()
    net.fuse()
    net.qconfig = qconfig(weight_bits)
    return tq.prepare_qat(net, inplace=True)


def copy_of(net):
    other = Network()
    other.load_state_dict(net.state_dict())
    return other


def pytorch(args):
    torch.manual_seed(args.seed)
    data, held_out = load(args.fashion, "train"), load(args.fashion, "t10k")
    net = Network()
    train(net, data, 2, RATE, args.seed)
    result = {"float": accuracy(net, held_out)}
    control = copy_of(net)
    train(control, data, 1, QAT_RATE, args.seed + 1)
    result["control"] = accuracy(control, held_out)
    for bits in args.bits:
        prepared = prepare(copy_of(net), bits)
        train(prepared, data, 1, QAT_RATE, args.seed + 1)
        result[f"qat W{bits}A8"] = accuracy(prepared, held_out)
        result[f"converted W{bits}A8"] = accuracy(tq.convert(prepared.eval()), held_out)
    print(json.dumps(result))


def load_cifar10(path):
    records = np.frombuffer(pathlib.Path(path).read_bytes(), np.uint8).reshape(-1, 3073)
    images = records[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / 255
    return torch.from_numpy(images), torch.from_numpy(records[:, 0].astype(np.int64))


def speed_of_pytorch(args):
    """One run in a process of its own, for its peak memory."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    data = load_cifar10(args.cifar10) if args.cifar10 else load(args.fashion, "train")
    data = [part[:args.samples].clone() for part in data]
    net = ResNet20() if args.cifar10 else Network()
    if args.qat:
        prepare(net, 8)
    train(net, [part[:4 * BATCH] for part in data], 1, RATE, 0)
    seconds = train(net, data, 1, RATE, 0)
    print(json.dumps({"samples_per_s": len(data[0]) // BATCH * BATCH / seconds}))


# A process begins with the memory that the one had which started it: a small one stands between.
BETWEEN = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([done.returncode, kib, done.stdout.decode()]))
"""


def measured(command):
    """What the command prints as JSON, and the most memory it had, in MB."""
    between = subprocess.run([sys.executable, "-c", BETWEEN, *map(str, command)],
                             stdout=subprocess.PIPE, check=True)
    status, kib, output = json.loads(between.stdout)
    if status:
        raise SystemExit(f"{command}: status {status}")
    return json.loads(output), kib / 1024


def speed(args):
    with tempfile.TemporaryDirectory() as folder:
        fashion = pathlib.Path(folder) / "fashion.onnx"
        torch.manual_seed(0)
        to_onnx(Network(), fashion)
        idx = pathlib.Path(args.fashion)
        images, labels = (next(idx.glob(f"train-{what}*.gz")) for what in ("images", "labels"))
        tasks = [("Fashion-MNIST network", fashion, f"idx:{images},{labels}@0:20000", "scale=255",
                  ["--fashion", args.fashion, "--samples", 20000])]
        if args.resnet20:
            pre = "scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"
            tasks.append(("resnet20", args.resnet20, f"cifar10:{args.cifar10}@0:2000", pre,
                          ["--fashion", args.fashion, "--cifar10", args.cifar10,
                           "--samples", 2000]))
        for name, model, data, pre, words in tasks:
            for qat in (False, True):
                compare_speed(args, f"{name} {'QAT' if qat else 'float'}", qat,
                              [args.rung, "train", model, "-o", f"{folder}/out.onnx", "--data",
                               data, "--preprocess", pre, "--epochs", 1, "--batch", BATCH,
                               "--optimizer", "sgd", "--threads", args.threads, "--json",
                               "--quiet", "--teacher", "none",
                               *(["--method", "none"] if qat else ["--float"])], words)


def compare_speed(args, name, qat, rung, words):
    ours, theirs = [], []
    for _ in range(args.rounds):
        ours.append(measured(rung))
        theirs.append(measured([sys.executable, "-W", "ignore", __file__, "pytorch-speed",
                                "--threads", args.threads, *words, *(["--qat"] if qat else [])]))
    rates = [sorted(run[0]["samples_per_s"] for run in runs)[len(runs) // 2]
             for runs in (ours, theirs)]
    peaks = [max(run[1] for run in runs) for runs in (ours, theirs)]
    print(f"{name:28} rung {rates[0]:8.0f}/s {peaks[0]:6.0f} MB   PyTorch {rates[1]:8.0f}/s "
          f"{peaks[1]:6.0f} MB   {rates[0] / rates[1]:.2f} times", flush=True)


def export(args):
    torch.manual_seed(args.seed)
    to_onnx(Network(), args.out)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("export")
    command.add_argument("out")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(run=export)
    command = commands.add_parser("pytorch")
    command.add_argument("--fashion", required=True)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--bits", type=int, nargs="*", default=[8, 4, 3, 2])
    command.set_defaults(run=pytorch)
    command = commands.add_parser("speed")
    command.add_argument("rung")
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--resnet20")
    command.set_defaults(run=speed)
    single = commands.add_parser("pytorch-speed")
    single.add_argument("--samples", type=int, required=True)
    single.add_argument("--qat", action="store_true")
    single.set_defaults(run=speed_of_pytorch)
    for command in (command, single):
        command.add_argument("--fashion", required=True)
        command.add_argument("--cifar10")
        command.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
