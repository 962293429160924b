"""What the user's words hand over: what is their own, what is in doubt, what is denied; read in
this order.

A turn is read once (`turn.Turn`). Each step can only take away from what the steps before it
left as the user's own.

1. *Whose words* (`whose`). Own is what a host declares so, and every line of prose that nothing
   below takes. Nobody's: forwarded mail, what follows "summarise this:", quotations. In doubt:
   a turn with hidden characters; lines of chats, logs and tables; lines beside one that asks
   about a text; a line behind a greeting that is not the first, all of a letter to the run's
   own user or signed by another; what stands behind a label ("Eve Miller:", "case 4711:");
   items of a list behind a lead-in that is not one of doing. Own all the same: a list behind
   "please do the following:" or that is the whole turn, fields behind a request ("Amount: 20").
2. *Quotations* (`whose`). One that the user's own verb, preposition or noun governs is a name:
   it gives texts, files, people, channels. The first one of a turn of one line, and one listed
   with it, gives what the bare word would, if it is one whole entity. One behind "message" or
   "reply" is a text to be sent. None requests anything.
3. *Denied* (`denials`): from a negation to where it ends; of a statement, its own part of the
  sentence.
4. *Reported* (`turn`): the rest of a sentence behind somebody else's "wrote", "wants me to": it
  gives nothing; a sentence that only says where ("they wrote it in a.txt.") is no report.
5. *Kind* (`pieces`): a request, a question, a statement ... Only a request requests, up to its
  first subordinate clause.
6. *Force* (`force`): a sentence that a condition on a person or an event, waiting, a larger
   sentence, a trailing no, "maybe" or a mood turns asks for nothing yet; so does one that goes
   on with it ("Then ..."), and one for a time that no tool of its intent takes. Its words make
   an intent unclear, and its values are origins only where that question is asked.
7. *Taken back* (`turn`): what a sentence behind a request, or a later turn, says against it;
   not what only narrows it ("nobody else", "leave the rest", "room 8, not room 5", "no title
   needed") or is of the other case ("if it is free, book it. Otherwise leave it"). A later
   sentence is doubt, too, where it tells what may have overtaken a request (`turn.news`).

What is own and requests is *present*; what is in doubt is *unclear* at most, and a person is
asked; what is denied or taken back is *absent*. Whatever is in doubt may take back, and never
grants.

`prompt`, `wording`, `calculation`, `delegation` and `first_person` read from this what a turn
names, says, computes, delegates and says of the user; `spans`, `days` and `numerals` read
values. `words/` has the closed classes (`lists.toml`) and the patterns
(`forms.toml`), each with its name and examples.
"""
