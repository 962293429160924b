"""Vault and OpenBao: a token of one policy for one call, or a secret read with it (extra
``[vault]``).

Rules: for each call a token is made that has exactly the policy named by the workflow's `role`,
no other, and cannot be renewed; Vault lets nobody make one that may do more than its maker. A
secret at `path` is read with that token, so Vault itself decides whether the role may. When the
call is over the token is revoked, and with it the leases of what it read. https, http only on
loopback; no redirect, no proxy.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, field
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from agentgate.credentials.static import Secret
from agentgate.errors import ConfigError, KeysUnavailable, UpstreamRefused
from agentgate.identity.fetch import ask
from agentgate.redemption.credential import Redemption, UpstreamCredential
from agentgate.values.urls import is_secure
from agentgate.values.value_class import value_class

_SECONDS = 2.0  # until a whole answer is there
_LIFE = 300  # seconds of a token where the workflow says no duration
_PATH = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+").fullmatch


@value_class
class VaultBroker:
    """One Vault or OpenBao server.

    Attributes:
        url: its address.
        token: the broker's own token: every policy that it hands out, and `update` on
            auth/token/create and auth/token/revoke-accessor; read for every call, so that
            Vault's agent can renew it.
        namespace: of Vault; empty: none.
        public: parts of what is read that are no secret.
        scopes: role -> what its policy permits, in the words of roles.yaml.
        tenants: the only ones for whose calls it is asked; None: those of the tool server.
    """

    url: str
    token: Secret
    _: KW_ONLY
    namespace: str = ""
    public: Collection[str] = frozenset({"username"})
    scopes: Mapping[str, Collection[str]] = field(default_factory=dict)
    tenants: Sequence[str] | None = None
    takes = frozenset({"role", "path", "duration"})

    def __post_init__(self) -> None:
        if not is_secure(urlsplit(self.url)):
            raise ConfigError("url", self.url, "an https URL (http only on loopback)")

    def fetch(self, call: Redemption) -> UpstreamCredential:
        """The secret at the workflow's `path`, under the names that stand there; without a
        path, the call's `token` itself.

        Raises:
            UpstreamRefused: Vault made no such token, or one with other policies; or there is
                nothing to read.
        """
        asked = call.wanted
        path = call.wanted.settings.get("path")
        if path is not None and (
            not _PATH(path) or any(set(part) == {"."} for part in path.split("/"))
        ):
            raise UpstreamRefused(
                "upstream.path", path, "the path of a secret, such as database/creds/reader"
            )
        lives = asked.settings.get("duration", _LIFE)
        claims = call.claims
        meta = {
            "tenant": claims.tenant,
            "run": claims.run,
            "txn": claims.txn,
            "user": claims.sub,
            "agent": claims.client_id,
        }
        made = self._answer(
            self._client(self.token.read()).auth.token.create,
            policies=[asked.role],
            no_default_policy=True,
            ttl=f"{lives}s",
            explicit_max_ttl=f"{lives}s",
            renewable=False,
            meta=meta,
            display_name="agentgate",
        )
        made = _member(made, "auth", dict)
        accessor = _member(made, "accessor", str)
        try:
            token = _member(made, "client_token", str)
            _check_policies(asked.role, made)
            ends = time.time() + _member(made, "lease_duration", int, most=lives)
            secret = {"token": token}
            public = dict[str, str]()
            if path is not None:
                secret, public, lease = self._read(token, path)
                ends = min(ends, time.time() + lease) if lease else ends
            scopes = self.scopes.get(asked.role)
            return UpstreamCredential(
                secret,
                public=public,
                expires_at=ends,
                scopes=scopes,
                end=lambda: self._revoke(accessor),
            )
        except BaseException:
            with suppress(UpstreamRefused):  # it ends by itself
                self._revoke(accessor)
            raise

    def _read(self, token: str, path: str) -> tuple[dict[str, str], dict[str, str], int]:
        """Secret and public parts of what stands at a path, and the seconds of its lease."""
        got = self._answer(self._client(token).read, path)
        if got is None:
            raise UpstreamRefused("upstream.path", path, "a secret that is there")
        data = _member(got, "data", dict)
        if set(data) == {"data", "metadata"}:  # version 2 of the key-value engine
            data = _member(data, "data", dict)
        if not all(type(value) is str for value in data.values()):
            raise UpstreamRefused("upstream.path", path, "a secret whose parts are texts")
        public = {name: value for name, value in data.items() if name in self.public}
        leased = got.get("lease_id") and _member(got, "lease_id", str)
        return (
            {n: v for n, v in data.items() if n not in public},
            public,
            _member(got, "lease_duration", int) if leased else 0,
        )

    def _client(self, token: str) -> Any:
        try:
            import hvac  # noqa: PLC0415 - an extra
            import requests  # noqa: PLC0415 - what hvac speaks HTTP with
        except ImportError:
            raise UpstreamRefused("upstream", "no package hvac", "the extra [vault]") from None

        class OneReader(requests.adapters.BaseAdapter):
            def send(self, request: Any, *_: Any, verify: bool | str = True, **__: Any) -> Any:
                authorities = verify if isinstance(verify, str) else None  # of VAULT_CACERT
                body = request.body.encode() if isinstance(request.body, str) else request.body
                got = ask(
                    request.method,
                    request.url,
                    body,
                    request.headers,
                    private=True,
                    seconds=_SECONDS,
                    authorities=authorities,
                )
                made = requests.Response()
                made.status_code = got.status
                made.encoding = "utf-8"
                made.headers = requests.structures.CaseInsensitiveDict(got.headers.items())
                made.raw = BytesIO(got.body)
                made.url = request.url
                made.request = request
                return made

            def close(self) -> None:
                """Nothing is kept."""

        session = requests.Session()
        session.trust_env = False
        for scheme in ("https://", "http://"):
            session.mount(scheme, OneReader())
        named = {"namespace": self.namespace} if self.namespace else {}
        return hvac.Client(
            self.url, token=token, allow_redirects=False, session=session, **named
        )

    @staticmethod
    def _answer(ask: Any, *args: Any, **named: Any) -> Any:
        try:
            return ask(*args, **named)
        except KeysUnavailable as error:
            raise UpstreamRefused.of(
                error.failure(field="vault", expected="an answer")
            ) from None
        except Exception as error:  # noqa: BLE001 - of hvac and its HTTP client: the text may hold what was sent or answered
            raise UpstreamRefused("vault", type(error).__name__, "an answer") from None

    def _revoke(self, accessor: str) -> None:
        self._answer(self._client(self.token.read()).auth.token.revoke_accessor, accessor)


def _check_policies(role: str, made: Mapping[str, Any]) -> None:
    has = _member(made, "policies", list) + (
        _member(made, "identity_policies", list) if made.get("identity_policies") else []
    )
    if any(each != role for each in has):
        raise UpstreamRefused(
            "upstream.role", ", ".join(sorted(map(str, has))), f"the policy {role} and no other"
        )


def _member(answer: Any, name: str, kind: type, *, most: float = float("inf")) -> Any:
    """What stands under a name in an answer: of this kind, not empty. Raises
    UpstreamRefused.
    """
    value: Any = answer.get(name) if type(answer) is dict else None
    if type(value) is not kind or not value or (type(value) is int and not 0 < value <= most):
        raise UpstreamRefused(
            f"vault.{name}", type(value).__name__, f"a value ({kind.__name__}), not empty"
        )
    return value
