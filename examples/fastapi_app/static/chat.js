// Text of people and models enters the page as text nodes only, never as HTML.

const KEPT = "travel-chat"; // in localStorage: ids of the runs of this conversation, oldest first
const RETRY_MILLISECONDS = 2000;
const KINDS = [
  "stream_start",
  "stream_reset",
  "text_delta",
  "tool_call",
  "tool_result",
  "agent_finish",
  "agent_cancel",
  "refused",
];

const log = document.querySelector("#log");
const form = document.querySelector("#form");
const text = document.querySelector("#text");
const send = document.querySelector("#send");
const stop = document.querySelector("#stop");
const problem = document.querySelector("#problem");

let runs = keptRuns();
let chat = 0; // grows with "New chat": what belongs to an earlier one is over
let source = null; // of the answer that is being told
let isAtEnd = true;
let scrollTop = 0;
let frame = null;

function keptRuns() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
    return Array.isArray(kept) ? kept.filter((id) => typeof id === "string") : [];
  } catch {
    return [];
  }
}

function keep(ids) {
  runs = ids;
  localStorage.setItem(KEPT, JSON.stringify(ids));
}

function copyOf(template) {
  return document.querySelector(template).content.firstElementChild.cloneNode(true);
}

/** One question and its answer. What is shown follows from the events alone, so they can be told anew. */
class Exchange {
  constructor(question) {
    this.element = copyOf("#exchange");
    this.element.querySelector(".question").textContent = question;
    this.answer = this.element.querySelector(".answer");
    this.begin();
    log.append(this.element);
    stayAtEnd();
  }

  begin() {
    this.turns = new Map();
    this.tools = new Map();
    this.answer.replaceChildren();
    this.element.setAttribute("aria-busy", "true");
    this.say("Waiting for an answer …");
  }

  say(words) {
    const status = this.element.querySelector(".status");
    if (status.textContent !== words) status.textContent = words;
  }

  end(words, { failed = false } = {}) {
    this.element.setAttribute("aria-busy", "false");
    this.element.classList.toggle("failed", failed);
    for (const tool of this.tools.values()) {
      if (!tool.done) tool.element.querySelector(".outcome").textContent = "was not finished";
    }
    this.say(words);
  }

  /** Take an event in; true when it is the last one. */
  take(kind, data) {
    switch (kind) {
      case "stream_start":
      case "stream_reset":
        this.clear(data.step); // this attempt says everything from the start
        this.say("Thinking …");
        return false;
      case "text_delta":
        this.write(data.step, data.content);
        this.say("Writing …");
        return false;
      case "tool_call":
        this.call(data.step, data.tool_call);
        return false;
      case "tool_result":
        this.called(data);
        return false;
      case "agent_cancel":
        this.end("Stopped.");
        return true;
      case "agent_finish":
        this.end(data.error ? `The answer failed: ${data.error}` : "", { failed: Boolean(data.error) });
        return true;
      case "refused":
        this.end(data.detail, { failed: true });
        return true;
    }
    return false;
  }

  turn(step) {
    if (!this.turns.has(step)) {
      const turn = copyOf("#turn");
      this.turns.set(step, turn);
      this.answer.append(turn);
    }
    return this.turns.get(step);
  }

  write(step, words) {
    const text = this.turn(step).querySelector(".text");
    if (text.firstChild === null) text.append(words);
    else text.firstChild.appendData(words);
  }

  clear(step) {
    const turn = this.turns.get(step);
    if (turn === undefined) return;
    for (const [id, tool] of this.tools) {
      if (turn.contains(tool.element)) this.tools.delete(id);
    }
    turn.replaceChildren(...copyOf("#turn").children);
  }

  call(step, call) {
    const element = copyOf("#tool");
    element.querySelector(".name").textContent = call.function.name;
    element.querySelector(".arguments").textContent = readable(call.function.arguments);
    this.tools.set(call.call_id, { element, done: false });
    this.turn(step).append(element);
    this.say(`Using ${call.function.name} …`);
  }

  called({ tool_call_id: id, status, result, error }) {
    const tool = this.tools.get(id);
    if (tool === undefined) return;
    tool.done = true;
    tool.element.querySelector(".outcome").textContent = status === "completed" ? "done" : status;
    tool.element.querySelector(".result").textContent = error ?? readable(result);
  }
}

