"""What `meson install` gives: a program, librung shared and static, rung.h for C and C++, rung.pc.
RUNG_BUILD names the build folder."""
import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

PROGRAM = r'''
#include <stdio.h>
#include <rung.h>

int main(int argc, char **argv)
{
    rung_error err;
    rung_model *model = NULL;
    rung_session *s = NULL;
    rung_session_options o = RUNG_SESSION_OPTIONS;
    o.n_threads = 1;
    if (rung_model_load(argv[1], &model, &err) != RUNG_OK ||
        rung_session_create(model, &o, &s, &err) != RUNG_OK ||
        rung_session_run(s, &err) != RUNG_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    printf("%s %s\n", rung_version(), rung_session_output_name(s, 0));
    rung_session_free(s);
    rung_model_free(model);
    return 0;
}
'''


def output(*command, **kwargs):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300,
                            **kwargs)
    assert result.returncode == 0, f'{command}\n{result.stdout}{result.stderr}'
    return result.stdout


def tool(*names):
    for name in names:
        if name and shutil.which(name):
            return name
    pytest.skip(f'no {" or ".join(n for n in names if n)} here')


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """The folder of an installation with prefix /usr, found by name: {'rung.h': path, ...}."""
    build = os.environ.get('RUNG_BUILD')
    if not build or not pathlib.Path(build, 'build.ninja').exists():
        pytest.skip('RUNG_BUILD names no build folder')
    if '-fsanitize=' in pathlib.Path(build, 'build.ninja').read_text():
        pytest.skip('a build under sanitizers is not installed')
    target = tmp_path_factory.mktemp('installed')
    output(tool('meson'), 'install', '--no-rebuild', '-C', build, '--destdir', target)
    files = {p.name: p for p in target.rglob('*') if not p.is_dir()}
    files['/'] = target
    return files


def pkg_config(installed, *options):
    environment = {**os.environ, 'PKG_CONFIG_SYSROOT_DIR': str(installed['/']),
                   'PKG_CONFIG_PATH': str(installed['rung.pc'].parent)}
    return output(tool('pkg-config'), *options, 'rung', env=environment).split()


@pytest.fixture
def source(tmp_path):
    (tmp_path / 'program.c').write_text(PROGRAM)
    return tmp_path / 'program.c'


def assert_runs(program, **env):
    assert output(program, ROOT / 'examples/digits/digits.onnx',
                  env={**os.environ, **env}) == '0.1.0 scores\n'


def test_files(installed):
    wanted = {'rung', 'rung.h', 'rung.pc', 'librung.a', 'librung.so', 'librung.so.0',
              'librung.so.0.1.0'}
    assert set(installed) - {'/'} == wanted
    assert output(installed['rung'], '--version') == 'rung 0.1.0\n'
    assert pkg_config(installed, '--modversion') == ['0.1.0']
    header = re.search(r'RUNG_VERSION "(.*)"', installed['rung.h'].read_text()).group(1)
    assert header == '0.1.0'


def test_shared_library(installed, source, tmp_path):
    flags = pkg_config(installed, '--cflags', '--libs')
    assert flags[-1] == '-lrung'
    output(tool('cc', 'gcc', 'clang'), '-std=c11', '-Wall', '-Wextra', '-Wpedantic', '-Werror',
           '-Wno-unused-parameter', source, *flags, '-o', tmp_path / 'program')
    assert_runs(tmp_path / 'program', LD_LIBRARY_PATH=str(installed['librung.so'].parent))


def test_static_library(installed, source, tmp_path):
    """librung.a is whole: besides it, only libraries of others are linked."""
    flags = pkg_config(installed, '--static', '--cflags', '--libs')
    flags = [str(installed['librung.a']) if f == '-lrung' else f for f in flags]
    build = pathlib.Path(os.environ['RUNG_BUILD'], 'build.ninja').read_text()
    compiler = re.search(r'^rule c_COMPILER\n command = (\S+)', build, re.M).group(1)
    output(compiler, source, *flags, '-o', tmp_path / 'program')
    assert_runs(tmp_path / 'program')


def test_cplusplus(installed, tmp_path):
    (tmp_path / 'program.cpp').write_text(PROGRAM)
    output(tool('c++', 'g++', 'clang++'), '-std=c++11', '-Wall', '-Wextra', '-Werror',
           '-Wno-unused-parameter', '-Wno-missing-field-initializers', tmp_path / 'program.cpp',
           *pkg_config(installed, '--cflags', '--libs'), '-o', tmp_path / 'program')
    assert_runs(tmp_path / 'program', LD_LIBRARY_PATH=str(installed['librung.so'].parent))


def test_only_the_interface_is_exported(installed):
    """Every rung_ function of the header is there, and nothing else."""
    lines = output(tool('nm'), '-D', '--defined-only', installed['librung.so']).splitlines()
    exported = {line.split()[-1].split('@')[0] for line in lines}
    header = installed['rung.h'].read_text()
    declared = set(re.findall(r'^RUNG_API[^;(]*?(rung_\w+)\(', header, re.M))
    assert exported == declared and len(declared) > 30
