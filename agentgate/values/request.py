"""The request: who, in which run, which call. Values only; having the right shape makes none of
them trusted.

Identity is `proven` or `in_process`. A `User` or `Agent` that a host builds is always
`in_process`; only `agentgate.identity.proven` builds proven ones, from a verified credential.
Of a turn's parts the host says which the user typed, and which came from elsewhere.

Names of people, agents, groups and tenants are accepted exactly as given or refused, never
repaired, so that no two names differ only in what nobody sees: composed Unicode (NFC), no
control, format or other invisible character, no white space around it. Where equality grants
something (a group, a tenant, the user's own id as an origin), names are compared as they are:
whoever may create the group "Leads" is no member of "leads". Where equality refuses something
(nobody answers for their own call, each approver counts once), people and agents are compared
by `person`, which ignores what directories ignore: both directions fail closed. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple, final

from agentgate.errors import CanonicalError, ConfigError, IdentityRefused
from agentgate.values.canonical import canonical, digest, parse
from agentgate.values.entities import normal
from agentgate.values.value_class import set_derived, value_class
from agentgate.values.visible import UNSEEN

# before each part of a stored turn whose parts are declared
# --- turns ------------------------------------------------------------------------------------
OWN = "\x01"
PASTED = "\x02"
DOUBT = "\x03"  # before words among the stored turns that may be the user's
SAID = "\x04"  # before and behind what the agent had said, which a stored turn answers
MAX_AGENT_SAID = 1000  # characters that are kept of it, the last ones
_UNKEPT = re.compile("[\x00-\x04\ud800-\udfff]")


@value_class
class Own:
    """A part of a turn that the user typed: its lines are the user's own, whatever they look
    like; quotation marks in it still quote.
    """

    text: str


@value_class
class Pasted:
    """A part of a turn that comes from elsewhere (a pasted text, an attachment): it says
    nothing and names nothing.
    """

    text: str


Spoken = str | Iterable[Own | Pasted]


def turn_text(spoken: object) -> str:
    """A turn as it is stored and read.

    Args:
        spoken: a text, or its parts in order.

    Raises:
        ConfigError: neither a text nor parts, or a text with a character that separates parts.
    """
    parts = (
        (spoken,)
        if isinstance(spoken, str)
        else tuple(spoken)
        if isinstance(spoken, (list, tuple))
        else ()
    )
    if not parts or not (
        parts == (spoken,) or all(isinstance(part, (Own, Pasted)) for part in parts)
    ):
        raise ConfigError(
            "prompt", type(spoken).__name__, "a text, or a list of Own(...) and Pasted(...)"
        )
    texts = [part if isinstance(part, str) else part.text for part in parts]
    if not all(
        isinstance(text, str) and {OWN, PASTED, DOUBT, SAID}.isdisjoint(text) for text in texts
    ):
        raise ConfigError(
            "prompt",
            "a part that is no text, or holds U+0001 to U+0004",
            "texts without these characters",
        )
    marks = [
        "" if isinstance(part, str) else OWN if isinstance(part, Own) else PASTED
        for part in parts
    ]
    return "".join([mark + text for mark, text in zip(marks, texts, strict=True)])


def answering(agent_said: object, turn: str) -> str:
    """A turn as it is stored, with what the agent had said before it: text of a model, which is
    shown to people and read by nothing.

    Raises:
        ConfigError: no text.
    """
    if not isinstance(agent_said, str):
        raise ConfigError("agent_said", type(agent_said).__name__, "a text")
    kept = _UNKEPT.sub("", agent_said).strip()[-MAX_AGENT_SAID:]
    return f"{SAID}{kept}{SAID}{turn}" if kept else turn


class StoredTurns(NamedTuple):
    """Stored turns: the user's own; the words that may be theirs, each with the number of turns
    before it; what the last turn answers.
    """

    turns: tuple[str, ...]
    doubts: tuple[tuple[int, str], ...]
    agent_said: str


def split_turns(stored: tuple[str, ...]) -> StoredTurns:
    """Stored turns by whose they are."""
    turns: list[str] = []
    doubts = []
    agent_said = ""
    for text in stored:
        if text.startswith(DOUBT):
            doubts.append((len(turns), text[1:]))
        else:
            before, _, own = (
                text[1:].partition(SAID) if text.startswith(SAID) else ("", "", text)
            )
            agent_said = before
            turns.append(own)
    return StoredTurns(tuple(turns), tuple(doubts), agent_said)


# --- names ------------------------------------------------------------------------------------
MAX_NAME = 512  # characters, as in a revocation
FORM = f"1 to {MAX_NAME} visible characters in composed form (NFC), with no white space at either end"


def is_name(value: object) -> bool:
    """Whether a value is a name in the accepted form."""
    if type(value) is not str or not 0 < len(value) <= MAX_NAME or value != value.strip():
        return False
    return (
        normal("text", value) is not None
        and not set("\n\t") & set(value)
        and UNSEEN.search(value) is None
    )


def checked_name(field: str, value: object) -> None:
    """Raise IdentityRefused for what is no name in the accepted form."""
    if not is_name(value):
        raise IdentityRefused(field, value, FORM)


def author(name: str) -> str:
    """What tells one author of a change from another: `person`, without the ``+tag`` of an
    address (RFC 5233).
    """
    local, at, host = person(name).rpartition("@")
    return f"{local.partition('+')[0] or local}{at}{host}"


def person(name: str) -> str:
    """What tells one person or agent from another: the id without case, compatibility forms and
    the sign of a user name.
    """
    return unicodedata.normalize(
        "NFKC", unicodedata.normalize("NFKC", name).casefold()
    ).removeprefix("@")


def name_of(name: str, issuer: str) -> str:
    """What tells a name from the same one of another issuer; without an issuer the name
    itself.
    """
    return f"{name}\n{issuer}" if issuer else name


# --- who, in which run, which call ------------------------------------------------------------
Identity = Literal["in_process", "proven"]
Presence = Literal["present", "unclear", "absent"]
Status = Literal["minted", "redeemed", "done", "failed", "unknown"]


@value_class
class User:
    """The person for whom the agent works. Raises IdentityRefused for a name that
    `agentgate.values.request` does not accept.

    Attributes:
        id: subject identifier, unique within the tenant.
        tenant: the tenant the person belongs to.
        groups: group names.
        issuer, subject: `iss` and `sub` of the credential; empty in process.
        auth_time, acr, amr: how and when the person signed in (POSIX seconds), as the
            credential says; None or empty: unknown.
        identity: how it is known; never an argument.
    """

    id: str
    tenant: str = field(kw_only=True)
    groups: tuple[str, ...] | list[str] = field(default=(), kw_only=True)
    issuer: str = field(default="", init=False)
    subject: str = field(default="", init=False)
    auth_time: int | None = field(default=None, init=False)
    acr: str | None = field(default=None, init=False)
    amr: tuple[str, ...] = field(default=(), init=False)
    identity: Identity = field(default="in_process", init=False)

    def __post_init__(self) -> None:
        if type(self.groups) not in {tuple, list}:
            raise IdentityRefused("user.groups", self.groups, "a tuple or list of group names")
        object.__setattr__(self, "groups", tuple(self.groups))
        checked_name("user.id", self.id)
        checked_name("user.tenant", self.tenant)
        for group in self.groups:
            checked_name("user.groups", group)

    @property
    def remembered_as(self) -> tuple[str, ...]:
        """Under which names what they confirmed is remembered: those of their issuer, or the
        host's; empty: it is not.
        """
        if self.identity == "in_process":
            return self.tenant, "", self.id
        return (self.tenant, self.issuer, self.subject) if self.issuer and self.subject else ()


@value_class
class Posture:
    """What attestation says of the workload: who signed its image, and when it was last
    attested.
    """

    image_signed_by: str
    attested_at: datetime


@value_class
class Boundary:
    """Where the workload runs, as its own credential says, and the thumbprint of the key it
    presented.
    """

    cluster: str
    namespace: str
    node_pool: str
    key: str


@value_class
class Agent:
    """The workload that calls. Raises IdentityRefused as `User` does.

    Attributes:
        id: client identifier.
        spiffe, issuer, claims, posture, boundary and what follows: set only by
            `agentgate.identity.proven`, from a verified credential.
        via: ids of the brokers between user and agent, nearest last.
        subject: `sub` of the credential; empty in process.
        key: thumbprint of the DPoP key that the agent proved to hold; empty: none. Its tokens
            are bound to it.
        environment: of the job, by its proven claim and the gate's settings; None: the gate's
            own counts; empty: not known.
        identity: how it is known; never an argument.
    """

    id: str
    spiffe: str = field(default="", init=False)
    issuer: str = field(default="", init=False)
    claims: Mapping[str, str] = field(default_factory=dict, init=False)
    posture: Posture | None = field(default=None, init=False)
    boundary: Boundary | None = field(default=None, init=False)
    via: tuple[str, ...] = field(default=(), init=False)
    subject: str = field(default="", init=False)
    key: str = field(default="", init=False)
    environment: str | None = field(default=None, init=False)
    identity: Identity = field(default="in_process", init=False)

    def __post_init__(self) -> None:
        checked_name("agent.id", self.id)


@final
class CanonicalArguments:
    """Arguments in canonical form (RFC 8785). `data` is that of real arguments: nothing but
    their canonicalisation makes one.
    """

    __slots__ = ("_data",)

    def __init__(self, args: Mapping[str, Any]) -> None:
        """Canonicalise the arguments.

        Raises:
            CanonicalError: they have no canonical form. TypeError, ValueError: they are no
                mapping.
        """
        self._data = canonical(dict(args), "args")

    @property
    def data(self) -> bytes:
        """The bytes."""
        return self._data


Args = Mapping[str, Any] | CanonicalArguments


@dataclass(frozen=True)
class Call:
    """A tool name and arguments the model proposes, copied, canonicalised and hashed once.

    Attributes:
        tool: exact tool name.
        id: the runtime's `tool_call_id`.
        data: RFC 8785 bytes of the arguments.
        args: a re-parse of `data`; what is decided on and what must run.
        definition: digest of the tool's {name, description, input schema} as the integration
            read it; empty if unknown.
    """

    tool: str
    id: str
    data: bytes
    args: Mapping[str, Any]
    definition: str = ""

    @classmethod
    def of(cls, tool: str, args: Args, tool_call_id: str, definition: str = "") -> Call:
        """Build from a model's proposal.

        Raises:
            CanonicalError: name or id is not plain ASCII text, or the arguments have no
                canonical form.
        """
        for name, text in (("tool", tool), ("tool_call_id", tool_call_id)):
            if (
                type(text) is not str
                or not 0 < len(text) <= 256
                or not text.isascii()
                or not text.isprintable()
            ):
                raise CanonicalError(
                    name, repr(text)[:80], "1 to 256 printable ASCII characters"
                )
        data = args.data if type(args) is CanonicalArguments else canonical(dict(args), "args")
        return cls(tool, tool_call_id, data, parse(data), definition)

    @property
    def act(self) -> str:
        """The same for every call of this tool with these arguments."""
        return digest(canonical([self.tool, self.arguments_digest]))

    @cached_property
    def arguments_digest(self) -> str:
        """SHA-256 (hex) of the canonical arguments."""
        return digest(self.data)


@value_class
class Derived:
    """What the prompt says of one intent, with the words as evidence.

    Attributes:
        presence: present, unclear or absent.
        evidence: the words, or why.
        silent: nothing of the intent was heard, and the answer says no more than that: an
            absent that is no denial, or an unclear because the user asked for something that
            was not understood.
        unread: an unclear that a reader may settle, where the workflow leaves it to one.
    """

    presence: Presence
    evidence: str = ""
    silent: bool = field(default=False, repr=False)
    unread: bool = field(default=False, repr=False)


# begins the id of a conversation that is a thread of a framework's, which no host named
THREAD = "agentgate-thread:"


@value_class
class Header:
    """The frozen part of a run.

    Attributes:
        day: ISO date of the decision clock at opening: what "tomorrow" is counted from.
        user_until, agent_until: POSIX seconds when what the credential proved ends; 0: in
            process, or nobody.
        host, client: over HTTP, the client that opened the run, and the only one that may call
            in it; empty: this process, or nobody.
        conversation: the host's own id for it, or that of a framework's thread (`THREAD`);
            empty: the run belongs to none.
        succession: how many runs of the conversation came before.
        earlier: of each stored turn that comes from these, the day on which it was said.
        said_no: in an earlier run of the conversation the user said no to anything, or may have.
        held_until: POSIX seconds up to which a call that was held may run though the run is
            over; 0: nobody came back for one.
        ends: POSIX seconds from which nothing is minted: the end of the run, or of the first
            credential before that.
        memo: what was found of the other fields, which never change; empty in every new header.
    """

    id: str
    tenant: str
    user: User | None
    agent: Agent
    workflow: str
    version: int
    digest: str
    opened_at: float
    expires_at: float
    day: str = ""
    user_until: float = 0.0
    agent_until: float = 0.0
    host: str = ""
    client: str = ""
    conversation: str = ""
    succession: int = 0
    earlier: tuple[str, ...] = ()
    said_no: bool = False
    held_until: float = 0.0
    ends: float = field(init=False, compare=False, repr=False)
    memo: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        end = max(self.expires_at, self.held_until)
        limits = filter(None, (end, self.user_until, self.agent_until))
        set_derived(self, ends=min(limits, default=0.0))

    @property
    def named_by_host(self) -> str:
        """The conversation, where the host gave its id."""
        return "" if self.conversation.startswith(THREAD) else self.conversation

    def name_turn(self, turns: int) -> int | str:
        """What tells a turn, by the number of those up to it, from those of earlier runs of the
        conversation.
        """
        return f"{self.succession}.{turns}" if self.succession else turns

    @property
    def reader(self) -> str:
        """The id of the user, by which a letter to them is known; empty without one."""
        return self.user.id if self.user else ""

    @property
    def whose(self) -> str:
        """Whom its runs and holds count for: the user of this issuer, without one the agent,
        under every spelling of the id.
        """
        who = self.user or self.agent
        return name_of(f"{type(who).__name__.lower()} {person(who.id)}", who.issuer)


@value_class
class EarlierCall:
    """A call of this run that was minted and redeemed.

    Attributes:
        id: its `tool_call_id`.
        args: the arguments that later calls may reference (normal form), by name.
        rows: its facts: one mapping per element of a list result, scalars repeated in each;
            empty until recorded.
        named: all its arguments came from the prompt.
        redeemed_at: POSIX seconds.
        digest: its call digest; empty where the call was not read from a store.
        endorsed: the arguments whose values the user confirmed by their yes to it, and did not
            take back.
        marked: the user confirmed it, or all that it was asked for: its facts with `trust:
            confirmed` count.
        turns: how often the user had spoken when they said yes to it; 0: nothing of it counts
            for another call.
    """

    id: str
    tool: str
    args: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    named: bool
    redeemed_at: float
    digest: str = ""
    endorsed: frozenset[str] = frozenset()
    marked: bool = False
    turns: int = 0


@value_class
class RunState:
    """A run as `decide` sees it: frozen header, the user's turns, what was derived from them,
    the redeemed calls.

    Attributes:
        turns: the user's own texts in this run, oldest first.
        intents: every intent of the workflow's vocabulary -> what was derived.
        prompt: typed entities of the turns (`agentgate.values.entities.Prompt`).
        revision: opaque; the mint script refuses when the store's differs.
        denials_spent: it was closed by its last denial.
        acts, owned, full: who mints acts in it, whether servers' records have keys of their
            own, and whether it has no room (`agentgate.stores.ops.RunRecord`).
        doubts: words that may be the user's, each with the number of turns before it; empty
            words: they could not be read.
        agent_said: what the newest turn answers, as the host says; it is shown to people, and
            no decision reads it.
        tried: acts of which an attempt was redeemed, whatever came of it.
        whole: all runs of its conversation, as one: for a call that was held in any of them.
        stored: the turns as stored, with words in doubt; the first are of earlier runs
            (`Header.earlier`).
        remembered: of the call that is decided on, one of an earlier run to which the same user
            said yes, that was done and is remembered (`agentgate.gate.holds.memory`): its `id`
            is the day of that, its `digest` that of the call; None: nothing is.
        memo: values derived from the other fields, which never change; empty in every new
            state.
    """

    header: Header
    turns: tuple[str, ...]
    intents: Mapping[str, Derived]
    prompt: Any
    calls: tuple[EarlierCall, ...]
    revision: str
    closed: bool = False
    denials_spent: bool = False
    acts: str = "nobody"
    owned: bool = True
    full: bool = False
    doubts: tuple[tuple[int, str], ...] = ()
    agent_said: str = ""
    tried: frozenset[str] = frozenset()
    stored: tuple[str, ...] = ()
    whole: bool = False
    remembered: EarlierCall | None = None
    memo: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def with_calls(
        self, calls: tuple[EarlierCall, ...], tried: frozenset[str], revision: str
    ) -> RunState:
        """The run after one more call of it. Each call makes one, so without `replace`, which
        takes longer.
        """
        return RunState(
            header=self.header,
            turns=self.turns,
            intents=self.intents,
            prompt=self.prompt,
            calls=calls,
            revision=revision,
            closed=self.closed,
            denials_spent=self.denials_spent,
            acts=self.acts,
            owned=self.owned,
            full=self.full,
            doubts=self.doubts,
            agent_said=self.agent_said,
            tried=tried,
            stored=self.stored,
            whole=self.whole,
            remembered=self.remembered,
        )

    @property
    def spoken(self) -> tuple[str, ...]:
        """All that the user said, with what earlier runs of the conversation were told: it
        names values, and asks for nothing.
        """
        return (*split_turns(self.stored[: len(self.header.earlier)]).turns, *self.turns)


@value_class
class Surroundings:
    """What the gate itself knows at the moment of the call, never the caller.

    Attributes:
        now: decision time, timezone-aware.
        environment: of the deployment, or of the job that calls; None: not configured (a
            workflow that requires one is refused).
        data_class: class of the data the call touches, from the data catalogue; None: not
            configured or unknown.
        network: the caller's address or network zone; None: not known.
        brokers: names of the configured upstream brokers.
    """

    now: datetime
    environment: str | None = None
    data_class: str | None = None
    network: str | None = None
    brokers: frozenset[str] = frozenset()
