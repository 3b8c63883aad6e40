"""The CPU devices of two ranks, each a process of its own, exchange bytes over gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXCHANGE = """
import sys
import torch
import torch.distributed as dist
from fpdt.devices import plan_runtime
from fpdt.run.executor import Executor
from tests.device_plans import program_plan
from tests.executor_runs import nothing, run

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
program = ["x", "h", "x", "c 1", "h", "x", "d 3", "x 6"]
plan = program_plan([(program, {}), (program, {"compute": ["h2d"]})])
for dtype in (torch.float32, torch.bfloat16, torch.int64):
    # Ranks run local copies in different orders; exchanges keep theirs, so that nothing waits for ever.
    runtime = plan_runtime(plan, dist.group.WORLD, copy_mode="random", seed=rank)
    outs = [torch.zeros(2, 3, dtype=dtype) for _ in range(8)]
    numbers = iter(range(8))

    def exchange(ctx, reads, writes):
        n = next(numbers)
        sent = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=dtype) + 10 * n + 100 * rank
        runtime.all_to_all(outs[n], sent)

    handlers = {"toHeads": exchange, "copy": nothing, "zero": nothing, "emitGrads": nothing}
    executor = Executor(plan, runtime, handlers, runtime.make_recorder(plan.kind_names, 0))
    run(executor, plan)
    for n, out in enumerate(outs):
        own = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=dtype)[rank]
        assert torch.equal(out, torch.stack([own + 10 * n, own + 10 * n + 100])), (n, out)
dist.barrier()
import os
os._exit(0)
"""


def test_two_ranks_exchange_bytes_of_any_dtype(tmp_path: Path) -> None:
    package_root = Path(__file__).parent.parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(package_root)}
    commands = ([sys.executable, "-c", EXCHANGE, str(rank), str(tmp_path / "store")] for rank in range(2))
    ranks = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for command in commands]
    try:
        errors = [rank.communicate(timeout=90)[1].decode() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(errors)
