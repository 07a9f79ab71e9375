"""A model that is read and written unchanged is the same model: for ONNX Runtime to the bit, for
onnx.checker, and for everything in the file that rung does not understand."""
import numpy as np
import pytest

import util
from util import onnx, run, program
from onnx import TensorProto, checker, helper, numpy_helper

NEWEST = onnx.defs.onnx_opset_version()


def ir_of(opset):
    return helper.find_min_ir_version_for([helper.make_opsetid('', opset)], ignore_unknown=True)


def value(name, shape=(2, 3), kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes, inputs, outputs, opset=13, ir=None, opsets=(), functions=(), **graph):
    g = helper.make_graph(nodes, 'g', inputs, outputs, **graph)
    imports = [helper.make_opsetid('', opset), *opsets]
    return helper.make_model(g, opset_imports=imports, ir_version=ir or ir_of(opset),
                             functions=list(functions))


def roundtrip(model, tmp_path, how=(), check=True, runs=True):
    """Copies the model and compares the files; returns the copy."""
    source, target = tmp_path / 'in.onnx', tmp_path / 'out.onnx'
    source.write_bytes(model.SerializeToString(deterministic=True))
    copy = util.copy_model(source, target, *how)
    util.assert_same_model(model, copy)
    if check:
        checker.check_model(str(target), full_check=True)
    if runs:
        util.same_outputs(source, target)
    again = tmp_path / 'again.onnx'
    util.copy_model(target, again)
    assert again.read_bytes() == target.read_bytes(), 'the second copy differs from the first'
    return copy


# --- real models ---------------------------------------------------------------------------------

RATE = np.array(16000)
KNOWN = {  # where dimensions that the file leaves open cannot all be 1
    'silero_vad.onnx': {'input': [1, 512], 'state': [2, 1, 128], 'sr': RATE},
    'silero_vad_half.onnx': {'input': [1, 512], 'state': [2, 1, 128], 'sr': RATE},
    'silero_vad_16k_op15.onnx': {'input': [1, 512], 'state': [2, 1, 128], 'sr': RATE},
    'silero_vad_op18_ifless.onnx': {'input': [1, 576], 'state': [2, 1, 128], 'sr': RATE},
    'yunet_n_dynamic.onnx': {'input': [1, 3, 320, 320]},
    'yunet_s_dynamic.onnx': {'input': [1, 3, 320, 320]},
    'rxnmapper_albert_mlm.onnx': {n: [1, 16] for n in
                                  ('input_ids', 'attention_mask', 'token_type_ids')},
}


@pytest.mark.parametrize('name', util.shared_models() or ['none'])
@pytest.mark.parametrize('how', ['', 'external', 'memory'])
def test_shared_model(name, how, tmp_path):
    source = util.shared_folder() / 'models' / name
    target = tmp_path / 'out.onnx'
    copy = util.copy_model(source, target, *([how] if how else []))
    util.assert_same_model(onnx.load(source), copy)
    checker.check_model(str(target), full_check=True)
    util.same_outputs(source, target, KNOWN.get(source.name))


# --- tensors -------------------------------------------------------------------------------------

ALL_TYPES = [t for t in TensorProto.DataType.values() if t != TensorProto.UNDEFINED]


def tensor_values(kind, n):
    if kind == TensorProto.STRING:
        return [f'text {i}'.encode() for i in range(n)]
    if kind in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return [complex(i, -i) for i in range(n)]
    return [i % 2 for i in range(n)]


@pytest.mark.parametrize('kind', ALL_TYPES, ids=TensorProto.DataType.Name)
@pytest.mark.parametrize('shape', [(5,), (2, 3), (), (0, 3)], ids=str)
@pytest.mark.parametrize('raw', [False, True], ids=['typed', 'raw'])
def test_initializer(kind, shape, raw, tmp_path):
    if raw and kind == TensorProto.STRING:
        raw = False
    n = int(np.prod(shape))
    t = helper.make_tensor('w', kind, shape, tensor_values(kind, n))
    if raw and not t.raw_data and n:
        t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t), 'w'))
    node, result = helper.make_node('Identity', ['w'], ['y']), kind
    if kind in (TensorProto.FLOAT6E2M3, TensorProto.FLOAT6E3M2):  # Identity has not got them
        node, result = helper.make_node('Cast', ['w'], ['y'], to=TensorProto.FLOAT), 1
    m = model_of([node], [], [value('y', shape, result)], opset=NEWEST, initializer=[t])
    copy = roundtrip(m, tmp_path, runs=False)
    if kind != TensorProto.STRING and n:
        assert copy.graph.initializer[0].raw_data, 'written in another form than raw_data'
    a, b = numpy_helper.to_array(t), numpy_helper.to_array(copy.graph.initializer[0])
    assert util.same_array(a, b) or (a.dtype == object and a.tolist() == b.tolist())


