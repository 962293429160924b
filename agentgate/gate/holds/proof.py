"""Who answers a hold, proven: by an SSH signature, a passkey, a JWS, a token or, where the
workflow says so, the host's word.

Rules: (1) a signed answer is over the statement of exactly this hold, answer and nonce, or over
a tree of several in which it stands (`agentgate.decision.batch_answer`), by a key that counts
now; a token carries the digest of that statement in its `nonce` claim, so that none that was
issued for anything else, to open a run say, is an answer; (2) the nonce is the gate's, for this
hold, unused and young (the store's script takes it); (3) before a call is minted, each yes is
proven again: a signed one by its signature, an unsigned one by the seal of a gate with these
keys. So a release that somebody writes into the store is none. The signer's place in the root
or among the passkeys, their teams, groups and keys are looked up again, too: whoever left
answers nothing any more.
"""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import structlog

from agentgate.decision.batch_answer import Inclusion
from agentgate.decision.hold import Approver, Channel, Hold, as_json
from agentgate.errors import (
    ConfigError,
    CredentialRefused,
    IdentityRefused,
    KeyRefused,
    KeysUnavailable,
    TokenRefused,
)
from agentgate.identity.proven import Proven, proven_user
from agentgate.shell.step import Flow, Outside
from agentgate.token.jws import PublicKey, split, unb64url
from agentgate.token.regular_file import read_regular
from agentgate.token.signing import KeyRing
from agentgate.values.answers import (
    ANSWER_TYPE,
    NONCE_SECONDS,
    JWSAnswer,
    Said,
    SSHAnswer,
    WebAuthnAnswer,
    nonce_claim,
    webauthn_challenge,
)
from agentgate.values.canonical import canonical, parse
from agentgate.values.refusal import AnswerCode, AnswerRefused, Failure, Reason
from agentgate.values.request import User

if TYPE_CHECKING:
    from agentgate.approvals.root import Signers
    from agentgate.identity.passkeys import Passkeys

_log = structlog.get_logger("agentgate.gate.holds.proof")
Answering = User | Proven[User] | SSHAnswer | WebAuthnAnswer | JWSAnswer
_LEEWAY = 5  # seconds a front end's clock may be ahead
_MAX_ANSWER = 16 * 1024  # characters
_READING = 20.0  # seconds; two thousand passkeys take less than one where nothing else is done


def refusal(code: AnswerCode, field: str, got: str, expected: str) -> AnswerRefused:
    """An answer that does not count, for one reason."""
    return AnswerRefused(code, (Failure(Reason.STEP_UP, field, got, expected),))


class ProvenAnswer(NamedTuple):
    """Who answered, on which channel, with which nonce (empty: none is needed), and what shows
    it again.
    """

    user: User
    channel: Channel
    nonce: str
    proof: Mapping[str, str]


