"""What `agentgate serve --check` looks at beside opening the gate: key sets, and whether
settings and workflows fit together.

A key set in a file that cannot be read is an error. A URL may be away for a moment, and a
workflow may be served elsewhere: what cannot be had, and each call that these settings would
always refuse, is told.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from agentgate.errors import ConfigError, KeyRefused, KeysUnavailable
from agentgate.identity.fetch import fetch
from agentgate.identity.keys import read_keys
from agentgate.service.settings import ServiceSettings
from agentgate.stores import open_store
from agentgate.token.regular_file import read_regular
from agentgate.workflow.model import Tool, Workflow

# of other commands, and of other servers (docs/service.md)
_OF_OTHERS = frozenset({"AGENTGATE_TENANT", "AGENTGATE_SETTINGS"})


def look(settings: ServiceSettings, workflows: Iterable[Workflow]) -> list[str]:
    """Findings, one a line.

    Raises:
        ConfigError: a file holds no key set, or cannot be read.
    """
    unread = [found for each in _places(settings) if (found := _key_set(*each))]
    return [
        *unread,
        *_variables(),
        *_listen(settings),
        *_store(settings.store),
        *_unproven(settings),
        *(f"{each.id}: {found}" for each in workflows for found in _misfits(settings, each)),
    ]


def _variables() -> Iterator[str]:
    """Variables of the environment that look like settings and are none."""
    known = {f"AGENTGATE_{name.upper()}" for name in ServiceSettings.model_fields}
    for name in sorted(os.environ):
        if name.startswith("AGENTGATE_") and name.partition("__")[0] not in known | _OF_OTHERS:
            yield f"{name}: no setting; there are {', '.join(sorted(known))}"


def _listen(settings: ServiceSettings) -> Iterator[str]:
    """Why nobody could listen there, and why callers behind a proxy would share one limit."""
    proxies = settings.identity.proxies
    host = settings.listen.rpartition(":")[0]
    if settings.listen.startswith("unix:"):
        folder = Path(settings.listen.removeprefix("unix:")).parent
        if not folder.is_dir():
            yield f"listen: {folder} is no directory of this machine"
    else:
        try:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
                # any port: this one may be taken by the gate that runs
                tried.bind((host.strip("[]"), 0))
        except OSError as error:
            yield f"listen: {host} is no address of this machine ({error.strerror})"
    if settings.listen.startswith("unix:") and not (
        proxies and any(each.startswith("unix:") for each in proxies.addresses)
    ):
        yield (
            "listen: a Unix socket, and no unix:UID in identity.proxies.addresses: all "
            "whom a proxy passes on count as one address"
        )
    elif (
        proxies is None
        and settings.issuer.startswith("https:")
        and not settings.listen.startswith("unix:")
    ):
        yield (
            "identity.proxies: none, and TLS ends in front of the gate: all whom that "
            "proxy passes on count as one address"
        )


def _store(url: str) -> Iterator[str]:
    """Why acts would be refused that workflows permit."""
    with closing(open_store(url)) as store:
        for each in store.check():
            if each.code != "store_weak":
                yield f"store: {each.setting}: {each.means}; to do: {each.remedy}"


def _unproven(settings: ServiceSettings) -> Iterator[str]:
    """Clients that are to be known by a credential which nothing here proves."""
    known = settings.identity
    issuers = {each.issuer for each in known.issuers.values()}
    for name, client in settings.clients.items():
        own = client.credential
        if own is not None and own not in issuers and _domain(own) not in known.trust_domains:
            yield (
                f"clients.{name}.credential: {own} is of no [identity.issuers.NAME] and no "
                "[identity.trust_domains.NAME]"
            )


def _domain(name: str) -> str:
    """The trust domain of a SPIFFE id; of another name, none."""
    return (
        name.removeprefix("spiffe://").partition("/")[0] if name.startswith("spiffe://") else ""
    )


def _places(settings: ServiceSettings) -> Iterator[tuple[str, str, bool, bool]]:
    """Setting, place, whether it may be private, whether it is a SPIFFE bundle."""
    known = settings.identity
    for kind, blocks in (
        ("issuers", known.issuers),
        ("attestors", known.attestors),
        ("brokers", known.brokers),
    ):
        for name, each in blocks.items():
            yield f"identity.{kind}.{name}.keys", each.keys, each.private_addresses, False
    for name, domain in known.trust_domains.items():
        yield (
            f"identity.trust_domains.{name}.bundle",
            domain.bundle,
            domain.private_addresses,
            True,
        )
    for name, client in settings.clients.items():
        if client.keys is not None:
            yield f"clients.{name}.keys", client.keys, client.private_addresses, False


def _key_set(setting: str, place: str, private: bool, spiffe: bool) -> str:  # noqa: FBT001 - a row of `_places`
    remote = "://" in place
    try:
        if remote:
            read_keys(fetch(place, private=private), spiffe=spiffe)
        else:
            read_keys(read_regular(place, links=True), spiffe=spiffe)
    except (KeyRefused, KeysUnavailable, OSError) as error:
        if not remote:
            raise ConfigError(
                setting,
                place,
                f"a file with a public JWK set ({error}); a client's: agentgate keys client",
            ) from None
        return f"setting '{setting}': {place} gives no key set now: {error}"
    return ""


def _misfits(settings: ServiceSettings, workflow: Workflow) -> Iterator[str]:
    """Why calls of this workflow would always be refused under these settings."""
    agent = workflow.agent
    known = settings.identity
    if agent.in_process:
        yield "its agent is in_process, which nobody is over HTTP"
    if agent.oidc_issuer and agent.oidc_issuer not in {
        each.issuer for each in known.issuers.values()
    }:
        yield f"who.agent.oidc.issuer {agent.oidc_issuer} is in no [identity.issuers.NAME]"
    domains = {_domain(each) for each in agent.spiffe}
    if domains and not domains & known.trust_domains.keys():
        yield f"who.agent.spiffe: {', '.join(sorted(domains))} is no [identity.trust_domains.NAME]"
    if workflow.for_user is not None and not any(each.user for each in known.issuers.values()):
        yield "who.for_user: no [identity.issuers.NAME] has a block user"
    of_jobs = any(each.environment for each in known.issuers.values())
    if (
        workflow.conditions.environment
        and settings.environment not in workflow.conditions.environment
        and not of_jobs
    ):
        yield f"conditions.environment: the setting 'environment' is {settings.environment!r}"
    if workflow.conditions.data_class and settings.data_classes is None:
        yield "conditions.data_class: there is no setting 'data_classes'"
    attested = (
        agent.image_signed_by
        or agent.attested_within is not None
        or agent.cluster
        or agent.namespace
        or agent.node_pool
    )
    if attested and not known.attestors:
        yield "who.agent is attested, and there is no [identity.attestors.NAME]"
    if not any(
        set(each.tenants) & set(workflow.tenants)
        for each in settings.clients.values()
        if each.role == "agent"
    ):
        yield f"tenants: no client with the role agent has one of {', '.join(workflow.tenants)}"
    for tool in workflow.tools.values():
        yield from _unserved(settings, tool)


def _unserved(settings: ServiceSettings, tool: Tool) -> Iterator[str]:
    """Why no token is exchanged for this tool."""
    if tool.upstream is not None and tool.upstream.broker not in settings.brokers:
        yield f"{tool.name}: its upstream broker {tool.upstream.broker} is not in the setting 'brokers'"
    server = next(
        (
            (name, each)
            for name, each in settings.clients.items()
            if tool.audience in each.resources
        ),
        None,
    )
    if tool.redeem != "server":
        yield f"{tool.name}: redeem: wrapper, and over HTTP only what a server redeems is exchanged"
    elif server is None:
        yield (
            f"{tool.name}: its audience {tool.audience} is in the resources of no client "
            "with the role tool_server"
        )
    elif (got := server[1].definitions.get(tool.name)) != tool.definition:
        yield (
            f"{tool.name}: clients.{server[0]}.definitions has {got or 'nothing'}, the "
            f"workflow {tool.definition}"
        )
