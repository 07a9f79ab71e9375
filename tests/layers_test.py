"""Holds the sources to the written rules: which module includes which (tests/layers.txt), and how
long lines, functions and files may be. Prints file:line of each offence.

    layers_test.py ROOT          checks the tree
    layers_test.py --self-test   checks that each rule finds its offence in a made-up tree
"""
import pathlib
import re
import sys
import tempfile

COLUMNS = 100
LINES, LINES_LONG = 600, 1000  # of a file; kernels and tables are long
FUNCTION, FUNCTION_LONG = 60, 150  # lines of a function; kernels are long
FOLDERS = ('include', 'src', 'cli', 'tests', 'bench', 'examples', 'python')
SUFFIXES = ('.c', '.h', '.py')
INCLUDE = re.compile(r'\s*#\s*include\s*"([^"]+)"')


def read_layers(root):
    """Returns {module: modules it may include} and the offences of the list itself."""
    allowed, offences = {}, []
    path = root / 'tests/layers.txt'
    for number, line in enumerate(path.read_text().splitlines(), 1):
        line = line.split('#')[0].strip()
        if not line:
            continue
        module, _, names = line.partition(':')
        for name in names.split():
            if name not in allowed:
                offences.append((path, number, f'{module} names {name}, which is not above it'))
        allowed[module] = set(names.split()) | {module}
    return allowed, offences


def check_modules(root, allowed):
    for folder in sorted((root / 'src').iterdir()):
        if folder.is_dir() and folder.name not in allowed:
            yield folder, 0, f'module {folder.name} is not listed in tests/layers.txt'


def check_include(root, path, included, allowed):
    """What is wrong with this #include "..." of this file, or None. Headers of libraries pass."""
    place = path.relative_to(root).parts
    first = included.split('/')[0]
    if '..' in included.split('/'):
        return f'"{included}" climbs out of its folder'
    is_module = '/' in included and (root / 'src' / first).is_dir()
    if place[0] in ('cli', 'include', 'examples') and is_module:
        return f'"{included}": {place[0]}/ may include only rung.h'
    if place[0] == 'src' and is_module and first not in allowed.get(place[1], set()):
        return f'module {place[1]} may not include "{included}" (tests/layers.txt)'
    return None


def check_includes(root, path, lines, allowed):
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        offence = match and check_include(root, path, match.group(1), allowed)
        if offence:
            yield path, number, offence


def check_sizes(root, path, lines):
    place = path.relative_to(root).parts
    is_long = 'kernels' in place or path.stem.startswith('table')
    limit = LINES_LONG if is_long else LINES
    if len(lines) > limit:
        yield path, len(lines), f'{len(lines)} lines, at most {limit}'
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS:
            yield path, number, f'{len(line)} columns, at most {COLUMNS}'


def check_functions(root, path, lines):
    """A function begins at the last unindented line before a { in column 0, and ends at a } there:
    so clang-format leaves them (structs and tables open their brace at the end of a line)."""
    is_kernel = 'kernels' in path.relative_to(root).parts
    limit = FUNCTION_LONG if is_kernel else FUNCTION
    head = start = 0
    for number, line in enumerate(lines, 1):
        if line.startswith('{'):
            start = head
        elif line.startswith('}'):
            if start and number - start + 1 > limit:
                yield path, start, f'function of {number - start + 1} lines, at most {limit}'
            start = 0
        elif line and not line[0].isspace() and not start and line[0] not in '#/*':
            head = number


def sources(root):
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob('*')):
            if path.suffix in SUFFIXES and path.is_file():
                yield path


def check_tree(root):
    allowed, offences = read_layers(root)
    offences += check_modules(root, allowed)
    n_files = 0
    for path in sources(root):
        lines = path.read_text(encoding='utf-8').splitlines()
        n_files += 1
        offences += check_sizes(root, path, lines)
        if path.suffix != '.py':
            offences += check_includes(root, path, lines, allowed)
            offences += check_functions(root, path, lines)
    return n_files, offences


def self_test():
    function = 'int f(int a,\n      int b)\n{\n' + '    a++;\n' * 56 + '%s}\n'
    files = {
        'tests/layers.txt': 'base:\ngraph: base late\nlate: base\n',
        'src/base/good.c': '#include "rung.h"\n#include "base/good.h"\n#include "lib/x.h"\n',
        'src/base/bad.c': '\n#include "graph/g.h"\n',
        'src/base/climbs.c': '#include "../graph/g.h"\n',
        'src/graph/good.c': '#include "base/good.h"\n' + function % '',
        'src/graph/long.c': '\n' + function % '\n',
        'src/graph/wide.h': 'é' * 100 + '\n' + 'x' * 101 + '\n',
        'src/graph/high.c': '\n' * 601,
        'src/graph/table_of.c': '\n' * 1000,
        'src/late/late.c': '',
        'src/stray/s.c': '#include "graph/g.h"\n',
        'cli/main.c': '#include "rung.h"\n#include "args.h"\n#include "base/good.h"\n',
        'tests/unit/t.c': '#include "graph/g.h"\n',
    }
    expected = {('tests/layers.txt', 2), ('src/stray', 0), ('src/base/bad.c', 2),
                ('src/base/climbs.c', 1), ('src/graph/long.c', 2), ('src/graph/wide.h', 2),
                ('src/graph/high.c', 601), ('src/stray/s.c', 1), ('cli/main.c', 3)}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding='utf-8')
        _, offences = check_tree(root)
        found = {(str(path.relative_to(root)), number) for path, number, _ in offences}
    for name, number in sorted(expected - found):
        print(f'{name}:{number}: offence not found')
    for name, number in sorted(found - expected):
        print(f'{name}:{number}: is no offence')
    return 0 if found == expected else 1


def main():
    if sys.argv[1] == '--self-test':
        return self_test()
    root = pathlib.Path(sys.argv[1]).resolve()
    n_files, offences = check_tree(root)
    for path, number, text in offences:
        print(f'{path.relative_to(root)}:{number}: {text}')
    print(f'{n_files} files, {len(offences)} offences')
    return 1 if offences or n_files == 0 else 0


if __name__ == '__main__':
    sys.exit(main())
