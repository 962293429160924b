"""How people ask in English for what tools do: the words that a draft proposes for an intent, and a reviewer picks from.

Rules: only proposals; what counts are the `words` a reviewer signs. One list per kind of act, in groups that can be cut as a whole: verbs,
phrasal verbs and idioms, what names the thing, what is needed or is to be. Each phrase is in the form that `words` take: ``{thing}``
stands for what the tool acts on, ``someone`` and ``something`` for what the user names, ``^`` for a word that is a noun as often as a
verb, or that occurs where something else is asked for. No phrase is for looking ("tell me", "let me know").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from agentgate.review.draft.argument import inline

_WIDTH = 120
# An act, below it its groups, one per line; a line that is further in goes on with its group.
_BOOK = """
add
  append, ^add, extend, ^insert, ^include, attach, ^tack on, tack something on, ^enter, ^note, ^log, keep a record, ^update the {thing},
    ^update something with, needs to be added, should be added
  add a {thing}, put a {thing}, add something to the {thing}, put something {thing}, write something {thing}, enter something {thing},
    stick something {thing}, pop something {thing}, throw something {thing}, include something {thing}, paste something {thing}
  add a line, add a row, add a section, put something at the end, put something at the top, onto the end
  belongs in the {thing}, belongs on the {thing}, should go in the {thing}, should go on the {thing}, want something in the {thing},
    need something in the {thing}, like something in the {thing}, should be in the {thing}, should be on the {thing}
approve
  approve, accept, authorise, authorize, ^okay, ^ok it, ^pass it, ^green-light, greenlight, ^clear it, confirm the {thing}
  sign off, sign something off, give something the go-ahead, give the go-ahead, give something the green light, give the green light,
    give someone the go-ahead, say yes to, let something through, wave something through, nod something through
  good to go, can go ahead, fine by me, looks good to me, is okay from my side, is fine with me
archive
  archive, ^shelve, ^file away, file something away, ^file it, move something to the archive, put something archive, ^mothball, ^retire
  needs to be archived, should be in the archive, can go into the archive, belongs in the archive
assign
  assign, reassign, delegate, allocate, ^hand it, ^hand over, hand something over, ^route, ^pass it, pass something to, hand something to,
    ^give it to, ^give this to, ^give someone the {thing}, give something to, turn something over to, ^transfer the {thing}
  put someone on, put someone in charge, put someone down as, make someone the owner, make someone responsible, make someone the assignee,
    have someone work on, have someone take, have someone look after, let someone handle, let someone take, let someone do
  should take over, should take care of, should handle, should own, should do it, should look at it, should go to, needs to go to,
    want someone on, like someone on, need someone on, want someone to take, like someone to take, is to be owned by, ^i'll take,
    ^i can take
block
  ^block, ban, bar, ^suspend, ^freeze, ^lock, ^mute, ^blacklist, ^blocklist, ^deny, ^quarantine, ^isolate, ^restrict
  ^lock out, lock someone out, ^shut out, shut someone out, keep someone out, ^cut off, cut someone off, ^put a hold on,
    put something on hold
  needs to be blocked, must be blocked, should be blocked, has to be blocked, want someone blocked, want it blocked, get it blocked,
    have it blocked, needs to be locked, must be locked, should be locked, needs to be frozen, must be frozen, should be frozen
book
  ^book, reserve, ^schedule, arrange, organise, organize, ^plan, ^hold, ^block
  ^book a {thing}, book something calendar, plan a {thing}, create a {thing}, make a {thing}, add a {thing}, set a {thing}, fix a {thing},
    call a {thing}, new {thing}, want a {thing} with, need a {thing} with, like a {thing} with
  set up, set something up, line up, ^put it in, pencil in, pencil something in, slot something in, squeeze something in, fit someone in,
    block out, block off, block something for, set aside, set something aside
  put something calendar, add something calendar, enter something calendar, block something calendar, get something calendar,
    into calendar, put something diary
  want to meet, need to meet, get it scheduled, have it scheduled, needs to be in the calendar, should be in the calendar
