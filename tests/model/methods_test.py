"""The methods on real networks: figures against rounding to the nearest and against the peers.

Calibration on 500 CIFAR images,
evaluation on the other 3,500."""
import json
import subprocess

import pytest

from util import rung_binary, shared_folder

NORMAL = "scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"


def figures(tmp_path, model, preprocess, *options):
    """Quantizes, and returns what eval says against the float model."""
    rung, shared = rung_binary(), shared_folder()
    source = str(shared / "models" / model)
    cifar = shared / "data" / "cifar10-train-4000-lossless" / "cifar10_train4000.bin"
    out = str(tmp_path / "q.onnx")
    pre = ["--preprocess", preprocess]
    subprocess.run([rung, "quantize", source, "-o", out, "--data", f"cifar10:{cifar}@0:500",
                    "--quiet", *pre, *options], check=True, stderr=subprocess.DEVNULL)
    said = subprocess.run([rung, "eval", out, "--reference", source, "--json", "--quiet",
                           "--data", f"cifar10:{cifar}@500:4000", *pre],
                          check=True, stdout=subprocess.PIPE).stdout
    return json.loads(said)


def test_resnet8_auto(tmp_path):
    """The best peer: 32.6 dB, agreement 99.09."""
    r = figures(tmp_path, "mlperf_tiny_ic_resnet8.onnx", "color=rgb")
    assert r["sqnr_db"] >= 33.6
    assert r["agreement"] >= 99.09


@pytest.mark.figures
def test_resnet20_auto(tmp_path):
    """The best peer: 30.4 dB."""
    assert figures(tmp_path, "cifar10_resnet20_akamaster.onnx", NORMAL)["sqnr_db"] >= 31.4


@pytest.mark.figures
@pytest.mark.parametrize("model,top1", [("cifar10_resnet20_akamaster.onnx", 99.80),
                                        ("cifar10_resnet56_akamaster.onnx", 100.0)])
def test_four_bits(tmp_path, model, top1):
    """Within a point of float, and far above plain rounding."""
    four = ["--weight-bits", "4", "--method"]
    plain = figures(tmp_path, model, NORMAL, *four, "none")
    learned = figures(tmp_path, model, NORMAL, *four, "adaround,bias")
    assert learned["top1"] >= top1 - 1.0
    assert learned["sqnr_db"] >= plain["sqnr_db"] + 4
