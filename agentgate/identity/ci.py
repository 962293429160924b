"""Tokens of CI jobs: GitHub's and GitLab's shapes. Such a token proves an agent, the job, and
never a user.

Rules: what these issuers always say must be there and be text, so that a token of another kind
under the same issuer is no job; a workflow names the claims that count, and each that it names
must be there (`agentgate.decision.caller`). A name that can be taken over by somebody else (a
repository's, an owner's) is worth its id: `UNLASTING` pairs them, and lint asks for the id.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentgate.identity.signed import SignedClaims, text_of
from agentgate.values.value_class import value_class


@value_class
class CIShape:
    """What the tokens of one CI say.

    Attributes:
        required: claims that every job has, as text.
        attempt: claims that tell one attempt of a job from every other.
    """

    required: tuple[str, ...]
    attempt: tuple[str, ...]

    def check(self, claims: SignedClaims, what: str) -> None:
        """Raise CredentialRefused where a required claim is missing or no text."""
        for name in self.required:
            text_of(claims, name, what)

    def once(self, claims: SignedClaims) -> str:
        """The attempt, as one text."""
        return ".".join(str(claims[name]) for name in self.attempt)

    def environment_of(
        self, claims: SignedClaims, known: Mapping[str, str] | None
    ) -> str | None:
        """The environment of workflows that the job's stands for. None: the settings say
        nothing; empty: the job has none that is known.
        """
        if known is None:
            return None
        value = claims.get("environment")
        return known.get(value, "") if type(value) is str else ""


SHAPES: Mapping[str, CIShape] = {
    # docs.github.com/actions/reference/security/oidc
    "github": CIShape(
        required=(
            *(
                "repository",
                "repository_id",
                "repository_owner",
                "repository_owner_id",
                "ref",
                "event_name",
            ),
            *("job_workflow_ref", "runner_environment", "run_id", "run_attempt"),
        ),
        attempt=("run_id", "run_attempt"),
    ),
    # docs.gitlab.com/ci/secrets/id_token_authentication: token payload
    "gitlab": CIShape(
        required=(
            "project_id",
            "project_path",
            "namespace_id",
            "ref",
            "ref_type",
            "ref_protected",
            "pipeline_source",
            "job_id",
        ),
        attempt=("job_id",),
    ),
}
# claim that can change hands -> the claim that cannot
UNLASTING: Mapping[str, str] = {
    "repository": "repository_id",
    "repository_owner": "repository_owner_id",
    "project_path": "project_id",
    "namespace_path": "namespace_id",
    "user_login": "user_id",
}
