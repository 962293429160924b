"""Whether work grows with its text and no faster: fragments are repeated that were found by search, or are of a pattern's own words.

Time is processor time of this thread, the least of several tries, and only its growth counts: four times the text may take little more than
four times as long, and work on its square takes sixteen times as long. So a machine that is busy with something else says the same.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import agentgate
from agentgate.language.word_files import Forms

LONG = 4000  # characters
MOST = 8.0  # times the work, for four times the text
QUICK = 0.002  # seconds for the long one: the square of its length is ten times as much for whatever does it
_HOPELESS = 0.5  # for the short one
_CLEAR = 5.0  # times the work: no closer look is needed
_TRIES = 4
_SIGNS = [*"aiwthsnzAW019 \t\n@.,;:/\\-_+#%$()[]{}<>\"'`~=&*!?\r\x00"]
_SIGNS += [*"\u20ac\uff41\uff20\uff0e\u200b\u0301\u0130\u017f\u212a\xdf\U0001f600\u6f22\u2028\u3000\u2019\u201c\xab\u2013\u2026\u0663"]
_WORDS = (
    "www. http:// https: the_ not_ don't_ and_ instead_ DE89 00 a.com a@b.c no_ never_ please_ said_ from:_ to:_ 1._ k_ EUR_ million_ "
    "two_ hundred_ at_ 10:30_ May_ next_ ,_ ._ ;_ :_ >_ `` '' &#64; &amp; #1 it_ you_ I_ refund_ delete_ all_ of_ what_ do_ tell_ me_ "
    "mine_ Ann_ is_ would_ channel_ called_ wrote: --_ ~~~ ``` ORD-1_ %_ pm_ half_ difference_ between_ nothing_ has_ if_ first_ five x\n"
)
ATOMS = [*_SIGNS, *(word.replace("_", " ") for word in _WORDS.split(" "))]
KNOWN = [  # some were slow, in one field or another
    *("@www.\uff41", "@a", "@www.a", "@a:/", "@a://", "x@www.a", "a@b.co ", "1% ", "a.co/", "a.b.", "@+1234567", "de89 3704 0044 0532 @"),
    *("\n", " ", "\n\r", "\t", "\u3000x\nsubject: don't \U0001f600ppe ", "do not x\nx\n", "not, ", "not\n", "no, ", "x\nx\nyou "),
    *('"', '" ', "\u201c```", "~'''", "\xab\xbd#1", "'a ", "<", "h1n\u201c", 'titled "a" ', "- a\n", "Eve: hi. Refund it\n", "> "),
    *("From: a\n", "a\u2026", "but no\u2026 ", "oh. ", "refund it, ", "refund ", "refund, and ", "do it, ", "stop, ", "a and ", "a, "),
    *("(", "[", "{", "((a", "[a]", "\u200b", "\u200ba", "\u0301", "a\u0301", "\uff41", "\uff41\uff20", "\uff0e", "&#64;", "&amp;"),
    *("&", "&#", "a&lt;", "\u0130", "\U0001f600", "said ", "she said ", "I I ", "all ", "1,", "1 000 ", "five ", "two point ", "%", "-"),
    *("--", "_", "=", "/", "\\", ".", ":", ";", "'"),
]


def text_of(fragment: str, size: int, before: str = "", behind: str = "") -> str:
    """So much of a fragment; a multiple of four times, so that marks are even or odd in each size alike."""
    return before + fragment * max(4, size // len(fragment) // 4 * 4) + behind


def seconds(work: Callable[[str], object], text: str, tries: int = 1) -> float:
    times = []
    for _ in range(tries):
        begun = time.thread_time()
        work(text)
        times.append(time.thread_time() - begun)
    return min(times)


def growth(work: Callable[[str], object], size: int, fragment: str, before: str = "", behind: str = "") -> float:
    """How many times as long a text takes that is four times as long; 0: it takes no time worth measuring."""
    short, long = (text_of(fragment, length, before, behind) for length in (size // 4, size))
    if seconds(work, short) > _HOPELESS:
        return float("inf")
    once = seconds(work, long)
    if once < QUICK:
        return 0.0
    found = once / max(seconds(work, short), 1e-6)  # the first time took longer: something was loaded
    if found < _CLEAR:
        return found
    for _ in range(_TRIES):
        found = seconds(work, long, 2) / max(seconds(work, short, 2), 1e-6)
        if found < MOST:
            break
    return found


def fragments(seed: object, atoms: list[str], number: int) -> Iterator[tuple[str, str, str]]:
    """Fragments of up to eight atoms, each with what may stand before and behind all of them; the same for the same seed."""
    random = Random(str(seed))  # noqa: S311 - the same for everybody
    for _ in range(number):
        made = "".join(random.choices(atoms, k=random.randint(1, 8)))
        yield made, random.choice(["", random.choice(ATOMS)]), random.choice(["", random.choice(ATOMS)])


def too_fast_growing(
    work: Callable[[str], object], tried: Iterable[tuple[str, str, str]], size: int = LONG
) -> list[tuple[str, str, str, float]]:
    """The fragments for which the work grows faster than the text, up to this size."""
    grown = ((*each, growth(work, size, *each)) for each in tried)
    return [each for each in grown if each[-1] >= MOST]


# --- the patterns of the package ------------------------------------------------------------------------------------------
SEARCHES = frozenset("search finditer findall sub subn split".split())
MATCHES = frozenset({"match", "fullmatch"})


def _modules() -> Iterator[Any]:
    for found in pkgutil.walk_packages(agentgate.__path__, "agentgate."):
        if found.name.endswith("__main__"):
            continue
        with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):  # of a module under its earlier name
            yield importlib.import_module(found.name)


def _inside(value: Any, name: str, depth: int = 0) -> Iterator[tuple[str, re.Pattern[Any]]]:
    held = getattr(value, "__self__", value)  # `re.compile(...).fullmatch`
    if isinstance(held, re.Pattern):
        yield name if held is value else f"{name}.{value.__name__}", held
    elif isinstance(value, Forms):
        for key, each in vars(value).items():
            yield from _inside(each, f"{name}.{key}", depth + 1)
    elif depth < 3 and isinstance(value, dict):
        for key, each in value.items():
            yield from _inside(each, f"{name}[{key!r}]", depth + 1)
    elif depth < 3 and isinstance(value, list | tuple | set | frozenset):
        for number, each in enumerate(value):
            yield from _inside(each, f"{name}[{number}]", depth + 1)


def patterns() -> dict[str, re.Pattern[str]]:
    """Every compiled pattern for text that a module of the package holds, by its first name."""
    found: dict[str, re.Pattern[str]] = {}
    for module in _modules():
        for name, value in vars(module).items():
            for path, pattern in _inside(value, f"{module.__name__.removeprefix('agentgate.')}.{name}"):
                if isinstance(pattern.pattern, str) and all(pattern is not known for known in found.values()):
                    found[path] = pattern
    return found


@cache
def only_matched() -> set[str]:
    """The names of patterns, and of tables of them, as in `patterns`, that are used where a text begins, and nowhere searched for."""
    used: dict[str, set[str]] = {"searches": set(), "matches": set()}
    root = Path(agentgate.__path__[0])
    for path in root.rglob("*.py"):
        module, home, held = ".".join(path.relative_to(root).with_suffix("").parts), dict[str, str](), list[tuple[str, str]]()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                home |= {name.name: str(node.module).removeprefix("agentgate.") for name in node.names}
            elif isinstance(node, ast.Attribute) and node.attr in SEARCHES | MATCHES:
                of = node.value.value if isinstance(node.value, ast.Subscript) else node.value
                if isinstance(of, ast.Attribute) and isinstance(of.value, ast.Name) and of.value.id == "_FORMS":
                    used["searches" if node.attr in SEARCHES else "matches"].add(f"{module}._FORMS.{of.attr}")
                held += [("searches" if node.attr in SEARCHES else "matches", of.id)] if isinstance(of, ast.Name) else []
        for use, name in held:
            used[use] |= {f"{module}.{name}", f"{home.get(name, module)}.{name}"}
    return used["matches"] - used["searches"]


def atoms_of(pattern: re.Pattern[str], seed: object) -> list[str]:
    """Words and signs of a pattern's own, beside a few of all."""
    own = sorted({*re.findall(r"[a-z]{2,}|[^\w\s\\]", pattern.pattern)})
    random = Random(str(seed))  # noqa: S311 - the same for everybody
    words = random.sample(own, min(len(own), 10))
    return [*words, *(word + " " for word in words), *random.choices(ATOMS, k=10)]
