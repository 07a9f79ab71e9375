"""Exports torchvision's networks with fixed random weights (resnet18, mobilenet_v3_large, ...):

python bench/torchvision_models.py DIR NAME ... with a Python that has torch and torchvision.

The BatchNorm statistics come from random images, so that activations stay in a sane range.
"""
import pathlib
import sys

import torch
import torchvision


def export(name, path):
    torch.manual_seed(0)
    net = getattr(torchvision.models, name)(weights=None).train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean
    with torch.no_grad():
        net(torch.randn(4, 3, 224, 224))
    torch.onnx.export(net.eval(), (torch.randn(1, 3, 224, 224),), path, input_names=['input'],
                      output_names=['output'], opset_version=17, dynamo=False,
                      dynamic_axes={'input': {0: 'N'}, 'output': {0: 'N'}})


if __name__ == '__main__':
    for network in sys.argv[2:]:
        export(network, str(pathlib.Path(sys.argv[1]) / f'{network}.onnx'))
