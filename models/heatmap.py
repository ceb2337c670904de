"""Where in a face the model sees what it says: a second output beside the logits. `models.export` puts it into every ONNX file.

It is Grad-CAM of the last feature map (Selvaraju et al. 2017), written as forward arithmetic: no gradient is needed to run it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Explained(nn.Module):
    """A MobileNet that also gives heatmaps; it shares the parameters of the network it wraps, under the same names.

    `forward`: (N, 1, size, size) -> logits (N, C) and heatmap (N, C, h, w), float32. With A the last feature map (K, h, w) and
    p its mean over places, heatmap[c, y, x] = sum over k of (d logit_c / d p_k) A[k, y, x]: positive where a place speaks for
    class c, negative where it speaks against. Grad-CAM is this map divided by h w, and cut off below zero.

    With one linear layer after pooling (MobileNetV2) the map is the class activation map (Zhou et al. 2016): its mean over places
    and the bias are the logit. With MobileNetV3's two layers it is first order only, because hardswish stands between: exact as
    a gradient, and not a decomposition of the logit.

    The heatmap is (slopes @ W1) @ A rather than slopes @ (W1 @ A): for few classes that costs no more, and the logits need none
    of it (`models.onnx_outputs`).
    """

    def __init__(self, network: nn.Module) -> None:
        """Args: network: for which `explains` holds."""
        super().__init__()
        self.features = network.get_submodule("features")
        self.classifier = network.get_submodule("classifier")

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        linears = [layer for layer in self.classifier.children() if isinstance(layer, nn.Linear)]
        first, last = linears[0], linears[-1]
        places = self.features(faces)
        width, height, breadth = (int(side) for side in places.shape[1:])
        pooled = F.linear(F.adaptive_avg_pool2d(places, 1).flatten(1), first.weight, first.bias)
        if first is last:
            return pooled, F.conv2d(places, first.weight[:, :, None, None])
        slopes = last.weight * _hardswish_slope(pooled).reshape(-1, 1, first.out_features)
        heatmap = torch.matmul(torch.matmul(slopes, first.weight), places.reshape(-1, width, height * breadth))
        return last(F.hardswish(pooled)), heatmap.reshape(-1, last.out_features, height, breadth)


def explains(network: nn.Module) -> bool:
    """Whether `Explained` can wrap it: `features`, then a `classifier` of one linear layer or of two around a hardswish."""
    if {name for name, child in network.named_children() if list(child.parameters())} != {"features", "classifier"}:
        return False
    kinds = [type(layer) for layer in network.get_submodule("classifier").children() if not isinstance(layer, nn.Dropout)]
    return kinds in ([nn.Linear], [nn.Linear, nn.Hardswish, nn.Linear])


def _hardswish_slope(values: Tensor) -> Tensor:
    """The derivative of x hardsigmoid(x): 0 up to -3, x / 3 + 1/2 between, 1 from 3."""
    gate = F.hardsigmoid(values)
    between = (values.abs() <= 3).to(values.dtype)
    return gate + (gate - 0.5) * between
