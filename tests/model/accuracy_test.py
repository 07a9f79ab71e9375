"""rung's default beside its peers, run in the same test on the same samples: at least 1 dB ahead of
each of them. ONNX Runtime always takes part, NNCF and LiteRT where they are installed.

Agreement is held where 3,500 images judge it; of 300 synthetic sounds one more or less is chance.
"""
import pathlib
import sys

import pytest

pytest.importorskip('numpy')
pytest.importorskip('onnxruntime')
pytest.importorskip('PIL')
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / 'bench'))

import accuracy  # noqa: E402
import subjects  # noqa: E402


@pytest.mark.parametrize('name', ['resnet8', 'dscnn', 'autoencoder'])
def test_ahead_of_every_peer(name, tmp_path):
    try:
        found = accuracy.figures_of(name, tmp_path, methods=('auto',))
    except subjects.Missing as why:
        pytest.skip(str(why))
    db, agreement = accuracy.margins(found)
    assert min(db) >= 1.0
    if subjects.SUBJECTS[name].kind == 'cifar':
        assert agreement >= 0
