"""rung's default beside its peers, run in the same test on the same samples: at least 1 dB ahead of
each of them. ONNX Runtime always takes part, NNCF and LiteRT where they are installed.

Agreement is held where 3,500 images judge it; of 300 synthetic sounds one more or less is chance.
Then what single methods are for, each beside the same model without it.
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


def db_of(name, path, x, references, tmp_path):
    return accuracy.judged(name, references, subjects.rung_outputs(path, x, tmp_path), None)['sqnr']


def test_boxes_decoded_in_float(tmp_path):
    """Of a detector: all in 8 bits, and with what comes behind the last layers in float."""
    name = 'ultraface_RFB-320'
    try:
        x, _ = subjects.samples(name, 'evaluation', 30)
        integer, real = (subjects.quantized(name, tmp_path, '--samples', '40', '--method', how)
                         for how in ('none', 'tail'))
    except subjects.Missing as why:
        pytest.skip(str(why))
    references = subjects.ort_outputs(subjects.model_path(name), x)
    before, after = (db_of(name, path, x, references, tmp_path) for path in (integer, real))
    assert all(a >= b for a, b in zip(after, before))
    assert after[1] >= before[1] + 1
    layers = subjects.inspect(real)
    assert layers['int_macs_share'] == 1
    assert {island['op'] for island in layers['float_islands']}.isdisjoint({'Conv', 'Gemm'})


def test_one_scale_for_a_weight(tmp_path):
    """MobileNetV1, whose weights collapse with one scale where nothing is equalized: within two
    points of one scale for each channel."""
    name = 'mobilenetv1'
    try:
        x, labels = subjects.samples(name, 'evaluation')
        paths = [subjects.quantized(name, tmp_path, *flags) for flags in (
            (), ('--weight-scheme', 'per-tensor'),
            ('--weight-scheme', 'per-tensor', '--method', 'none'))]
    except subjects.Missing as why:
        pytest.skip(str(why))
    channels, tensor, plain = (
        100 * (subjects.rung_outputs(path, x, tmp_path)[0].argmax(-1).reshape(-1) == labels).mean()
        for path in paths)
    assert tensor >= channels - 2
    assert plain < channels - 20
