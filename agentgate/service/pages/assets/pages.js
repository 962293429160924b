"use strict";
// Passkeys (Web Authentication Level 3): asks the gate what is to be signed, the authenticator for it, and hands the gate the answer.
// Whatever the gate says is put on the page as text.

const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const encode = (words) => new TextEncoder().encode(words);

class Told extends Error {}

async function post(path, body, method = "POST") {
  let answer;
  try {
    answer = await fetch(path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), redirect: "error" });
  } catch {
    throw new Told("The gate does not answer. Nothing was sent that counts; please try again.");
  }
  if (answer.status === 204) return {};
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Told(answer.status === 429 || answer.status === 503 ? "The gate is busy. Please try again in a few seconds." : said.detail || "The gate refused this. Load the page again.");
  return said;
}

async function assertion(challenge, rpId, credential) {
  const allowCredentials = credential ? [{ type: "public-key", id: bytes(credential) }] : [];
  const made = await navigator.credentials.get({ publicKey: { challenge, rpId, allowCredentials, userVerification: "required", timeout: 240000 } });
  const { clientDataJSON, authenticatorData, signature } = made.response;
  return { id: made.id, rawId: text(made.rawId), type: made.type,
    response: { clientDataJSON: text(clientDataJSON), authenticatorData: text(authenticatorData), signature: text(signature) } };
}

async function signIn() {
  const { challenge, rp_id } = await post("/holds/challenge", {});
  await post("/holds/session", { challenge, assertion: await assertion(encode(challenge), rp_id) });
  location.replace(location.pathname + location.search);
  return "Signed in.";
}

async function signOut() {
  await post("/holds/session", {}, "DELETE");
  location.replace(document.querySelector(".top > a").getAttribute("href"));
}

async function make() {
  const name = document.getElementById("name").value.trim();
  if (!name) throw new Told("Please give your user id first.");
  const { challenge, rp_id } = await post("/holds/challenge", {});
  const made = await navigator.credentials.create({ publicKey: {
    challenge: encode(challenge), rp: { id: rp_id, name: "agentgate" }, attestation: "none", timeout: 240000,
    user: { id: crypto.getRandomValues(new Uint8Array(32)), name, displayName: name },
    pubKeyCredParams: [-7, -8, -257].map((alg) => ({ type: "public-key", alg })),
    authenticatorSelection: { residentKey: "required", userVerification: "required" },
  } });
  const { clientDataJSON, attestationObject } = made.response;
  const credential = { id: made.id, rawId: text(made.rawId), type: made.type,
    response: { clientDataJSON: text(clientDataJSON), attestationObject: text(attestationObject) } };
  const { lines } = await post("/holds/passkey", { challenge, credential, name });
  const place = document.querySelector("[data-lines]");
  place.querySelector("pre").textContent = lines;
  place.hidden = false;
  return "Made. It counts once your operator has put these lines into the passkey file, with your tenant and groups.";
}

async function answer(answers, reason) {
  const { nonce, challenge, rp_id, credential } = await post("/holds/nonce", { answers });
  const said = { answers, nonce, assertion: await assertion(bytes(challenge), rp_id, credential), ...(reason ? { reason } : {}) };
  const became = await post("/holds/answers", said);
  for (const [hold, words] of Object.entries(became.answered || {})) {
    const card = document.querySelector(`[data-hold="${hold}"]`);
    card.querySelector("[data-said]").textContent = words;
    for (const part of card.querySelectorAll("[data-answering], .state, .yes")) part.hidden = true;
    const next = card.querySelector("[data-next]");
    if (next) {
      next.hidden = false;
      next.querySelector("a").focus();
    }
  }
  return became;
}

async function answerOne(button) {
  const card = button.closest("[data-hold]");
  const reason = button.dataset.answer === "refuse" ? card.querySelector("[name=reason]").value.trim() : "";
  const { values } = await answer({ [card.dataset.hold]: button.dataset.answer }, reason);
  for (const place of values ? card.querySelectorAll("[data-masked]") : []) {
    place.textContent = values[place.dataset.masked] ?? "(not kept)";
    place.classList.add("shown");
  }
  return values ? "Shown above, and on record." : "";
}

