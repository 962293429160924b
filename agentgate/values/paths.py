"""Paths into a tool's result: the segments that a fact's path may have besides keys, and the marks that rows may carry.

The side that redeems reads facts by these paths (`agentgate.redemption.facts`); loading and the decision only know their names.
"""

from __future__ import annotations

FINDABLE = frozenset({"email", "iban", "phone", "url"})  # kinds of entities that a text may be looked into for
MAX_FIND = 65_536  # characters of a text in which one entity is looked for; in a longer one nothing is found
EACH = "[]"  # walks a list
VALUES = "[values]"  # the list of an object's values, each with its key
KEY = "[key]"  # last segment, behind `VALUES` and `EACH`: the element's own key
FIND = {f"[{kind}]": kind for kind in FINDABLE}  # last segment: the one entity of this kind in the text there
NUMBERS = "[numbers]"  # the list of all numbers and amounts in the text there, as decimals
CUT = "[cut]"  # key in the last row when later ones were left out; no fact can have this name
PAGE = "[page]"  # declared: the path of a list; in the last row: how many elements it had, whether or not each made a row
