"""A GitLab job exchanges its ID token at a served gate: with the claims that GitLab documents, in the forms it gives them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.authority import Key, claims_of, web
from tests.served import Asking, Process, detail, publish, served
from tests.served_notes import DEFINITION, GATE, NOTES

GITLAB = "https://gitlab.acme.example"
# docs.gitlab.com/ci/secrets/id_token_authentication, "Token payload": ids and flags are text, a ref has no refs/heads/ before it
JOB: dict[str, Any] = {
    "sub": "project_path:acme/shop:ref_type:branch:ref:main",
    "namespace_id": "72",
    "namespace_path": "acme",
    "project_id": "20",
    "project_path": "acme/shop",
    "user_id": "1",
    "user_login": "lee",
    "pipeline_id": "574",
    "pipeline_source": "push",
    "job_id": "302",
    "ref": "main",
    "ref_type": "branch",
    "ref_path": "refs/heads/main",
    "ref_protected": "true",
    "environment": "production",
    "environment_protected": "true",
    "runner_id": 1,
    "runner_environment": "gitlab-hosted",
    "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
    "ci_config_ref_uri": "gitlab.acme.example/acme/shop//.gitlab-ci.yml@refs/heads/main",
}
WORKFLOW = f"""
agentgate: workflow/v1
id: ci.notes
version: 1
title: A job on the protected main branch writes a release note
owners: [lee]
risk: low
expires: "2099-05-31"
tenants: [acme]
who:
  agent:
    oidc:
      issuer: {GITLAB}
      claims:
        project_id: {{is: "20"}}
        ref: {{is: main}}
        ref_type: {{is: branch}}
        ref_protected: {{is: "true"}}
        environment: {{is: production}}
        pipeline_source: {{in: [push, web]}}
        ci_config_ref_uri: {{is: gitlab.acme.example/acme/shop//.gitlab-ci.yml@refs/heads/main}}
conditions: {{environment: [prod]}}
intents: {{none: "A job asks by itself."}}
tools:
  notes.write:
    effect: write
    needs: none
    audience: {NOTES}
    scope: [notes:write]
    definition: {DEFINITION}
    redeem: server
    args: {{text: {{text: 40, from: [model]}}}}
limits:
  - {{count: notes.write, max: 1, per: run}}
"""


class Jobs:
    """Jobs of that GitLab, and what they ask."""

    def __init__(self, gate: Process, key: Key) -> None:
        self.gate, self.key = gate, key

    def ask(self, text: str = "1.0", **claims: Any) -> httpx.Response:
        said = {**claims_of(GITLAB, "job", GATE, life=300), **JOB, **claims}
        token = self.key.sign({name: value for name, value in said.items() if value is not None})
        asking = Asking(self.gate)
        form = asking.form(token, detail("notes.write", "ci.notes", {"text": text}), client_id="shop-ci")
        return asking.ask(form, prove=False)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    folder: Path = tmp_path_factory.mktemp("gitlab")
    (folder / "workflows").mkdir()
    (folder / "workflows" / "notes.yaml").write_text(WORKFLOW)
    key, server = Key("gitlab", "RS256"), Key("server")
    with web() as site:
        issuer = {"issuer": GITLAB, "shape": "gitlab", "keys": site.publish("/oauth/discovery/keys", key), "private_addresses": True}
        settings: dict[str, Any] = {
            "issuer": GATE,
            "workflows": str(folder / "workflows"),
            "unsafe_unapproved": True,
            "store": "memory://",
            "keys": str(folder / "keys"),
            "audit": str(folder / "audit"),
            "rate": 1000,
            "identity": {"issuers": {"gitlab": {**issuer, "audience": GATE, "tenants": ["acme"], "environment": {"production": "prod"}}}},
            "clients": {
                "shop-ci": {"role": "agent", "credential": GITLAB, "tenants": ["acme"]},
                "notes": {"role": "tool_server", "keys": publish(folder, server), "resources": [NOTES], "tenants": ["acme"]},
            },
        }
        settings["clients"]["notes"]["definitions"] = {"notes.write": DEFINITION}
        with served(folder, settings) as gate:
            yield Jobs(gate, key)


def test_a_job_on_the_protected_branch_gets_its_token_once(jobs: Jobs) -> None:
    answer = jobs.ask(job_id="400")
    assert (answer.status_code, answer.json().get("scope")) == (200, "notes:write"), jobs.gate.log()[-1]
    assert jobs.ask("another", job_id="400").json()["error"] == "access_denied"  # the same job finds its run, and its limit
    assert jobs.ask(job_id="401").status_code == 200  # another job has its own


@pytest.mark.parametrize(
    ("claims", "named"),
    [
        ({"project_id": "21", "project_path": "acme/shop"}, "project_id"),  # of a fork that took the name
        ({"ref": "feature", "sub": "project_path:acme/shop:ref_type:branch:ref:feature"}, "ref"),
        ({"ref_type": "tag"}, "ref_type"),  # a tag called main
        ({"ref_protected": "false"}, "ref_protected"),
        ({"ref_protected": True}, "ref_protected"),
        ({"pipeline_source": "merge_request_event"}, "pipeline_source"),
        ({"environment": "staging"}, "environment"),
        ({"environment": None}, "environment"),
        ({"ci_config_ref_uri": "gitlab.acme.example/acme/shop//.gitlab-ci.yml@refs/heads/x"}, "ci_config_ref_uri"),
        ({"ci_config_ref_uri": None}, "ci_config_ref_uri"),  # GitLab leaves it out where the file is in another project
        ({"job_id": None}, "job_id"),
        ({"project_id": 20}, "project_id"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_another_job_gets_none_and_the_log_names_the_claim(jobs: Jobs, claims: dict[str, Any], named: str) -> None:
    answer = jobs.ask(**{"job_id": "500", **claims})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    fields = [reason["field"] for reason in jobs.gate.log()[-1]["reasons"]]
    assert any(field.endswith(named) for field in fields), fields


def test_no_other_kind_of_token_of_this_gitlab_is_a_job(jobs: Jobs) -> None:
    """GitLab is a login for people, too: what it issues to them has none of a job's claims."""
    gone: dict[str, Any] = {**dict.fromkeys(JOB.keys() - {"sub"}), "user_login": "lee"}
    assert jobs.ask(**gone).status_code == 400