def test_constant_nodes_of_every_form(tmp_path):
    nodes = [
        helper.make_node('Constant', [], ['f'], value_float=1.5),
        helper.make_node('Constant', [], ['fs'], value_floats=[1.0, 2.0]),
        helper.make_node('Constant', [], ['i'], value_int=7),
        helper.make_node('Constant', [], ['is'], value_ints=[1, 2, 3]),
        helper.make_node('Constant', [], ['s'], value_string='a\0b'),
        helper.make_node('Constant', [], ['ss'], value_strings=['a', 'bc', '']),
        helper.make_node('Constant', [], ['t'], value=helper.make_tensor(
            'a name', TensorProto.INT64, (2,), [1, 2])),
    ]
    nodes[-1].attribute[0].t.doc_string = 'what the tensor is'
    nodes[-1].attribute[0].doc_string = 'what the attribute is'
    outputs = [value('f', ()), value('fs', (2,)), value('i', (), TensorProto.INT64),
               value('is', (3,), TensorProto.INT64), value('s', (), TensorProto.STRING),
               value('ss', (3,), TensorProto.STRING), value('t', (2,), TensorProto.INT64)]
    copy = roundtrip(model_of(nodes, [], outputs), tmp_path)
    assert copy.graph.node == model_of(nodes, [], outputs).graph.node


@pytest.mark.parametrize('ir', [3, 4, 8])
def test_initializers_listed_as_inputs(ir, tmp_path):
    weights = [numpy_helper.from_array(np.full((2, 3), i, np.float32), f'w{i}') for i in range(3)]
    nodes = [helper.make_node('Sum', ['w0', 'x', 'w1', 'w2'], ['y'])]
    inputs = [value('w1'), value('x'), value('w0'), value('w2')]
    m = model_of(nodes, inputs, [value('y')], opset=9, ir=ir, initializer=weights)
    copy = roundtrip(m, tmp_path)
    assert copy.ir_version == ir


# --- external data -------------------------------------------------------------------------------

def external_model(folder, n=1000):
    rng = np.random.default_rng(3)
    weights = [numpy_helper.from_array(rng.standard_normal((n,)).astype(np.float32), f'w{i}')
               for i in range(3)]
    weights.append(numpy_helper.from_array(np.arange(n) % 3 == 0, 'mask'))
    nodes = [helper.make_node('Sum', ['x', 'w0', 'w1', 'w2'], ['s']),
             helper.make_node('Where', ['mask', 's', 'x'], ['y'])]
    m = model_of(nodes, [value('x', (n,))], [value('y', (n,))], initializer=weights)
    plain = onnx.ModelProto()
    plain.CopyFrom(m)
    onnx.save_model(m, folder / 'in.onnx', save_as_external_data=True, location='sub/w.bin',
                    size_threshold=0)
    return plain


@pytest.mark.parametrize('how', ['', 'external'])
def test_external_data(how, tmp_path):
    folder, other = tmp_path / 'a', tmp_path / 'b'
    (folder / 'sub').mkdir(parents=True)
    other.mkdir()
    plain = external_model(folder)
    copy = util.copy_model(folder / 'in.onnx', other / 'out.onnx', *([how] if how else []))
    util.assert_same_model(plain, copy)
    assert (other / 'out.onnx.data').exists() == (how == 'external')
    checker.check_model(str(other / 'out.onnx'), full_check=True)
    util.same_outputs(folder / 'in.onnx', other / 'out.onnx')
    if how:  # over the files it reads from, then from there
        util.copy_model(other / 'out.onnx', other / 'out.onnx', how)
        util.same_outputs(folder / 'in.onnx', other / 'out.onnx')


def external_tensor(n=1000):
    t = TensorProto(name='w', data_type=TensorProto.FLOAT, dims=[n])
    t.data_location = TensorProto.EXTERNAL
    for key, text in (('location', 'w.bin'), ('offset', '16'), ('length', str(4 * n))):
        t.external_data.add(key=key, value=text)
    return t


