// The shop's page: the same API every client has, and the live feed with resuming.
"use strict";

const FEED_LINES_MAX = 200;
const RECONNECT_MS = 1000;
const STATEMENT_LINES = 10;
// Several frames in a row need one look at the account.
const WALLET_MS = 200;
const byId = (id) => document.getElementById(id);

let user = "";
let socket = null;
let lastId = null;
let nextCursor = null;
let walletVersion = 0;
let walletTimer = 0;

async function call(method, path, body, headers = {}) {
  const options = { method, headers: { "X-User-Id": user, ...headers } };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  if (response.status === 204) return null;
  const answer = await response.json();
  if (!response.ok) {
    const flaws = (answer.errors || []).map((flaw) => `${flaw.pointer}: ${flaw.message}`).join("; ");
    throw new Error(`${answer.code}: ${flaws || answer.detail}`);
  }
  return answer;
}

const post = (path, body) => call("POST", path, body, { "Idempotency-Key": newKey() });

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function say(text) {
  byId("message").textContent = text;
}

function showBalance(account) {
  if (account.version < walletVersion) return;
  walletVersion = account.version;
  byId("balance").textContent = `${account.balance_minor} ${account.currency}${account.frozen ? " (frozen)" : ""}`;
}

function tableRow(texts) {
  const row = document.createElement("tr");
  row.append(...texts.map((text) => {
    const cell = document.createElement("td");
    cell.textContent = text;
    return cell;
  }));
  return row;
}

function statementRow(leg) {
  return tableRow([leg.kind, leg.amount_minor, leg.balance_minor, leg.order_id || leg.reference || ""]);
}

// A frame tells the balance; whether the account is frozen or closed, and the statement, only the account does.
async function loadWallet() {
  const asked = user;
  const [account, page] = await Promise.all([
    call("GET", "/api/v1/accounts/me").catch((error) => {
      if (error.message.startsWith("no-account:")) return null;
      throw error;
    }),
    call("GET", `/api/v1/accounts/me/transfers?limit=${STATEMENT_LINES}`),
  ]);
  if (asked !== user) return;
  if (account === null) byId("balance").textContent = "no account";
  else showBalance(account);
  byId("statement").replaceChildren(...page.items.map(statementRow));
}

function loadWalletSoon() {
  clearTimeout(walletTimer);
  walletTimer = setTimeout(() => attempt(loadWallet), WALLET_MS);
}

function orderRow(orderId) {
  return document.querySelector(`tr[data-order="${CSS.escape(orderId)}"]`);
}

function showOrder(order, atTop) {
  const old = orderRow(order.order_id);
  if (old && Number(old.dataset.version) >= order.version) return;
  const amount = order.amount_minor === undefined
    ? old?.dataset.amount || "" : `${order.amount_minor} ${order.currency}`;
  const row = tableRow([order.order_id, amount, order.status, order.reason || ""]);
  row.dataset.order = order.order_id;
  row.dataset.version = order.version;
  row.dataset.amount = amount;
  row.cells[2].className = order.status;
  const last = document.createElement("td");
  if (order.status !== "CANCELLED") last.append(cancelButton(order.order_id));
  row.append(last);
  if (old) old.replaceWith(row);
  else byId("orders")[atTop ? "prepend" : "append"](row);
}

function cancelButton(orderId) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Cancel";
  button.addEventListener("click", () =>
    attempt(async () => {
      await call("POST", `/api/v1/orders/${orderId}/cancel`);
      say("Cancellation asked for.");
    }));
  return button;
}

async function loadOrders(more) {
  const page = await call("GET", `/api/v1/orders${more ? `?cursor=${encodeURIComponent(nextCursor)}` : ""}`);
  if (!more) byId("orders").replaceChildren();
  page.items.forEach((order) => showOrder(order, false));
  nextCursor = page.next_cursor;
  byId("more").hidden = nextCursor === null;
}

function listen() {
  if (socket) { socket.onclose = null; socket.close(); }
  const query = new URLSearchParams({ user });
  if (lastId !== null) query.set("last_event_id", lastId);
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/api/v1/ws?${query}`);
  socket.onopen = () => { byId("state").textContent = `connected as ${user}`; };
  socket.onmessage = (message) => receive(JSON.parse(message.data), message.data);
  // Whatever the reason: come back, and resume after the last frame.
  socket.onclose = () => { byId("state").textContent = "reconnecting…"; setTimeout(listen, RECONNECT_MS); };
}

function receive(frame, text) {
  lastId = frame.id;
  const line = document.createElement("li");
  line.textContent = text;
  byId("feed").prepend(line);
  while (byId("feed").children.length > FEED_LINES_MAX) byId("feed").lastChild.remove();
  if (frame.type === "order.status") showOrder(frame, true);
  if (frame.type === "wallet.balance") {
    showBalance(frame);
    loadWalletSoon();
  }
}

async function attempt(action) {
  try { await action(); } catch (error) { say(error.message); }
}

function onSubmit(id, action) {
  byId(id).addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(() => action(new FormData(event.target)));
  });
}

onSubmit("who", async () => {
  user = byId("user").value;
  lastId = null;
  walletVersion = 0;
  byId("feed").replaceChildren();
  byId("balance").textContent = "no account";
  say("");
  listen();
  await loadOrders(false);
  await loadWallet();
});
onSubmit("open", async (form) => {
  const currency = form.get("currency");
  showBalance(await post("/api/v1/accounts", currency ? { currency } : {}));
  say("Account opened.");
});
onSubmit("top-up", async (form) => {
  showBalance(await post("/api/v1/accounts/me/top-ups", { amount_minor: Number(form.get("amount")) }));
  say("Topped up.");
});
onSubmit("order", async (form) => {
  const description = form.get("description");
  const order = await post("/api/v1/orders", {
    amount_minor: Number(form.get("amount")), ...(description ? { description } : {}),
  });
  showOrder(order, true);
  say(`Placed ${order.order_id}.`);
});
byId("close").addEventListener("click", () =>
  attempt(async () => {
    await call("DELETE", "/api/v1/accounts/me");
    say("Account closed.");
    await loadWallet();
  }));
byId("refresh").addEventListener("click", () => attempt(() => loadOrders(false)));
byId("more").addEventListener("click", () => attempt(() => loadOrders(true)));
