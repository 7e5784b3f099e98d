"""What the machine can do: the best of several products of two 4096 x 4096 matrices."""

import argparse
import time

import torch

import common


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", choices=common.DTYPES, default="fp32")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long to try")
    arguments, side = parser.parse_args(), 4096
    dtype = getattr(torch, common.DTYPES[arguments.precision])
    a, b = torch.rand(side, side).to(dtype), torch.rand(side, side).to(dtype)
    product = torch.empty(side, side, dtype=dtype)
    torch.matmul(a, b, out=product)
    taken = []
    while len(taken) < 3 or sum(taken) < arguments.seconds:
        start = time.perf_counter()
        torch.matmul(a, b, out=product)
        taken.append(time.perf_counter() - start)
    measured = {
        "matmul_gflops": 2 * side**3 / min(taken) / 1e9,
        "batches": len(taken),
        "seconds": sum(taken),
        "threads": torch.get_num_threads(),
    }
    common.report(measured, ["torch"])


if __name__ == "__main__":
    main()
