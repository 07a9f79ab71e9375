"""run.py FILE...: the pytest files of this folder for meson; exit status 77 (skipped) says what is
missing. In tests that run, models and programs that are missing are skipped one by one."""
import importlib.util
import sys

missing = [m for m in ('pytest', 'numpy', 'onnx', 'onnxruntime') if not importlib.util.find_spec(m)]
if missing:
    print('skipped: python3 has no', ', '.join(missing))
    sys.exit(77)

import pytest  # noqa: E402

sys.exit(pytest.main(['-q', '-rs', '-p', 'no:cacheprovider', *sys.argv[1:]]))