def test_external_data_in_a_subgraph(tmp_path):
    """Is taken into the subgraph: the copy stands alone."""
    folder, other = tmp_path / 'a', tmp_path / 'b'
    folder.mkdir()
    other.mkdir()
    data = np.random.default_rng(5).standard_normal(1004).astype(np.float32)
    (folder / 'w.bin').write_bytes(data.tobytes())
    inner = helper.make_graph([helper.make_node('Add', ['x', 'w'], ['a'])], 'then', [],
                              [value('a', (1000,))], initializer=[external_tensor()])
    nested = helper.make_node('If', ['c'], ['b'], then_branch=inner, else_branch=helper.make_graph(
        [helper.make_node('Neg', ['x'], ['n'])], 'no', [], [value('n', (1000,))]))
    middle = helper.make_graph([nested], 'then', [], [value('b', (1000,))])
    outer = helper.make_node('If', ['c'], ['y'], then_branch=middle, else_branch=helper.make_graph(
        [helper.make_node('Abs', ['x'], ['m'])], 'no', [], [value('m', (1000,))]))
    m = model_of([outer], [value('c', (), TensorProto.BOOL), value('x', (1000,))],
                 [value('y', (1000,))])
    (folder / 'in.onnx').write_bytes(m.SerializeToString())
    util.copy_model(folder / 'in.onnx', other / 'out.onnx')
    feeds = {'c': np.array(True), 'x': np.ones(1000, np.float32)}
    got = util.session(other / 'out.onnx').run(None, feeds)[0]
    assert util.same_array(got, 1 + data[4:])


@pytest.mark.parametrize('key, text, word', [
    ('location', '/etc/hostname', 'folder'), ('location', '../w.bin', 'folder'),
    ('location', 'sub/../../w.bin', 'folder'), ('location', '', 'location'),
    ('location', 'absent.bin', 'absent.bin'), ('location', '.', "'w'"),
    ('offset', '-1', 'offset'), ('offset', '1e3', 'offset'), ('offset', '17', 'wanted'),
    ('offset', '99999999999999999999', 'offset'), ('offset', '18446744073709551615', 'wanted'),
    ('length', '3999', 'need'), ('length', 'x', 'length'),
])
def test_external_data_refused(key, text, word, tmp_path):
    folder = tmp_path / 'model'
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / 'w.bin').write_bytes(bytes(4016))
    t = external_tensor()
    for entry in t.external_data:
        if entry.key == key:
            entry.value = text
    m = model_of([helper.make_node('Identity', ['w'], ['y'])], [], [value('y', (1000,))],
                 initializer=[t])
    (folder / 'in.onnx').write_bytes(m.SerializeToString())
    result = run(program('RUNG_ONNX_COPY'), folder / 'in.onnx', folder / 'out.onnx', ok=False)
    assert word in result.stderr and "'w'" in result.stderr, result.stderr
    assert not (folder / 'out.onnx').exists()


def test_external_data_from_memory_is_refused_by_name(tmp_path):
    external_sub = tmp_path / 'sub'
    external_sub.mkdir()
    external_model(tmp_path)
    result = run(program('RUNG_ONNX_COPY'), tmp_path / 'in.onnx', tmp_path / 'out.onnx', 'memory',
                 ok=False)
    assert 'w0' in result.stderr and 'sub/w.bin' in result.stderr


# --- structure -----------------------------------------------------------------------------------

@pytest.mark.parametrize('opset', range(7, NEWEST + 1))
def test_opset(opset, tmp_path):
    w = numpy_helper.from_array(np.eye(3, dtype=np.float32), 'w')
    nodes = [helper.make_node('MatMul', ['x', 'w'], ['a']), helper.make_node('Relu', ['a'], ['y'])]
    inputs = [value('x')] + ([value('w', (3, 3))] if ir_of(opset) < 4 else [])
    m = model_of(nodes, inputs, [value('y')], opset=opset, initializer=[w])
    roundtrip(m, tmp_path, runs=opset <= 24)  # what ONNX Runtime's release knows


def test_newer_opset_is_read(tmp_path):
    m = model_of([helper.make_node('Relu', ['x'], ['y'])], [value('x')], [value('y')], ir=10)
    m.opset_import[0].version = NEWEST + 5
    roundtrip(m, tmp_path, check=False, runs=False)


