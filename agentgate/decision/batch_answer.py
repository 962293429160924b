"""Several held calls of one run as one question: each shown whole, answered together or singly,
by one signature.

What is signed names the run, how many holds there are, the gate's nonce and the root of an RFC
6962 tree. Its entries are the statements of the holds (`Hold.statement`), each with its own
answer and without a nonce, in the order of their ids. Beside each hold the gate keeps the path
from its entry to the root (`Inclusion`), so that every yes is verified by itself, whatever
became of the others.

Rules: one to `MOST` holds, each once, all of one tenant, run and workflow version. A signature
for several answers no single one, and a single one's answers no several. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Self

from agentgate.decision.hold import Hold, text_lines
from agentgate.values import merkle
from agentgate.values.answers import Said
from agentgate.values.canonical import canonical
from agentgate.values.refusal import AnswerCode, AnswerRefused, Failure, Reason
from agentgate.values.value_class import value_class

MOST = 10  # what a person can be shown whole, and judge
_LEAF = re.compile(r"(\d{1,2})/(\d{1,2})((?: [0-9a-f]{64}){0,4})", re.ASCII)


@value_class
class Inclusion:
    """Where one hold's entry stands among those that were signed together.

    Attributes:
        index, size: the place of the entry, from 0, and how many there are.
        above: the hashes (32 bytes each) from the entry to the root.
    """

    index: int
    size: int
    above: tuple[bytes, ...]

    def root(self, hold: Hold, answer: Said) -> bytes | None:
        """The root of the tree in which this hold has this answer; None: no tree has this
        path.
        """
        return (
            merkle.root_from(_entry(hold, answer), self.index, self.size, self.above)
            if self.size <= MOST
            else None
        )

    def statement(self, hold: Hold, answer: Said, nonce: str) -> bytes | None:
        """What was signed, if it was signed for this hold and answer; None as `root`."""
        found = self.root(hold, answer)
        return None if found is None else _signed(hold, self.size, found, nonce)

    def __str__(self) -> str:
        return " ".join((f"{self.index}/{self.size}", *(each.hex() for each in self.above)))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The leaf that ``str`` wrote. Raises ValueError: it is none."""
        found = _LEAF.fullmatch(text)
        if found is None:
            raise ValueError("no place in a tree")
        return cls(
            int(found[1]),
            int(found[2]),
            tuple(bytes.fromhex(each) for each in found[3].split()),
        )


@value_class
class Together:
    """Holds that one question asks about; `holds` are in the order of their ids. Made by
    `of`.
    """

    holds: tuple[Hold, ...]

    @classmethod
    def of(cls, holds: Iterable[Hold]) -> Self:
        """One question about these holds, in whatever order they come.

        Raises:
            AnswerRefused: `FORM`: none, more than `MOST`, one twice, or not all of one tenant,
                run and workflow version.
        """
        made = cls(tuple(sorted(holds, key=lambda hold: hold.id)))
        check_ids([hold.id for hold in made.holds])
        whose = {(hold.tenant, hold.run, hold.question.workflow) for hold in made.holds}
        if len(whose) != 1:
            raise _refused(
                f"those of {len(whose)} tenants, runs or workflow versions",
                "those of one run under one workflow version",
            )
        return made

    def root(self, answers: Said | Mapping[str, Said]) -> bytes:
        """The root (32 bytes) over these holds with these answers: one for all, or one for each
        id.
        """
        return merkle.root(self._entries(answers))

    def statement(self, answers: Said | Mapping[str, Said], nonce: str) -> bytes:
        """What a person signs: canonical JSON (RFC 8785) of the run, the number of holds, the
        root (hex) and the gate's nonce.

        Raises:
            AnswerRefused: `FORM`: the answers are not for exactly these holds.
        """
        return _signed(self.holds[0], len(self.holds), self.root(answers), nonce)

    def leaf(self, hold_id: str, answers: Said | Mapping[str, Said]) -> Inclusion:
        """Where the entry of this hold stands."""
        index = [hold.id for hold in self.holds].index(hold_id)
        entries = self._entries(answers)
        return Inclusion(index, len(entries), merkle.path(index, entries))

    def _entries(self, answers: Said | Mapping[str, Said]) -> list[bytes]:
        if isinstance(answers, str):
            return [_entry(hold, answers) for hold in self.holds]
        if answers.keys() != {hold.id for hold in self.holds}:
            raise _refused("answers for others", "one for each hold of the question")
        return [_entry(hold, answers[hold.id]) for hold in self.holds]

    def __str__(self) -> str:
        return "\n\n".join(
            "\n".join((f"{n} of {len(self.holds)}", *lines))
            for n, lines in enumerate(self.lines(), 1)
        )

    def lines(self) -> list[list[str]]:
        """Each hold's whole question as text."""
        return [text_lines(hold.question) for hold in self.holds]


def check_ids(ids: list[str]) -> None:
    """Refuse what is no question about several holds: none, more than `MOST`, or one twice.
    Raises AnswerRefused, `FORM`.
    """
    if not 1 <= len(ids) <= MOST:
        raise _refused(f"{len(ids)} holds", f"1 to {MOST} in one question")
    if len(set(ids)) != len(ids):
        raise _refused("a hold twice", "each hold once")


def _entry(hold: Hold, answer: Said) -> bytes:
    return merkle.leaf_hash(hold.statement(answer, ""))


def _signed(hold: Hold, size: int, root: bytes, nonce: str) -> bytes:
    return canonical(
        {
            "agentgate": "answers/v1",
            "tenant": hold.tenant,
            "run": hold.run,
            "holds": size,
            "root": root.hex(),
            "nonce": nonce,
        }
    )


def _refused(got: str, expected: str) -> AnswerRefused:
    return AnswerRefused(AnswerCode.FORM, (Failure(Reason.STEP_UP, "holds", got, expected),))
