"""run.py FILE...: the pytest files of this folder for meson; exit status 77 (skipped) says what is
missing. In tests that run, models and programs that are missing are skipped one by one; a file that
needs more (PyTorch) skips itself."""
import importlib.util
import sys

missing = [m for m in ('pytest', 'numpy', 'onnx', 'onnxruntime') if not importlib.util.find_spec(m)]
if missing:
    print('skipped: python3 has no', ', '.join(missing))
    sys.exit(77)

import pytest  # noqa: E402

status = pytest.main(['-q', '-rs', '-p', 'no:cacheprovider', *sys.argv[1:]])
sys.exit(77 if status == pytest.ExitCode.NO_TESTS_COLLECTED else status)
