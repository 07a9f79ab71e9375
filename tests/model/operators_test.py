"""Every operator of rung's table, beside ONNX: the node tests that the onnx package carries (inputs
and outputs), and random attributes and shapes beside onnx.reference (ONNX Runtime where that has
faults).

RUNG_GRAPH_EVAL names the tool tests/unit/graph_eval.c, which evaluates a model node by node; inputs
become constants of the model.
"""
import fnmatch
import subprocess
import warnings

import pytest

np = pytest.importorskip('numpy')
onnx = pytest.importorskip('onnx')

from onnx import numpy_helper  # noqa: E402
from onnx.backend.test.loader import load_model_tests  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from operators_cases import all_cases  # noqa: E402
from operators_known import NO_TENSOR_MODELS, REFUSED, UNKNOWN_OPERATORS  # noqa: E402
from util import program, session  # noqa: E402

# A chain of operators in 16 bits rounds at each: a few units in the last place.
LOOSE = {onnx.TensorProto.FLOAT16: (4e-3, 1e-3), onnx.TensorProto.BFLOAT16: (3e-2, 1e-2)}


def as_proto(x, name=''):
    t = onnx.TensorProto()
    t.CopyFrom(x if isinstance(x, onnx.TensorProto) else numpy_helper.from_array(np.asarray(x)))
    t.name = name
    return t


def with_constants(model, inputs):
    """The model with its inputs as initializers."""
    m = onnx.ModelProto()
    m.CopyFrom(model)
    m.graph.initializer.extend(as_proto(x, i.name) for i, x in zip(model.graph.input, inputs))
    del m.graph.input[:]
    return m


def evaluate(model, folder):
    """(exit status, message, outputs) of the tool."""
    onnx.save(model, folder / 'model.onnx')
    result = subprocess.run([program('RUNG_GRAPH_EVAL'), folder / 'model.onnx', folder],
                            capture_output=True, text=True, timeout=120)
    paths = [folder / f'{i}.npy' for i in range(len(model.graph.output))]
    return result.returncode, result.stderr.strip(), [np.load(p) for p in paths if p.exists()]


def assert_same(got, expected, rtol, atol):
    t = as_proto(expected)
    e = numpy_helper.to_array(t)
    if t.data_type == onnx.TensorProto.BFLOAT16:
        got = (got.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(e.shape)
        e = e.astype(np.float32)
    elif e.dtype not in (np.float16, np.float32, np.float64) and got.dtype != e.dtype:
        assert got.tobytes() == as_proto(expected).raw_data or \
            got.tobytes() == numpy_helper.from_array(e).raw_data
        return
    assert got.dtype == e.dtype and got.shape == e.shape
    if e.dtype in (np.float16, np.float32, np.float64):
        loose = LOOSE.get(t.data_type, (rtol, atol))
        np.testing.assert_allclose(got, e, rtol=max(rtol, loose[0]), atol=max(atol, loose[1]))
    else:
        np.testing.assert_array_equal(got, e)


# --- the onnx package's node tests ---------------------------------------------------------------

def node_tests():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        tests = load_model_tests(kind='node')
    tensors = (np.ndarray, np.generic, onnx.TensorProto)
    return [t for t in tests
            if all(isinstance(x, tensors) for x in t.data_sets[0][0] + t.data_sets[0][1])
            and not any(fnmatch.fnmatchcase(t.name, p) for p in NO_TENSOR_MODELS)]


NODE_TESTS = node_tests()


def expected_refusal(test):
    """What the refusal says; None: the test passes."""
    unknown = [n.op_type for n in test.model.graph.node if n.op_type in UNKNOWN_OPERATORS]
    if unknown:
        return unknown[0]
    return next((why for p, why in REFUSED.items() if fnmatch.fnmatchcase(test.name, p)), None)


@pytest.mark.parametrize('test', NODE_TESTS, ids=lambda t: t.name)
def test_node(test, tmp_path):
    inputs, outputs = test.data_sets[0]
    status, message, got = evaluate(with_constants(test.model, inputs), tmp_path)
    refusal = expected_refusal(test)
    if refusal:
        assert status == 2 and refusal in message, message
        return
    assert status == 0, message
    assert len(got) == len(outputs)
    for a, b in zip(got, outputs):
        assert_same(a, b, test.rtol, test.atol)


def test_enough_node_tests():
    assert sum(expected_refusal(t) is None for t in NODE_TESTS) >= 1100


# --- random cases --------------------------------------------------------------------------------

def one_node_model(node, inputs, opset):
    def info(name, x=None):
        if x is None:
            return onnx.ValueInfoProto(name=name)
        t = as_proto(x)
        return onnx.helper.make_tensor_value_info(name, t.data_type, t.dims)
    present = [(n, x) for n, x in zip(node.input, inputs) if n]
    graph = onnx.helper.make_graph([node], 'one', [info(n, x) for n, x in present],
                                   [info(n) for n in node.output if n])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', opset)])


# Where onnx.reference 1.23 fails or is wrong: several channels of LRN, negative pads, dilated
# MaxPool with ceil_mode, global pools of rank 5, Slice backwards from before the start, scalars.
REFERENCE_FAULTS = ('LRN', 'Pad', 'MaxPool', 'GlobalMaxPool', 'GlobalAveragePool', 'Slice',
                    'Softsign', 'Sum', 'Mean', 'Max', 'Min')


def oracle(model, feeds, folder):
    if model.graph.node[0].op_type in REFERENCE_FAULTS:
        onnx.save(model, folder / 'oracle.onnx')
        return session(folder / 'oracle.onnx').run(None, feeds)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return ReferenceEvaluator(model).run(None, feeds)


@pytest.mark.parametrize('case', all_cases(), ids=lambda c: c.name)
def test_random(case, tmp_path):
    names = [f'x{i}' if x is not None else '' for i, x in enumerate(case.inputs)]
    node = onnx.helper.make_node(case.op, names, [f'y{i}' for i in range(case.outputs)],
                                 **case.attributes)
    model = one_node_model(node, case.inputs, case.opset)
    expected = oracle(model, {n: np.asarray(x) for n, x in zip(names, case.inputs) if n}, tmp_path)
    present = [x for x in case.inputs if x is not None]
    status, message, got = evaluate(with_constants(model, present), tmp_path)
    assert status == 0, message
    for a, b in zip(got, expected):
        largest = float(np.abs(np.asarray(b, np.float64)).max(initial=1))
        assert_same(a, b, 1e-5, 1e-5 * largest)
