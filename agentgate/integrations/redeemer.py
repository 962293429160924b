"""A tool server outside the gate's trust zone: it redeems at the gate, over HTTP, and reports
there. It has no access to the store.

Rules: token, proof and call are checked here first, with the gate's published keys, and again
by the gate, which burns. A redemption is sent once. Where its answer is lost, the token may be
burned and the tool does not run: the gate is told so, of this attempt, and the caller gets 503.
Reports are sent again for as long as a verifier would try (`RECORD_SECONDS`): they count once.
The tool runs from `RemoteCall.args`.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple, Self, TypeVar

import httpx
import orjson
import structlog

from agentgate.errors import (
    CanonicalError,
    KeysUnavailable,
    Overloaded,
    Refusal,
    TokenRefused,
    UpstreamRefused,
)
from agentgate.identity.fetch import fetch as fetched
from agentgate.integrations.client_key import ClientKey
from agentgate.integrations.exchange import check_gate
from agentgate.redemption.credential import (
    Redemption,
    UpstreamBroker,
    checked_brokers,
    ended,
    fetch,
    raise_instead,
)
from agentgate.redemption.outcome import facts_of, lost, outcome_of, tell_lost
from agentgate.redemption.steps import (
    Trust,
    TrustedKeys,
    build_redemption,
    called,
    check_served,
    judged,
    told,
)
from agentgate.redemption.verifier import AwaitedCall, taken
from agentgate.shell import log
from agentgate.shell.bound import AT_ONCE, Bound
from agentgate.shell.drive import RECORD_SECONDS, adrive, to_the_end
from agentgate.shell.spans import UNKNOWN_TOOL, Tracing, within
from agentgate.shell.step import Step
from agentgate.token.claims import Claims
from agentgate.token.dpop import DPoP
from agentgate.token.mint import MintClaims
from agentgate.values.canonical import canonical, parse

Result = TypeVar("Result")
SECONDS = 5.0  # for a gate's whole answer to a redemption
MAX_ANSWER = 1024 * 1024  # bytes
# seconds that a connection is kept: less than servers keep one, so that none is closed while a
# redemption is on its way
_IDLE = 2.0
_PAUSE = 0.2  # seconds before the first repetition of a report
# what a report may get that comes before the redemption is on record, or too often
_LATER = {404, 429}
_log = structlog.get_logger("agentgate.integrations.redeemer")


class _Lost(Exception):
    """No answer that says what became of a request. `sent`: the gate may have carried it
    out.
    """

    def __init__(self, why: str, *, sent: bool = True) -> None:
        self.sent = sent
        super().__init__(why)


class _Answer(NamedTuple):
    """A gate's answer: its status, its body, and the code of a problem (RFC 9457) in it."""

    status: int
    data: bytes

    @property
    def code(self) -> str:
        try:
            return str(orjson.loads(self.data)["code"])
        except (ValueError, TypeError, LookupError):
            return ""


class RemoteCall(AwaitedCall):
    """A call that a gate redeemed for this server, as an `AsyncRedeemedCall`."""

    def __init__(self, done: Redemption, redeemer: GateRedeemer) -> None:
        super().__init__(done)
        self._redeemer = redeemer

    async def record_result(self, result: Result) -> Result:
        """Read the declared facts from the tool's real result and report them, once; returns
        the result. Nothing else of it is sent.
        """
        facts = await _outside(facts_of(self._done, result))
        if facts is not None and self._done.head["facts"]:
            try:
                await self._redeemer.report(
                    self._done.claims, "result", {"facts": parse(facts)}
                )
            except _Lost as error:
                lost(self._done, "facts", error)
        return result

    async def __aexit__(self, *raised: Any) -> None:  # noqa: PYI036 - handed on as they are
        error = raised[1]
        shown = self.showable(error)
        done = self._done
        self._end(shown)
        done.ended = True
        await to_the_end(self._told(shown))
        tell_lost(done, shown)
        raise_instead(shown, error)

    async def _told(self, error: BaseException | None) -> None:
        done = self._done
        try:
            await self._redeemer.report(
                done.claims, "outcome", {"outcome": outcome_of(done, error)}
            )
        except _Lost as failed:
            lost(done, "outcome", failed)
        if done.credential is not None and (failure := await _outside(ended(done.credential))):
            _log.error(
                "not_ended", what="upstream credential", txn=done.claims.txn, error=failure
            )


