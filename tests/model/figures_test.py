"""The figures that rung promises on real networks, measured: slow, for the release build.

RUNG_BIN, RUNG_SHARED and RUNG_PHOTOS as in bench/subjects.py; what is missing is skipped by name.
Speed is measured only where RUNG_SPEED is set: a machine that others use too has none. Accuracy of
the other networks is held in quantize_test.py.
"""
import json
import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip('numpy')
pytest.importorskip('onnxruntime')
pytest.importorskip('PIL')
BENCH = pathlib.Path(__file__).parents[2] / 'bench'
sys.path.insert(0, str(BENCH))

import figures  # noqa: E402
import subjects  # noqa: E402
from subjects import SUBJECTS  # noqa: E402

pytestmark = pytest.mark.figures
# Twelve bytes for each output channel (two scales and a bias) leave nothing for nodes and names in
# these, in MobileNetV1 half a percent.
NARROW = {'mobilenetv1': 0.28, 'ultraface_RFB-320': 0.32, 'ultraface_RFB-640': 0.30,
          'ultraface_RFB-320_simplified': 0.32, 'ultraface_RFB-320_without_postprocessing': 0.32,
          'ultraface_slim-320_without_postprocessing': 0.32}


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    try:
        subjects.rung_binary()
        subjects.shared_folder()
    except subjects.Missing as why:
        pytest.skip(str(why))
    return tmp_path_factory.mktemp('figures')


def measured(measure, name, work):
    try:
        return measure(name, work)
    except subjects.Missing as why:
        pytest.skip(str(why))


@pytest.mark.parametrize('name', SUBJECTS)
def test_float_equals_onnxruntime(name, work):
    assert measured(figures.float_figures, name, work)['difference'] <= 1e-4


@pytest.mark.parametrize('name', SUBJECTS)
def test_int8_file(name, work):
    """Valid, small; ONNX Runtime's bytes but for Softmax, which it rounds down, rung to
    nearest, and for what stays float behind all codes."""
    got = measured(figures.bytes_figures, name, work)
    assert (got['different'] == 0 or got['first'].startswith('Softmax') or
            (got['islands'] and got['first'] == 'a float island' and got['sqnr'] > 100))
    assert got['top1_equal'] is None or got['top1_equal'] >= 99.5
    assert not SUBJECTS[name].integer or not got['islands']
    if subjects.model_path(name).stat().st_size > 1 << 20:
        assert got['share'] <= NARROW.get(name, 0.27)


@pytest.mark.parametrize('name', SUBJECTS)
def test_same_bytes_at_every_level(name, work):
    assert measured(figures.levels_figures, name, work)['same']


@pytest.mark.parametrize('name', ['resnet32', 'resnet44'])
def test_int8_accuracy(name, work):
    got = measured(figures.int8_figures, name, work)
    assert got['rung']['sqnr'] >= got['onnxruntime']['sqnr']
    assert got['rung']['top1'] >= got['float']['top1'] - 0.3


@pytest.mark.skipif('RUNG_SPEED' not in os.environ, reason='RUNG_SPEED is not set')
@pytest.mark.parametrize('name', ['resnet56', 'squeezenet', 'mobilenetv2'])
def test_speed(name, work):

    pair = f'{subjects.model_path(name)}:{measured(subjects.quantized, name, work)}'
    subprocess.run([sys.executable, str(BENCH / 'peers.py'), subjects.rung_binary(), pair,
                    '--json', str(work / 'speed.json')], check=True)
    ratios = json.loads((work / 'speed.json').read_text())[0]['ratios']
    assert ratios['rung f32 / ORT f32'] <= 1.2
    assert ratios['rung f32 / rung int8'] >= 2.5
