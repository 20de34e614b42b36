"""A student split over several processes: each holds a part of every weight, and gathers a layer as it needs it.

FSDP2 (Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", 2023), straight from torch:
accelerate's wrapping expects calls of the whole model, and would compute [tokens, vocabulary] logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


def blocks(model: Any) -> list[Module]:
    """The model's layers, by the classes that transformers says are not to be split."""
    return [m for m in model.modules() if type(m).__name__ in (model._no_split_modules or ())]


def sharded(model: Any, processes: int, device: str, bf16: bool) -> Any:
    """Splits the model's weights, in place, over all processes.

    Returns:
        A function that runs the work given to it with the weights outside of the layers gathered: all that
        computes with the model must run in it.
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    class Root(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, work: Callable[[], Any]) -> Any:
            return work()

    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if bf16 else MixedPrecisionPolicy()
    mesh = init_device_mesh(device.split(":", maxsplit=1)[0], (processes,))
    for block in blocks(model):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    return fully_shard(Root(), mesh=mesh, mp_policy=policy)


def gathered(model: Any, work: Callable[[], Any]) -> Any:
    """Runs the work with every layer's weights whole, so that a process may call the model as often as it likes."""
    layers: list[Any] = blocks(model)
    for layer in layers:
        layer.set_reshard_after_forward(False)
        layer.unshard()
    try:
        return work()
    finally:
        for layer in layers:
            layer.set_reshard_after_forward(True)
            layer.reshard()


def clip(weights: Sequence[Tensor], limit: float) -> None:
    """Scales all gradients so that their L2 norm, over all processes' parts, is at most ``limit``."""
    import torch
    from torch.distributed.tensor import DTensor

    graded = [w for w in weights if w.grad is not None]
    groups = [[w for w in graded if isinstance(w, DTensor) == split] for split in (True, False)]
    groups = [g for g in groups if g]
    norms = [torch.nn.utils.get_total_norm([w.grad for w in g if w.grad is not None], foreach=True) for g in groups]
    whole = [n.full_tensor() if isinstance(n, DTensor) else n for n in norms]
    total = torch.linalg.vector_norm(torch.stack(whole))
    for group in groups:
        torch.nn.utils.clip_grads_with_norm_(group, limit, total, foreach=True)


def whole(weight: Tensor) -> Tensor:
    """The whole weight, on the CPU. All processes must call it for a split one."""
    from torch.distributed.tensor import DTensor

    full: Tensor = weight.full_tensor() if isinstance(weight, DTensor) else weight
    return full.detach().cpu()


def own(value: Any) -> Any:
    """What this process holds of a split tensor; anything else as it is."""
    from torch.distributed.tensor import DTensor

    return value.to_local() if isinstance(value, DTensor) else value
