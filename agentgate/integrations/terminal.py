"""The user asked at the terminal of the host's own process: ``Gate.open(..., confirm=ask)``, under a workflow with ``in_process: true``.

It writes to and reads from the controlling terminal itself, not from standard input, which a pipe or the model's text may be.
"""

from __future__ import annotations

from agentgate.decision.question import Question, text_lines

_TERMINAL = "/dev/tty"


def ask(question: Question) -> bool | None:
    """Show the question and wait for ``yes`` or ``no``, written out; anything else, or no terminal, is no answer."""
    try:
        with open(_TERMINAL, "r+b", buffering=0) as terminal:  # noqa: PTH123 - a device
            lines = ["", "agentgate asks you:", *text_lines(question), "Type yes or no: "]
            terminal.write("\n".join(lines).encode())
            said = terminal.readline().decode("utf-8", "replace").strip().lower()
    except OSError:
        return None
    return {"yes": True, "no": False}.get(said)
