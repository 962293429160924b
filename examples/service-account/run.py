"""A service account refreshes its own token: from inside its boundary, with the key it had last time, and from nowhere else."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

sys.path.append(str(Path(__file__).parents[1] / "_harness"))  # where `python run.py` finds it
from agentgate_demo.case import FoundingCase
from agentgate_demo.key import Key
from agentgate_demo.process import post
from agentgate_demo.row import Expected, TableRow
from agentgate_demo.show import perform
from agentgate_demo.stage import Asker, Stage

JWT = "urn:ietf:params:oauth:token-type:jwt"
TOOL, ACCOUNT = "identity.refresh", "spiffe://acme.example/ns/billing/sa/exporter"
REFRESH = {"account": "billing-exporter", "audience": "https://ledger.acme.example"}
HOME = {"cluster": "eu-prod-1", "namespace": "billing", "node_pool": "confidential"}


def scenes(stage: Stage) -> Iterator[TableRow]:
    """The account at home, then its credential elsewhere, then its key changes."""

    def svid() -> str:
        return stage.keys["spire"].sign({"sub": ACCOUNT, "aud": [stage.gate.url]})

    def attested(**claims: str) -> str:
        signed = {"image_signed_by": "release@acme.example", "attested_at": int(time.time()), **HOME, **claims}
        return stage.keys["attest"].sign({"iss": "https://attest.acme.example", "sub": ACCOUNT, "aud": stage.gate.url, **signed})

    def asked(expected: Expected, who: Asker, **claims: str) -> TableRow:
        return stage.asked(expected, who, svid(), TOOL, REFRESH, attestation=attested(**claims))

    exporter, token = Asker("exporter"), svid()
    answer = stage.exchange(exporter, token, TOOL, REFRESH, attestation=attested())
    yield stage.row(Expected("The exporter asks for its next token, from its own cluster and node pool", "allowed", "ok"), answer)
    thief, call_token = Asker("exporter", Key("thief")), answer.body.get("access_token", "")
    expected = Expected(
        "Its call token is stolen, and shown with another key", "denied", "401 invalid_dpop_proof", "invalid_dpop_proof", "proof.jwk"
    )
    yield stage.use(expected, thief, call_token, "/tokens", REFRESH)
    yield stage.use(Expected("The exporter itself gets its token", "allowed", "ok"), exporter, call_token, "/tokens", REFRESH)

    away = Expected("It asks from another cluster", "denied", "400 invalid_request", "boundary", "agent.boundary.cluster")
    yield asked(away, exporter, cluster="eu-prod-2")
    shared = Expected("It asks from a node pool that others share", "denied", "400 invalid_request", "boundary", "agent.boundary.node_pool")
    yield asked(shared, exporter, node_pool="shared")
    expected = Expected("Its SVID is stolen, and shown without any key", "denied", "400 invalid_dpop_proof", "agent", "proof")
    yield stage.asked(expected, exporter, token, TOOL, REFRESH, attestation=attested(), prove=False)
    expected = Expected("The stolen SVID, with the thief's own key", "denied", "400 invalid_dpop_proof", "agent", "agent.key")
    yield stage.asked(expected, thief, token, TOOL, REFRESH, attestation=attested())

    renewed = Asker("exporter", Key("renewed"))
    rotated = Expected(
        "The exporter comes with a new key, and nothing else", "denied", "400 invalid_request", "boundary", "agent.boundary.key"
    )
    yield asked(rotated, renewed)
    time.sleep(1.1)  # a statement counts from the second after the old key was recorded
    yield rotation(stage, exporter.key, renewed.key, svid())
    yield asked(Expected("Now it refreshes with the new key", "allowed", "ok"), renewed)
    yield asked(Expected("And no longer with the old one", *rotated[1:]), exporter)


def rotation(stage: Stage, old: Key, new: Key, credential: str) -> TableRow:
    """The account shows its own credential, and what its old key signed about the new one (`agentgate keys account` prints that, too)."""
    claims = {"aud": stage.gate.url, "tenant": "acme-eu", "account": ACCOUNT, "key": new.thumbprint, "iat": int(time.time())}
    public = {name: old.jwk[name] for name in ("kty", "crv", "x", "y")}
    statement = old.sign_exactly(claims, {"typ": "agentgate-key-rotation+jwt", "jwk": public})
    form = {"client_id": "exporter", "subject_token": credential, "subject_token_type": JWT, "statement": statement}
    answer = post(stage.gate.url + "/oauth2/key", urlencode(form).encode(), {"Content-Type": "application/x-www-form-urlencoded"})
    expected = Expected("Its old key signs for the new one: POST /oauth2/key", "allowed", "ok")
    if answer.code != "ok":
        return stage.row(expected, answer, path="/oauth2/key")
    seen = f"ok: {json.dumps(answer.body)}"
    return TableRow(expected, "allowed", "ok", "client", seen, detail=f"key_changed, by the old key, to {new.thumbprint[:12]}...")


CASE = FoundingCase(
    place=Path(__file__).parent,
    file="identity/service-account-refresh.yaml",
    intro="A service account has no password to lose. It shows its SVID and an attestation of where it runs at POST /oauth2/token, proves "
    "the key it had last time, and gets one token for one refresh. A copied credential is worth nothing elsewhere, nor with another key.",
    keys={"spire": "RS256", "attest": "ES256", "identity": "ES256"},
    scenes=scenes,
    done=(1, "token issued to the account"),
)

if __name__ == "__main__":
    raise SystemExit(perform(CASE))
