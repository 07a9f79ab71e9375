"""Trains the digits network and writes digits.onnx: python train.py [OUT]

A residual convolutional network in plain numpy, so that retraining needs nothing else:
  conv 3x3 1->16, BatchNorm, Relu
  conv 3x3 stride 2 16->32, BatchNorm, Relu
  conv 3x3 32->32, BatchNorm, + the above, Relu
  conv 3x3 stride 2 32->64, BatchNorm, Relu
  global average pool, linear 64->10
SGD with Nesterov momentum, cosine schedule, images shifted by up to two pixels. Seeded.
"""
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import prepare

EPOCHS, BATCH, RATE, MOMENTUM, DECAY, SEED = 16, 50, 0.05, 0.9, 5e-4, 7
# name, in channels, out channels, stride
LAYERS = [("conv1", 1, 16, 1), ("conv2", 16, 32, 2), ("conv3", 32, 32, 1), ("conv4", 32, 64, 2)]
RESIDUAL = "conv3"
EPSILON = 1e-5


def patches(x, stride):
    """[n,h,w,c], padded by one -> [n,oh,ow,9*c] and the padded shape."""
    p = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    h, w = (x.shape[1] - 1) // stride + 1, (x.shape[2] - 1) // stride + 1
    taps = [p[:, i:i + stride * h:stride, j:j + stride * w:stride][:, :h, :w]
            for i in range(3) for j in range(3)]
    return np.concatenate(taps, axis=-1), p.shape


def unpatch(d, shape, stride):
    """The gradient of patches."""
    out = np.zeros(shape, np.float32)
    h, w, c = d.shape[1], d.shape[2], shape[3]
    for tap in range(9):
        i, j = divmod(tap, 3)
        out[:, i:i + stride * h:stride, j:j + stride * w:stride][:, :h, :w] += \
            d[..., tap * c:(tap + 1) * c]
    return out[:, 1:-1, 1:-1]


class Block:
    """Convolution without bias, BatchNorm; weights [9*in, out], taps outermost."""

    def __init__(self, rng, n_in, n_out, stride):
        self.stride = stride
        self.w = rng.normal(0, np.sqrt(2 / (9 * n_in)), (9 * n_in, n_out)).astype(np.float32)
        self.gamma, self.beta = np.ones(n_out, np.float32), np.zeros(n_out, np.float32)
        self.mean, self.var = np.zeros(n_out, np.float32), np.ones(n_out, np.float32)

    def forward(self, x, train):
        self.cols, self.shape = patches(x, self.stride)
        y = self.cols @ self.w
        if train:
            mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
            self.mean += 0.1 * (mean - self.mean)
            self.var += 0.1 * (var - self.var)
        else:
            mean, var = self.mean, self.var
        self.inv = 1 / np.sqrt(var + EPSILON)
        self.norm = (y - mean) * self.inv
        return self.norm * self.gamma + self.beta

    def backward(self, d):
        axes, n = (0, 1, 2), d.size / d.shape[-1]
        self.g_gamma, self.g_beta = (d * self.norm).sum(axes), d.sum(axes)
        d = self.gamma * self.inv * (d - self.g_beta / n - self.norm * self.g_gamma / n)
        flat = self.cols.reshape(-1, self.cols.shape[-1])
        self.g_w = flat.T @ d.reshape(-1, d.shape[-1])
        return unpatch(d @ self.w.T, self.shape, self.stride)

    def parameters(self):
        return [("w", True), ("gamma", False), ("beta", False)]


class Network:
    def __init__(self, rng):
        self.blocks = {name: Block(rng, a, b, s) for name, a, b, s in LAYERS}
        self.w = rng.normal(0, 0.1, (64, 10)).astype(np.float32)
        self.b = np.zeros(10, np.float32)

    def forward(self, x, train=False):
        self.masks = {}
        for name, block in self.blocks.items():
            y = block.forward(x, train)
            if name == RESIDUAL:
                y = y + x
            self.masks[name] = y > 0
            x = y * self.masks[name]
        self.features, self.area = x.mean((1, 2)), x.shape
        return self.features @ self.w + self.b

    def backward(self, d):
        self.g_w, self.g_b = self.features.T @ d, d.sum(0)
        d = (d @ self.w.T)[:, None, None] / (self.area[1] * self.area[2])
        d = np.broadcast_to(d, self.area)
        for name, block in reversed(self.blocks.items()):
            d = d * self.masks[name]
            back = block.backward(d)
            d = back + d if name == RESIDUAL else back

    def parameters(self):
        for block in self.blocks.values():
            for name, decays in block.parameters():
                yield block, name, decays
        yield self, "w", True
        yield self, "b", False


