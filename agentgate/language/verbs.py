"""English verbs of action in the imperative: what a request may begin with, whatever it requests."""

from __future__ import annotations

VERBS = frozenset(
    """
    accept activate add adjust allow amend announce answer apologise apologize append apply approve archive arrange ask assign attach ban
    bin block book bring bump call cancel change charge clean clear close collect comment commit complete confirm connect contact convert
    copy correct create credit cut deactivate debit decline decrease deduct delay delegate delete deliver demote deploy disable discard
    dismiss dispatch donate double downgrade draft drop duplicate edit email e-mail empty enable end enrol enter erase escalate exchange
    export extend file fill finish fix flag forward free freeze give grant halve hand hang hide hire hold import increase inform insert
    install invite invoice issue join kick label launch lend limit link lock log lower mail make mark merge message move mute name notify
    nudge offer order organise organize pause pay pencil phone pin ping plan post postpone prepare print prioritise promote publish pull
    purchase push put raise reactivate rebook reboot receive record redirect redo reduce refund register reinstate reject release remind
    remove rename renew reopen repeat replace reply report request reschedule reserve reset resolve respond restart restore restrict
    return revert revoke ring roll round run save schedule scrap send set settle share shift ship shorten shut sign skip slip snooze
    split start stop strike submit subscribe subtract suspend swap switch tag take tell terminate text top transfer trim turn undo
    uninstall unlock unpin unsubscribe update upgrade upload void waive wave warn wire withdraw wrap
    """.split()
)