function readable(value) {
  if (typeof value !== "string") return JSON.stringify(value, null, 2) ?? "";
  try {
    return JSON.stringify(JSON.parse(value), null, 2);
  } catch {
    return value;
  }
}

/** Stay at the end if that is where the reader is. Once per frame, for answers come in thousands of pieces. */
function stayAtEnd() {
  frame ??= requestAnimationFrame(() => {
    frame = null;
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  });
}

log.addEventListener("scroll", () => {
  if (log.scrollHeight - log.scrollTop - log.clientHeight < 80) isAtEnd = true;
  else if (log.scrollTop < scrollTop) isAtEnd = false; // a person did that: we only scroll down
  scrollTop = log.scrollTop;
});

/** Tell a run to its exchange, to the end. The browser reconnects by itself, with the id of the last event. */
function follow(runId, exchange) {
  const path = `chat/${encodeURIComponent(runId)}`;
  return new Promise((ended) => {
    const connect = () => {
      source = new EventSource(`${path}/events`);
      source.onopen = () => exchange.say("Waiting for an answer …");
      source.onerror = ({ target }) => {
        exchange.say("The connection is lost. Trying again …");
        if (target.readyState === EventSource.CLOSED) setTimeout(again, RETRY_MILLISECONDS, target);
      };
      for (const kind of KINDS) source.addEventListener(kind, take);
    };
    const take = ({ type, data, target }) => {
      const isLast = exchange.take(type, JSON.parse(data));
      stayAtEnd();
      if (!isLast) return;
      target.close();
      ended();
    };
    const again = async (refused) => {
      if (source !== refused) return; // another chat was begun
      try {
        await request(path);
        exchange.begin(); // everything is told from the start
        connect();
      } catch (error) {
        if (error.status !== 404) return setTimeout(again, RETRY_MILLISECONDS, refused);
        exchange.end("This answer is not there any more.", { failed: true });
        ended();
      }
    };
    connect();
  });
}

async function request(path, options = {}) {
  const response = await fetch(path, { headers: { "content-type": "application/json" }, ...options });
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const reason = typeof body.detail === "string" ? body.detail : `the server answered ${response.status}`;
  throw Object.assign(new Error(reason), { status: response.status });
}

/** Run something that may fail, and say so if it does. */
async function tell(work) {
  problem.textContent = "";
  try {
    return await work();
  } catch (error) {
    problem.textContent = `That did not work: ${error.message}.`;
    return undefined;
  }
}

async function show(runId, exchange) {
  const ofChat = chat;
  stop.hidden = false;
  stop.disabled = false;
  stop.onclick = () => {
    stop.disabled = true;
    tell(() => request(`chat/${encodeURIComponent(runId)}/cancel`, { method: "POST" }));
  };
  await follow(runId, exchange);
  if (ofChat === chat) stop.hidden = true;
}

/** Show what was asked before a reload, and go on with what is being answered. */
async function restore() {
  const ofChat = chat;
  send.disabled = true;
  for (const runId of runs) {
    try {
      const run = await request(`chat/${encodeURIComponent(runId)}`);
      if (ofChat !== chat) return;
      await show(runId, new Exchange(run.text));
    } catch (error) {
      if (error.status === 404) keep(runs.filter((id) => id !== runId));
      else problem.textContent = `An earlier answer cannot be shown: ${error.message}.`;
    }
  }
  if (ofChat === chat) send.disabled = false;
}

async function ask(question) {
  const ofChat = chat;
  send.disabled = true;
  await tell(async () => {
    const body = JSON.stringify({ text: question, after: runs.at(-1) ?? null });
    const { run_id: runId } = await request("chat", { method: "POST", body });
    if (ofChat !== chat) return;
    keep([...runs, runId]);
    text.value = "";
    await show(runId, new Exchange(question));
  });
  if (ofChat === chat) send.disabled = false;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!send.disabled && text.value.trim()) ask(text.value);
});

text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});

document.querySelector("#new").addEventListener("click", () => {
  chat += 1;
  source?.close();
  source = null;
  keep([]);
  log.replaceChildren();
  problem.textContent = "";
  stop.hidden = true;
  send.disabled = false;
  text.focus();
});

restore();
