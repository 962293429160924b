import json
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgate.errors import CanonicalError
from agentgate.values.canonical import canonical, parse

JCS = Path(__file__).parent / "vectors" / "jcs"


@pytest.mark.parametrize("name", ["arrays", "french", "structures", "unicode", "weird"])
def test_rfc_8785_vector_is_reproduced_byte_for_byte(name):
    value = json.loads((JCS / "input" / f"{name}.json").read_bytes())
    assert canonical(value) == (JCS / "output" / f"{name}.json").read_bytes()


def test_rfc_8785_values_vector_is_reproduced_without_its_number_beyond_2_53_which_is_refused():
    value = json.loads((JCS / "input" / "values.json").read_bytes())
    expected = (JCS / "output" / "values.json").read_bytes()
    with pytest.raises(CanonicalError, match="within 2\\^53"):
        canonical(value)
    value["numbers"].remove(1e30)
    assert canonical(value) == expected.replace(b"1e+30,", b"")


@settings(deadline=None)  # a busy machine is no failure
@given(st.floats(-(2**53) + 1, 2**53 - 1) | st.floats(1.7e9, 1.8e9).map(lambda v: round(v, 6)) | st.floats(-1, 1))
def test_a_number_is_written_as_rfc_8785_writes_it_however_it_is_written(value):
    assert canonical([value]) == rfc8785.dumps([value])


@settings(deadline=None)  # a busy machine is no failure
@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(), lambda v: st.dictionaries(st.text(), v)))
def test_canonical_bytes_are_a_fixed_point_of_parsing(value):
    data = canonical(value)
    assert canonical(parse(data)) == data
    assert parse(data) == value
