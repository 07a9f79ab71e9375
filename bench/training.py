"""Training beside PyTorch on the Fashion-MNIST network (8,026 parameters).

  python training.py export OUT.onnx --seed S            the network with its initial weights
  python training.py pytorch --data DIR --seed S         PyTorch: float, control, QAT and converted
  python training.py speed RUNG --data DIR [--epochs N]  samples a second and peak memory, PyTorch and
                                                         rung in turns

DIR holds the idx.gz files of Fashion-MNIST. PyTorch trains as a user of it would: SGD with momentum
0.9, learning rate 0.1 falling by a cosine, batch 128; QAT at a tenth of that rate, observers and all
as get_default_qat_qconfig('fbgemm') has them, but for the bits.
"""
import argparse
import gzip
import json
import pathlib
import resource
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
                          quant_max=top - 1, dtype=torch.qint8, qscheme=torch.per_channel_symmetric))


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
    data, held_out = load(args.data, "train"), load(args.data, "t10k")
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


def speed_of_pytorch(args):
    """One run in a process of its own, for its peak memory."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    data = load(args.data, "train")
    net = Network()
    if args.qat:
        prepare(net, 8)
    train(net, [part[:10 * BATCH] for part in data], 1, RATE, 0)
    x = [part[:args.samples] for part in data]
    seconds = train(net, x, args.epochs, RATE, 0)
    print(json.dumps({"samples_per_s": args.epochs * (len(x[0]) // BATCH) * BATCH / seconds,
                      "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


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
    command.add_argument("--data", required=True)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--bits", type=int, nargs="*", default=[8, 4, 3, 2])
    command.set_defaults(run=pytorch)
    command = commands.add_parser("pytorch-speed")
    command.add_argument("--data", required=True)
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--samples", type=int, default=20000)
    command.add_argument("--epochs", type=int, default=1)
    command.add_argument("--qat", action="store_true")
    command.set_defaults(run=speed_of_pytorch)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