def shifted(x, rng):
    p = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    at = rng.integers(0, 5, (len(x), 2))
    return np.stack([p[i, a:a + 28, b:b + 28] for i, (a, b) in enumerate(at)])


def train(net, x, y, rng):
    speed, steps = {}, EPOCHS * (len(x) // BATCH)
    step = 0
    for epoch in range(EPOCHS):
        order, total = rng.permutation(len(x)), 0.0
        for first in range(0, len(x) - BATCH + 1, BATCH):
            pick = order[first:first + BATCH]
            scores = net.forward(shifted(x[pick], rng), True)
            p = np.exp(scores - scores.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            total -= np.log(p[np.arange(BATCH), y[pick]]).sum()
            p[np.arange(BATCH), y[pick]] -= 1
            net.backward((p / BATCH).astype(np.float32))
            rate = RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
            for owner, name, decays in net.parameters():
                value = getattr(owner, name)
                g = getattr(owner, "g_" + name) + (DECAY * value if decays else 0)
                v = speed[id(owner), name] = MOMENTUM * speed.get((id(owner), name), 0) + g
                value -= (rate * (g + MOMENTUM * v)).astype(np.float32)
            step += 1
        print(f"epoch {epoch + 1}/{EPOCHS}  loss {total / len(x):.4f}", flush=True)


def to_onnx(net):
    nodes, constants, last = [], [], "image"

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    for name, n_in, n_out, stride in LAYERS:
        block = net.blocks[name]
        w = block.w.reshape(3, 3, n_in, n_out).transpose(3, 2, 0, 1)
        nodes.append(helper.make_node("Conv", [last, constant(name + ".weight", w)], [name], name,
                                      kernel_shape=[3, 3], strides=[stride] * 2, pads=[1] * 4))
        norm = [constant(f"{name}.bn.{k}", getattr(block, k))
                for k in ("gamma", "beta", "mean", "var")]
        nodes.append(helper.make_node("BatchNormalization", [name] + norm, [name + ".bn"],
                                      name + ".bn", epsilon=EPSILON))
        before = name + ".bn"
        if name == RESIDUAL:
            nodes.append(helper.make_node("Add", [before, last], [name + ".add"], name + ".add"))
            before = name + ".add"
        nodes.append(helper.make_node("Relu", [before], [name + ".relu"], name + ".relu"))
        last = name + ".relu"
    nodes += [helper.make_node("GlobalAveragePool", [last], ["pool"], "pool"),
              helper.make_node("Flatten", ["pool"], ["features"], "features"),
              helper.make_node("Gemm", ["features", constant("fc.weight", net.w.T),
                                        constant("fc.bias", net.b)], ["scores"], "fc", transB=1)]
    graph = helper.make_graph(
        nodes, "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 28, 28])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 10])], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)],
                              producer_name="rung examples/digits")
    model.ir_version = 8
    helper.set_model_props(model, {"rung.preprocess": "scale=255"})
    onnx.checker.check_model(model, full_check=True)
    return model


def main(out="digits.onnx"):
    rng = np.random.default_rng(SEED)
    (x, y), (hx, hy) = prepare.split()
    x, hx = [(a[..., None] / np.float32(255)).astype(np.float32) for a in (x, hx)]
    net = Network(rng)
    train(net, x, y, rng)
    right = sum((net.forward(hx[i:i + 100]).argmax(1) == hy[i:i + 100]).sum()
                for i in range(0, len(hx), 100))
    print(f"held-out accuracy {100 * right / len(hx):.2f} %")
    onnx.save(to_onnx(net), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
