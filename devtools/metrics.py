"""How alike two pictures are, or two videos: (..., H, W, 3) in 0..1."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

LUMA = torch.tensor([0.2126, 0.7152, 0.0722])


def psnr(shown: Tensor, wanted: Tensor) -> float:
    """In dB, of the mean squared error over all; 100 where there is none."""
    return float(-10 * (shown - wanted).square().mean().clamp(min=1e-10).log10())


def ssim(shown: Tensor, wanted: Tensor) -> float:
    """As `plane_ssim`, on luma."""
    x, y = ((frames @ LUMA).reshape(-1, 1, *frames.shape[-3:-1]).double() for frames in (shown, wanted))
    return plane_ssim(x, y)


def plane_ssim(x: Tensor, y: Tensor, step: int = 1) -> float:
    """Wang et al. 2004, equation 13, of (N, 1, H, W) in 0..1, in windows of 7x7 with equal weights, `step` apart."""

    def mean(values: Tensor) -> Tensor:
        return avg_pool2d(values, 7, step)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return float(((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def yuv(frame: Tensor) -> Tensor:
    """(H, W, 3) to (3, H, W): ITU-R BT.709-6, item 3; luma in 0..1 and the differences around 0.5."""
    y = frame @ LUMA
    return torch.stack((y, (frame[..., 2] - y) / 1.8556 + 0.5, (frame[..., 0] - y) / 1.5748 + 0.5))
