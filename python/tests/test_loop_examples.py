"""The Python files of examples/, as they are, on the ranks that their first lines name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import Probes
from tests.planned import ROOT, run_planner

EXAMPLES = ROOT / "examples"
DEMO = EXAMPLES / "demo"
SHAPE = ("--gpus", "2", "--gpu", "cpu", "--seq-len", "1024", "--chunks", "4")
MODEL = ("--model", str(DEMO / "model"), "--deepspeed", str(DEMO / "ds_config.json"))


def test_examples_train_and_say_so(probes: Probes, tmp_path: Path) -> None:
    run_planner(tmp_path, *MODEL, *SHAPE, "--output", "plan.json")
    (tmp_path / "text").write_bytes((ROOT / "README.md").read_bytes()[: 3 * 1024 + 1])
    arguments = {"own_loop.py": [], "trainer.py": [str(tmp_path / "trained")]}
    assert sorted(arguments) == sorted(path.name for path in EXAMPLES.glob("*.py"))
    files = [str(tmp_path / "plan.json"), str(tmp_path / "text")]
    commands = [[str(EXAMPLES / name), *files, *more] for name, more in arguments.items()]
    answer = probes.run(kind="scripts", commands=commands, worldSize=2)
    assert "failed" not in answer, answer
    own, trained = answer["printed"]
    losses = [float(loss) for loss in re.findall(r"^epoch \d: loss (\S+) on", own, re.MULTILINE)]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    evaluated = [float(loss) for loss in re.findall(r"'eval_loss': '?([\d.]+)", trained)]
    assert len(evaluated) == 2
    # Same plan, samples, order and optimizer: Trainer's seed is another, and a sample or two make little difference.
    assert evaluated == pytest.approx(losses, rel=0.02)
    assert (tmp_path / "trained" / "config.json").is_file()
