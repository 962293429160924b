"""Records in the forms of others: OCSF 1.3 (API Activity, 6003) and CEF. What stands where is
in ``forms.json``.

There ``$FIELD`` is a field of the record, a list the first of its members that is there, and a
table with the name "$" translates a field. What the record has not is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from agentgate.audit.questions import time_of

_FORMS = orjson.loads(Path(__file__).with_name("forms.json").read_bytes())
_IN_HEAD = str.maketrans({"\\": r"\\", "|": r"\|"})
_IN_VALUE = str.maketrans({"\\": r"\\", "=": r"\=", "\n": r"\n", "\r": r"\r"})


def shape_record(record: Mapping[str, Any], form: str) -> str:
    """The line of a record as it is (jsonl), or in the form of others (ocsf, cef)."""
    known = {**record, "record": record, "ms": int(time_of(record) * 1000)}
    if form != "cef":
        return json.dumps(_filled(_FORMS[form], known))
    head = [str(_filled(each, known)).translate(_IN_HEAD) for each in _FORMS["cef_head"]]
    told = [
        "=".join((name, str(value).translate(_IN_VALUE)))
        for name, value in _filled(_FORMS[form], known).items()
    ]
    return "|".join((*head, " ".join(told)))


def _filled(form: Any, known: Any) -> Any:
    if isinstance(form, str) and form.startswith("$"):
        for part in form[1:].split("."):
            known = (
                known.get(part)
                if isinstance(known, dict)
                else known[0]
                if isinstance(known, list) and known
                else None
            )
        return known
    if isinstance(form, list):
        return next(
            (found for each in form if (found := _filled(each, known)) is not None), None
        )
    if isinstance(form, dict):
        if "$" in form:
            return form.get(str(_filled(form["$"], known)), form.get(""))
        return {
            name: found
            for name, each in form.items()
            if (found := _filled(each, known)) not in (None, {})
        }
    return form
