"""Three workflows that together use every word of the language, so that nothing of it can be left out unnoticed."""

from __future__ import annotations

ROLES = {"clerk": frozenset({"files:read", "files:share", "files:drop"}), "support": frozenset({"refunds:create", "refunds:read"})}

EVERYTHING = """
agentgate: workflow/v1
id: all.words
version: 3
title: Every word of the language
owners: [lee]
risk: medium
expires: "2031-12-30"
tenants: [acme]
who:
  agent:
    spiffe: ["spiffe://acme.example/ns/a/sa/b"]
    posture: {image_signed_by: ["release@acme.example"], attested_within: 10m}
    boundary: {cluster: [c1], namespace: [n1], node_pool: [p1], same_key_as_last_token: true}
  for_user: {groups: [clerks], same_tenant: true, acr: [mfa, phr], max_age: 15m}
  via: {min_hops: 1, max_hops: 1, brokers: ["spiffe://acme.example/ns/a/sa/api"]}
intents:
  share:
    asks_for: Share or delete a file.
    words: [share, delete]
    unclear: step_up
    delegated: step_up
    unheard: step_up
    examples: ["Please share report-1.txt with kim@acme.example", "Delete report-1.txt"]
    counter_examples: ["Share the joke of the year"]
  pay:
    asks_for: Pay a bill.
    words: [pay]
    unclear: deny
    examples: ["Please pay the bill in bill-1.txt"]
conditions:
  environment: [prod]
  data_class: [internal]
  network: [10.0.0.0/8]
  hours: {days: [mon, tue, wed, thu, fri], from: "08:00", to: "20:00", zone: Europe/Berlin}
tools:
  files.list:
    effect: read
    needs: any
    audience: https://files.acme.example
    scope: [files:read]
    definition: sha256:0000000000000000000000000000000000000000000000000000000000000001
    redeem: server
    args: {}
    facts:
      id: {type: id, path: "files[].id"}
      size: {type: number, path: "files[].size"}
  bills.read:
    title: Read page {page} of {name}
    effect: read
    needs: any
    redeem: wrapper
    args:
      name: {type: path, from: [prompt]}
      page: {type: integer, min: "1", max: "9", from: [model], optional: true}
    facts:
      iban: {type: iban, path: text, find: one, trust: named, pattern: 'DE[0-9]{20}'}
      total: {type: money, currency: currency, path: "lines[].total"}
      currency: {type: text, path: "lines[].currency"}
      level: {type: text, path: level, pattern: '[a-z]+'}
  files.drop:
    effect: destructive
    needs: [share]
    audience: https://files.acme.example
    scope: [files:drop]
    definition: sha256:0000000000000000000000000000000000000000000000000000000000000002
    redeem: server
    args:
      id: {type: id, from: [prompt], select: {of: files.list.id, called: [file], largest: files.list.size}}
  files.share:
    effect: egress
    needs: [share]
    audience: https://files.acme.example
    scope: [files:share]
    definition: sha256:0000000000000000000000000000000000000000000000000000000000000003
    redeem: server
    args:
      file: {type: path, glob: "**.txt", from: [prompt]}
      to: {type: email, pattern: '[a-z]+@acme\\.example', from: [prompt], unknown_origin: step_up, sensitive: true}
      rights: {each_in: [files:read, files:share], max_items: 2, narrower_than_role: clerk, from: [model]}
      mode: {is: link, from: [model]}
      days: {type: integer, min: "1", max: "30", from: [model]}
      kind: {in: [draft, final, secret], from: [model]}
      note: {text: 20, from: [model], entities: [prompt], optional: true, nullable: true}
      until: {type: date, from: [prompt, model], optional: true}
  bills.pay:
    effect: write
    needs: [pay]
    audience: https://pay.acme.example
    scope: [refunds:create]
    definition: sha256:0000000000000000000000000000000000000000000000000000000000000004
    redeem: server
    args:
      to: {type: iban, from: [bills.read.iban]}
      amount: {type: money, currency: currency, min: "0.01", max: "500.00", at_most: {sum: bills.read.total}, from: [model]}
      currency: {in: [EUR, GBP], from: [model]}
      level: {type: text, in: [high, low], from: [bills.read.level], optional: true}
      memo: {text: 60, from: [model], entities: [bills.read.iban], optional: true}
  payees.list:
    effect: read
    needs: any
    redeem: wrapper
    args:
      country: {in: [DE, FR], from: [prompt]}
      limit: {type: integer, min: "1", max: "50", from: [model], optional: true, page_size: true}
      offset: {type: integer, min: "0", max: "900", from: [model], optional: true}
    facts:
      account: {type: iban, path: "payees[].iban", named_by: [label], where: {land: country}}
      label: {type: text, path: "payees[].label"}
      land: {type: text, path: "payees[].country"}
  payees.pay:
    effect: write
    needs: [pay]
    redeem: wrapper
    args:
      to: {type: iban, from: [prompt, payees.list.account], named_first: true}
sequence:
  - {before: bills.pay, require: bills.read, within: 15m}
limits:
  - {count: bills.pay, max: 2, per: run}
  - {count: any, max: 30, per: agent, every: 1h}
  - {sum: bills.pay.amount, max: "1000.00", per: tenant, every: 1d}
step_up:
  - id: share
    for: files.share
    when:
      days: {above: "7"}
      kind: {in: [draft, final]}
      mode: {is: link}
    approvers: {group: leads, count: 2, not: [requester]}
    timeout: 10m
    show: [file, to]
  - id: odd
    for: files.share
    when:
      kind: {not_in: [draft, final]}
      to: {pattern: '[a-k].*'}
      file: {glob: "*.txt", not_pattern: 'draft-[0-9]*[.]txt'}
      days: {min: "2", max: "5"}
    approvers: {group: leads, count: 1}
    timeout: 10m
    show: [file]
  - id: unknown
    for: files.share
    when: {until: {origin: [model]}, note: {text: 10}}
    approvers: {group: leads, count: 1}
    timeout: 10m
    show: [file]
  - id: drop
    for: files.drop
    approvers: {group: leads, count: 1}
    timeout: 10m
    show: [id]
  - {id: meant, for: files.drop, when: {intent: unclear}, approvers: {user: true}, timeout: 5m, show: [id]}
token: {ttl: 60s, uses: 1, bound_to: [call, agent_key]}
upstream:
  bills.pay: {broker: vault, role: payer, narrower_than: support}
"""