async function together() {
  const chosen = [...document.querySelectorAll("[data-together] input:checked")].filter((each) => each.value && !each.closest("[hidden]"));
  if (!chosen.length) throw new Told("Every call is left open: choose Release or Refuse for at least one.");
  await answer(Object.fromEntries(chosen.map((each) => [each.name, each.value])));
  return "Answered. What became of each stands beside it.";
}

async function copy() {
  await navigator.clipboard.writeText(document.querySelector("[data-lines] pre").textContent);
  return "Copied.";
}

// What waits changes without us: the list is put anew in its place, and a call that somebody answered loses its buttons. Focus stays.
const page = (address) => new Promise((found) => {
  const asked = new XMLHttpRequest();
  asked.open("GET", address);
  asked.responseType = "document";
  asked.onloadend = () => found(asked.status === 200 ? asked.responseXML : null);
  asked.send();
});

async function refresh() {
  const list = document.querySelector("[data-refresh]"), card = document.querySelector("[data-hold][data-state]");
  const busy = document.querySelector("button:disabled") || document.activeElement?.matches("input");
  if (document.hidden || busy || !(list || card?.querySelector("[data-answering]:not([hidden])"))) return;
  const now = await page(location.href);
  const fresh = now?.querySelector(list ? "[data-refresh]" : "[data-hold][data-state]");
  if (!fresh) return now && location.reload(); // signed out, or gone
  if (card && card.dataset.state === fresh.dataset.state) return;
  const at = document.activeElement?.getAttribute("href");
  (list || card).replaceWith(document.importNode(fresh, true));
  local();
  for (const link of at ? document.links : []) if (link.getAttribute("href") === at) link.focus();
}

function local() {
  for (const each of document.querySelectorAll("time[datetime]:not([data-exact])")) {
    each.textContent = new Date(each.dateTime).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  }
}

function expire() {
  for (const each of document.querySelectorAll("[data-until]:not([hidden])")) {
    if (Date.now() < 1000 * each.dataset.until) continue;
    const card = each.closest("[data-hold]");
    for (const part of card.querySelectorAll("[data-answering]")) part.hidden = true;
    card.querySelector("[data-said]").textContent = "The time to answer is over: this call does not run.";
  }
}

local();
setInterval(refresh, 15000);
setInterval(expire, 1000);
addEventListener("pageshow", (event) => event.persisted && location.reload());

const DOES = { copy, "sign-in": signIn, "sign-out": signOut, make, answer: answerOne, together };

function words(error) {
  if (error instanceof Told) return error.message;
  if (error?.name === "NotAllowedError") return "The passkey was not used: it was cancelled, took too long, or did not verify you. Nothing was answered.";
  return `The browser refused (${error?.name || "error"}). Nothing was answered.`;
}

async function pressed(button) {
  const place = (button.closest("[data-hold], .card") || document.querySelector("[data-together]") || document).querySelectorAll("[data-said]");
  const said = place[place.length - 1];
  const buttons = document.querySelectorAll("button");
  for (const each of buttons) each.disabled = true;
  if (said) said.classList.remove("bad");
  try {
    const done = await DOES[button.dataset.do](button);
    if (done && said) said.textContent = done;
  } catch (error) {
    if (said) {
      said.textContent = words(error);
      said.classList.add("bad");
    }
  } finally {
    for (const each of buttons) each.disabled = false;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("button[data-do]");
  if (button) pressed(button);
});

const astray = document.body.dataset.origins && !document.body.dataset.origins.split(" ").includes(location.origin);
if (astray || !window.PublicKeyCredential) {
  for (const each of document.querySelectorAll(astray ? "[data-astray]" : "[data-missing]")) each.hidden = false;
  for (const each of document.querySelectorAll("button[data-do]:not([data-do=sign-out])")) each.disabled = true;
}