class GateRedeemer:
    """Redeems call tokens for one tool server at its gate. It stands where an `AsyncVerifier`
    does.
    """

    def __init__(
        self,
        gate: str,
        client: ClientKey,
        *,
        tenants: Sequence[str],
        audience: str,
        brokers: Mapping[str, UpstreamBroker] | None = None,
        address: str | None = None,
        at_once: int = AT_ONCE,
        acr_values: Sequence[str] = (),
        max_age: int | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """A gate by its issuer URL.

        Args:
            gate: its issuer, the exact `iss` of its tokens.
            client: this tool server at the gate: role ``tool_server``.
            tenants: exact tenant names this server serves.
            audience: this server's resource URL, the exact `aud`.
            brokers: upstream brokers (`agentgate.credentials`) by name; a call whose workflow
                names another is not burned.
            address: where the gate is reached, if not at its issuer.
            at_once: how many redemptions are under way at once; more are refused at once.
            acr_values: how the user must have signed in, as in `Verifier.open`; empty: anyhow.
            max_age: how many seconds ago at most; None: ever.
            tracing: where spans go; None: none are made.

        Raises:
            ConfigError: a URL that is neither https nor loopback, or an unusable setting.
        """
        log.ready()
        check_gate(gate, address)
        check_served(tenants, acr_values, max_age)
        checked_brokers(brokers or {})
        self._gate = gate
        self._client = client
        self._brokers = dict(brokers or {})
        self._bound = Bound(at_once)
        self._base = (address or gate).removesuffix("/")
        served = (TrustedKeys(self._jwks, fetched=True), gate, tuple(tenants), audience)
        self._trust = Trust(
            *served, tracing=tracing, acr_values=tuple(acr_values), max_age=max_age
        )
        self._http: httpx.AsyncClient | None = None

    async def open(self) -> Self:
        """Ask for the gate's keys.

        Raises:
            KeysUnavailable: the gate does not answer.
        """
        limits = httpx.Limits(keepalive_expiry=_IDLE)
        tls = ssl.create_default_context()
        self._http = httpx.AsyncClient(
            base_url=self._base, timeout=SECONDS, limits=limits, trust_env=False, verify=tls
        )
        try:
            await _outside(self._trust.keys.newest())
        except TokenRefused as error:
            await self.close()
            raise KeysUnavailable(
                "gate", f"{self._base}: {error.got}", "a gate that publishes its keys"
            ) from None
        return self

    async def check(
        self, token: str, *, proof: DPoP | None = None, certificate: str | None = None
    ) -> Claims:
        """Judge a token without its call, before more of a request is read: see
        `Verifier.check`.

        Raises:
            TokenRefused: and nothing else.
        """
        steps = judged(self._trust, token, proof, time.time(), certificate=certificate)
        del token  # a traceback with locals must not show it
        claims: Claims = await _outside(steps)
        return claims

    async def redeem(
        self,
        token: str,
        *,
        tool: str,
        args: Mapping[str, Any],
        proof: DPoP | None = None,
        certificate: str | None = None,
    ) -> RemoteCall:
        """Verify the token against the call really received, and have the gate burn it: see
        `Verifier.redeem`.

        Raises:
            TokenRefused: and nothing else.
        """
        work = self._call(_sealed(token), tool, args, proof, certificate)
        del token  # a traceback with locals must not show it
        return await taken(work)

    async def _call(
        self,
        text: Callable[[], str],
        tool: str,
        args: Mapping[str, Any],
        proof: DPoP | None,
        certificate: str | None,
    ) -> RemoteCall:
        named = tool if type(tool) is str else UNKNOWN_TOOL
        try:
            with (
                self._bound.place(new=True),
                within(self.tracing, f"redeem {named}", {"gen_ai.tool.name": named}) as tell,
            ):
                claims, data = await _outside(
                    called(self._trust, text(), tool, args, proof, certificate=certificate)
                )
                attempt = secrets.token_hex(16)
                shown = {"certificate": certificate} if claims.cnf_x5t is not None else {}
                more = {
                    **shown,
                    "tool": tool,
                    "arguments": parse(data),
                    "attempt": attempt,
                    "brokers": sorted(self._brokers),
                }
                try:
                    answer = await self._post("/v1/redeem", _body(text, proof, more), SECONDS)
                    done = _proven(claims, data, answer, self.tracing)
                except _Lost as error:
                    if error.sent:
                        await self._not_run(claims, attempt)
                    raise TokenRefused(
                        Refusal.GATE, "gate", str(error), "a gate that answers in time"
                    ) from None
                done = await self._supplied(done, attempt)
                tell(told(done.claims))
                return RemoteCall(done, self)
        except Overloaded as error:
            raise TokenRefused.of(error.failure(reason=Refusal.OVERLOAD)) from None

    @property
    def tracing(self) -> Tracing | None:
        """Where spans go; None: nowhere."""
        return self._trust.tracing

    async def close(self) -> None:
        """Close the connections."""
        if self._http:
            await self._http.aclose()

    async def _supplied(self, done: Redemption, attempt: str) -> Redemption:
        asked = done.asked
        if asked:
            try:
                done.credential = await _outside(fetch(self._brokers, done, asked))
            except UpstreamRefused as error:
                await self._not_run(done.claims, attempt)
                raise TokenRefused.of(error.failure(reason=Refusal.UPSTREAM)) from None
            expires_at = done.credential.expires_at
            _log.info(
                "credential",
                txn=done.claims.txn,
                broker=asked.broker,
                role=asked.settings.get("role"),
                expires_at=expires_at,
            )
        return done

    async def _not_run(self, claims: MintClaims, attempt: str) -> None:
        """The token may be burned, and the tool is not going to run: without this its outcome
        would be unknown.
        """
        try:
            await self.report(claims, "outcome", {"outcome": "not_run", "attempt": attempt})
        except _Lost as error:
            _log.warning("not_recorded", what="not_run", txn=claims.txn, error=str(error))

    async def report(self, claims: MintClaims, what: str, body: Mapping[str, Any]) -> None:
        """Report on a call this server redeemed; sent again while there is time, since a report
        counts once.

        Raises:
            _Lost: the gate did not take it.
        """
        sent = _sealed(canonical({**body, "tenant": claims.tenant}))
        end = time.monotonic() + RECORD_SECONDS
        pause = _PAUSE
        while True:
            try:
                answer = await self._post(
                    f"/v1/calls/{claims.txn}/{what}", sent, max(_PAUSE, end - time.monotonic())
                )
            except _Lost as error:
                why = error
            else:
                if answer.status == 204 or answer.code == "already_recorded":
                    return
                why = _Lost(f"status {answer.status} {answer.code}")
                if answer.status < 500 and answer.status not in _LATER:
                    raise why
            if time.monotonic() + pause >= end:
                raise why
            await asyncio.sleep(pause)
            pause *= 2

    async def _post(self, path: str, body: Callable[[], bytes], seconds: float) -> _Answer:
        """The gate's answer.

        Raises:
            _Lost: there is none.
        """
        if not self._http:
            raise _Lost("not open", sent=False)
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "Authorization": f"Bearer {self._client.assertion(self._gate)}",
            **(self.tracing.carried() if self.tracing is not None else {}),
        }
        try:
            async with (
                asyncio.timeout(seconds),
                self._http.stream("POST", path, content=body(), headers=headers) as answer,
            ):
                if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
                    raise _Lost("an encoded answer")
                data = bytearray()
                async for chunk in answer.aiter_raw():
                    data += chunk[: MAX_ANSWER + 1 - len(data)]
                    if len(data) > MAX_ANSWER:
                        break
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _Lost(type(error).__name__, sent=False) from None
        except (TimeoutError, httpx.TimeoutException):  # of the answer, or of HTTP
            raise _Lost("no whole answer in time") from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise _Lost(type(error).__name__) from None
        return _Answer(answer.status_code, bytes(data))

    def _jwks(self) -> Mapping[str, Any]:
        """The gate's key set; asked for in a thread (`TrustedKeys.newest`)."""
        keys: Mapping[str, Any] = orjson.loads(
            fetched(f"{self._base}/oauth2/jwks", private=True)
        )
        return keys