cancel
  cancel, ^annul, ^axe, ^nix, ^scrap, ^scratch, ^ditch, ^drop, ^kill, terminate, ^void
  call off, call something off, drop the {thing}, end the {thing}, get rid of the {thing}, delete the {thing}, remove the {thing},
    take back the {thing}, back out of, pull out of, get me out of
  {thing} is off, fell through, fallen through, take something off calendar, take something out of calendar, take the {thing} off,
    take it out, take that out, get it off, clear it from, delete something calendar, remove something calendar
change
  ^change, ^update, needs to be changed, should be changed, needs to be updated, should be updated, be changed to, modify, edit, alter,
    amend, adjust, correct, ^fix, ^reset, ^redirect, rename, ^set, ^switch, replace
  increase, decrease, ^raise, ^lower, reduce, double, halve, triple, ^cut, ^bump, ^trim, scale back, scale down
  set something to, put something to, put something right, put something up to, bring something to, turn something into,
    take something to, get something changed, like something changed, ^make it, ^make this, ^make the {thing}, from now on
  {thing} should be, {thing} needs to be, {thing} has to be, {thing} should say, {thing} still says, {thing} is wrong, my new {thing},
    want it to be, like it to be, should go up, go up a bit, should now go to, should go down, needs to go up
close
  ^close, resolve, complete, ^finish, ^shut, ^end, ^settle, ^conclude, ^finalise, ^finalize, ^wrap up, wrap something up, ^tick off,
    tick something off, ^check off, check something off, ^cross off, cross something off, close something out, close out
  mark something done, mark something as done, mark something solved, mark something closed, mark something resolved,
    mark something fixed, mark something complete, mark something completed, set something done, set something solved,
    set something closed, set something to done, set something to closed, move something to done, mark as done, mark as resolved,
    mark as closed
  needs to be closed, has to be closed, must be closed, should be closed, be closed now, get it closed, have it closed, want it closed,
    can be closed, {thing} is done, {thing} is solved, {thing} is resolved, can be ticked off
comment
  ^comment, ^reply, ^respond, ^answer, ^note, ^mention, ^annotate, ^acknowledge, ^thank someone
  add a comment, leave a comment, write a comment, post a comment, make a comment, put a comment, drop a comment, add a note,
    leave a note, write a note, put a note, make a note, add a remark, leave a remark, as a comment, in a comment, comment saying,
    comment asking
  ^write under, ^write in the {thing}, ^write on the {thing}, ^note in, ^note on, ^say in the {thing}, ^say on the {thing},
    ^ask in the {thing}, ^ask on the {thing}, ^add that, ^add to the {thing}, post something {thing}
  let the reporter know, tell the reporter, ^ask the reporter, let someone know on, let someone know in, follow up on
create
  ^create, ^generate, ^draft, ^prepare, ^compose, ^submit
  create a {thing}, make a {thing}, make something {thing}, add a {thing}, open a new {thing}, open up a {thing}, start a {thing},
    draft a {thing}, write a {thing}, file a {thing}, raise a {thing}, issue a {thing}, generate a {thing}, prepare a {thing},
    register a {thing}, submit a {thing}, enter a {thing}, put together a {thing}, draw up a {thing}, set up a {thing},
    write up a {thing}, turn something into a {thing}, new {thing}, fresh {thing}
  need a {thing} for, want a {thing} for, like a {thing} for, need a new {thing}, like a new {thing}, there should be a {thing},
    should be a {thing} for, get someone a {thing}
delete
  delete, remove, erase, discard, eliminate, destroy, shred, purge, trash, wipe, ^scrap, ^bin, ^drop, ^rm, ^del, ^junk, ^toss, ^ditch,
    ^nuke, ^zap, ^dump, ^lose, ^prune, dispose of
  get rid of, do away with, throw away, throw something away, throw out, throw something out, toss out, toss something out, clear out,
    clear something out, clean up, clean out, weed out, take something off, take something down, take it out, strike something off,
    make something disappear, make something go away
  needs to be gone, want something gone, like something gone, like it gone, {thing} can go, {thing} must go, {thing} has to go, it can go,
    ones can go, rest can go, needs to go away, move something to the bin, put something in the bin, keep only, only keep
