"""What the bytes of a model are: python bench/bytes.py FILE.onnx ...

Codes are the elements of 8-bit weights; scales, zero points and biases the other operands of
DequantizeLinear and QuantizeLinear; names are those of values, wherever they are written.
"""
import collections
import sys

import onnx

from subjects import table


def operands(graph):
    """Role of each constant that DequantizeLinear or QuantizeLinear reads."""
    roles = {}
    for n in graph.node:
        if n.op_type in ('DequantizeLinear', 'QuantizeLinear'):
            for role, name in zip(('codes', 'scales', 'zeros'), n.input):
                roles.setdefault(name, role)
    return roles


def parts(path):
    model = onnx.load(path)
    g, sizes = model.graph, collections.Counter()
    roles = operands(g)
    for t in g.initializer:
        role = roles.get(t.name, 'float')
        if role == 'codes' and t.data_type == onnx.TensorProto.INT32:
            role = 'biases'
        sizes[role] += len(t.raw_data)
        sizes['names of constants'] += len(t.name)
        sizes['rest of constants'] += t.ByteSize() - len(t.raw_data) - len(t.name)
    for n in g.node:
        names = sum(map(len, n.input)) + sum(map(len, n.output))
        sizes['names in nodes'] += names
        sizes['names of nodes'] += len(n.name)
        sizes['rest of nodes'] += n.ByteSize() - names - len(n.name)
    sizes['value_info'] = sum(v.ByteSize() for v in g.value_info)
    sizes['other'] = model.ByteSize() - sum(sizes.values())
    return sizes


def main():
    found = {path.rsplit('/', 1)[-1]: parts(path) for path in sys.argv[1:]}
    heads = sorted({k for sizes in found.values() for k in sizes},
                   key=lambda k: -sum(sizes[k] for sizes in found.values()))
    rows = [[name, sum(sizes.values()), *(sizes[h] for h in heads)]
            for name, sizes in found.items()]
    table('Bytes', ['file', 'all', *heads], rows)


if __name__ == '__main__':
    main()
