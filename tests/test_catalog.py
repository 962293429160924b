"""The catalogue: one bad file is quarantined alone, an id belongs to one file, bad roles load nothing, equal parts are one object."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agentgate.errors import WorkflowError
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog

WORKFLOWS = Path(__file__).parent.parent / "workflows"
PAYMENT = (WORKFLOWS / "payments/customer-refund.yaml").read_text()


@pytest.fixture
def folder(tmp_path):
    for name in ("payments", "ci", "partners", "identity", "orchestration"):
        (tmp_path / name).mkdir()
    for path in WORKFLOWS.rglob("*.yaml"):
        if "approvals" not in path.parts and not path.name.endswith(".test.yaml"):
            shutil.copy(path, tmp_path / path.relative_to(WORKFLOWS))
    return tmp_path


def get(catalog, name):
    """The workflow of this id, which must be there."""
    workflow = catalog.get(name)
    assert workflow is not None
    return workflow


FOUNDING = {
    "payments.customer-refund",
    "ci.deploy",
    "partners.northwind-orders",
    "identity.service-account-refresh",
    "orchestration.internal-dispatch",
}


def test_the_founding_workflows_load():
    catalog = Catalog.load(WORKFLOWS, derive)
    assert dict(catalog.quarantined) == {}
    assert {w.id for w in catalog} >= FOUNDING
    assert get(catalog, "payments.customer-refund").file == str(WORKFLOWS / "payments/customer-refund.yaml")
    assert catalog.get("payments.customer-refunds") is None


def test_loading_makes_no_cycles_and_leaves_the_collector_as_it_was(folder):
    Catalog.load(folder, derive)  # caches
    gc.collect()
    gc.disable()
    try:
        Catalog.load(folder, derive)
        assert not gc.isenabled()
        assert gc.collect() == 0
    finally:
        gc.enable()
    Catalog.load(folder, derive)
    assert gc.isenabled()
    with pytest.raises(WorkflowError):
        Catalog.load(folder / "missing", derive)
    assert gc.isenabled()


def test_one_bad_file_is_quarantined_and_the_others_stay(folder):
    bad = folder / "ci/deploy.yaml"
    bad.write_text(bad.read_text().replace("effect: write", "effect: wriet"))
    catalog = Catalog.load(folder, derive)
    assert {w.id for w in catalog} == FOUNDING - {"ci.deploy"}
    assert len(catalog) == len(FOUNDING) - 1
    assert list(catalog.quarantined) == [str(bad)]
    assert catalog.quarantined[str(bad)].problems[0].hint == "did you mean 'write'?"
    assert catalog.get("ci.deploy") is None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"- a\n", b"agentgate: workflow/v1\n", b"&a [*a]\n"])
def test_what_is_no_workflow_is_quarantined(folder, content):
    (folder / "ci/other.yaml").write_bytes(content)
    catalog = Catalog.load(folder, derive)
    assert list(catalog.quarantined) == [str(folder / "ci/other.yaml")]
    assert len(catalog) == len(FOUNDING)


@pytest.mark.parametrize("copies", [1, 2])
def test_an_id_that_two_files_claim_belongs_to_neither(folder, copies):
    for number in range(copies):
        (folder / f"payments/copy{number}.yaml").write_text(PAYMENT.replace("version: 7", "version: 8"))
    catalog = Catalog.load(folder, derive)
    assert catalog.get("payments.customer-refund") is None
    assert set(catalog.quarantined) == {
        str(folder / "payments/customer-refund.yaml"),
        *(str(folder / f"payments/copy{n}.yaml") for n in range(copies)),
    }
    assert "also the id of" in str(next(iter(catalog.quarantined.values())))


def test_tests_approvals_and_roles_are_no_workflows(folder):
    (folder / "payments/customer-refund.test.yaml").write_text("workflow: x\n")
    (folder / "approvals/x").mkdir(parents=True)
    (folder / "approvals/x/root.yaml").write_text("root: 1\n")
    (folder / "notes.txt").write_text("x")
    (folder / "empty.yaml").mkdir()
    catalog = Catalog.load(folder, derive)
    assert dict(catalog.quarantined) == {}
    assert len(catalog) == len(FOUNDING)


def test_only_the_folder_of_approvals_at_the_top_is_left_out(folder):
    (folder / "ci/approvals").mkdir()
    (folder / "ci/approvals/other.yaml").write_text("no: workflow\n")
    assert list(Catalog.load(folder, derive).quarantined) == [str(folder / "ci/approvals/other.yaml")]


@pytest.mark.parametrize(
    "content", ["", "agentgate: roles/v1\n", "agentgate: roles/v1\nroles: {a: []}\n", "agentgate: roles/v1\nroles: {a: [b], a: [c]}\n"]
)
def test_bad_roles_load_nothing(folder, content):
    (folder / "roles.yaml").write_text(content)
    with pytest.raises(WorkflowError) as caught:
        Catalog.load(folder, derive)
    assert caught.value.problems[0].data["file"] == str(folder / "roles.yaml")


def test_roles_that_lead_nowhere_load_nothing(folder):
    (folder / "roles.yaml").unlink()
    (folder / "roles.yaml").symlink_to(folder / "gone.yaml")
    with pytest.raises(WorkflowError):
        Catalog.load(folder, derive)


def test_without_roles_only_workflows_that_name_one_are_quarantined(folder):
    (folder / "roles.yaml").unlink()
    quarantined = Catalog.load(folder, derive).quarantined
    assert set(quarantined) == {str(folder / "orchestration/internal-dispatch.yaml"), str(folder / "payments/customer-refund.yaml")}


def test_a_link_out_of_the_folder_is_not_followed(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "other.yaml"
    outside.write_text(PAYMENT.replace("id: payments.customer-refund", "id: other"))
    (folder / "ci/other.yaml").symlink_to(outside)
    catalog = Catalog.load(folder, derive)
    assert catalog.get("other") is None
    assert "link out of the folder" in str(catalog.quarantined[str(folder / "ci/other.yaml")])


def test_a_folder_that_does_not_exist_is_an_error_not_an_empty_catalogue(tmp_path):
    with pytest.raises(WorkflowError):
        Catalog.load(tmp_path / "gone", derive)


def test_a_wrong_example_is_found_in_every_file_that_holds_it(folder):
    for number in range(3):
        text = PAYMENT.replace("id: payments.customer-refund", f"id: p{number}").replace(
            "Customer wants their money back for ORD-10023344", "Where is ORD-10023344"
        )
        (folder / f"payments/p{number}.yaml").write_text(text)
    assert len(Catalog.load(folder, derive).quarantined) == 3


def test_equal_parts_of_different_workflows_are_one_object(folder):
    for number in range(2):
        (folder / f"payments/p{number}.yaml").write_text(PAYMENT.replace("id: payments.customer-refund", f"id: p{number}"))
    catalog = Catalog.load(folder, derive)
    one, two = get(catalog, "p0"), get(catalog, "p1")
    assert one.digest != two.digest
    assert one.tools is two.tools
    assert one.intents is two.intents
    assert one.agent is two.agent


def test_sharing_never_joins_what_differs(folder):
    for number, new in enumerate(['max: "500.00"', 'max: "500.01"', 'max: "500"']):
        (folder / f"payments/p{number}.yaml").write_text(
            PAYMENT.replace("id: payments.customer-refund", f"id: p{number}").replace('max: "500.00"', new)
        )
    catalog = Catalog.load(folder, derive)
    amounts = [get(catalog, f"p{n}").tools["payments.refund"].args["amount"].maximum for n in range(3)]
    assert list(map(str, amounts)) == ["500.00", "500.01", "500.00"]
    assert get(catalog, "p0").tools is not get(catalog, "p1").tools
    assert get(catalog, "p0").tools["orders.get"] is get(catalog, "p1").tools["orders.get"]


_MEMORY = """
import sys
from pathlib import Path
import psutil
from agentgate.loading.catalog import Catalog
from agentgate.intents.lexical import derive
Catalog.load(Path(sys.argv[1]) / "one", derive)
before = psutil.Process().memory_info().rss
catalog = Catalog.load(Path(sys.argv[1]) / "many", derive)
print((psutil.Process().memory_info().rss - before) / len(catalog), len(catalog.quarantined))
"""


@pytest.mark.thorough("memory, of many workflows")
def test_a_workflow_takes_at_most_eight_kilobytes(tmp_path):
    count = 1200  # of few, the pages that the process took at once say more than the workflows
    for name, number in (("one", 1), ("many", count)):
        (tmp_path / name).mkdir()
        shutil.copy(WORKFLOWS / "roles.yaml", tmp_path / name)
        for index in range(number):  # another id, another amount, rules on other lines: as different as a company's own would be
            text = "#\n" * (index % 7) + PAYMENT.replace("id: payments.customer-refund", f"id: payments.p{index}").replace(
                'max: "500.00"', f'max: "{100 + index}.00"'
            )
            (tmp_path / name / f"p{index}.yaml").write_text(text.replace('above: "100.00"', f'above: "{50 + index / 100:.2f}"'))
    env = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(tmp_path)], capture_output=True, text=True, check=True, cwd=WORKFLOWS.parent, env=env
    )
    size, quarantined = map(float, done.stdout.split())
    assert quarantined == 0
    assert size <= 8_000