deploy
  ^deploy, redeploy, ^release, ^ship, ^promote, ^install, ^push to, roll out, roll something out, ^push something live,
    put something live, get something live, take something live, bring something live, go live, put something into production,
    get something into production, move something to production, push something to production, push something to staging
  needs to be live, should be live, must be live, want it live, get it out, needs to be deployed, should go to production
disable
  disable, deactivate, ^suspend, ^pause, ^mute, ^switch off, switch something off, ^turn off, turn something off, ^shut off,
    shut something off, shut something down, take something offline, take something out of service, put something on hold, ^freeze, ^lock
  {thing} needs to be off, {thing} should be off, {thing} must be off, want it off, get it turned off, have it turned off,
    have it switched off, should be turned off, needs to be turned off
download
  ^download, ^export, ^extract, save something to disk, save something locally, get something as a, give something as a, get a copy of,
    make a copy of, save a copy of, keep a copy of, save as pdf, save as csv, as a pdf, as a csv, as an excel, ^back up, make a backup,
    take a backup, need an export, like an export, want an export
enable
  enable, activate, reactivate, ^unblock, ^unlock, ^unmute, ^unpause, ^resume, ^switch on, switch something on, ^turn on,
    turn something on, turn something back on, switch something back on, take something online, bring something online,
    bring something back, ^reinstate, let someone back in, lift the block, lift the ban, ^set something live
  {thing} needs to be on, {thing} should be on, should be on again, should work again, should be turned on, needs to be turned on,
    have it turned on, have it switched on
hire
  ^hire, recruit, ^onboard, ^engage, ^appoint, ^employ, ^contract, ^take on, take someone on, bring someone on board, sign someone up,
    ^sign up, get someone on board, give someone the job, make someone an offer, want to hire, like to hire, need to hire,
    should get the job, can start with us
invite
  ^invite, invite someone to, invite someone for, invite someone too, invite someone as well, ^add someone, add someone to the {thing},
    include someone, ^put someone on, ^put someone down, ^loop someone in, loop someone in, bring in, bring someone in,
    bring someone along, get someone in on, send someone an invite, send someone an invitation, extend the invitation
  have someone join, let someone join, have someone come, have someone attend, get someone to join, could someone join, can someone join,
    should join, should come, should attend, should be there, needs to join, needs to attend, needs to be there, should be in the {thing},
    needs to be in the {thing}, should be on the {thing}, needs to be on the {thing}
  wants to come, wants to join, wants to attend, like to come, like someone there, want someone in the {thing},
    want someone at the {thing}, make sure someone is on, make sure someone is invited, needs to be invited, should be invited,
    get someone invited, have someone invited, gets an invite
label
  ^label, ^tag, ^flag, ^star, ^mark, ^categorise, ^categorize, ^classify, ^pin, ^file it under, ^file under, ^colour, ^color
  add a label, add a tag, put a label on, put a tag on, add the label, give something the label, give something the tag,
    mark something as, put something under, move something to the category, set the label, set the tag, needs the label,
    should have the label, needs a label, needs the tag, should have the tag, should be tagged, should be labelled, should be marked as
log
  ^log, ^record, ^register, ^note, ^enter, ^capture, ^document, ^put down, put something down, put something on record, make a note,
    take a note of, keep a record, keep track of, add a note, add an entry, make an entry, write down, write something down, note down,
    note something down, ^jot, jot down, jot something down, put something log, add something log, enter something log,
    write something log, put something on the {thing}, add something to the {thing}, put something in the {thing}
  needs to be on record, should be on record, should be in the log, needs to be logged, should be logged
