"""The user asked at the terminal of the host's own process: ``Gate.open(..., confirm=ask)``,
under a workflow with ``in_process: true``.

It writes to and reads from the controlling terminal itself, not from standard input, which a
pipe or the model's text may be.
"""

from __future__ import annotations

import re

from agentgate.decision.hold import Question, text_lines

_TERMINAL = "/dev/tty"
_NUMBERS = re.compile(r"\d{1,2}(?:[ ,]+\d{1,2})*", re.ASCII)


def ask(*questions: Question) -> bool | tuple[bool, ...] | None:
    """Show the questions, each whole, and wait for ``yes`` or ``no``, written out; anything
    else, or no terminal, is no answer.

    Of several, the numbers of some are a yes to these and a no to the others.
    """
    several = len(questions) > 1
    how = (
        "Type yes or no, for all, or the numbers of those you say yes to (1 3): "
        if several
        else "Type yes or no: "
    )
    lines = ["", "agentgate asks you:"]
    for number, question in enumerate(questions, 1):
        lines += [f"--- {number} of {len(questions)}"] * several + text_lines(question)
    try:
        with open(_TERMINAL, "r+b", buffering=0) as terminal:  # noqa: PTH123 - a device
            terminal.write("\n".join([*lines, how]).encode())
            said = terminal.readline().decode("utf-8", "replace").strip().lower()
    except OSError:
        return None
    if several and _NUMBERS.fullmatch(said):
        named = {int(number) for number in re.split(r"[ ,]+", said)}
        every = range(1, len(questions) + 1)
        return tuple(number in named for number in every) if named <= set(every) else None
    return {"yes": True, "no": False}.get(said)
