"""LangChain's and LangGraph's own tests with every tool guarded and every call allowed: ``python tests/framework_suites.py``.

It downloads the source distributions of the installed versions, runs their tests once as they are and once with this module as a pytest
plugin, and compares what fails only when guarded with `DIFFERENCES`. The tests themselves are not changed. What each difference is about is
checked in `test_langchain_suites`. They need what these projects test with: blockbuster, syrupy, pytest-mock, freezegun, aiosqlite,
psycopg[binary,pool], langgraph-checkpoint-postgres, langgraph-checkpoint-sqlite; a test that needs more fails both times.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from langchain_core.tools import BaseTool

from agentgate.decision.answer import Allow
from agentgate.errors import AgentGateError
from agentgate.integrations.langchain import calls, tools

SUITES = {
    "langchain-core": ("tests/unit_tests/test_tools.py", "tests/unit_tests/test_tools_postponed_annotations.py"),
    "langgraph-prebuilt": ("tests",),
    "langchain": ("tests/unit_tests/agents",),
}
# reason -> the tests that fail only when guarded
DIFFERENCES: dict[str, tuple[str, ...]] = {
    "a caller sets a hidden argument in a plain invoke, as a model could": (
        "test_tool_injected_arg_without_schema[tool_0]",
        "test_tool_injected_arg_with_schema[tool_0]",
        "test_tool_injected_arg_with_schema[tool_1]",
        "test_tool_injected_arg",
        "test_tool_inherited_injected_arg",
        "test_tool_injected_tool_call_id_with_custom_schema",
        "test_tool_injected_tool_call_id_override_llm_generated",
        "test_tool_fallback_preserves_annotated_injected_arg",
        "test_filter_injected_args_from_callbacks",
        "test_filter_multiple_injected_args",
        "test_filter_injected_args_async",
        "test_filter_injected_args_not_in_schema[annotated_injected]",
        "test_base_tool_subclass_injects_postponed_annotated_arg",
    ),
    "an argument that the tool does not declare": (
        "test_tool_partial_does_not_restore_bound_injected_arg",
        "test_tool_invoke_does_not_mutate_inputs",
        "test_tool_ainvoke_does_not_mutate_inputs",
        "test_resume_with_each_decision[batched-edit-with-an-undeclared-arg]",
        "test_resume_with_each_decision[per_call-edit-with-an-undeclared-arg]",
    ),
    "a value that changes each time it is validated": ("test_per_call_edit_leaves_validation_and_injected_args_to_the_tool",),
    "a finished call runs again on resume": ("test_react_agent_parallel_tool_calls[memory-v1]",),
}


class _Everything(dict[str, Any]):
    def get(self, name: str, default: Any = None) -> Any:  # noqa: ARG002 - the signature of dict
        return SimpleNamespace(redeem="server", effect="read", facts={})


class _AllowAll:
    """What stands for a run: it allows every call. So only the wrapper is measured, not the gate."""

    id, tenant = "run_all", "acme"
    header = SimpleNamespace(workflow="all", version=1)
    workflow = SimpleNamespace(tools=_Everything(), owners=())

    def perform(self, *_: Any, **__: Any) -> Any:
        nothing: Any = None
        return Allow(nothing)

    def call_id(self, *_: Any) -> str:
        return "call_any"


def pytest_configure() -> None:
    """Guard every tool when it is made."""
    made, allow_all = BaseTool.__init__, _AllowAll()
    run: ContextVar[Any] = ContextVar("agentgate_run", default=allow_all)
    for module in (tools, calls):
        module.RUN = run  # type: ignore[attr-defined]

    def init(self: Any, **fields: Any) -> None:
        made(self, **fields)
        try:
            (guarded,) = tools.guard_tools(self)
        except AgentGateError:
            return
        object.__setattr__(self, "__class__", type(guarded))
        self._agentgate = guarded._agentgate  # type: ignore[attr-defined]

    BaseTool.__init__ = init  # type: ignore[method-assign]


def _failing(suite: Path, tests: tuple[str, ...], *more: str) -> set[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    own = Path(__file__).parent
    here = os.pathsep.join([str(own), str(own.parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": here, "NO_DOCKER": "true", "LANGGRAPH_TEST_FAST": "true", "PYTEST_ADDOPTS": ""}
    done = subprocess.run([*command, *more, *tests], cwd=suite, env=env, capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:  # a suite that did not run differs in nothing
        sys.exit(f"{suite.name} did not run: {done.stdout[-800:]}\n{done.stderr[-800:]}")
    print(suite.name, *more, done.stdout.strip().splitlines()[-1])
    return {found[1] for found in re.finditer(r"^(?:FAILED|ERROR) \S*?::(\S+)", done.stdout, re.MULTILINE)}


def main() -> int:
    """Run the suites; 0 if exactly the differences of the table were found."""
    beyond: set[str] = set()
    with tempfile.TemporaryDirectory() as place:
        for name, tests in SUITES.items():
            pinned = f"{name}=={version(name)}"
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
            subprocess.run([*command, pinned], cwd=place, check=True)
            (packed,) = Path(place).glob(f"{name.replace('-', '_')}-{version(name)}.tar.gz")
            with tarfile.open(packed) as archive:
                archive.extractall(place, filter="data")
            suite = packed.with_name(packed.name.removesuffix(".tar.gz"))
            beyond |= _failing(suite, tests, "-p", "framework_suites") - _failing(suite, tests)
    known = {test for tests in DIFFERENCES.values() for test in tests}
    print("only guarded, not in the table:", *sorted(beyond - known), "| in the table, not seen:", *sorted(known - beyond))
    return int(beyond != known)


if __name__ == "__main__":
    sys.exit(main())
