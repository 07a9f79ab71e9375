"""Adds up what meson and pytest wrote into FOLDER; prints the skipped tests and the closing line.

python summary.py FOLDER FAILED_STEPS NAME...: NAME.json of meson or NAME.xml of pytest is the
result of each step. Exit status 1 when anything failed; a step that left no results, or in which
every test was skipped, is a failure.
"""
import json
import pathlib
import sys
import xml.etree.ElementTree as xml

MESON = {"OK": "passed", "EXPECTEDFAIL": "passed", "SKIP": "skipped"}


def meson_results(path):
    for line in path.read_text().splitlines():
        test = json.loads(line)
        yield test["name"], MESON.get(test["result"], "failed")


def pytest_results(path):
    for case in xml.parse(path).getroot().iter("testcase"):
        tags = {child.tag for child in case}
        name = f'{case.get("classname")}::{case.get("name")}'
        yield name, ("failed" if tags & {"failure", "error"} else
                     "skipped" if "skipped" in tags else "passed")


def step_results(folder, name):
    """The (test, result) pairs of a step; a step that cannot be read is one that failed."""
    try:
        if (folder / f"{name}.json").exists():
            found = list(meson_results(folder / f"{name}.json"))
        else:
            found = list(pytest_results(folder / f"{name}.xml"))
    except (OSError, ValueError, KeyError, xml.ParseError) as reason:
        return [(f"the step's results ({reason})", "failed")]
    if all(result == "skipped" for _, result in found):
        found.append(("a step in which no test ran", "failed"))
    return found


def main(folder, failed_steps, *names):
    counts, skipped = {"passed": 0, "failed": 0, "skipped": 0}, {}
    for name in names:
        for test, result in step_results(pathlib.Path(folder), name):
            counts[result] += 1
            if result == "skipped":
                skipped.setdefault(test, []).append(name)
            elif result == "failed":
                print(f"failed: {test} ({name})")
    for test, where in sorted(skipped.items()):
        print(f"skipped: {test} ({', '.join(where)})")
    if int(failed_steps) and not counts["failed"]:
        print(f"{failed_steps} step(s) ended with an error though no test of theirs failed")
        counts["failed"] += int(failed_steps)
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