@pytest.mark.parametrize('opset, ir, word', [(6, 3, 'opset 6'), (7, 2, 'ir_version 2')])
def test_older_is_refused(opset, ir, word, tmp_path):
    m = model_of([helper.make_node('Relu', ['x'], ['y'])], [value('x')], [value('y')], opset=opset,
                 ir=ir)
    (tmp_path / 'in.onnx').write_bytes(m.SerializeToString())
    result = run(program('RUNG_ONNX_COPY'), tmp_path / 'in.onnx', tmp_path / 'out.onnx', ok=False)
    assert word in result.stderr


def test_dynamic_dimensions_and_denotations(tmp_path):
    x = value('x', ('batch', None, 3))
    x.type.denotation = 'IMAGE'
    x.type.tensor_type.shape.dim[0].denotation = 'DATA_BATCH'
    x.doc_string = 'what is fed'
    unknown = helper.make_tensor_value_info('a', TensorProto.FLOAT, None)
    y = value('y', ('batch', 'n', 3))
    nodes = [helper.make_node('Relu', ['x'], ['a']), helper.make_node('Neg', ['a'], ['y'])]
    roundtrip(model_of(nodes, [x], [y], value_info=[unknown]), tmp_path)


def test_rank_over_rungs(tmp_path):
    shape = [1] * 10
    roundtrip(model_of([helper.make_node('Relu', ['x'], ['y'])], [value('x', shape)],
                       [value('y', shape)]), tmp_path)


def test_metadata_everywhere(tmp_path):
    m = model_of([helper.make_node('Add', ['x', 'w'], ['a'], name='n', doc_string='a node'),
                  helper.make_node('Relu', ['a'], ['y'])], [value('x')], [value('y')], opset=NEWEST,
                 value_info=[value('a')], doc_string='a graph',
                 initializer=[numpy_helper.from_array(np.ones((2, 3), np.float32), 'w')])
    m.producer_name, m.producer_version, m.domain = 'p', '1.2', 'org.example'
    m.model_version, m.doc_string = 4, 'a model'
    helper.set_model_props(m, {'k': 'v', 'empty': ''})
    for i, owner in enumerate((m.graph, m.graph.node[0], m.graph.input[0], m.graph.value_info[0],
                               m.graph.initializer[0])):
        owner.metadata_props.add(key='key', value=str(i))
    m.graph.initializer[0].doc_string = 'a tensor'
    note = m.graph.quantization_annotation.add(tensor_name='a')
    note.quant_parameter_tensor_names.add(key='SCALE_TENSOR', value='w')
    m.training_info.add().initialization.name = 'init'
    copy = roundtrip(m, tmp_path, check=False)
    assert copy.graph.node[0] == m.graph.node[0]


def test_unknown_domain_and_absent_operands(tmp_path):
    nodes = [helper.make_node('Strange', ['x', '', 'x'], ['', 'a'], domain='org.example', level=3,
                              kinds=['a', 'b'], name='s'),
             helper.make_node('Clip', ['a', '', 'hi'], ['y'])]
    hi = numpy_helper.from_array(np.float32(6), 'hi')
    m = model_of(nodes, [value('x')], [value('y')], initializer=[hi],
                 opsets=[helper.make_opsetid('org.example', 2)])
    copy = roundtrip(m, tmp_path, runs=False)
    assert list(copy.graph.node) == nodes


def test_local_functions(tmp_path):
    body = [helper.make_node('Mul', ['a', 'b'], ['m']), helper.make_node('Add', ['m', 'b'], ['r'])]
    f = helper.make_function('local', 'MulAdd', ['a', 'b'], ['r'], body,
                             [helper.make_opsetid('', 17)], ['unused'])
    m = model_of([helper.make_node('MulAdd', ['x', 'x'], ['y'], domain='local')], [value('x')],
                 [value('y')], opset=17, opsets=[helper.make_opsetid('local', 1)], functions=[f])
    m.graph.value_info.append(value('local::MulAdd/m'))  # about a value inside the function
    copy = roundtrip(m, tmp_path)
    assert copy.functions == m.functions