CLAIMS = """
agentgate: workflow/v1
id: all.claims
version: 1
title: A job with claims
owners: [lee]
risk: low
expires: "2031-12-31"
tenants: [acme]
who:
  agent:
    oidc: {issuer: "https://issuer.example", claims: {repository: {is: acme/shop}, ref: {in: [refs/heads/main]}}}
intents: {none: "A job."}
tools:
  jobs.run:
    effect: write
    needs: none
    redeem: wrapper
    args: {queue: {in: [a, b], from: [model]}}
"""

STRUCTURES = """
agentgate: workflow/v1
id: mail.send
version: 1
title: Send files the user names
owners: [lee]
risk: low
expires: "2031-12-31"
tenants: [acme]
who: {agent: {in_process: true}, for_user: {same_tenant: true}}
intents:
  send:
    asks_for: Send a mail.
    words: [send, mail]
    unclear: deny
    examples: ["Please send plan-1.txt to kim@acme.example"]
  mark:
    asks_for: Mark a mail.
    words: [mark]
    unclear: deny
    examples: ["Mark it as urgent"]
tools:
  drive.list:
    effect: read
    needs: any
    redeem: wrapper
    args: {}
    facts: {id: {type: id, path: "files[].id"}}
  mail.send:
    effect: egress
    needs: [send]
    redeem: wrapper
    args:
      to: {type: email, from: [prompt]}
      attachments[].file_id: {type: id, max_items: 3, from: [drive.list.id]}
      attachments[].kind: {each_in: [pdf, txt], max_items: 3, from: [model], optional: true}
      options.note: {text: 20, from: [model], entities: [prompt], optional: true}
      meta: {type: json, text: 100, from: [model], entities: [prompt], optional: true}
      urgent: {type: boolean, from: [model], optional: true, needs: [mark]}
limits:
  - {count: mail.send, max: 2, per: turn}
"""
