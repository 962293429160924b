"""How many labelled prompts a workflow's words hear: ``python -m tests.benchmarks.heard`` prints it for the prompts of ``unseen/``.

A line is ``{"workflow": id, "prompt": text, "tools": [tools to call that write or send], "delegated": whether a text is to say what}``.
"""

from __future__ import annotations

import json
import lzma
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog
from agentgate.values.request import Derived
from agentgate.workflow.model import Workflow

HERE = Path(__file__).parent
_WORST = ("present", "unclear", "absent")


def heard(file: Path, catalog: Catalog) -> Counter[str]:
    """Counts of one file (``.jsonl.xz``).

    Returns:
        ``write present | unclear | absent``: requests that are no delegation, by the least that some tool they need came out as;
        ``delegated ...``: likewise; ``look extra | exact``: requests that only look, with and without an intent that is present.
    """
    counts: Counter[str] = Counter()
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            workflow = catalog.get(line["workflow"])
            assert workflow is not None, line["workflow"]
            counts[_kind(workflow, line, derive(tuple(workflow.intents.values()), (line["prompt"],)))] += 1
    return counts


def _kind(workflow: Workflow, line: Mapping[str, Any], found: Mapping[str, Derived]) -> str:
    def least(tool: str) -> int:
        return min(_WORST.index(found[name].presence) for name in workflow.tools[tool].needs)

    if line["tools"]:
        return ("delegated " if line["delegated"] else "write ") + _WORST[max(map(least, line["tools"]))]
    return "look extra" if any(each.presence == "present" for each in found.values()) else "look exact"


if __name__ == "__main__":
    for path in sorted((HERE / "unseen").glob("*prompts.jsonl.xz")):
        print(path.name, dict(sorted(heard(path, Catalog.load(HERE, derive)).items())))
