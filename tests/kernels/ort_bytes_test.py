#!/usr/bin/env python3
"""rung's integer kernels against ONNX Runtime: equal to the byte, operator by operator.

usage: ort_bytes_test.py LIBRARY [SEED [CASES]]
LIBRARY is the shared object made of ort_bytes.c. Each case builds a QDQ graph (uint8 activations,
int8 weights per channel), runs it in ONNX Runtime with its default optimisations and compares.
Exit status 77 (skipped): ONNX Runtime is missing, or the machine has no AVX512-VNNI."""
import ctypes
import sys

try:
    import numpy as np
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)


class Params(ctypes.Structure):
    _fields_ = [("scale", ctypes.c_float * 3), ("zero", ctypes.c_int * 3)]


def params(a, b, y):
    return Params((a[0], b[0], y[0]), (a[1], b[1], y[1]))


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def ints(*values):
    return pointer(keep(np.array(values, dtype=np.int32)))


def keep(array, kept=[]):
    kept[:] = kept[-8:] + [array]
    return array


class Graph:
    """A QDQ graph under construction: u8 inputs in, one u8 output."""

    def __init__(self):
        self.nodes, self.inits, self.inputs = [], [], []

    def constant(self, name, array):
        self.inits.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def pair_params(self, name, scale, zero, dtype=np.uint8):
        return [self.constant(name + "_s", np.asarray(scale, np.float32)),
                self.constant(name + "_z", np.asarray(zero, dtype))]

    def activation(self, name, shape, q):
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
        self.nodes.append(helper.make_node("DequantizeLinear", [name] + self.pair_params(name, *q),
                                           [name + "_f"]))
        return name + "_f"

    def constant_activation(self, name, array, q):
        self.nodes.append(helper.make_node(
            "DequantizeLinear", [self.constant(name, array)] + self.pair_params(name, *q),
            [name + "_f"]))
        return name + "_f"

    def weight(self, name, w, scales, axis=0):
        zero = np.zeros(len(scales), w.dtype)
        self.nodes.append(helper.make_node(
            "DequantizeLinear",
            [self.constant(name, w)] + self.pair_params(name, scales, zero, w.dtype),
            [name + "_f"], axis=axis))
        return name + "_f"

    def finish(self, op, inputs, q, feed, **attributes):
        self.nodes.append(helper.make_node(op, inputs, ["r"], **attributes))
        self.nodes.append(helper.make_node("QuantizeLinear", ["r"] + self.pair_params("y", *q),
                                           ["y"]))
        y = helper.make_tensor_value_info("y", TensorProto.UINT8, None)
        graph = helper.make_graph(self.nodes, "g", self.inputs, [y], self.inits)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)],
                                  ir_version=8)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = ort.InferenceSession(model.SerializeToString(), options,
                                       providers=["CPUExecutionProvider"])
        return session.run(None, feed)[0]


