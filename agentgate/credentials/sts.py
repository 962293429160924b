"""AWS credentials: `AssumeRole` with a session policy made for one call (extra ``[aws]``).

Rules: the session policy permits what the call's granted scopes stand for here, and of that
only the actions that the call itself asks for, where the role says which argument lists them; a
scope that stands for nothing here is a refusal. AWS intersects it with the role, so neither
widens the other. The session is named after the call and tagged with whose it is. While AWS is
asked, botocore logs nothing in this thread: at DEBUG it would log the answer.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY
from io import BytesIO
from typing import Any

from agentgate.credentials.static import Secret
from agentgate.errors import ConfigError, KeysUnavailable, UpstreamRefused
from agentgate.identity.fetch import ask
from agentgate.redemption.credential import Redemption, UpstreamCredential
from agentgate.values.value_class import value_class

# seconds of a session (AssumeRole, DurationSeconds)
SHORTEST = 900
LONGEST = 12 * 3600
_MAX_POLICY = 2048  # characters of a session policy
_SECONDS = 2.0  # until the whole answer is there
_TAG = re.compile(r"[A-Za-z0-9 _.:/=+\-@]{1,256}").fullmatch
_ACTION = re.compile(r"[a-z0-9-]+:[A-Za-z0-9]+\*?").fullmatch  # of one service; never all of it


@value_class
class Permission:
    """What a scope stands for: actions of AWS services on resources (ARNs; ``*`` where an
    action knows none).
    """

    actions: Sequence[str]
    resources: Sequence[str]

    def __post_init__(self) -> None:
        for name, values in (("actions", self.actions), ("resources", self.resources)):
            if isinstance(values, str) or not values:
                raise ConfigError(f"permission.{name}", values, "a list")
        for action in self.actions:
            if not _ACTION(action):
                raise ConfigError(
                    "permission.actions",
                    action,
                    "an action of one service, such as s3:GetObject or s3:Get*",
                )


@value_class
class AwsRole:
    """A role that may be assumed.

    Attributes:
        arn: of the role.
        scopes: granted scope -> what it stands for.
        asked_in: the argument whose values are the actions that the call asks for; empty: it
            gets all that its scopes stand for.
    """

    arn: str
    scopes: Mapping[str, Sequence[Permission]]
    _: KW_ONLY
    asked_in: str = ""

    def statements(self, call: Redemption) -> list[dict[str, Any]]:
        """The statements of the session policy.

        Raises:
            UpstreamRefused: a granted scope stands for nothing here, or the call asks for an
                action that its scopes do not stand for.
        """
        unknown = call.claims.scopes - self.scopes.keys()
        if unknown:
            raise UpstreamRefused(
                "upstream.scope", min(unknown), f"one of {', '.join(sorted(self.scopes))}"
            )
        permitted = [
            permission
            for scope in sorted(call.claims.scopes)
            for permission in self.scopes[scope]
        ]
        wanted = None if not self.asked_in else call.args.get(self.asked_in)
        if self.asked_in and (
            type(wanted) is not list
            or not wanted
            or not all(type(each) is str for each in wanted)
        ):
            raise UpstreamRefused(
                f"args.{self.asked_in}", type(wanted).__name__, "a list of actions"
            )
        if wanted is not None and (
            wider := set(wanted) - {action for each in permitted for action in each.actions}
        ):
            raise UpstreamRefused(
                f"args.{self.asked_in}", min(wider), "actions that the granted scopes stand for"
            )
        made = []
        for each in permitted:
            actions = sorted(
                each.actions if wanted is None else set(each.actions) & set(wanted)
            )
            if actions:
                made.append(
                    {"Effect": "Allow", "Action": actions, "Resource": sorted(each.resources)}
                )
        if not made:
            raise UpstreamRefused("upstream.scope", "no permission", "at least one action")
        return made


@value_class
class STSBroker:
    """AWS STS.

    Attributes:
        roles: role of the workflow -> the AWS role.
        region: where the workflow names none.
        access_key: id and secret key of whoever may assume the roles; None: what boto3 finds
            (instance, task or pod role).
        endpoint: URL of the service; empty: that of the region.
        tenants: the only ones for whose calls it is asked; None: those of the tool server.
    """

    roles: Mapping[str, AwsRole]
    _: KW_ONLY
    region: str = ""
    access_key: tuple[str, Secret] | None = None
    endpoint: str = ""
    tenants: Sequence[str] | None = None
    takes = frozenset({"role", "region", "duration"})

    def fetch(self, call: Redemption) -> UpstreamCredential:
        """A session for this call: its parts are named as the arguments of `boto3.client`,
        `region_name` among them.

        Raises:
            UpstreamRefused: the role is unknown, the policy cannot be made, or AWS gave no
                session or one of another role.
        """
        settings = call.wanted.settings
        role = self.roles.get(call.wanted.role)
        region = str(settings.get("region") or self.region)
        if not role:
            raise UpstreamRefused(
                "upstream.role", call.wanted.role, f"one of {', '.join(sorted(self.roles))}"
            )
        if not region:
            raise UpstreamRefused("upstream.region", None, "a region")
        lives = settings.get("duration", SHORTEST)
        if not SHORTEST <= lives <= LONGEST:
            raise UpstreamRefused(
                "upstream.duration", f"{lives} s", f"{SHORTEST} s to {LONGEST} s (AssumeRole)"
            )
        policy = json.dumps(
            {"Version": "2012-10-17", "Statement": role.statements(call)}, separators=(",", ":")
        )
        if len(policy) > _MAX_POLICY:
            raise UpstreamRefused(
                "upstream.policy",
                f"{len(policy)} characters",
                f"at most {_MAX_POLICY} (AssumeRole)",
            )
        asked = {
            "RoleArn": role.arn,
            "RoleSessionName": call.claims.txn,
            "DurationSeconds": lives,
            "Policy": policy,
            "Tags": _tags(call),
        }
        answer = self._asked(region, asked)
        got = answer["Credentials"]
        arn = answer["AssumedRoleUser"]["Arn"]
        if arn.split(":", 4)[4:] != [
            f"{role.arn.split(':')[4]}:assumed-role/{role.arn.rpartition('/')[2]}/{call.claims.txn}"
        ]:
            raise UpstreamRefused(
                "upstream.role", arn, f"a session {call.claims.txn} of {role.arn}"
            )
        secret = {
            "aws_secret_access_key": got["SecretAccessKey"],
            "aws_session_token": got["SessionToken"],
        }
        public = {"aws_access_key_id": got["AccessKeyId"], "region_name": region}
        return UpstreamCredential(
            secret,
            public=public,
            expires_at=got["Expiration"].timestamp(),
            scopes=call.claims.scopes,
        )

    def _asked(self, region: str, asked: dict[str, Any]) -> Any:
        try:
            import boto3  # noqa: PLC0415 - an extra
            from botocore.awsrequest import AWSResponse  # noqa: PLC0415 - as above
            from botocore.config import Config  # noqa: PLC0415 - as above
            from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as above
        except ImportError:
            raise UpstreamRefused("upstream", "no package boto3", "the extra [aws]") from None

        def send(request: Any, **_: Any) -> Any:
            got = ask(
                request.method,
                request.url,
                request.body,
                request.headers,
                private=True,
                seconds=_SECONDS,
            )
            return AWSResponse(
                request.url, got.status, dict(got.headers.items()), _Body(got.body)
            )

        keys = {}
        if self.access_key:
            keys = {
                "aws_access_key_id": self.access_key[0],
                "aws_secret_access_key": self.access_key[1].read(),
            }
        endpoint = self.endpoint or f"https://sts.{region}.amazonaws.com"
        try:
            with _quiet():
                once = Config(retries={"total_max_attempts": 1})
                client = boto3.session.Session(region_name=region, **keys).client(
                    "sts", endpoint_url=endpoint, config=once
                )
                client.meta.events.register("before-send.sts.AssumeRole", send)
                return client.assume_role(**asked)
        except ClientError as error:
            raise UpstreamRefused(
                "sts.AssumeRole", str(error.response["Error"]["Code"])[:80], "a session"
            ) from None
        except KeysUnavailable as error:
            raise UpstreamRefused.of(
                error.failure(field="sts.AssumeRole", expected="a session")
            ) from None
        except BotoCoreError as error:
            raise UpstreamRefused("sts.AssumeRole", type(error).__name__, "a session") from None


class _Body(BytesIO):
    def stream(self) -> Iterator[bytes]:
        """What botocore reads."""
        yield self.read()


def _tags(call: Redemption) -> list[dict[str, str]]:
    """Whose session it is; a value that no tag can hold stands there as its hash."""
    claims = call.claims
    said = {
        "tenant": claims.tenant,
        "run": claims.run,
        "user": claims.sub,
        "agent": claims.client_id,
        "tool": claims.tool,
    }
    said["workflow"] = f"{claims.workflow.id}@{claims.workflow.version}"
    return [
        {
            "Key": f"agentgate:{name}",
            "Value": value
            if _TAG(value)
            else f"sha256:{hashlib.sha256(value.encode()).hexdigest()}",
        }
        for name, value in said.items()
    ]


class _NotHere(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop what this thread logs."""
        return record.thread != self._thread


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [
        logging.getLogger(name)
        for name in list(logging.root.manager.loggerDict)
        if name.split(".")[0] in {"boto3", "botocore"}
    ]
    silent = _NotHere()
    for logger in loggers:
        logger.addFilter(silent)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(silent)
