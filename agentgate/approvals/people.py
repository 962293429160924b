"""The people of a root, as approvers of holds: an SSH signature becomes a person with their
teams.

Rules: the key must be one that the root gives to exactly one person and that
``allowed_signers`` lets sign holds now (``agentgate-hold`` among its namespaces); an expired
root names nobody. A person's name in the root is their user id, their teams are their groups. A
person for whom the root names tenants answers in these only.
"""

from __future__ import annotations

from agentgate.approvals import sshsig
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.refusal import ApprovalRefused
from agentgate.approvals.root import Root
from agentgate.errors import KeyRefused
from agentgate.values.value_class import value_class


@value_class
class Signers:
    """The root in force and its signers' keys."""

    root: Root
    allowed: AllowedSigners

    def who(
        self, signature: str, statement: bytes, tenant: str, now: float
    ) -> tuple[str, tuple[str, ...]]:
        """The person who signed the statement of a hold of this tenant, and their teams. `now`:
        POSIX seconds.

        Raises:
            KeyRefused: no signature over these bytes, or by no key that may answer this
                tenant's holds now.
        """
        key = sshsig.verify(signature, statement, sshsig.HOLD_NAMESPACE)
        owners = [name for name in self.root.keys if self.root.owns(name, key)]
        if len(owners) != 1:
            raise KeyRefused(
                f"signature: got key {key.fingerprint} of {len(owners)} people in the root, "
                "expected that of exactly one"
            )
        if now >= self.root.until:
            raise KeyRefused(
                "root: got one that has expired, expected a root that its signers renewed"
            )
        try:
            self.allowed.until(owners[0], key, sshsig.HOLD_NAMESPACE, now)
        except ApprovalRefused as error:
            raise KeyRefused(str(error)) from None
        person = self.root.shape.people[owners[0]]
        if person.tenants is not None and tenant not in person.tenants:
            raise KeyRefused(
                f"root: people.{owners[0]}.tenants: got tenant {tenant}, expected one of "
                f"{', '.join(person.tenants)}"
            )
        return owners[0], tuple(person.teams or ())