def test_sequences_and_optionals(tmp_path):
    seq = helper.make_tensor_sequence_value_info('s', TensorProto.FLOAT, (2, None))
    opt = helper.make_value_info('o', helper.make_optional_type_proto(
        helper.make_tensor_type_proto(TensorProto.FLOAT, (2, 3))))
    nodes = [helper.make_node('SequenceConstruct', ['x', 'x'], ['s']),
             helper.make_node('Optional', ['x'], ['o']),
             helper.make_node('ConcatFromSequence', ['s'], ['y'], axis=0),
             helper.make_node('OptionalGetElement', ['o'], ['z'])]
    roundtrip(model_of(nodes, [value('x')], [value('y', (4, 3)), value('z'), seq], opset=17,
                       value_info=[opt]), tmp_path)


def test_sparse_initializer(tmp_path):
    """Becomes a Constant node: the same values for whoever runs it."""
    values = numpy_helper.from_array(np.array([1.5, -2], np.float32), 'w')
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(
        np.array([1, 5], np.int64), 'w_idx'), [2, 3])
    m = model_of([helper.make_node('Add', ['x', 'w'], ['y'])], [value('x')], [value('y')],
                 sparse_initializer=[sparse])
    source, target = tmp_path / 'in.onnx', tmp_path / 'out.onnx'
    source.write_bytes(m.SerializeToString())
    copy = util.copy_model(source, target)
    assert copy.graph.node[0].attribute[0].sparse_tensor == sparse
    checker.check_model(str(target), full_check=True)
    util.same_outputs(source, target)
    roundtrip(copy, tmp_path)


# --- subgraphs -----------------------------------------------------------------------------------

def test_if_with_captures(tmp_path):
    """`late` is used by the subgraph only, and made behind it in the file: it must come first."""
    then = helper.make_graph([helper.make_node('Add', ['late', 'w'], ['t'])], 'then', [],
                             [value('t')])
    other = helper.make_graph([helper.make_node('Identity', ['x'], ['e'])], 'else', [],
                              [value('e')])
    nodes = [helper.make_node('If', ['c'], ['y'], then_branch=then, else_branch=other),
             helper.make_node('Neg', ['x'], ['late'])]
    w = numpy_helper.from_array(np.ones((2, 3), np.float32), 'w')
    m = model_of(nodes, [value('c', (), TensorProto.BOOL), value('x')], [value('y')],
                 initializer=[w])
    source, target = tmp_path / 'in.onnx', tmp_path / 'out.onnx'
    source.write_bytes(m.SerializeToString())
    copy = util.copy_model(source, target)
    assert [n.op_type for n in copy.graph.node] == ['Neg', 'If']
    checker.check_model(str(target), full_check=True)
    roundtrip(copy, tmp_path)


def test_loop_and_scan(tmp_path):
    body = helper.make_graph(
        [helper.make_node('Identity', ['cond'], ['go']),
         helper.make_node('Add', ['v', 'x'], ['r'])], 'body',
        [value('i', (), TensorProto.INT64), value('cond', (), TensorProto.BOOL), value('v')],
        [value('go', (), TensorProto.BOOL), value('r')])
    scan = helper.make_graph([helper.make_node('Add', ['state', 'row'], ['next']),
                              helper.make_node('Identity', ['next'], ['row_out'])], 'scan',
                             [value('state', (3,)), value('row', (3,))],
                             [value('next', (3,)), value('row_out', (3,))])
    nodes = [helper.make_node('Loop', ['n', '', 'x'], ['l'], body=body),
             helper.make_node('Scan', ['zero', 'l'], ['sum', 'y'], body=scan, num_scan_inputs=1)]
    constants = [numpy_helper.from_array(np.int64(4), 'n'),
                 numpy_helper.from_array(np.zeros(3, np.float32), 'zero')]
    roundtrip(model_of(nodes, [value('x')], [value('y'), value('sum', (3,))],
                       initializer=constants), tmp_path)


def test_nodes_in_any_order(tmp_path):
    nodes = [helper.make_node('Relu', [f'v{i}'], [f'v{i + 1}']) for i in range(9)]
    m = model_of(nodes[::-1], [value('v0')], [value('v9')])
    (tmp_path / 'in.onnx').write_bytes(m.SerializeToString())
    copy = util.copy_model(tmp_path / 'in.onnx', tmp_path / 'out.onnx')
    assert list(copy.graph.node) == nodes
    checker.check_model(str(tmp_path / 'out.onnx'), full_check=True)
