"""Muon for matrices and convolutions, AdamW for the rest, as one optimizer."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is made orthogonal; a convolution is the matrix of its output channels.

    Updates have a root mean square of 0.2 * lr, as AdamW's do. Source: Keller Jordan, "Muon: An optimizer for hidden
    layers in neural networks"; the scale is that of Liu et al., "Muon is Scalable for LLM Training".
    """

    def __init__(self, parameters: Any, lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            same_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                average = state.setdefault("momentum", torch.zeros_like(parameter))
                average.lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(average, group["momentum"]).flatten(1)
                same_shape[ahead.shape].append((parameter, ahead))
            for shape, pairs in same_shape.items():
                updates = orthogonal(torch.stack([ahead for _, ahead in pairs]))
                for (parameter, _), update in zip(pairs, updates, strict=True):
                    parameter.sub_(update.view_as(parameter), alpha=group["lr"] * 0.2 * max(shape) ** 0.5)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: five Newton-Schulz steps. (N, rows, columns) both ways."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-12)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


class Optimizer:
    """`lr` is for matrices and convolutions; the others, `lr` / 3, with AdamW."""

    def __init__(self, module: nn.Module, lr: float, others: tuple[str, ...] = ()) -> None:
        """`others`: beginnings of the names of parameters that AdamW trains though they are matrices."""
        matrices, rest = [], []
        for name, parameter in module.named_parameters():
            is_matrix = parameter.ndim > 1 and min(parameter.flatten(1).shape) > 1 and not name.startswith(others)
            (matrices if is_matrix else rest).append(parameter)
        self.lr = lr
        self.parts = (Muon(matrices, lr), torch.optim.AdamW(rest, lr / 3, betas=(0.9, 0.98), weight_decay=0.0))

    def step(self, factor: float) -> None:
        """One update with `factor` times the learning rate; clears the gradients."""
        for part, lr in zip(self.parts, (self.lr, self.lr / 3), strict=True):
            part.param_groups[0]["lr"] = lr * factor
            part.step()
            part.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {str(index): part.state_dict() for index, part in enumerate(self.parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for index, part in enumerate(self.parts):
            part.load_state_dict(state[str(index)])
