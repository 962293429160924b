"""The reference's reading of the user's words in their order: letter by letter, every place tried.

It shares only the prompt's own reading (what is quoted away, where a clause is denied) and the words of labels with the engine.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from agentgate.decision.origins import labels
from agentgate.decision.origins.labels import Heard
from agentgate.language.denials import Voice
from agentgate.language.turn import Turn

_QUOTING = "\"'`*_\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb\u2039\u203a"
_BREAKS = "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029"


@lru_cache(1_000)
def heard(texts: tuple[str, ...]) -> Heard:
    """The words that the engine hears; of the same texts, once."""
    return labels.heard(texts)


def stands(turns: tuple[Turn, ...], text: str, *, in_doubt: bool = False) -> bool:
    """The words of a text stand in one of the user's turns, in this order and without a gap, and were not denied there or since.

    `in_doubt`: also with words of a sentence whose force is in doubt.
    """
    wanted: list[tuple[str, str, str]] = []
    space = ""
    for letters in re.split(r"(\s+)", unicodedata.normalize("NFKC", text).strip()):
        if letters.isspace():
            space = letters
        else:
            wanted += _behind(space, _bare(letters))
    around = text.replace(text.strip(), "", 1) if text.strip() else text
    if any(letter in around for letter in _BREAKS) or not any(letter.isalnum() for core, _, _ in wanted for letter in core):
        return False
    for turn in reversed(turns):
        said = denied = False
        for voice, words, doubts in _pieces(turn):
            for at in range(len(words) - len(wanted) + 1):
                found = words[at : at + len(wanted)]
                if [core for core, _, _ in found] == [core for core, _, _ in wanted]:
                    denied = denied or voice == "denied"
                    meant = in_doubt or not any(doubts[at : at + len(wanted)])
                    said = said or (voice == "said" and meant and _not_more(wanted, found))
        if said or denied:
            return not denied
    return False


def affirmed(turns: tuple[Turn, ...]) -> Heard:
    """The words, and the names among them, that the user said and did not deny in the same turn or in a later one."""
    words: set[str] = set()
    names: set[str] = set()
    for turn in turns:
        text = turn.own
        for voice, start, end in turn.voices:
            if voice == "said":
                words |= heard((text[start:end],)).words
                names |= heard((text[start:end],)).names
        for voice, start, end in turn.voices:
            if voice == "denied":
                words -= heard((text[start:end],)).words
                names -= heard((text[start:end],)).words
    return Heard(frozenset(words), frozenset(names))


_PERSON = {"me", "myself"}
_PLACES = {
    *("to", "by", "from", "with", "of", "between", "including", "and", "or", "just", "only", "assign", "reassign", "unassign", "add"),
    *("invite", "remove", "include", "email", "e-mail", "mail", "message", "notify", "ping", "cc", "bcc", "pay", "reimburse", "send"),
    "forward",
}


def of_themself(turns: tuple[Turn, ...]) -> bool:
    """The user speaks of themself as somebody, in their own words and sentence, and takes it back neither there nor later."""
    found = False
    for turn in turns:
        text = turn.low.replace("\u2019", "'")
        if ":" in text:
            text = next((text[:i] for i, c in enumerate(text) if c == ":" and (text[i + 1 :] + " ")[0].isspace()), text)
        denied = False
        for voice, start, end in turn.voices:
            words = re.findall(r"[\w'-]+|[^\w\s]", text[start:end])
            for at, word in enumerate(words):
                last, following = words[at - 1] if at else "", words[at + 1] if at + 1 < len(words) else "."
                own = word in {*_PERSON, "mine"} or (word == "my" and following == "own")
                if voice == "denied" or (own and _left_out(words[:at])):
                    denied = denied or own
                elif own and _is_person(words, at, last, following) and voice == "said":
                    found = True
        found = found and not denied
    return found


_SPARING = {
    *("keep", "keeps", "leave", "leaves", "skip", "spare", "save", "exclude", "excluding", "retain", "preserve", "protect", "unless"),
    *("besides", "beside"),
}
_PAIRS = {
    *(("apart", "from"), ("aside", "from"), ("other", "than"), ("all", "but"), ("but", "not"), ("but", "for")),
    *((f"{some}{who}", "but") for some in ("any", "every") for who in ("one", "body", "thing")),
}


def _left_out(before: list[str]) -> bool:
    """Whether a word of sparing stands before, in the same part of the sentence and not far."""
    near = before
    for at, word in enumerate(before):
        if word in {",", ".", ";", "!", "?", "and"}:
            near = before[at + 1 :]
    return not _SPARING.isdisjoint(near) or any(pair in _PAIRS for pair in itertools.pairwise(near))


def _is_person(words: list[str], at: int, last: str, following: str) -> bool:
    if following == "@":
        return False
    if words[at] == "my":
        return last != "on"
    if words[at] == "mine":
        begins = [word for word in words[:at] if word != "please" or words.index(word) > 0]
        bidden = len(begins) == 1 and last.replace("_", "a").isalnum() and last not in {"a", "an", "the", "this", "that", "my", "please"}
        linked = last in {"is", "are", "was", "were", "be", "of", "to", "from", "with", "and", "or", "just", "only"}
        return (bidden or linked) and following in {".", ",", ";", "!", "?", ")", "and", "or", "but", "too"}
    return (
        last in _PLACES
        and (last, words[at]) != ("by", "myself")
        and (words[at - 2] if at > 1 else "") not in {"seems", "looks", "sounds", "according", "back"}
    )


def _pieces(turn: Turn) -> Iterator[tuple[Voice, list[tuple[str, str, str]], list[bool]]]:
    """What is said or denied without a gap: an empty line, and what was left out (four spaces or more, or a line of spaces), is one.

    Beside each word: whether its sentence is in doubt.
    """
    text = turn.own
    voices: list[Voice] = ["said"] * len(text)
    for said, start, end in turn.voices:
        voices[start:end] = [said] * (end - start)
        if said == "reported":
            text = text[:start] + "\n" * (end - start) + text[end:]
    piece: list[tuple[str, str, str]] = []
    doubts: list[bool] = []
    at, space = 0, ""
    voice: Voice = "said"
    while at < len(text):
        end = at
        while end < len(text) and text[end].isspace() == text[at].isspace():
            end += 1
        part = text[at:end]
        if part.isspace():
            space = part
        else:
            now: Voice = "denied" if "denied" in voices[at:end] else "said"
            if now != voice or "    " in space or space.count("\n") > 1:
                yield voice, piece, doubts
                voice, piece, doubts = now, [], []
            piece += _behind(space, _bare(part))
            doubts += ["doubted" in voices[at:end]] * (len(piece) - len(doubts))
        at = end
    yield voice, piece, doubts


def _behind(space: str, words: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The words, with the line break or tab before the first of them as a mark of it."""
    if words and any(letter in space for letter in _BREAKS):
        core, before, behind = words[0]
        return [(core, "\n" + before, behind), *words[1:]]
    return words


def _bare(text: str) -> list[tuple[str, str, str]]:
    """The words of a text without case, each with what stands before and behind it; marks alone are a word."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    found = []
    for word in plain.replace("\u2019", "'").split():
        start, end = 0, len(word)
        while start < end and word[start] in _QUOTING + "([{<\u00bf\u00a1":
            start += 1
        while end > start and word[end - 1] in _QUOTING + ")]}>.,;:!?\u3001\u3002":
            end -= 1
        found.append((word[start:end], word[:start], word[end:]) if start < end else (word, "", ""))
    return found


def _not_more(wanted: list[tuple[str, str, str]], found: list[tuple[str, str, str]]) -> bool:
    """No mark that the user did not write, but a comma inside and `.!?` at the end; and none left out that ends a sentence inside."""
    for index, ((_, before, behind), (_, had, has)) in enumerate(zip(wanted, found, strict=True)):
        last = index == len(wanted) - 1
        if before != "" and had[-len(before) :] != before:
            return False
        if has[: len(behind)] != behind and behind not in ([".", "!", "?"] if last else [","]):
            return False
        ends = [mark for mark in ".!?;\u3002" if mark in has]
        if ends and not last and not any(mark in behind for mark in ".!?;\u3002"):
            return False
    return True
