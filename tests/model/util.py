"""What the tests on whole models share: where things are, and how two models are compared.

Environment: RUNG_BIN the command, RUNG_ONNX_COPY the tool tests/unit/onnx_copy.c, RUNG_SHARED the
folder with models/ and data/. A test whose part is missing is skipped by name.
"""
import os
import pathlib
import subprocess

import pytest

np = pytest.importorskip('numpy')
onnx = pytest.importorskip('onnx')
ort = pytest.importorskip('onnxruntime')

from onnx import numpy_helper  # noqa: E402


def program(variable):
    path = os.environ.get(variable)
    if not path or not pathlib.Path(path).exists():
        pytest.skip(f'{variable} names no program')
    return path


def rung_binary():
    return program('RUNG_BIN')


def shared_folder():
    path = os.environ.get('RUNG_SHARED')
    if not path or not pathlib.Path(path).is_dir():
        pytest.skip('RUNG_SHARED names no folder')
    return pathlib.Path(path)


def shared_models():
    """Paths below models/, for parametrize; empty without the folder."""
    root = pathlib.Path(os.environ.get('RUNG_SHARED', '/nonexistent')) / 'models'
    return sorted(str(p.relative_to(root)) for p in root.glob('**/*.onnx'))


def run(*args, ok=True):
    """Runs a program; returns its result. ok: exit status 0 is expected, else 1 and a sentence."""
    result = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=600)
    message = f'{args}: exit {result.returncode}\n{result.stderr}'
    assert result.returncode == (0 if ok else 1), message
    assert ok or result.stderr.strip(), 'a failure without a sentence'
    return result


def copy_model(source, target, *how):
    """Through rung: read and written."""
    run(program('RUNG_ONNX_COPY'), source, target, *how)
    return onnx.load(target)


def session(model):
    """ONNX Runtime without its optimizer, one thread: the same order of operations every time."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(str(model), options, providers=['CPUExecutionProvider'])


NUMPY_TYPES = {
    'float': np.float32, 'double': np.float64, 'float16': np.float16, 'int64': np.int64,
    'int32': np.int32, 'int16': np.int16, 'int8': np.int8, 'uint8': np.uint8,
    'uint16': np.uint16, 'uint32': np.uint32, 'uint64': np.uint64, 'bool': np.bool_,
}


def random_input(info, rng, known, highest=2):
    """A value for a session's input. known[name]: its shape (a list), or the value itself;
    otherwise dimensions without a number are 1."""
    kind = NUMPY_TYPES[info.type[len('tensor('):-1]]
    shape = known.get(info.name, [d if isinstance(d, int) else 1 for d in info.shape])
    if isinstance(shape, np.ndarray):
        return shape
    if np.issubdtype(kind, np.floating):
        return rng.standard_normal(shape).astype(kind)
    return rng.integers(0, highest, shape).astype(kind)


def same_array(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def same_outputs(first, second, known=None, seed=0):
    """ONNX Runtime's outputs of two files on the same random input: equal to the bit."""
    one, two = session(first), session(second)
    rng = np.random.default_rng(seed)
    feeds = {i.name: random_input(i, rng, known or {}) for i in one.get_inputs()}
    assert [i.name for i in one.get_inputs()] == [i.name for i in two.get_inputs()]
    for info, a, b in zip(one.get_outputs(), one.run(None, feeds), two.run(None, feeds)):
        if isinstance(a, np.ndarray) and a.dtype != object:
            assert same_array(a, b), f'output {info.name} differs'
        else:
            assert repr(a) == repr(b), f'output {info.name} differs'


# --- equality of models --------------------------------------------------------------------------

def plain_tensor(t):
    """The same tensor in one storage form: raw_data, or string_data."""
    if t.data_type in (0, onnx.TensorProto.STRING) or t.data_location == onnx.TensorProto.EXTERNAL:
        return
    data = t.raw_data or numpy_helper.from_array(numpy_helper.to_array(t)).raw_data
    for field in ('data_location', 'external_data', 'float_data', 'int32_data', 'int64_data',
                  'uint64_data', 'double_data'):
        t.ClearField(field)
    t.raw_data = data


def plain_graph(g):
    for t in g.initializer:
        plain_tensor(t)
    constants = {t.name for t in g.initializer}
    fed = [i for i in g.input if i.name not in constants]
    listed = sorted((i for i in g.input if i.name in constants), key=lambda i: i.name)
    del g.input[:]
    g.input.extend(fed + listed)
    for name in ('initializer', 'value_info', 'node', 'quantization_annotation'):
        items = sorted(getattr(g, name), key=lambda m: m.SerializeToString(deterministic=True))
        g.ClearField(name)
        getattr(g, name).extend(items)
    return g


def plain_node(n):
    if n.domain in ('', 'ai.onnx'):
        n.ClearField('domain')
    if not n.name:
        n.ClearField('name')
    for a in n.attribute:
        if a.type == onnx.AttributeProto.TENSOR:
            if not a.t.name:
                a.t.ClearField('name')
            plain_tensor(a.t)


def plain_model(model):
    """A copy in which everything that may be said in several ways is said in one."""
    m = onnx.ModelProto()
    m.CopyFrom(model)
    for n in m.graph.node:
        plain_node(n)
    for o in m.opset_import:
        if o.domain in ('', 'ai.onnx'):
            o.domain = ''
    plain_graph(m.graph)
    return m


def assert_same_model(a, b):
    one, two = plain_model(a), plain_model(b)
    for field in one.DESCRIPTOR.fields:
        if field.name != 'graph':
            assert getattr(one, field.name) == getattr(two, field.name), field.name
    for field in one.graph.DESCRIPTOR.fields:
        assert getattr(one.graph, field.name) == getattr(two.graph, field.name), field.name
    assert one == two