@dataclass(slots=True)
class Answerers:
    """Whose signatures answer the holds of one gate.

    Attributes:
        keys: the gate's own.
        issuer: the gate's URL, the `aud` of a JWS answer.
        fronts: tenant -> `kid` -> public key of a front end.
        signers: the root's people; called for each answer. None: this gate was opened without
            approvals.
        passkeys: whose they are; None: this gate knows of none.
    """

    keys: KeyRing
    issuer: str
    fronts: Mapping[str, Mapping[str, PublicKey]]
    signers: Callable[[], Signers | None]
    passkeys: Passkeys | None = None

    def fresh(self) -> Flow:
        """Look at the file of passkeys again, where that is due: before `prove` and
        `standing`.
        """
        if self.passkeys is not None and self.passkeys.due:
            problem = yield Outside(self.passkeys.read, _READING)
            if problem:
                _log.warning(
                    "passkeys_unreadable",
                    message="no passkey counts until the file can be read",
                    problem=problem,
                )

    def asks(self, tenant: str) -> bool:
        """Whether somebody of this tenant could answer by a signature."""
        return (
            bool(self.fronts.get(tenant))
            or self.signers() is not None
            or (self.passkeys is not None and self.passkeys.names(tenant))
        )

    def prove(
        self,
        hold: Hold,
        answer: Said,
        by: object,
        leaf: Inclusion | None = None,
        *,
        in_process: bool,
    ) -> ProvenAnswer:
        """Who gives this answer to this hold.

        Args:
            hold: as it is stored.
            answer: what they say.
            by: how they show it.
            leaf: where the hold stands among those that were answered together; None: it was
                answered alone.
            in_process: the workflow takes the host's word.

        Raises:
            AnswerRefused: `FORM`, `SIGNATURE`, `CHANNEL` or `UNPROVEN`.
        """
        now = time.time()
        place = {} if leaf is None else {"leaf": str(leaf)}
        if isinstance(by, SSHAnswer):
            proof = {"nonce": by.nonce, "signature": by.signature, **place}
            return ProvenAnswer(self._ssh(hold, answer, by, leaf, now), "ssh", by.nonce, proof)
        if isinstance(by, WebAuthnAnswer):
            user, assertion = self._webauthn(hold, answer, by, leaf)
            return ProvenAnswer(
                user, "webauthn", by.nonce, {"nonce": by.nonce, "assertion": assertion, **place}
            )
        if isinstance(by, JWSAnswer):
            user, nonce = self._jws(hold, answer, by, leaf, now)
            return ProvenAnswer(user, "jws", nonce, {"token": by.token, **place})
        if type(by) is Proven and by.who.identity == "proven":
            nonce = by.nonce.partition(".")[0]
            if not nonce or by.nonce != nonce_claim(_stated(hold, answer, nonce, leaf)):
                got = f"a token of {by.who.id} that was issued for something else"
                expected = f"one whose nonce is of this answer: {answer}"
                raise refusal(
                    AnswerCode.UNPROVEN,
                    "approver",
                    got,
                    f"{expected} (agentgate.values.answers.nonce_claim)",
                )
            return ProvenAnswer(
                by.who,
                "token",
                nonce,
                {"seal": self._seal(hold, by.who, "token"), "issuer": by.who.issuer, **place},
            )
        if type(by) is not User or not in_process:
            got = f"{by.id} (in process)" if type(by) is User else type(by).__name__
            expected = (
                "a person who is proven: an SSHAnswer, a WebAuthnAnswer, a JWSAnswer "
                "or a token (in process only under in_process: true)"
            )
            raise refusal(AnswerCode.UNPROVEN, "approver", got, expected)
        # by the host, whoever proved to be this person elsewhere
        said = User(by.id, tenant=by.tenant, groups=by.groups)
        return ProvenAnswer(
            said, "in_process", "", {"seal": self._seal(hold, said, "in_process"), **place}
        )

    def standing(self, hold: Hold, *, in_process: bool) -> Hold:
        """The hold with those approvers whose yes is proven still, each in the groups they are
        in now.
        """
        return replace(
            hold,
            approvers=tuple(
                a
                for each in hold.approvers
                if (a := self._again(hold, each, in_process)) is not None
            ),
        )

    def _again(self, hold: Hold, known: Approver, in_process: bool) -> Approver | None:  # noqa: FBT001 - private
        user = (
            proven_user(known.id, tenant=known.tenant, groups=known.groups)
            if known.identity == "proven"
            else None
        )
        try:
            leaf = Inclusion.parse(known.proof["leaf"]) if "leaf" in known.proof else None
            if known.channel == "ssh":
                user = self._ssh(
                    hold,
                    "release",
                    SSHAnswer(known.proof["nonce"], known.proof["signature"]),
                    leaf,
                    time.time(),
                )
            elif known.channel == "webauthn":
                user, _ = self._webauthn(
                    hold,
                    "release",
                    WebAuthnAnswer(known.proof["nonce"], known.proof["assertion"]),
                    leaf,
                )
            elif known.channel == "jws":
                user, _ = self._jws(
                    hold, "release", JWSAnswer(known.proof["token"]), leaf, None
                )
            else:
                user = user or User(known.id, tenant=known.tenant, groups=known.groups)
                sealed = known.proof.get("seal") == self._seal(hold, user, known.channel)
                if not sealed or (user.identity != "proven" and not in_process):
                    return None
        except (AnswerRefused, KeyError, ValueError, IdentityRefused):
            return None
        if (user.id, user.tenant) != (known.id, known.tenant):
            return None
        return replace(known, groups=tuple(user.groups))

    def seal(self, hold: Hold) -> str:
        """The gate's seal on a hold's question, without the user's words, which it is kept
        without.
        """
        question = as_json(hold.question.without_words)
        return self.keys.seal(
            hold.tenant, canonical(["question", hold.id, hold.run, list(hold.rules), question])
        )

    def asked(self, hold: Hold) -> bool:
        """Whether a gate with these keys made its question, of exactly this call."""
        return hmac.compare_digest(
            hold.seal.encode("utf-8", "replace"), self.seal(hold).encode()
        )

    def _seal(self, hold: Hold, user: User, channel: Channel) -> str:
        who = [user.id, user.tenant, list(user.groups), user.identity, channel]
        return self.keys.seal(
            hold.tenant, canonical([parse(hold.statement("release", "")), who])
        )

    def _ssh(
        self, hold: Hold, answer: Said, by: SSHAnswer, leaf: Inclusion | None, now: float
    ) -> User:
        signers = self.signers()
        if signers is None:
            raise refusal(
                AnswerCode.CHANNEL,
                "root",
                "a gate opened without approvals",
                "Gate.open with root=, whose people sign",
            )
        if type(by.signature) is not str or not _is_nonce(by.nonce):
            raise refusal(
                AnswerCode.FORM,
                "answer",
                "no text",
                "a nonce of the gate and an armoured SSH signature",
            )
        try:
            name, teams = signers.who(
                by.signature, _stated(hold, answer, by.nonce, leaf), hold.tenant, now
            )
            return proven_user(name, tenant=hold.tenant, groups=teams)
        except (KeyRefused, IdentityRefused) as error:
            raise refusal(
                AnswerCode.SIGNATURE,
                "signature",
                str(error),
                f"one over this hold's statement: {answer}",
            ) from None

    def _webauthn(
        self, hold: Hold, answer: Said, by: WebAuthnAnswer, leaf: Inclusion | None
    ) -> tuple[User, str]:
        """Whose passkey it is, and the assertion as it is kept."""
        from agentgate.identity.assertion import Assertion  # noqa: PLC0415 - as in `_claims`

        if self.passkeys is None:
            raise refusal(
                AnswerCode.CHANNEL,
                "passkeys",
                "a gate without this setting",
                "passkeys: the file of whose passkeys count",
            )
        if not _is_nonce(by.nonce):
            raise refusal(AnswerCode.FORM, "nonce", type(by.nonce).__name__, "the gate's nonce")
        code = AnswerCode.FORM
        try:
            assertion = Assertion.parse(by.assertion)
            code = AnswerCode.SIGNATURE
            return self.passkeys.person(
                assertion,
                webauthn_challenge(_stated(hold, answer, by.nonce, leaf)),
                hold.tenant,
            ), assertion.text
        except CredentialRefused as error:
            code = AnswerCode.CHANNEL if isinstance(error, KeysUnavailable) else code
            raise refusal(
                code, error.field, error.got, f"{error.expected}; the answer: {answer}"
            ) from None

    def _jws(
        self, hold: Hold, answer: Said, by: JWSAnswer, leaf: Inclusion | None, now: float | None
    ) -> tuple[User, str]:
        """Who signed, and the nonce; `now` None: it was young enough when it was given."""
        keys = self.fronts.get(hold.tenant)
        if not keys:
            expected = f"answer_keys of tenant {hold.tenant}: the public keys of a front end"
            raise refusal(AnswerCode.CHANNEL, "answer_keys", "none for this tenant", expected)
        claims = _claims(by, keys)
        # (1) the statement of exactly this hold, answer and nonce, for this gate
        nonce = claims.get("nonce")
        if not _is_nonce(nonce):
            raise refusal(AnswerCode.FORM, "nonce", type(nonce).__name__, "the gate's nonce")
        stated = parse(_stated(hold, answer, nonce, leaf)) | {"aud": self.issuer}
        wrong = [name for name, value in stated.items() if claims.get(name) != value]
        if wrong:
            raise refusal(
                AnswerCode.SIGNATURE,
                wrong[0],
                "another one",
                f"the {wrong[0]} of this hold's statement: {answer}",
            )
        # (2) nothing more than this, in its time
        more = claims.keys() - stated.keys() - {"sub", "groups", "iat", "exp"}
        iat = claims.get("iat")
        exp = claims.get("exp")
        groups = claims.get("groups", [])
        if (
            more
            or type(iat) is not int
            or type(exp) is not int
            or type(groups) is not list
            or not all(type(g) is str for g in groups)
        ):
            raise refusal(
                AnswerCode.FORM,
                min(more, default="iat, exp, groups"),
                "another form",
                "the statement, sub, iat, exp and groups",
            )
        if now is not None and not (iat - _LEEWAY <= now < exp <= iat + NONCE_SECONDS):
            raise refusal(
                AnswerCode.NONCE,
                "exp",
                "too old, too early or too long",
                f"iat up to now, exp at most {NONCE_SECONDS} s later",
            )
        # (3) who
        try:
            return proven_user(
                claims.get("sub", ""), tenant=hold.tenant, groups=tuple(groups)
            ), nonce
        except IdentityRefused as error:
            raise refusal(AnswerCode.FORM, error.field, error.got, error.expected) from None


