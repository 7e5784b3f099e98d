"""One process of a group: what all_reduce.rs does, by torch.distributed. See there."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist

os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
dist.init_process_group("gloo", timeout=timedelta(seconds=60))
rank, size = dist.get_rank(), dist.get_world_size()
tensor = (torch.arange(1_000_000, dtype=torch.float32) % 100) * (rank + 1)
expected = (torch.arange(1_000_000, dtype=torch.float64) % 100).sum() * size * (size + 1) / 2
dist.all_reduce(tensor)
assert tensor.double().sum() == expected, (tensor.double().sum(), expected)
print(f"rank {rank} of {size} in Python: {tensor.double().sum().item()}, as expected")
dist.all_reduce(torch.zeros(1))