mail
  send, ^email, ^e-mail, ^mail, ^message, ^cc, ^write someone that, ^write someone about, write to, ^write back, write an email,
    write a mail, write someone an email, write someone a mail, want an email to, need an email to, fire off
  ^reply, reply to, respond to, ^answer, answer the email, get back to, ^thank someone
  ^forward, ^fwd, pass on, pass something on, circulate
  let someone know, tell someone, inform, notify, keep someone posted, give someone a heads up, ^warn, ^ask someone, ^check with someone,
    ^remind someone, ^nudge someone, follow up with
  drop someone a line, drop someone a note, drop someone an email, get in touch, reach out, make sure someone gets,
    make sure someone knows, needs to know that, should know that, needs to be sent, should be sent, get it sent, have it sent
merge
  ^merge, ^squash, ^land, ^rebase and merge, ^combine, ^consolidate, ^fold, bring something into main, get something into main,
    pull something in, get it merged, have it merged, want it merged, needs to be merged, should be merged, can be merged, should go in
move
  ^move, reschedule, postpone, rearrange, rebook, ^shift, defer, ^delay, ^relocate, ^bump
  push back, push something back, push something to, push out, bring forward, bring something forward, pull forward,
    pull something forward, put off, put something off, put something back, move it, ^change it, switch something to, swap something to
  change the time, change the date, to another day, to another time, to a different day, to a different time, to another slot, to a later,
    to an earlier, start later, start earlier, make something later, make something earlier, have something start at, do something later,
    do something earlier
  needs to move, has to move, should move, be moved, be brought forward, can it go to, have something moved, get something moved,
    possible to move, needs to go to, has to go to, has to wait until, needs to wait until, can wait until, has to start, should start
order
  ^order, buy, purchase, reorder, ^procure, ^restock, stock up
  order a {thing}, order something from, place an order, make an order, get someone a {thing}, pick up some, pick something up,
    put something in the cart, put something in the basket, add something to the cart, add something to the basket
  ran out of, running low on, run out of, out of stock, needs to be ordered, should be ordered, must be ordered, get it ordered,
    have it ordered
pay
  pay, repay, settle, ^send, transfer, ^xfer, ^wire, ^bung, ^refund, remit, donate, reimburse, contribute, ^cover
  shell out, square up, give something back, give back, return the money, money back, clear the bill, clear the invoice,
    take care of the bill, take care of the invoice, sort out the bill
  chip in, top up, make a payment, get something over to, make a {thing}, process the payment, process the invoice, make a donation,
    put aside, put something aside, set something aside, move money, put something into account, ^give someone euros,
    ^give someone dollars
  ^i owe someone, ^we owe someone, should get from me, want someone to get, like someone to get, need someone to get,
    want someone to have, want someone paid, ^get someone paid, make sure someone gets
  needs to be paid, has to be paid, must be paid, should be paid, want it paid, get it paid, have it paid, needs to be sent
payplan
  pay, repay, ^send, transfer, ^wire, ^schedule, schedule a {thing}, ^set up, set something up, arrange, line up, line something up,
    queue up, put something in place
  set up a {thing}, plan a {thing}, arrange a {thing}, create a {thing}, start a {thing}, book a {thing}, add a {thing}, new {thing},
    ^monthly {thing} of, ^monthly {thing} to, create a standing order, start a standing order, set up a direct debit
  put aside, put away, put something away, put something aside, set something aside, put something into account, save something month,
    ^give someone euros, ^give someone dollars, want someone to get, like someone to get, need someone to get, want someone to have,
    want something to go to, should get from me, want it scheduled, like it scheduled, get it scheduled, have it scheduled,
    needs to go out, should go out on, want something to go out, like something to go out, have something go out, needs to be paid,
    has to be paid, must be paid, should be paid
plan
  ^schedule, ^plan, arrange, organise, organize, ^automate, ^queue, ^time
  set up, set something up, line up, line something up, queue up, pencil in, pencil something in, put something in place
  schedule a {thing}, set up a {thing}, plan a {thing}, arrange a {thing}, start a {thing}, create a {thing}, add a {thing},
    book a {thing}, new {thing}, regular {thing}, recurring {thing}
  want it scheduled, like it scheduled, get it scheduled, have it scheduled, needs to be scheduled, should be scheduled, should run on,
    should run at, needs to run on, should go out on, have something go out