def _is_nonce(value: object) -> TypeGuard[str]:
    # an unpaired surrogate has no canonical form
    return type(value) is str and 0 < len(value) <= 128 and value.isascii()


def _stated(hold: Hold, answer: Said, nonce: str, leaf: Inclusion | None) -> bytes:
    """What is signed to give this answer, alone or with others."""
    stated = (
        hold.statement(answer, nonce) if leaf is None else leaf.statement(hold, answer, nonce)
    )
    if stated is None:
        raise refusal(
            AnswerCode.SIGNATURE,
            "leaf",
            "no place in a tree",
            "the path from this hold's entry to the root that was signed",
        )
    return stated


def _claims(by: JWSAnswer, keys: Mapping[str, PublicKey]) -> dict[str, Any]:
    """The claims of a JWS by one of these keys."""
    from agentgate.identity.keys import strict_object  # noqa: PLC0415 - only gates that take a JWS need its room

    try:
        parts = split(by.token, _MAX_ANSWER)
        header = strict_object(unb64url(parts.header), "header")
        kid = header.get("kid")
        key = keys.get(kid) if type(kid) is str else None
        if key is None or header != {"alg": key.alg, "kid": kid, "typ": ANSWER_TYPE}:
            expected = f"exactly alg, kid and typ ({ANSWER_TYPE}) of a key in answer_keys"
            raise refusal(
                AnswerCode.SIGNATURE, "header", "no such key, or another header", expected
            )
        if not key.verify(parts.signature, parts.signed):
            raise refusal(
                AnswerCode.SIGNATURE, "signature", "no match", f"a signature by {kid}"
            )
        return strict_object(parts.unverified_payload, "claims")
    except (TokenRefused, CredentialRefused) as error:
        raise refusal(AnswerCode.FORM, error.field, error.got, error.expected) from None
    except ValueError:
        raise refusal(
            AnswerCode.FORM, "header", "another encoding", "canonical base64url"
        ) from None


