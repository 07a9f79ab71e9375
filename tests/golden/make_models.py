"""Writes the small models of this folder with the onnx package: seeds for the fuzzer and cases for
the reader. Run it again after a change here; the files are committed. tag_zero.onnx is not from
here: the fuzzer found it (an unknown field whose number is 0).

    python3 tests/golden/make_models.py
"""
import pathlib

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FOLDER = pathlib.Path(__file__).parent


def value(name, shape=(2, 3), kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def write(name, nodes, inputs, outputs, opset=13, ir=8, opsets=(), functions=(), **graph):
    g = helper.make_graph(nodes, name, inputs, outputs, **graph)
    model = helper.make_model(g, opset_imports=[helper.make_opsetid('', opset), *opsets],
                              ir_version=ir, functions=list(functions))
    (FOLDER / f'{name}.onnx').write_bytes(model.SerializeToString(deterministic=True))


def tensors():
    """Initializers of every type in their typed fields, some raw, one listed as input."""
    kinds = [k for k in TensorProto.DataType.values() if k not in (0, TensorProto.STRING)]
    initializers = [helper.make_tensor(f't{k}', k, (3,), [0, 1, 1]) for k in kinds]
    initializers.append(helper.make_tensor('words', TensorProto.STRING, (2,), [b'a', b'bc']))
    initializers.append(numpy_helper.from_array(np.eye(2, dtype=np.float32), 'raw'))
    initializers.append(helper.make_tensor('empty', TensorProto.FLOAT, (0, 4), []))
    write('tensors', [helper.make_node('Relu', ['t1'], ['y'])], [value('t1', (3,))],
          [value('y', (3,))], opset=28, ir=14, initializer=initializers)


def structure():
    """A capture, a nested subgraph, an unknown operator, absent operands, a local function,
    metadata, a sequence type, a dynamic dimension."""
    inner = helper.make_graph([helper.make_node('Neg', ['late'], ['n'])], 'inner', [], [value('n')])
    nested = helper.make_node('If', ['c'], ['i'], then_branch=inner, else_branch=inner)
    branch = helper.make_graph([nested], 'branch', [], [value('i')])
    body = [helper.make_node('Mul', ['a', 'b'], ['m'])]
    function = helper.make_function('local', 'Twice', ['a', 'b'], ['m'], body,
                                    [helper.make_opsetid('', 17)])
    nodes = [
        helper.make_node('If', ['c'], ['o'], then_branch=branch, else_branch=branch),
        helper.make_node('Twice', ['x', 'x'], ['late'], domain='local', doc_string='first'),
        helper.make_node('Strange', ['o', ''], ['', 's'], domain='org.example', ks=[1, 2],
                         fs=[0.5], names=['a', 'b'], f=1.5, name='strange'),
        helper.make_node('SequenceConstruct', ['s'], ['q']),
    ]
    dynamic = value('x', ('batch', 3))
    dynamic.type.tensor_type.shape.dim[0].denotation = 'DATA_BATCH'
    write('structure', nodes, [value('c', (), TensorProto.BOOL), dynamic],
          [helper.make_tensor_sequence_value_info('q', TensorProto.FLOAT, None)], opset=17,
          opsets=[helper.make_opsetid('local', 1), helper.make_opsetid('org.example', 1)],
          functions=[function], value_info=[value('late', ('batch', 3))], doc_string='a graph')


def sparse():
    values = numpy_helper.from_array(np.array([1.5, -2], np.float32), 'w')
    tensor = helper.make_sparse_tensor(
        values, numpy_helper.from_array(np.array([1, 5], np.int64), 'i'), [2, 3])
    write('sparse', [helper.make_node('Add', ['x', 'w'], ['y'])], [value('x')], [value('y')],
          sparse_initializer=[tensor])


def quantized():
    """A quantized Gemm as Q/DQ pairs, with a Constant node."""
    weights = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    initializers = [
        numpy_helper.from_array(weights, 'w'),
        numpy_helper.from_array(np.full(4, 0.125, np.float32), 'ws'),
        numpy_helper.from_array(np.zeros(4, np.int8), 'wz'),
        numpy_helper.from_array(np.float32(0.5), 's'),
    ]
    nodes = [
        helper.make_node('Constant', [], ['z'], value=helper.make_tensor(
            'zero', TensorProto.UINT8, (), [128])),
        helper.make_node('QuantizeLinear', ['x', 's', 'z'], ['q']),
        helper.make_node('DequantizeLinear', ['q', 's', 'z'], ['d']),
        helper.make_node('DequantizeLinear', ['w', 'ws', 'wz'], ['dw'], axis=0),
        helper.make_node('Gemm', ['d', 'dw'], ['y'], transB=1),
    ]
    write('quantized', nodes, [value('x')], [value('y', (2, 4))], initializer=initializers)


if __name__ == '__main__':
    tensors()
    structure()
    sparse()
    quantized()
