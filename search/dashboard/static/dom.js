// Elements and words. Whatever comes from a file becomes a text node here, never HTML.

const MINUS = "–";

/** An element: h("p", {class: "note", onclick: f}, "text", child, ...); null children are left out. */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const shown = new WeakMap();

/** Fill `element` by `build(value)`, unless that is what it shows already. */
function show(element, value, build) {
  const signature = JSON.stringify(value);
  if (shown.get(element) === signature) return;
  shown.set(element, signature);
  element.replaceChildren(...[build(value)].flat().filter((child) => child !== null));
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A card of the page with its heading; `body` is what its owner fills, `hidden` with nothing in it. */
function card(id, title, level = 2) {
  const heading = h(`h${level}`, { id: `${id}-title` }, title);
  const body = h("div");
  const element = h("section", { id, "aria-labelledby": heading.id, class: "card" }, heading, body);
  return { element, heading, body };
}

// --- words ---------------------------------------------------------------------------------------

function number(value, digits = 3) {
  return typeof value === "number" ? value.toFixed(digits) : MINUS;
}

function spread(mean, std) {
  return number(mean) + (typeof std === "number" ? ` ± ${std.toFixed(3)}` : "");
}

function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}

/** "7 ok, 1 failed", always in this order. */
function counts(statuses) {
  const parts = ["ok", "stopped", "diverged", "failed"].filter((status) => statuses[status]);
  return parts.map((status) => `${statuses[status]} ${status}`).join(", ") || "none";
}

/** "12 s", "7 min 12 s", "3 h 05 min". */
function duration(seconds) {
  if (typeof seconds !== "number") return MINUS;
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (value) => String(value).padStart(2, "0");
  if (hours) return `${hours} h ${two(minutes)} min`;
  return minutes ? `${minutes} min ${two(rest)} s` : `${rest} s`;
}

/** One unit, in words: "40 seconds", "3 minutes", "5 hours", "2 days". */
function about(seconds) {
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const [word, size] = units.find(([, length]) => seconds >= length) || units[3];
  return plural(Math.max(0, Math.floor(seconds / size)), word);
}

function moment(seconds) {
  const options = { dateStyle: "medium", timeStyle: "short" };
  return typeof seconds === "number" ? new Date(seconds * 1000).toLocaleString(undefined, options) : MINUS;
}

/** A trial's place in words. */
function place(trial) {
  if (trial.phase === "search" || trial.phase === "rung") return `round ${trial.round}${trial.phase === "rung" ? " rung" : ""} slot ${trial.slot}`;
  if (trial.phase === "final") return `candidate ${trial.round} repeat ${trial.repeat}`;
  return `${trial.phase} repeat ${trial.repeat}`;
}

/** The rows of a history's trials as objects. */
function trialsOf(history) {
  const { columns, rows } = history.trials;
  return rows.map((row) => Object.fromEntries(columns.map((name, index) => [name, row[index]])));
}
