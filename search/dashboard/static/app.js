// The page: its views, its theme, and, where it is live, what it asks the server.

const POLL_SECONDS = 3;
const setup = JSON.parse(document.getElementById("setup").textContent);
const main = document.getElementById("main");
const memory = new URLSearchParams(location.hash.slice(1)); // theme and view: a reload keeps them
const experiments = setup.experiments.map((one, index) => ({ index, live: setup.live, history: null, status: null, tag: null, ...one }));
const pages = new Map();
let ahead = 0; // seconds that the server's clock is ahead of this one
let heard = null;

/** Everything that a view needs of one experiment. */
function viewOf(experiment) {
  const name = experiment.history ? experiment.history.name : experiment.name;
  const twins = experiments.filter((one) => one.name === experiment.name).length > 1;
  const now = setup.live ? Date.now() / 1000 + ahead : setup.written;
  return { ...experiment, label: twins ? `${name} (${experiment.index + 1})` : name, now };
}

class ExperimentPage {
  constructor(experiment) {
    this.experiment = experiment;
    this.head = new Head(`experiment-${experiment.index}`);
    this.sections = [standingsSection(), raceSection(), new Rewards(), sparedSection(), new Curves(), formulasSection(), new Policy(), metricsSection(), new Trials(), faultsSection(), timeSection(), eventsSection(), retrainSection()];
    this.waiting = h("p", { class: "card" }, "Reading the experiment…");
    this.element = h("div", { class: "page" }, this.waiting, this.head.element, this.sections.map((section) => section.element));
  }

  update() {
    const view = viewOf(this.experiment);
    this.waiting.hidden = view.history !== null;
    [this.head, ...this.sections].forEach((part) => { if (!view.history) part.element.hidden = true; });
    if (!view.history) return;
    this.head.element.hidden = false;
    [this.head, ...this.sections].forEach((part) => part.update(view));
  }

  tick() {
    if (this.experiment.history) this.head.tick(viewOf(this.experiment));
  }
}

class ComparisonPage {
  constructor() {
    this.comparison = new Comparison();
    this.element = this.comparison.element;
  }

  update() {
    this.comparison.update(experiments.map(viewOf));
  }

  tick() {}
}

// --- which view is shown -------------------------------------------------------------------------

function currentView() {
  const asked = memory.get("view");
  if (experiments.length === 1) return 0;
  return asked !== null && experiments[Number(asked)] ? Number(asked) : "all";
}

function showView() {
  const view = currentView();
  if (!pages.has(view)) {
    const page = view === "all" ? new ComparisonPage() : new ExperimentPage(experiments[view]);
    pages.set(view, page);
    main.append(page.element);
  }
  for (const [name, page] of pages) page.element.hidden = name !== view;
  document.querySelectorAll("#views button").forEach((button) => {
    if (button.value === String(view)) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  });
  pages.get(view).update();
  updateTitle();
}

function updateTitle() {
  const view = currentView();
  if (view === "all" || !experiments[view].history) return;
  const { history, label } = viewOf(experiments[view]);
  const [done, total] = [history.trials.rows.length, history.settings.total];
  document.title = `${label}: ${setup.live && total !== null && done < total ? `${done} of ${total} trials` : "paploss"}`;
}

function remember(name, value) {
  if (value === null) memory.delete(name);
  else memory.set(name, value);
  // The fragment, not a storage: it works in a file, and a bookmark holds it.
  history.replaceState(null, "", `#${memory}`);
}

function makeViews() {
  const nav = document.getElementById("views");
  nav.hidden = experiments.length < 2;
  const choose = (value) => () => {
    remember("view", value === "all" ? null : value);
    showView();
    window.scrollTo(0, 0);
  };
  const entries = [["all", "Comparison"], ...experiments.map((one) => [String(one.index), viewOf(one).label])];
  nav.replaceChildren(...entries.map(([value, text]) => h("button", { type: "button", value, onclick: choose(value) }, text)));
}

// --- light and dark ------------------------------------------------------------------------------

const systemDark = window.matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return memory.get("theme") ? memory.get("theme") === "dark" : systemDark.matches;
}

function applyTheme() {
  const chosen = memory.get("theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
  setText(document.getElementById("theme"), isDark() ? "Light" : "Dark");
  document.getElementById("theme").setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
  if (pages.size) pages.get(currentView()).update();
}

// --- what the server says ------------------------------------------------------------------------

async function ask(path) {
  // The browser keeps answers and asks only whether they still hold.
  const response = await fetch(path, { cache: "no-cache", signal: AbortSignal.timeout(20000) });
  if (!response.ok) throw new Error(`${response.status}: ${(await response.text()).slice(0, 500)}`);
  ahead = (Date.parse(response.headers.get("Date")) - Date.now()) / 1000 || 0;
  return response.json();
}

async function poll() {
  const statuses = await ask("/status.json");
  const same = statuses.length === experiments.length && statuses.every((one, index) => one.name === setup.experiments[index].name);
  if (!same) return location.reload(); // the server was started again, with other experiments
  const outcomes = await Promise.allSettled(experiments.map(async (experiment, index) => {
    experiment.status = statuses[index];
    if (experiment.tag === statuses[index].history) return;
    experiment.history = await ask(`/experiments/${index}/history.json`);
    experiment.tag = statuses[index].history;
  }));
  const failed = outcomes.find((outcome) => outcome.status === "rejected");
  pages.get(currentView()).update();
  updateTitle();
  heard = Date.now();
  if (failed) throw failed.reason;
}

function follow() {
  const again = () => setTimeout(follow, POLL_SECONDS * 1000);
  if (document.hidden && heard) return again();
  poll().then(() => trouble(null)).catch(trouble).finally(again);
}

function trouble(error) {
  const box = document.getElementById("trouble");
  box.hidden = error === null;
  if (error === null) return;
  const since = heard ? ` Shown is what it said at ${new Date(heard).toLocaleTimeString()}.` : "";
  const answered = /^\d+: /.test(error.message);
  setText(box, `${answered ? `The dashboard’s server says ${error.message.trim()}` : "The dashboard’s server does not answer; is “paploss dashboard” still running?"}${since} This page keeps trying.`);
}

// --- the start -----------------------------------------------------------------------------------

function redrawSoon() {
  clearTimeout(redrawSoon.timer);
  redrawSoon.timer = setTimeout(() => pages.get(currentView()).update(), 120);
}

main.replaceChildren();
document.getElementById("theme").addEventListener("click", () => {
  const other = isDark() ? "light" : "dark";
  remember("theme", (other === "dark") === systemDark.matches ? null : other);
  applyTheme();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment is taken
  main.focus();
});
systemDark.addEventListener("change", applyTheme);
calm.addEventListener("change", redrawSoon);
window.addEventListener("resize", redrawSoon);
makeViews();
applyTheme();
showView();
if (setup.live) {
  follow();
  setInterval(() => pages.get(currentView()).tick(), 1000);
}
