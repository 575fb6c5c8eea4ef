"""The resizes of OpenCV and TensorFlow as matrix products, which can be exported together with a network.

Each of them weighs rows and columns apart: weights (h, H) @ picture (H, W) @ weights (W, w). Every engine
multiplies matrices alike, while their own resizes differ in where a pixel's centre is and in what they
average. Source of the weights: OpenCV, `modules/imgproc/src/resize.cpp`.
"""

import torch
from torch import Tensor

# Halves go up, as in most of OpenCV's loops. The little more is for sums in another order, which are as often
# just below a half as at it.
HALF = 0.5 + 2**-13
METHODS = ('nearest', 'linear', 'cubic', 'area')  # OpenCV's, in the order of its numbers


def resize_tensors(images: Tensor, size: tuple[int, int], method: str) -> Tensor:
    """Resize a batch as OpenCV resizes uint8 pictures, to whole grey levels.

    Args:
        images: uint8 or float (B, C, H, W), in 0..255.
        size: (height, width) to resize to, in pixels.
        method: one of `METHODS`, or 'tensorflow' for TensorFlow 1's bilinear one.

    Returns:
        float32 (B, C, height, width), in 0..255.
    """
    images = images.float()
    old = (images.shape[2], images.shape[3])
    if old == tuple(size):
        return images
    if method == 'area' and (size[0] > old[0] or size[1] > old[1]):
        method = 'enlarged area'  # OpenCV averages only where neither side grows
    rows, columns = (axis_weights(*sides, method).to(images.device) for sides in zip(old, size, strict=True))
    return (rows @ images @ columns.T + HALF).floor().clamp(0, 255)


def axis_weights(old: int, new: int, method: str) -> Tensor:
    """Return how much each of `old` pixels in a line counts in each of `new` ones, float32 (new, old)."""
    pixel = torch.arange(old, dtype=torch.float64)
    place = torch.arange(new, dtype=torch.float64)[:, None]
    scale = 1 / (new / old)  # rounded as OpenCV's: where a pixel begins at a whole number, it may lie below
    if method == 'area':
        # The part of each old pixel that lies within the new one.
        shared = torch.minimum((place + 1) * scale, pixel + 1) - torch.maximum(place * scale, pixel)
        return (shared.clamp(min=0) / scale).float()
    if method == 'cubic':
        # Pixels beyond the edge repeat the one at the edge.
        around = torch.arange(-2, old + 2)
        kernel = keys((place + 0.5) * scale - 0.5 - around)
        edge = around.clamp(0, old - 1)
        return torch.zeros(new, old, dtype=torch.float64).index_add(1, edge, kernel).float()
    floor = (place * scale).floor()
    share = (place + 1 - (floor + 1) * (new / old)).float().clamp(min=0)
    centre = {
        'nearest': floor,
        'linear': (place + 0.5) * scale - 0.5,
        'tensorflow': place * scale,
        'enlarged area': floor + share.frac(),
    }[method]
    return (1 - (centre.clamp(0, old - 1) - pixel).abs()).clamp(min=0).float()


def keys(distance: Tensor, a: float = -0.75) -> Tensor:
    """Return the weight of cubic convolution at a distance in pixels (Keys 1981); `a` as OpenCV has it."""
    x = distance.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))