def fronts(
    given: Mapping[str, Mapping[str, Any] | str | os.PathLike[str]], own: KeyRing
) -> dict[str, dict[str, PublicKey]]:
    """The keys of the setting `answer_keys`: tenant -> `kid` -> public key.

    Raises:
        ConfigError: unreadable, no JWK set, a key without `kid`, twice, private, or the gate's
            own.
    """
    mine = {jwk["kid"] for jwk in own.jwks(time.time())["keys"]}
    found: dict[str, dict[str, PublicKey]] = {}
    for tenant, source in given.items():
        try:
            jwks = (
                source
                if isinstance(source, Mapping)
                else parse(read_regular(source, links=True))
            )
            keys = [(jwk["kid"], PublicKey.from_jwk(jwk)) for jwk in jwks["keys"]]
        except (OSError, ValueError, KeyError, TypeError, KeyRefused) as error:
            raise ConfigError(
                f"answer_keys.{tenant}",
                str(error)[:200],
                "a JWK set of public ES256 or Ed25519 keys, each with a kid",
            ) from None
        found[tenant] = dict(keys)
        names = all(type(name) is str and name for name, _ in keys)
        if (
            not keys
            or not names
            or len(found[tenant]) != len(keys)
            or any(key.kid in mine for _, key in keys)
        ):
            expected = (
                "at least one key, each with a kid of its own, and none that signs "
                "this gate's tokens"
            )
            raise ConfigError(
                f"answer_keys.{tenant}", sorted(map(str, found[tenant])), expected
            )
    return found


def passkeys_of(given: Any, issuer: str) -> Passkeys | None:
    """The passkeys of the setting `passkeys`; None: there are none.

    Raises:
        ConfigError: the extra is not installed; otherwise as `Passkeys.of`.
    """
    if given is None:
        return None
    try:
        from agentgate.identity.passkeys import Passkeys  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ConfigError(
            "passkeys",
            f"no package {error.name}",
            "the extra: pip install '.[web]' in the clone",
        ) from None
    return Passkeys.of(given, issuer)