def _sealed(value: Result) -> Callable[[], Result]:
    """A secret that no frame of a traceback shows."""
    return lambda: value


def _body(
    text: Callable[[], str], proof: DPoP | None, more: Mapping[str, Any]
) -> Callable[[], bytes]:
    """What is sent to be redeemed."""
    shown = (
        {"proof": {"dpop": proof.header, "method": proof.method, "url": proof.url}}
        if proof
        else {}
    )
    return _sealed(canonical({"token": text(), **shown, **more}))


async def _outside(flow: Generator[Step, Any, Any]) -> Any:
    """Carry out a flow that asks neither store nor log."""
    nobody: Any = None
    return await adrive(flow, nobody, nobody)


def _proven(
    claims: Claims, data: bytes, answer: _Answer, tracing: Tracing | None
) -> Redemption:
    """The redemption that a gate says it carried out, if it is this call's.

    Raises:
        TokenRefused: the gate refused. _Lost: it cannot be told what the gate did.
    """
    if answer.status != 200:
        raise _refusal(answer)
    try:
        said = orjson.loads(answer.data)
        same = all(
            said[name] == getattr(claims, name)
            for name in "txn tenant run tool tool_call_id".split()
        )
        if not same or canonical(said["arguments"]) != data:
            raise _Lost("an answer about another call")
        return build_redemption(
            claims,
            data,
            canonical(
                {name: said[name] for name in "read facts upstream key".split() if name in said}
            ),
            tracing,
        )
    except (KeyError, TypeError, ValueError, AttributeError, CanonicalError) as error:
        raise _Lost(f"an unreadable answer ({type(error).__name__})") from None


def _refusal(answer: _Answer) -> TokenRefused | _Lost:
    """What a gate's refusal says of the token. Of this server's own standing at the gate it is
    a 503, and the operator's business.
    """
    known = next(
        (each for each in Refusal if each == answer.code and each.http_status == answer.status),
        None,
    )
    if known is not None:
        return TokenRefused(
            known, "gate", str(known), "a token that the gate redeems (its log says more)"
        )
    if answer.status >= 500:
        return _Lost(f"status {answer.status}")
    if answer.status == 413:
        return TokenRefused(
            Refusal.GATE,
            "gate",
            "status 413",
            "a gate whose `max_body` is more than this server's",
        )
    _log.error("refused_by_gate", status=answer.status, code=answer.code[:80])
    code = Refusal.OVERLOAD if answer.status == 429 else Refusal.GATE
    return TokenRefused(
        code,
        "gate",
        f"status {answer.status}",
        "this server as a client of the gate: its name, key, role and resource",
    )
