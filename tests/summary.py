"""Adds up what meson and pytest wrote into FOLDER; prints the skipped tests and the closing line.

python summary.py FOLDER FAILED_STEPS. Exit status 1 when anything failed or nothing passed.
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
        name = case.get("classname") + "::" + case.get("name")
        yield name, ("failed" if tags & {"failure", "error"} else
                     "skipped" if "skipped" in tags else "passed")


def main(folder, failed_steps):
    counts, skipped = {"passed": 0, "failed": 0, "skipped": 0}, {}
    for path in sorted(pathlib.Path(folder).iterdir()):
        read = meson_results if path.suffix == ".json" else pytest_results
        for name, result in read(path):
            counts[result] += 1
            if result == "skipped":
                skipped.setdefault(name, []).append(path.stem)
            elif result == "failed":
                print(f"failed: {name} ({path.stem})")
    for name, where in sorted(skipped.items()):
        print(f"skipped: {name} ({', '.join(where)})")
    if int(failed_steps) and not counts["failed"]:
        print(f"{failed_steps} step(s) ended with an error before their tests could be counted")
        counts["failed"] += int(failed_steps)
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
