"""What kind of token a JWT is, by its claims: a person's sign-in, a workload's own, or
something that proves nobody.

Rules: one issuer signs all of them, often for one audience and under one `typ`, so what proves
a person must not pass as a workload (RFC 8725 section 3.11). A mark only refuses. `acr` alone
marks no sign-in: Keycloak writes it into the tokens of service accounts.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentgate.errors import CredentialRefused
from agentgate.identity.signed import SignedClaims

# claim -> values that mark a token, with spaces between; none: any value does
Marks = Mapping[str, str]
# OpenID Connect Core sections 2, 3.3.2.11 and 5.1, Front-Channel Logout section 3, Keycloak,
# Entra ID, Cognito, Auth0
_PERSON: Marks = {
    **dict.fromkeys(
        "nonce auth_time amr at_hash c_hash s_hash sid session_state given_name family_name "
        "picture upn".split(),
        "",
    ),
    "typ": "ID",
    "idtyp": "user",
    "token_use": "id",
    "gty": "password",
}
# Entra ID, Auth0, Kubernetes, Keycloak
_WORKLOAD: Marks = {
    "idtyp": "app",
    "gty": "client-credentials",
    **dict.fromkeys("kubernetes.io clientHost clientAddress".split(), ""),
}
# hops and call tokens (`act`), RFC 8417 and logout tokens, RFC 9493, RFC 9701, credentials to
# present, RFC 9101, RFC 9449; Keycloak
_OTHER: Marks = {
    **dict.fromkeys(
        "act may_act events sub_id token_introspection vc response_type htm".split(), ""
    ),
    "typ": "Refresh Offline Logout",
}


def check_agent(claims: SignedClaims, what: str) -> None:
    """Raise CredentialRefused for what is no workload's own token."""
    _check_subject(claims, what)
    _check_marks(claims, _PERSON, what, "a workload's own token, with no mark of a sign-in")
    for name in ("scope", "scp"):
        value = claims.get(name)
        if "openid" in (
            value.split() if type(value) is str else value if type(value) is list else ()
        ):
            raise CredentialRefused(
                f"{what}.{name}",
                "openid",
                "a workload's own token: openid is what a person logs in with",
            )


def check_user(claims: SignedClaims, what: str) -> None:
    """Raise CredentialRefused for what is no person's token."""
    _check_subject(claims, what)
    _check_marks(claims, _WORKLOAD, what, "a person's token")
    # RFC 9068 section 2.2
    if claims["sub"] in {claims.get(name) for name in ("client_id", "azp", "cid")}:
        raise CredentialRefused(
            f"{what}.sub", "a client", "a person's token, not the client's own"
        )


def check_own(claims: SignedClaims, what: str) -> None:
    """Raise CredentialRefused for what was signed for something else: a client that is a
    broker, too, hands its hops to others.
    """
    _check_marks(
        claims,
        _OTHER,
        what,
        "an ID or access token, or a client's assertion (hops are proven by the brokers that signed them)",
    )


def _check_subject(claims: SignedClaims, what: str) -> None:
    check_own(claims, what)
    subject = claims["sub"]
    # a client's assertion (RFC 7523 section 3), an SVID
    if subject == claims["iss"] or subject.startswith("spiffe://"):
        raise CredentialRefused(
            f"{what}.sub", subject, "somebody of the issuer's (an SVID is shown as one)"
        )


def _check_marks(claims: SignedClaims, marks: Marks, what: str, expected: str) -> None:
    for name, values in marks.items():
        got = claims.get(name)
        if name in claims and (not values or (type(got) is str and got in values.split())):
            raise CredentialRefused(f"{what}.{name}", got if values else "one", expected)