post
  post, ^message, ^ping, ^dm, ^text, ^announce, ^tweet, ^write someone, write to, ^contact, ^shoot someone, ^share
  write something channel, share something channel, put something channel, post something channel, send something channel,
    drop something channel, write a message, send a message, send someone a message, drop someone a message, drop someone a line,
    drop someone a note, write someone a message, get a message to, get word to
  ^reply, reply to, ^respond, respond to, ^answer, get back to, ^acknowledge, ^thank someone
  tell someone, let someone know, inform, notify, keep someone posted, keep someone in the loop, give someone a heads up,
    fill someone in on, ^ask someone, ^check with someone, ^remind someone, ^nudge someone, ^warn, ^update someone on, reach out,
    get in touch
  make sure someone knows, want someone to know, like someone to know, needs to know that, should know that
publish
  ^publish, republish, needs to be published, should be published, get it published, ^release, ^ship, ^launch, ^post, ^cut, ^announce,
    ^push out, push something out, ^put out, put something out, ^send out, put something online, get something online, put something up,
    put something live, get something live, set something live, go live, make something public, make something visible, roll out,
    roll something out, open something to the public, get something out
  needs to be online, should be online, must be online, should be public, needs to be public, want it live, like it live, want it online,
    needs to go out, should go out, can go out
quote
  ^quote, ^offer someone, ^price, ^estimate, ^bid, ^tender, quote someone, make someone an offer, make an offer, make a quote,
    create a quote, write a quote, prepare a quote, draft a quote, draw up a quote, put together a quote, prepare an offer,
    draft an offer, write an offer, draw up an offer, put together an offer, put together a proposal, draft a proposal, write a proposal,
    new quote, new offer, work out a price, give someone a price, give someone a quote, give someone an offer, send someone a quote,
    send someone an offer
  needs a quote, wants a quote, would like a quote, asked for a quote, needs an offer, wants an offer, asked for an offer
refund
  refund, reimburse, compensate, repay, ^credit
  money back, pay back, pay something back, give something back, give back, hand something back, return the money, send back the money,
    credit something to, issue a credit, issue a refund, make a refund, process a refund, process the refund, give a refund,
    grant a refund, give someone a refund, gets a refund, gets his money, gets her money, gets their money, cancel the charge,
    reverse the charge, reverse the payment, undo the charge, take back the charge
  should get something back, should be refunded, want someone refunded, get someone refunded
reject
  ^reject, decline, ^deny, ^refuse, ^dismiss, ^veto, ^disapprove, ^turn down, turn something down, turn someone down, send something back,
    send back, ^block it, push back on
remind
  ^remind me to, ^remind me that, ^remind me about, ^remind me on, ^remind me at, ^remind me in, remind someone, ^set a reminder,
    set a reminder, create a reminder, make a reminder, add a reminder, put a reminder, set an alarm, set a timer, new reminder,
    need a reminder, want a reminder, like a reminder, ^wake me, ^ping me, ^ping someone, ^buzz me, want to be reminded,
    like to be reminded, need to be reminded, make sure i remember, give me a nudge, keep me from forgetting
request
  ^request, ^ask someone for, ^ask someone to, ask for a {thing}, request a {thing}, ^get someone to {thing}, get someone to {thing},
    have someone {thing}, let someone {thing}, want someone to {thing}, like someone to {thing}, need someone to {thing}
  needs a {thing}, need a {thing}, send something for {thing}, put something up for {thing}, ready for {thing}, should {thing}
restart
  restart, reboot, ^reset, ^bounce, ^cycle, ^relaunch, reload, ^respawn, power-cycle, power cycle, turn something off and on,
    bring something back up, bring back up, get something up again, get something back up, get something running again,
    start something again, needs to be restarted, should be up again, needs to be up again
restore
  restore, recover, ^undelete, ^reinstate, ^revert, roll back, roll something back, ^rollback, bring something back, bring back,
    get something back, put something back, undo the, undo that, go back to, take something back to, ^unarchive,
    put something back the way, set something back to, needs to be back, want it back, like it back, should be back