class Cases:
    def __init__(self, lib, seed):
        self.lib, self.rng = lib, np.random.default_rng(seed)

    def q(self, lo=0.002, hi=0.1):
        return (np.float32(self.rng.uniform(lo, hi)), int(self.rng.integers(0, 256)))

    def u8(self, *shape):
        return self.rng.integers(0, 256, shape, dtype=np.uint8)

    def integer(self, lo, hi):
        return int(self.rng.integers(lo, hi + 1))

    def conv(self):
        groups = [1, 1, 1, 2, 0][self.integer(0, 4)]
        c = self.integer(1, 40)
        c, groups = (c * 2, 2) if groups == 2 else (c, groups or c)
        out_c = c if groups == c else groups * self.integer(1, 70)
        kernel, stride, dilation = self.integer(1, 3), self.integer(1, 2), self.integer(1, 2)
        pad = self.integer(0, kernel // 2)
        size = self.integer((kernel - 1) * dilation + 1, 14)
        xq, yq = self.q(), self.q(0.05, 2)
        scales = self.rng.uniform(0.001, 0.02, out_c).astype(np.float32)
        w = self.rng.integers(-127, 128, (out_c, c // groups, kernel, kernel), dtype=np.int8)
        bias = self.rng.integers(-5000, 5000, out_c, dtype=np.int32)
        x = self.u8(1, c, size, size)
        g = Graph()
        want = g.finish("Conv", [g.activation("x", x.shape, xq), g.weight("w", w, scales),
                                 g.weight("b", bias, xq[0] * scales)], yq, {"x": x},
                        pads=[pad] * 4, strides=[stride] * 2, dilations=[dilation] * 2,
                        group=groups)
        shape = ints(1, size, size, c, want.shape[2], want.shape[3], out_c, kernel, kernel, stride,
                     stride, dilation, dilation, pad, pad, groups)
        return want, self.run_conv(shape, w, bias, x.transpose(0, 2, 3, 1), xq, yq, scales,
                                   want.transpose(0, 2, 3, 1).shape).transpose(0, 3, 1, 2)

    def run_conv(self, shape, w, bias, x, xq, yq, scales, y_shape):
        x, y = np.ascontiguousarray(x), np.empty(y_shape, np.uint8)
        mult = np.ascontiguousarray((xq[0] * scales) / yq[0], np.float32)
        assert self.lib.ort_conv(shape, pointer(w), pointer(bias), pointer(x), xq[1],
                                 pointer(mult), yq[1], pointer(y))
        return y

    def gemm(self):
        m, k, n = self.integer(1, 20), self.integer(1, 300), self.integer(1, 150)
        xq, yq = self.q(), self.q(0.05, 2)
        scale = np.float32(self.rng.uniform(0.001, 0.02))
        w = self.rng.integers(-127, 128, (n, k), dtype=np.int8)
        bias = self.rng.integers(-5000, 5000, n, dtype=np.int32)
        x = self.u8(m, k)
        g = Graph()
        want = g.finish("Gemm", [g.activation("x", x.shape, xq),
                                 g.weight("w", w, np.full(n, scale)),
                                 g.weight("b", bias, np.full(n, xq[0] * scale))], yq, {"x": x},
                        transB=1)
        shape = ints(1, 1, m, k, 1, m, n, 1, 1, 1, 1, 1, 1, 0, 0, 1)
        return want, self.run_conv(shape, w, bias, x, xq, yq, np.full(n, scale, np.float32),
                                   want.shape)

    def binary(self, op, function):
        aq, bq, yq = self.q(), self.q(), self.q(0.002, 0.3)
        shape = (1, self.integer(1, 9), self.integer(1, 30), self.integer(1, 300))
        a, b, g = self.u8(*shape), self.u8(*shape), Graph()
        scalar = self.integer(0, 3) == 0
        if scalar:
            b = self.u8(1)
            names = [g.activation("a", shape, aq), g.constant_activation("b", b, bq)]
            want = g.finish(op, names, yq, {"a": a})
        else:
            names = [g.activation("a", shape, aq), g.activation("b", shape, bq)]
            want = g.finish(op, names, yq, {"a": a, "b": b})
        y = np.empty(shape, np.uint8)
        function(pointer(a), pointer(b), 0 if scalar else 1, ctypes.c_size_t(a.size),
                 ctypes.byref(params(aq, bq, yq)), pointer(y))
        return want, y

    def add(self):
        return self.binary("Add", self.lib.ort_add)

    def mul(self):
        return self.binary("Mul", self.lib.ort_mul)

    def pool(self, kind, op):
        xq = self.q()
        yq = xq if kind == 0 else self.q()
        size, channels = self.integer(4, 15), self.integer(1, 70)
        kernel, stride = self.integer(1, 4), self.integer(1, 3)
        pad, count_pad = self.integer(0, kernel - 1) // 2, self.integer(0, 1)
        x, g = self.u8(self.integer(1, 2), channels, size, size), Graph()
        attributes = {} if kind == 2 else dict(kernel_shape=[kernel] * 2, strides=[stride] * 2,
                                               pads=[pad] * 4)
        if kind == 1:
            attributes["count_include_pad"] = count_pad
        want = g.finish(op, [g.activation("x", x.shape, xq)], yq, {"x": x}, **attributes)
        out = want.shape[2]
        shape = ints(x.shape[0], size, size, channels, out, out, kernel, kernel, stride, stride,
                     1, 1, pad, pad, count_pad)
        xl = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        y = np.empty(want.transpose(0, 2, 3, 1).shape, np.uint8)
        self.lib.ort_pool(kind, shape, pointer(xl), ctypes.byref(params(xq, xq, yq)), pointer(y))
        return want, y.transpose(0, 3, 1, 2)

    def max_pool(self):
        return self.pool(0, "MaxPool")

    def average_pool(self):
        return self.pool(1, "AveragePool")

    def global_average_pool(self):
        return self.pool(2, "GlobalAveragePool")

    def unary(self, kind, op, xq, yq, **attributes):
        x, g = np.arange(256, dtype=np.uint8).reshape(1, 256), Graph()
        want = g.finish(op, [g.activation("x", x.shape, xq)], yq, {"x": x}, **attributes)
        y = np.empty(x.shape, np.uint8)
        self.lib.ort_unary(kind, pointer(x), ctypes.c_size_t(x.size),
                           ctypes.byref(params(xq, xq, yq)), pointer(y))
        return want, y

    def sigmoid(self):
        return self.unary(0, "Sigmoid", self.q(), (np.float32(1 / 256), 0))

    def leaky_relu(self):
        return self.unary(1, "LeakyRelu", self.q(), self.q(), alpha=0.1)

    def softmax(self):
        xq, yq = self.q(), (np.float32(1 / 2 ** self.integer(7, 8)), 0)
        outer, n = self.integer(1, 5), self.integer(1, 1000)
        x, g = self.u8(outer, n), Graph()
        want = g.finish("Softmax", [g.activation("x", x.shape, xq)], yq, {"x": x}, axis=-1)
        y = np.empty(x.shape, np.uint8)
        self.lib.ort_softmax(pointer(x), ctypes.c_size_t(outer), ctypes.c_size_t(n),
                             ctypes.byref(params(xq, xq, yq)), pointer(y))
        return want, y

    @staticmethod
    def taps(size, out):
        """resize_tap of each output position: half_pixel coordinates, in float32."""
        scale = np.float32(out / size)
        at = (np.arange(out, dtype=np.float32) + np.float32(0.5)) / scale - np.float32(0.5)
        at = np.clip(at, 0, size - 1).astype(np.float32)
        i0 = np.minimum(at.astype(np.int32), size - 1)
        i1 = np.minimum(i0 + 1, size - 1)
        same = i0 == i1
        taps = np.zeros(out, [("i0", "i4"), ("i1", "i4"), ("w0", "f4"), ("w1", "f4")])
        taps["i0"], taps["i1"] = i0, i1
        taps["w0"] = np.where(same, 0.5, np.abs(at - i1.astype(np.float32)))
        taps["w1"] = np.where(same, 0.5, np.abs(at - i0.astype(np.float32)))
        return taps

    def resize(self):
        xq, c = self.q(), self.integer(1, 20)
        yq = xq if self.integer(0, 1) else self.q()
        h, w, oh, ow = (self.integer(1, 24) for _ in range(4))
        x, g = self.u8(1, c, h, w), Graph()
        sizes = g.constant("sizes", np.array([1, c, oh, ow], np.int64))
        want = g.finish("Resize", [g.activation("x", x.shape, xq), "", "", sizes], yq, {"x": x},
                        mode="linear", coordinate_transformation_mode="half_pixel")
        xl = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        y = np.empty((1, oh, ow, c), np.uint8)
        self.lib.ort_resize(ints(1, h, w, c, oh, ow), pointer(keep(self.taps(h, oh))),
                            pointer(keep(self.taps(w, ow))), pointer(xl),
                            ctypes.byref(params(xq, xq, yq)), pointer(y))
        return want, y.transpose(0, 3, 1, 2)

    def quantize(self):
        q, n = self.q(), self.integer(1, 3000)
        x = self.rng.normal(0, 8, n).astype(np.float32)
        s = [helper.make_tensor("s", 1, [], [q[0]]), helper.make_tensor("z", 2, [], [q[1]])]
        graph = helper.make_graph(
            [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])], "g",
            [helper.make_tensor_value_info("x", 1, [n])],
            [helper.make_tensor_value_info("y", 2, [n])], s)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)],
                                  ir_version=8)
        session = ort.InferenceSession(model.SerializeToString(),
                                       providers=["CPUExecutionProvider"])
        y = np.empty(n, np.uint8)
        self.lib.ort_quantize(pointer(x), ctypes.c_size_t(n), ctypes.byref(params(q, q, q)),
                              pointer(y))
        return session.run(None, {"x": x})[0], y


OPERATORS = ["conv", "gemm", "add", "mul", "max_pool", "average_pool", "global_average_pool",
             "sigmoid", "leaky_relu", "softmax", "resize", "quantize"]


def main():
    lib = ctypes.CDLL(sys.argv[1])
    if not lib.ort_has_vnni():
        print("skipped: no AVX512-VNNI (or RUNG_CPU forbids it): ONNX Runtime saturates here")
        return 77
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(np.random.SeedSequence().entropy % 2**32)
    n_cases = int(sys.argv[3]) if len(sys.argv) > 3 else 40
    print(f"seed {seed}, ONNX Runtime {ort.__version__}")
    failed = False
    for name in OPERATORS:
        cases, differ, total = Cases(lib, seed), 0, 0
        for _ in range(n_cases):
            want, got = getattr(cases, name)()
            differ += int(np.count_nonzero(want != got))
            total += want.size
        print(f"{name}: {differ} of {total} bytes differ")
        failed |= differ > 0 or total == 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
