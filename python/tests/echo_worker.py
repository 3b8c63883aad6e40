"""`python -m echo_worker`: the worker's command line with the echo session; tests the bridge without torch."""

from __future__ import annotations

import argparse
import os

from fpdt.wire import rank_loop


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--controller", "--telemetry", "--run"):
        parser.add_argument(name, required=True)
    parser.add_argument("--incarnation", type=int, default=0)
    args = parser.parse_args()
    rank_loop.serve(
        args.controller,
        args.telemetry,
        args.run,
        int(os.environ["RANK"]),
        args.incarnation,
        "echo_session:create",
    )


if __name__ == "__main__":
    main()