revoke
  revoke, ^withdraw, ^rescind, ^remove, ^invalidate, ^void, ^expire, ^unshare, take away, take something away, take back,
    take something back, take someone off, cut someone off, lock someone out, kick someone out, kick someone off, shut someone out,
    end the access, remove the access, remove someone from, ^disable the {thing}, ^cancel the {thing}, make something private,
    make something invalid ought to lose, should lose, must lose, needs to lose, want someone out, needs to be revoked,
    has left the company, has left the team
run
  ^run, rerun, execute, ^start, ^launch, ^trigger, ^invoke, ^perform, ^apply, ^process, ^fire
  kick off, kick something off, fire off, set something off, set something going, get something going, get something started, start up,
    start something up, spin up, spin something up, put something through, do a run, run the {thing}, start the {thing},
    trigger the {thing}, do the {thing}
  needs to run, has to run, must run, should run, needs to be run, want it run, like it run, get it run, have it run, want it running,
    get it running, needs to start, should start
scale
  ^scale, ^resize, ^upsize, ^downsize, scale up, scale something up, scale down, scale something down, scale out, scale in, ^grow,
    ^shrink, ^expand, ^double, ^halve, increase, decrease, ^add replicas, ^add capacity, need more capacity, need more replicas,
    need more instances, needs more memory, needs more capacity, fewer replicas, fewer instances
send
  send, ^forward, forward it, ^fwd, ^fw, ^relay, convey, ^dispatch, ^transmit, deliver, circulate, distribute
  pass on, pass something on, pass along, pass something along, get back to, get something over to, get something out to, fire off,
    shoot something over, ^shoot someone, ^get someone over to, ^hand someone, get it to, get this to, hand something to
  reply, ^respond, respond to, ^answer
  needs to be sent, has to be sent, must be sent, should be sent, want it sent, like it sent, need it sent, get it sent, have it sent,
    want someone sent to, like someone sent to, ^get someone sent to, ^have someone sent to, needs to go out to, should go out to,
    have something go out, want something to go to, like something to go to, need something to go to, make sure someone gets,
    make sure that someone gets, see that someone gets, should receive, want someone to get, like someone to get
share
  ^share, share it, share this, share that, share something with, be shared with, needs to be shared, should be shared, want it shared,
    like it shared, get it shared, have it shared, ^invite someone to edit, ^invite someone to view, invite someone to collaborate
  give someone access, grant someone access, get someone access, send someone access, let someone have access, give someone read,
    give someone edit, give someone rw, get access, give someone write, give someone permission, give someone rights,
    grant someone permission, grant someone rights, needs access, want access, should have access, to have access, add someone as
  let someone edit, let someone see, let someone read, let someone view, let someone look, let someone open, let someone in,
    ^allow someone to, enable someone to, be able to edit, be able to see, be able to view, be able to read, be able to access,
    so someone can edit, so someone can see, so someone can read, so someone can add, that someone can view, that someone can read,
    want someone to see, like someone to see, make something available, make something visible, make something accessible,
    open something up
stop
  ^halt, ^kill, ^pause, ^interrupt, ^end, terminate, ^quit, suspend, shut down, shut something down, ^shut off, shut something off,
    take down, take something down, bring down, bring something down, spin down, spin something down, switch off, switch something off,
    turn off, turn something off, power down, power something down, pull the plug, want it stopped, get it stopped, have it stopped,
    needs to be down, wind down
subscribe
  subscribe, ^watch, ^enrol, ^enroll, ^register, sign up, sign someone up, sign me up, put someone on the list, put me on the list,
    add someone to the list, add me to the list, add someone to the newsletter, add someone to the mailing list, opt in, opt someone in,
    wants to be on the list, should be on the list, wants the newsletter, want the newsletter, like the newsletter,
    should get the newsletter, keep me updated about, keep me posted about, follow this {thing}
