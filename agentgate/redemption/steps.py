"""The steps of a redemption: judge a token, bind it to the call really received, burn it,
record that, fetch the upstream credential. And whom a verifier trusts: the parsed key set of
its gate, and the settings of one.

Rules: the checks of `agentgate.token.claims` up to how the user signed in, then room in the
log, then the burn, then the durable record, then the upstream credential, if the workflow names
one. Whatever fails is a `TokenRefused`.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from agentgate.audit import remembered
from agentgate.audit.entry import DraftedRecord
from agentgate.errors import (
    AuditUnavailable,
    CanonicalError,
    ConfigError,
    NameRefused,
    Refusal,
    StoreUnavailable,
    TokenRefused,
    UpstreamRefused,
)
from agentgate.redemption.credential import (
    Redemption,
    UpstreamBroker,
    Work,
    checked_brokers,
    ended,
    fetch,
)
from agentgate.redemption.outcome import not_run, record_of
from agentgate.shell.bound import AT_ONCE, MOST_AT_ONCE, OneReader, checked_at_once
from agentgate.shell.spans import UNKNOWN_TOOL, Tracing, call_attributes, spanned
from agentgate.shell.step import Apart, Flow, Outside, Record, Room, Step, alone
from agentgate.stores import history_name, ops
from agentgate.stores._op import History, split
from agentgate.token.claims import (
    Claims,
    check_authentication,
    check_call,
    check_proof,
    check_token,
)
from agentgate.token.dpop import DPoP
from agentgate.token.jws import PublicKeys
from agentgate.token.mint import MintClaims
from agentgate.values.canonical import canonical, digest, parse
from agentgate.values.request import Args, CanonicalArguments
from agentgate.values.value_class import Json, Names, Values, value_class

# --- whom a verifier trusts -------------------------------------------------------------------
Jwks = Values | Callable[[], Values]
_REFRESH = 5.0  # seconds between looks at a changing key set
_PAUSE = 1.0  # seconds, after a function that returned none
KEY_SECONDS = 2.0  # in which a function must return one


@dataclass(slots=True)
class TrustedKeys:
    """A gate's key set, parsed once, and again only where it changed. All that believe one gate
    in one process share it.

    Attributes:
        jwks: the gate's key set, or a function that returns the newest one (key rotation).
        fetched: the function of `jwks` may wait for somebody: it is asked apart, one caller at
            a time, and no longer than `KEY_SECONDS`.
    """

    jwks: Jwks
    fetched: bool = False
    _text: str = ""
    _keys: PublicKeys | None = None
    _looked: float = 0.0
    _asked: float = 0.0
    _problem: str = "being asked for"
    # without keys none of them goes on
    _reader: OneReader = field(default_factory=lambda: OneReader(MOST_AT_ONCE), repr=False)

    def _due(self) -> bool:
        return self._keys is None or (
            callable(self.jwks) and time.monotonic() - self._looked > _REFRESH
        )

    def parsed(self) -> PublicKeys:
        """The key set; a function is called again after a few seconds.

        Raises:
            KeyRefused: an unusable key. Whatever the function raises.
        """
        if self._keys is None or self._due():
            given = self.jwks() if callable(self.jwks) else self.jwks
            # whoever gave it may change it and give it again
            text = json.dumps(given, default=dict)
            if self._keys is None or text != self._text:
                self._keys = PublicKeys.from_jwks(given)
                self._text = text
            self._looked = time.monotonic()
        return self._keys

    def trusted(self) -> PublicKeys:
        """`parsed`, or TokenRefused when the newest set is not available: an old one may hold a
        key that was withdrawn.
        """
        try:
            return self.parsed()
        except Exception as error:  # noqa: BLE001 - the host's function: whatever it raises, no token is accepted
            raise TokenRefused(
                Refusal.NO_KEYS, "jwks", type(error).__name__, "the gate's key set"
            ) from None

    def newest(self) -> Generator[Outside, Any, PublicKeys]:
        """`trusted`; a function that may wait is asked apart, so that no event loop stands
        still.

        Raises:
            TokenRefused: as `trusted`, or the function did not answer in time.
        """
        if self.fetched and self._due():
            yield Outside(
                lambda: self._reader.read(self._ask, self._worth_asking, wait=True),
                KEY_SECONDS,
                own_thread=True,
            )
            if self._due():
                raise TokenRefused(Refusal.NO_KEYS, "jwks", self._problem, "the gate's key set")
        return self.trusted()

    def _worth_asking(self) -> bool:
        return self._due() and time.monotonic() - self._asked > _PAUSE

    def _ask(self) -> None:
        self._problem = Work(self.parsed, KEY_SECONDS).in_time()
        self._asked = time.monotonic()


@value_class
class Trust:
    """Whose tokens a verifier accepts, and which server it is. Nothing here has a default.

    Attributes:
        keys: the gate's.
        history: what this process saw of its tenants' histories.
        brokers: where upstream credentials come from, by the names that workflows use.
        tracing: where spans go; None: nowhere.
        acr_values, max_age: how, and how many seconds ago at most, the user must have signed in
            (RFC 9470); empty, None: anyhow, ever.
    """

    keys: TrustedKeys
    issuer: str
    tenants: Names
    audience: str
    history: History = field(default_factory=History)
    brokers: Mapping[str, UpstreamBroker] = field(default_factory=dict, repr=False)
    tracing: Tracing | None = None
    acr_values: Names = ()
    max_age: int | None = None


def check_served(
    tenants: Sequence[str], acr_values: Sequence[str], max_age: int | None
) -> None:
    """Check whom a tool server serves.

    Raises:
        ConfigError: a setting that would serve others.
    """
    if (
        isinstance(tenants, str)
        or not tenants
        or not all(type(t) is str and t for t in tenants)
    ):
        raise ConfigError("tenants", tenants, "a list of exact tenant names")
    if isinstance(acr_values, str) or not all(
        type(acr) is str and acr and not {*acr} & {*' "'} for acr in acr_values
    ):
        raise ConfigError(
            "acr_values", acr_values, "a list of acr values without spaces and quotation marks"
        )
    if max_age is not None and (type(max_age) is not int or max_age < 1):
        raise ConfigError("max_age", max_age, "seconds, 1 or more, or None")


@value_class
class VerifierSettings:
    """Settings of a verifier; none but the last seven has a default.

    Args:
        jwks: the gate's key set (RFC 7517), or a function that returns the newest.
        issuer: the gate's exact `iss`.
        tenants: exact tenant names this server serves.
        audience: this server's resource URL, the exact `aud`.
        store: the gate's state store (redis://, rediss://, unix://, redis+sentinel://,
            redis+cluster://, embedded://).
        audit: directory of this process's audit log.
        at_once: how many redemptions are under way at once; more are refused at once.
        heads: the directory, outside `audit`, of the key that seals the log, for ``agentgate
            audit verify --keys``; None: none does.
        checkpoints: as of a gate (`agentgate.gate.settings`).
        brokers: upstream brokers (`agentgate.credentials`) by name; a call whose workflow names
            another is refused.
        tracing: where spans go, such as `agentgate.integrations.otel.OpenTelemetry()`; None:
            none are made.
        acr_values: how the user must have signed in, one of these `acr` (RFC 9470); empty:
            anyhow. A token that does not say is refused.
        max_age: how many seconds ago at most; None: ever.
    """

    jwks: Jwks
    _: KW_ONLY
    issuer: str
    tenants: Sequence[str]
    audience: str
    store: str = field(repr=False)  # its URL may hold a password
    audit: str
    at_once: int = AT_ONCE
    heads: str | None = None
    brokers: Mapping[str, UpstreamBroker] = field(default_factory=dict, repr=False)
    tracing: Tracing | None = None
    acr_values: Sequence[str] = ()
    max_age: int | None = None
    checkpoints: Names = ()

    def __post_init__(self) -> None:
        checked_at_once(self.at_once)
        for name, value in (("issuer", self.issuer), ("audience", self.audience)):
            if type(value) is not str or not value:
                raise ConfigError(name, value, "a URL")
        check_served(self.tenants, self.acr_values, self.max_age)
        checked_brokers(self.brokers)
        for name, value in (("audit", self.audit), ("store", self.store)):
            if type(value) is not str or value.startswith("memory:"):
                raise ConfigError(
                    name,
                    value if type(value) is str else type(value).__name__,
                    "what another process can share; in one process use gate.verifier(audience)",
                )

    @property
    def serving(self) -> tuple[str, Sequence[str]]:
        """Whose calls this server redeems: its audience and its tenants."""
        return self.audience, self.tenants

    def trust(self) -> Trust:
        """Whom the verifier trusts.

        Raises:
            KeyRefused: the key set holds an unusable key. AuditUnavailable: the audit log
                cannot be read.
        """
        keys = TrustedKeys(self.jwks, fetched=callable(self.jwks))
        keys.parsed()
        return Trust(
            keys,
            issuer=self.issuer,
            tenants=tuple(self.tenants),
            audience=self.audience,
            history=History(remembered(self.audit)),
            brokers=self.brokers,
            tracing=self.tracing,
            acr_values=tuple(self.acr_values),
            max_age=self.max_age,
        )


# --- the steps --------------------------------------------------------------------------------
_UNSPENT = "an unspent, unrevoked token of this store's history"
_BROKERS = "a broker of this name in `brokers` of whoever redeems; the token is not burned"
_WHOLE = "a store that has lost nothing of this tenant (agentgate store reconcile)"


def judged(
    who: Trust, token: str, proof: DPoP | None, now: float, *, certificate: str | None = None
) -> Generator[Step, Any, Claims]:
    """Steps 3 to 10: what can be said of a token without its call. `now`: POSIX seconds;
    `certificate`: as of `check_proof`.

    Raises (through the driver):
        TokenRefused: nothing else.
    """
    try:
        keys = yield from who.keys.newest()
        claims = check_token(
            token, keys, issuer=who.issuer, tenants=who.tenants, audience=who.audience, now=now
        )
        with _InRun(claims):
            if proof is not None and type(proof) is not DPoP:
                raise TokenRefused(Refusal.PROOF, "proof", type(proof).__name__, "a DPoP")
            check_proof(claims, token, proof, now, certificate=certificate)
    finally:
        del token  # a traceback with locals must not show it
    return claims


class _InRun:
    """What is refused here is refused in the run of a good token: an operator finds it by that.
    No generator: each call enters three.
    """

    __slots__ = ("_claims",)

    def __init__(self, claims: Claims) -> None:
        self._claims = claims

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, TokenRefused):
            error.run = self._claims.run


def called(
    who: Trust,
    token: str,
    tool: str,
    args: Args,
    proof: DPoP | None,
    *,
    certificate: str | None = None,
) -> Generator[Step, Any, tuple[Claims, bytes]]:
    """Steps 3 to 12: the claims, and the canonical bytes of the arguments, of a token that is
    for exactly this call and user.

    Raises (through the driver):
        TokenRefused: nothing else.
    """
    now = time.time()
    steps = judged(who, token, proof, now, certificate=certificate)
    del token  # a traceback with locals must not show it
    if type(tool) is not str:
        raise TokenRefused(Refusal.TOOL, "tool", type(tool).__name__, "a tool's name")
    claims: Claims = yield from steps
    with _InRun(claims):
        try:
            data = (
                args.data if type(args) is CanonicalArguments else canonical(dict(args), "args")
            )  # costs most: only for a good token
        except (CanonicalError, TypeError, ValueError, AttributeError) as error:
            raise TokenRefused(
                Refusal.ARGUMENTS,
                "args",
                type(error).__name__,
                "arguments with a canonical form",
            ) from None
        check_call(claims, tool, data)
        check_authentication(claims, now, acr_values=who.acr_values, max_age=who.max_age)
    return claims, data


def build_redemption(
    claims: MintClaims, data: bytes, head: bytes, tracing: Tracing | None
) -> Redemption:
    """The redemption of a call whose token was burned; `head`: what its record says of it, as
    JSON.

    Raises:
        TypeError, ValueError, KeyError: it is unreadable.
    """
    done = Redemption(claims, data, parse(head), tracing=tracing)
    _ = done.asked, done.head["facts"].items()
    return done


def redeem(
    who: Trust,
    token: str,
    tool: str,
    args: Args,
    proof: DPoP | None,
    *,
    known: bool = True,
    **more: Any,
) -> Flow:
    """`burned`, in a span. `known`: the tool's name is one that a workflow or this server has,
    and not whatever was sent.
    """
    steps = burned(who, token, tool, args, proof, **more)
    del token  # a traceback with locals must not show it
    if who.tracing is None:
        return steps
    named = {"gen_ai.tool.name": tool if known and type(tool) is str else UNKNOWN_TOOL}
    return spanned(
        who.tracing,
        f"redeem {named['gen_ai.tool.name']}",
        named,
        steps,
        lambda done: (told(done.claims), ""),
    )


def told(claims: MintClaims) -> dict[str, str | int]:
    """What spans say of a call."""
    workflow, version, _ = claims.workflow
    return call_attributes(
        claims.tool, claims.tool_call_id, claims.client_id, workflow, version
    )


def burned(
    who: Trust,
    token: str,
    tool: str,
    args: Args,
    proof: DPoP | None,
    *,
    certificate: str | None = None,
    attempt: str = "",
    brokers: Names | None = None,
) -> Flow:
    """Steps 3 to 13: verify, bind to the call, burn, record. Returns a `Redemption`, still
    without an upstream credential.

    Somebody else who runs the tool may name this `attempt`, and the `brokers` that it has;
    None: nobody tells.

    Raises (through the driver):
        TokenRefused: nothing else.
    """
    steps = called(who, token, tool, args, proof, certificate=certificate)
    del token  # a traceback with locals must not show it
    claims, data = yield from steps
    with _InRun(claims):
        return (yield from _burnt(who, claims, data, attempt or secrets.token_hex(16), brokers))


def burn_request(
    claims: MintClaims,
    *,
    history: str = "",
    attempt: str = "",
    brokers: Names | None = None,
) -> ops.BurnRequest:
    """What the store is asked about a token; the last three are as in
    `agentgate.stores.ops.BurnRequest`.
    """
    shared = claims.shared
    workflow, version, _ = shared.workflow
    user = shared.sub if "user" in claims.identity else ""
    return ops.BurnRequest(
        tenant=shared.tenant,
        jti=claims.jti,
        gen=claims.gen,
        binding=claims.binding,
        run=shared.run,
        call_digest=claims.call_digest,
        subjects=ops.Subjects(
            shared.client_id, user, shared.tool, ops.workflow_subject(workflow, version)
        ),
        history=history,
        attempt=attempt,
        brokers=brokers,
        audience=claims.recorded_for,
    )


def _burnt(
    who: Trust, claims: Claims, data: bytes, attempt: str, brokers: Names | None
) -> Flow:
    """Step 13, and its record."""
    audience = claims.recorded_for
    name = history_name(claims.tenant, audience)
    sent = who.history.seen(name)
    epoch, count = split(sent)
    likely = who.history.note(epoch and f"{epoch} {count + 1}", audience)
    drafts = list[DraftedRecord]()
    try:
        yield Room()
    except AuditUnavailable as error:  # and the token is not burned
        raise TokenRefused(
            Refusal.AUDIT, "audit", str(error), "room for the record of the redemption"
        ) from None
    try:
        reply: ops.BurnReply = yield ops.burn(
            burn_request(claims, history=sent, attempt=attempt, brokers=brokers),
            lambda: drafts.append(DraftedRecord(redemption_record(claims, likely).body)),
        )
    except NameRefused as error:
        raise TokenRefused(
            Refusal.STORE, "store", str(error), "names that a store can hold"
        ) from None
    except (StoreUnavailable, AuditUnavailable) as error:  # it may be burned
        yield from not_run(claims, attempt=attempt)
        raise TokenRefused(
            Refusal.STORE, "store", str(error), "a state store that answers in time"
        ) from None
    if reply.kind == "upstream":
        raise TokenRefused(
            Refusal.UPSTREAM,
            "upstream.broker",
            ascii(reply.head.decode("utf-8", "replace")),
            _BROKERS,
        )
    if reply.kind != "ok":
        raise TokenRefused(
            Refusal(reply.kind), "jti", reply.kind, _WHOLE if reply.kind == "lost" else _UNSPENT
        )
    who.history.see(name, sent, reply.history)
    noted = who.history.note(reply.history, audience)
    if drafts and noted == likely:
        record = Record(drafts[-1], promised=True)
    else:
        record = redemption_record(claims, noted)
    done = yield from record_redemption(record, claims, data, reply.head, who.tracing)
    # before any broker is asked for what the record says
    if audience and digest(reply.head) != claims.head_digest:
        yield from not_run(
            claims,
            why="the call's record is another than the one that the token was signed for",
        )
        raise TokenRefused(
            Refusal.STORE,
            "call record",
            "another head",
            "the head whose digest is in the token",
        )
    return done


def redemption_record(claims: MintClaims, noted: Mapping[str, Any]) -> Record:
    """The audit record of a redemption, with what is `noted` of histories."""
    return record_of(
        claims,
        "redemption",
        promised=True,
        tool=claims.tool,
        call_digest=claims.call_digest,
        **noted,
    )


def record_redemption(
    record: Record | None,
    claims: MintClaims,
    data: bytes,
    head: bytes,
    tracing: Tracing | None,
    *,
    drafted: Redemption | None = None,
) -> Flow:
    """The redeemed call, as it was `drafted` if it was, once its `record` is durable; None: it
    is on record already, and forgetting more does no harm.

    Raises (through the driver):
        TokenRefused: the tool must not run.
    """
    try:
        if record is not None:
            yield record
        return drafted or build_redemption(claims, data, head, tracing)
    except AuditUnavailable as error:
        yield from not_run(claims)
        raise TokenRefused(
            Refusal.AUDIT,
            "audit",
            str(error),
            "a durable record of the redemption before the tool runs",
        ) from None
    except (TypeError, ValueError, KeyError):
        yield from not_run(claims)
        raise TokenRefused(
            Refusal.STORE, "call record", "unreadable", "the record the gate wrote"
        ) from None


def supplied(who: Trust, done: Redemption) -> Flow:
    """The redemption with the upstream credential that its workflow names, if it names one.
    Without it the call is not run.

    Raises (through the driver):
        TokenRefused: nothing else.
    """
    claims = done.claims
    asked = done.asked
    if asked is not None:
        try:
            done.credential = yield from fetch(who.brokers, done, asked)
            got: Json = {
                "broker": asked.broker,
                "role": asked.settings.get("role"),
                "expires_at": done.credential.expires_at,
            }
            # the time of the call may be used up
            yield Apart(alone(record_of(claims, "credential", promised=True, **got)))
        except (UpstreamRefused, AuditUnavailable) as error:
            if done.credential is not None:
                yield from ended(done.credential)
            yield Apart(not_run(claims, why=str(error)))
            if isinstance(error, AuditUnavailable):
                raise TokenRefused(
                    Refusal.AUDIT,
                    "audit",
                    str(error),
                    "a durable record of the credential before the tool runs",
                ) from None
            raise TokenRefused.of(error.failure(reason=Refusal.UPSTREAM)) from None
    return done
