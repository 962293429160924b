"""Rows without a store and without an audit: decide, mint, verify."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

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
    rows.append((yield from compared("decide_mint", pair, "pyca ES256 sign", 1.6, note)))
    pair = loop(lambda: desk.eligible(desk.call), bare.sign, scale)
    rows.append((yield from compared("decide", pair, "pyca ES256 sign", None, "decide alone")))
    intent = desk.eligible(desk.call).intent
    pair = loop(lambda: desk.signed(desk.call, intent), bare.sign, scale)
    rows.append((yield from compared("mint", pair, "pyca ES256 sign", None, "call digest and mint, nothing decided")))
    pair = loop(lambda: desk.verified(token, desk.call.data), bare.verify, scale)
    rows.append((yield from compared("verify", pair, "pyca ES256 verify", 1.4, "check_token and check_call")))

    def whole() -> None:
        fresh = desk.minted(desk.proposed()).reveal()
        desk.verified(fresh, canonical(world.REFUND))

    note = "canonicalise, decide, mint; canonicalise again, verify"
    tenuo = _tenuo()
    if tenuo is None:
        row = yield from compared("decide_mint_verify", loop(whole, bare.sign, scale), "", None, note + "; tenuo is not installed")
        rows.append(replace(row, baseline_us=None, value=row.median_us or 0.0, unit="us"))
    else:
        path = "tenuo, reused warrant: sign PoP, authorize"
        rows.append((yield from compared("decide_mint_verify", loop(whole, tenuo, scale), path, 1.0, note)))
        bottom = loop(bare.both, tenuo, scale)
        note = "pyca ES256 sign and verify by themselves: no token, no policy"
        rows.append((yield from compared("sign_verify", bottom, path, None, note)))
    return rows


def _tenuo() -> Work | None:
    """The fastest per-call path of tenuo that checks what this workflow checks; None where the `bench` extra is not installed.

    One warrant for the run, a proof of possession per call, and the authorizer's full check in its Rust core (issuer, expiry,
    tool, constraints, proof); of its two entry points the faster one.
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
    warrant = tenuo_core.Warrant.issue(issuer, {"payments.refund": constraints}, 3600, holder=holder.public_key)
    authorizer = tenuo_core.Authorizer(trusted_roots=[issuer.public_key])
    args = {**world.REFUND, "amount": float(world.REFUND["amount"])}

    def through(check: Callable[..., Any]) -> Work:
        return lambda: check(
            warrant, "payments.refund", args, signature=bytes(warrant.sign(holder, "payments.refund", args, int(time.time())))
        )

    return min((through(authorizer.authorize), through(authorizer.authorize_one)), key=_quickest)


def _quickest(work: Work) -> int:
    def once() -> int:
        start = time.perf_counter_ns()
        work()
        return time.perf_counter_ns() - start

    return min(once() for _ in range(50))
