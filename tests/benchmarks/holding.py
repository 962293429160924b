"""Opening a hold and answering it, at the gate: over a real server, with a durable audit log, beside the durable write itself."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from agentgate import JWSAnswer, StepUp
from agentgate.errors import StoreUnavailable
from agentgate.token.jws import b64url, compact, raw_signature
from agentgate.token.signing import SigningKey
from agentgate.values.answers import ANSWER_TYPE
from tests.benchmarks import world
from tests.benchmarks.row import Measuring, Row, Scale
from tests.benchmarks.shop import Shop, opened_shop
from tests.benchmarks.sidebyside import Pair, Timing, compare

_ABOVE = 'above: "100.00"'
_MOST_US = 3000.0


class _Front:
    """A front end with a key of its own."""

    def __init__(self) -> None:
        self._key = SigningKey.generate("ES256")
        private: Any = self._key._private
        self._private: ec.EllipticCurvePrivateKey = private
        self.jwks = {"keys": [self._key.public_jwk()]}

    def sign(self, shop: Shop, step: StepUp) -> JWSAnswer:
        """A lead's yes to this hold."""
        from cryptography.hazmat.primitives.hashes import SHA256

        hold, now = step.hold, int(time.time())
        stated = json.loads(hold.statement("release", shop.gate.nonce(hold.id, tenant=world.TENANT)))
        claims = {**stated, "aud": world.ISSUER, "sub": "mona", "groups": ["support-leads"], "iat": now, "exp": now + 60}
        header = b64url(json.dumps({"alg": "ES256", "kid": self._key.kid, "typ": ANSWER_TYPE}, separators=(",", ":")).encode())
        body = json.dumps(claims, separators=(",", ":")).encode()
        return JWSAnswer(compact(header, b64url(body), lambda data: raw_signature(self._private.sign(data, ec.ECDSA(SHA256())))))


def hold(scale: Scale) -> Measuring:
    """A call that is held (decision, question, store, durable record), and its signed release (signature, store, durable record)."""
    front = _Front()
    source = world.text().replace(_ABOVE, 'above: "0.01"')
    if source == world.text():
        raise ValueError(f"{world.FILE}: got no '{_ABOVE}', expected it")
    with opened_shop(source, durable=True, answer_keys={world.TENANT: front.jwks}) as (shop, _, folder):
        log = (folder / "bare").open("ab", buffering=0)
        asked: list[Any] = []

        def durable() -> None:
            log.write(b"x" * 1000 + b"\n")
            os.fdatasync(log.fileno())

        def asking() -> Any:
            definition = shop.tools["payments.refund"].definition
            return shop.opened.authorize("payments.refund", world.REFUND, tool_call_id="call_7", definition=definition)

        def looked_up() -> None:
            shop.opened.close()  # with the hold that waits in it: a user has so many at once
            shop.looked_up()

        def signing() -> None:
            looked_up()
            step = asking()
            if not isinstance(step, StepUp):
                raise ValueError(f"the benchmark's call is not held: {step}")  # noqa: TRY004 - the answer has the right type
            asked.append((step.hold.id, front.sign(shop, step)))

        def answering() -> None:
            name, by = asked.pop()
            with suppress(StoreUnavailable):  # a busy machine was late: it counts with the time that it took
                shop.gate.release(name, tenant=world.TENANT, by=by)

        with log:
            opened = yield from compare(Pair(asking, durable, scale.trips // 6, prepare=looked_up))
            answered = yield from compare(Pair(answering, durable, scale.trips // 6, prepare=signing))
    return [_row("hold_open", opened, "a call is held"), _row("hold_answer", answered, "a signed JWS releases it")]


def _row(name: str, timing: Timing, what: str) -> Row:
    taken, note = timing.median_us - timing.baseline_us, f"{what}; Redis over TCP, audit on disk (fdatasync)"
    return Row(name, timing.median_us, "one write + fdatasync, taken off", timing.baseline_us, taken, "us", _MOST_US, True, note)