unsubscribe
  unsubscribe, ^unfollow, ^unwatch, opt out, opt someone out, opt me out, take someone off the list, take me off the list,
    get me off the list, remove someone from the list, remove me from the list, sign me out of, cancel the subscription,
    end the subscription, wants off the list, want off the list, leave the {thing}
upload
  ^upload, ^import, ^attach, ^push, upload something to, put something on the drive, put something drive, put something server,
    put something folder, put something online, put something into the cloud, put something bucket, save something drive,
    store something drive, copy something to, move something to, drop something folder, back something up to, send something up to,
    add something to the folder, add something to the drive, transfer something to, needs to be on the drive, should be on the drive,
    should be in the folder, needs to be in the folder, want something on the drive
write
  save, ^store, ^create, ^record, ^log, ^note, ^jot, ^scribble, ^type up, ^put it in, ^document, ^draft, ^compose
  write down, write something down, write up, write something up, note down, note something down, jot down, jot something down, put down,
    take down, take a note of, keep a note of, keep a record, keep track of, save something as, keep something in the {thing},
    save something {thing}, store something {thing}
  write something {thing}, put something {thing}, note something {thing}, type something {thing}, paste something {thing},
    copy something into, into the {thing}, as a {thing}
  make a {thing}, make something {thing}, create a {thing}, start a {thing}, draft a {thing}, write a {thing}, prepare a {thing},
    generate a {thing}, put together a {thing}, draw up a {thing}, turn something into a {thing}, new {thing}, fresh {thing}
"""


def _read(book: str) -> Mapping[str, tuple[tuple[str, ...], ...]]:
    found: dict[str, list[str]] = {}
    for line in book.strip().splitlines():
        if not line.startswith(" "):
            groups = found[line] = []
        elif line.startswith("    "):
            groups[-1] += line
        else:
            groups.append(line)
    return {
        act: tuple(tuple(phrase.strip() for phrase in group.rstrip(",").split(",")) for group in groups) for act, groups in found.items()
    }


_LISTS = _read(_BOOK)
ACTS: tuple[str, ...] = tuple(sorted(_LISTS))
_ALIKE = frozenset("create make add new need want should update delete remove".split())  # the phrases that are worth repeating for each
_ALSO = {  # what users call a thing
    "event": ("meeting", "appointment"),
    "file": ("document", "doc"),
    "issue": ("ticket",),
    "ticket": ("issue",),
    "transaction": ("payment",),
}


def groups(act: str, thing: str = "") -> tuple[tuple[str, ...], ...]:
    """The usual words for an act, ready for `words` of an intent, in groups.

    Args:
        act: one of `ACTS`.
        thing: what the tool acts on ("event"), also by its other names; without it the phrases that need one are left out, and the act
            itself stands for them.

    Raises:
        KeyError: no such list.
    """
    names, seen, found = (thing, *_ALSO.get(thing, ())) if thing else (), set[str](), []
    for group in _LISTS[act]:
        written = dict.fromkeys(each for phrase in group for each in _named(phrase, names) if each not in seen)
        seen |= written.keys()
        found.append(tuple(written))
    return tuple(group for group in found if group) or ((act,),)


def phrases(act: str, thing: str = "") -> tuple[str, ...]:
    """As `groups`, in one list."""
    return tuple(phrase for group in groups(act, thing) for phrase in group)


def listed(groups: Sequence[Sequence[str]]) -> Iterator[str]:
    """Words as a YAML list: each group begins a line, and no line is long."""
    yield "words: ["
    for group in groups:
        line = " "
        for phrase in group:
            said = f" {inline(phrase)},"
            if len(line) + len(said) > _WIDTH:
                yield line
                line = " "
            line += said
        yield line
    yield "]"


def _named(phrase: str, names: Sequence[str]) -> Iterator[str]:
    if "{thing}" not in phrase:
        yield phrase
        return
    for name in names if phrase.split(maxsplit=1)[0] in _ALIKE else names[:1]:
        article = "an {thing}" if name[:1] in set("aeiou") else "a {thing}"
        yield phrase.replace("a {thing}", article).replace("{thing}", name)
