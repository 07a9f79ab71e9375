"""tests/summary.py: whatever goes wrong in a step of ./check, its closing line says so."""
import json
import subprocess
import sys

import pytest

from cli_kit import ROOT


def meson_line(result):
    return json.dumps({'name': 'a test', 'result': result}) + '\n'


def junit(inside):
    return f'<testsuites><testsuite>{inside}</testsuite></testsuites>'


GOOD = junit('<testcase classname="c" name="n"/>')
FILES = {  # of a step besides a good one: file name, contents, failed steps, status, closing line
    'good': ('b.xml', GOOD, 0, 0, '2 passed, 0 failed, 0 skipped'),
    'failed': ('b.xml', junit('<testcase classname="c" name="n"><failure/></testcase>'), 1, 1,
               '1 passed, 1 failed, 0 skipped'),
    'error': ('b.xml', junit('<testcase classname="c" name="n"><error/></testcase>'), 1, 1,
              '1 passed, 1 failed, 0 skipped'),
    'all skipped': ('b.xml', junit('<testcase classname="c" name="n"><skipped/></testcase>'), 0, 1,
                    '1 passed, 1 failed, 1 skipped'),
    'nothing': ('other.xml', GOOD, 0, 1, '1 passed, 1 failed, 0 skipped'),
    'half a file': ('b.xml', GOOD[:30], 0, 1, '1 passed, 1 failed, 0 skipped'),
    'empty': ('b.json', '', 0, 1, '1 passed, 1 failed, 0 skipped'),
    'status alone': ('b.xml', GOOD, 1, 1, '2 passed, 1 failed, 0 skipped'),
    'meson failed': ('b.json', meson_line('OK') + meson_line('FAIL'), 1, 1,
                     '2 passed, 1 failed, 0 skipped'),
    'meson timeout': ('b.json', meson_line('OK') + meson_line('TIMEOUT'), 1, 1,
                      '2 passed, 1 failed, 0 skipped'),
    'meson skipped': ('b.json', meson_line('OK') + meson_line('SKIP'), 0, 0,
                      '2 passed, 0 failed, 1 skipped'),
}


@pytest.mark.parametrize('what', FILES)
def test_closing_line(what, tmp_path):
    file, contents, failed_steps, status, closing = FILES[what]
    (tmp_path / 'a.json').write_text(meson_line('OK'))
    (tmp_path / file).write_text(contents)
    result = subprocess.run([sys.executable, ROOT / 'tests/summary.py', tmp_path, str(failed_steps),
                             'a', 'b'], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == closing and result.returncode == status
