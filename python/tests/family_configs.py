"""Small configs of every family, and variants of it: what options change in its programs. Both languages read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.planned import ROOT

CONFIGS: Mapping[str, Mapping[str, Any]] = json.loads((ROOT / "test" / "families.json").read_text())
TRAININGS: Mapping[str, Mapping[str, Any]] = json.loads((ROOT / "test" / "trainings.json").read_text())
"""What of such a config trains: its name as `config`, the rest as a run says it."""
