"""Rows without a store and without an audit: decide, mint, verify."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from agentgate.values.canonical import canonical
from tests.benchmarks import world
from tests.benchmarks.row import Bare, Measuring, Scale, compared, loop, token_size
from tests.benchmarks.sidebyside import Work


def engine(scale: Scale) -> Measuring:
    """Decide, mint, verify: no store, no audit."""
    desk = world.Desk()
    bare = Bare(token_size(desk))
    token = desk.minted(desk.call).reveal()
    rows = []
    note = "decide (payments.refund, one earlier order), call digest, mint"
    pair = loop(lambda: desk.minted(desk.call), bare.sign, scale)
    rows.append((yield from compared("decide_mint", pair, "pyca ES256 sign", 2.8, note)))
    pair = loop(lambda: desk.eligible(desk.call), bare.sign, scale)
    rows.append((yield from compared("decide", pair, "pyca ES256 sign", None, "decide alone")))
    intent = desk.eligible(desk.call).intent
    pair = loop(lambda: desk.signed(desk.call, intent), bare.sign, scale)
    rows.append((yield from compared("mint", pair, "pyca ES256 sign", None, "call digest and mint, nothing decided")))
    pair = loop(lambda: desk.verified(token, desk.call.data), bare.verify, scale)
    rows.append((yield from compared("verify", pair, "pyca ES256 verify", 1.3, "check_token and check_call")))

    def whole() -> None:
        fresh = desk.minted(desk.proposed()).reveal()
        desk.verified(fresh, canonical(world.REFUND))

    note = "canonicalise, decide, mint; canonicalise again, verify"
    tenuo = _tenuo()
    if tenuo is None:
        row = yield from compared("decide_mint_verify", loop(whole, bare.sign, scale), "", None, note + "; tenuo is not installed")
        rows.append(replace(row, baseline_us=None, value=row.median_us or 0.0, unit="us"))
    else:
        path = "tenuo, fresh warrant: issue, to its wire form and back, sign PoP, authorize"
        rows.append((yield from compared("decide_mint_verify", loop(whole, tenuo.fresh, scale), path, 0.8, note)))
        path = "tenuo, reused warrant: sign PoP, authorize"
        rows.append((yield from compared("decide_mint_verify_reused", loop(whole, tenuo.reused, scale), path, None, note)))
        bottom = loop(bare.both, tenuo.reused, scale)
        note = "pyca ES256 sign and verify by themselves: no token, no policy"
        rows.append((yield from compared("sign_verify", bottom, path, None, note)))
    return rows


class _Tenuo(NamedTuple):
    """Two paths of tenuo: a credential made for each call, as here, and one that serves a whole run."""

    fresh: Work
    reused: Work


def _tenuo() -> _Tenuo | None:
    """The fastest per-call paths of tenuo that check what this workflow checks; None where the `bench` extra is not installed.

    A warrant for the call or for the run, a proof of possession per call, and the authorizer's full check in its Rust core (issuer,
    expiry, tool, constraints, proof); of its two entry points the faster one.
    """
    if importlib.util.find_spec("tenuo_core") is None:
        return None
    tenuo_core: Any = importlib.import_module("tenuo_core")
    issuer, holder = tenuo_core.SigningKey.generate(), tenuo_core.SigningKey.generate()
    constraints = {
        "order_id": tenuo_core.Exact(world.REFUND["order_id"]),
        "amount": tenuo_core.Range(0.01, 500.0),
        "currency": tenuo_core.OneOf(["EUR", "GBP"]),
        "payee": tenuo_core.Exact(world.REFUND["payee"]),
        "reason": tenuo_core.Wildcard(),
    }

    def issued() -> Any:
        return tenuo_core.Warrant.issue(issuer, {"payments.refund": constraints}, 3600, holder=holder.public_key)

    warrant = issued()
    authorizer = tenuo_core.Authorizer(trusted_roots=[issuer.public_key])
    args = {**world.REFUND, "amount": float(world.REFUND["amount"])}

    def through(check: Callable[..., Any], one: Any) -> None:
        check(one, "payments.refund", args, signature=bytes(one.sign(holder, "payments.refund", args, int(time.time()))))

    check = min((authorizer.authorize, authorizer.authorize_one), key=lambda each: _quickest(lambda: through(each, warrant)))
    return _Tenuo(lambda: through(check, tenuo_core.Warrant.from_bytes(issued().to_bytes())), lambda: through(check, warrant))


def _quickest(work: Work) -> int:
    def once() -> int:
        start = time.perf_counter_ns()
        work()
        return time.perf_counter_ns() - start

    return min(once() for _ in range(50))
