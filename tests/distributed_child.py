"""The command line in one of several processes on the CPU, sharded by FSDP where the launcher says so.

accelerate shards models over GPUs only: on CPUs it takes FSDP's settings and runs DDP. Told that its devices are GPUs,
it uses PyTorch's FSDP as it would there, and that knows the CPU.
"""

import os
import sys
from typing import Any

from accelerate import DistributedType, PartialState

from lm_eval_tofu import cli

_initialise = PartialState.__init__


def _as_on_gpus(self: PartialState, *args: Any, **kwargs: Any) -> None:
    _initialise(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


if __name__ == "__main__":
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        PartialState.__init__ = _as_on_gpus
    sys.exit(cli.main(sys.argv[1:]))
