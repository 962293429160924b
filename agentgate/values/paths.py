"""Paths into a tool's result: the segments of a fact's path other than keys, and the marks that
rows may carry.

The redeeming side reads facts by these paths (`agentgate.redemption.outcome`); loading and the
decision only know the segments' names.
"""

from __future__ import annotations

# types of entities that may be read from inside a text
FINDABLE = frozenset({"email", "iban", "phone", "url"})
# longest text, in characters, that is searched for one entity; a longer one has none
MAX_FIND = 65_536
EACH = "[]"  # walks a list
VALUES = "[values]"  # the list of an object's values, each with its key
KEY = "[key]"  # last segment, behind `VALUES` and `EACH`: the element's own key
# last segment: the one entity of this kind in the text there
FIND = {f"[{kind}]": kind for kind in FINDABLE}
NUMBERS = "[numbers]"  # the list of all numbers and amounts in the text there, as decimals
CUT = "[cut]"  # key in the last row when later ones were left out; no fact can have this name
# declared: the path of a list; in the last row: how many elements it had, whether or not each
# made a row
PAGE = "[page]"
