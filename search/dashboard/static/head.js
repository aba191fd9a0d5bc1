// What an experiment is, how it stands, and what it does now.

/** How a search stands, {kind, text}: of its status, the trials that are done, and the time. */
function stateOf({ history, status, live, now }) {
  const [done, total] = [history.trials.rows.length, history.settings.total];
  const told = status && status.status;
  const whole = total !== null && done >= total;
  if (!told) return whole ? { kind: "finished", text: "finished" } : { kind: "unknown", text: "not finished" };
  if (told.state !== "running") return { kind: told.state, text: told.state };
  const silent = Math.max(0, now - told.updated);
  if (!live) return whole ? { kind: "finished", text: "finished" } : { kind: "unknown", text: "not finished when this page was written" };
  if (silent > setup.silent_seconds) return { kind: "lost", text: `no sign of life for ${about(silent)}` };
  return { kind: "running", text: "running" };
}

/** What a reader should do about it; "" where there is nothing to do. */
function advice({ kind }, status) {
  const problem = status && status.status && status.status.problem;
  if (kind === "lost") return "Its process has been killed, its machine is away, or its storage does not answer. What has finished is kept: paploss resume goes on.";
  if (kind === "interrupted") return "What has finished is kept: paploss resume goes on.";
  if (kind === "stopped") return `${problem || "The search has stopped."} What has finished is kept: paploss resume goes on.`;
  if (kind === "unknown" && status && status.status) return "What has finished is kept: paploss resume goes on.";
  if (kind === "unknown") return "Its folder has no status: it has not begun, or an older paploss ran it.";
  return "";
}

class Head {
  constructor(id) {
    this.heading = h("h1", { id: `${id}-name` });
    this.pill = h("span", { class: "pill" });
    this.facts = h("p", { class: "facts" });
    this.progress = h("progress", { "aria-label": "Trials that have finished" });
    this.done = h("p", { class: "done" });
    this.advice = h("p", { class: "advice" });
    this.list = h("div");
    this.runs = h("div");
    this.verdict = h("p", { class: "verdict" });
    // Read out when it changes: not each second, but with each trial and each change of state.
    this.spoken = h("p", { role: "status", "aria-live": "polite", class: "unseen" });
    this.element = h("section", { class: "card head", "aria-labelledby": this.heading.id },
      h("div", { class: "title" }, this.heading, this.pill), this.facts, this.progress, this.done, this.advice, this.verdict, this.list, this.runs, this.spoken);
  }

  update(view) {
    const { history, status } = view;
    const { settings, trials } = history;
    setText(this.heading, view.label);
    setText(this.facts, factsOf(settings));
    const [done, total] = [trials.rows.length, settings.total];
    this.progress.max = Math.max(1, total || done);
    this.progress.value = done;
    const ends = {};
    for (const trial of trialsOf(history)) ends[trial.status] = (ends[trial.status] || 0) + 1;
    this.ends = `${done} of ${total === null ? "?" : total} trials: ${counts(ends)}`;
    setText(this.verdict, history.verdict);
    show(this.list, this.terms(view), definitions);
    this.tick(view);
  }

  /** What changes with time alone: ages, and whether there still is a sign of life. */
  tick(view) {
    const { status, now } = view;
    const state = stateOf(view);
    const told = status && status.status;
    this.pill.className = `pill ${state.kind}`;
    setText(this.pill, state.text);
    const left = state.kind === "running" && told && told.left_seconds !== null ? `, about ${duration(told.left_seconds)} left` : "";
    setText(this.done, this.ends + left);
    const advised = advice(state, status);
    this.advice.hidden = !advised;
    setText(this.advice, advised);
    const running = state.kind === "running" ? told.running : [];
    this.runs.hidden = !running.length;
    show(this.runs, [running.map((trial) => [place(trial), trial.folder]), view.index, view.live], () => this.running(running, view));
    this.runs.querySelectorAll("[data-since]").forEach((age) => setText(age, duration(now - Number(age.dataset.since))));
    setText(this.spoken, `${view.history.name}: ${state.kind === "lost" ? "no sign of life" : state.text}, ${this.ends}`);
  }

  running(running, view) {
    const items = running.map((trial) => h("li", {}, logLink(place(trial), trial.folder, view), " ", h("span", { class: "quiet", "data-since": trial.started })));
    return items.length ? [h("h2", { class: "small" }, `Running now: ${items.length}`), h("ul", { class: "runs" }, items)] : [];
  }

  terms({ history, status }) {
    const { settings, device, rounds, levels } = history;
    const told = status && status.status;
    const nodes = told ? told.nodes : [];
    const last = rounds[rounds.length - 1];
    const holds = [settings.cpus === null ? null : plural(settings.cpus, "CPU"), settings.gpus ? plural(settings.gpus, "GPU") : null];
    const away = nodes.filter((node) => !node.alive).length;
    return [
      ["Best reward so far", last ? number(last.best_so_far, 4) : null],
      ["Baseline", levels.baseline ? `${number(levels.baseline.mean, 4)}${levels.baseline.n > 1 ? ` ± ${number(levels.baseline.std, 4)}` : ""} (${levels.baseline.label})` : null],
      ["Start", levels.start ? `${number(levels.start.mean, 4)}${levels.start.n > 1 ? ` ± ${number(levels.start.std, 4)}` : ""} (${levels.start.label.replace("start: ", "")})` : null],
      [`${device.unit} hours spent`, device.hours === null ? null : number(device.hours, device.hours < 10 ? 2 : 0)],
      ["A trial holds", holds.filter(Boolean).join(", ") || null],
      ["Trials side by side", told && told.slots ? String(told.slots) : null],
      ["Machines", nodes.length ? `${nodes.length - away}${away ? `, ${away} lost` : ""}: ${resourcesOf(nodes)}` : null],
      ["Waiting", told && told.pending && told.state === "running" ? plural(told.pending, "trial") : null],
      ["Session began", told ? `${moment(told.started)}${told.host ? ` on ${told.host}` : ""}` : null],
    ].filter(([, value]) => value !== null);
  }
}

function factsOf(settings) {
  const or = (value) => (value === null ? "?" : value);
  return [
    [settings.detector, settings.data].filter(Boolean).join(" on "),
    `${settings.algorithm}: ${or(settings.rounds)} rounds of ${or(settings.samples)} samples`,
    ...settings.saving,
    `final race of ${or(settings.candidates)}, ${or(settings.repeats)} repeats each`,
    `reward: ${settings.reward}`,
    `seed ${or(settings.seed)}`,
  ].filter(Boolean).join(" · ");
}

function resourcesOf(nodes) {
  const alive = nodes.filter((node) => node.alive);
  const sum = (name) => alive.reduce((total, node) => total + node[name], 0);
  return plural(sum("cpus"), "CPU") + (sum("gpus") ? `, ${plural(sum("gpus"), "GPU")}` : "");
}

function definitions(pairs) {
  return h("dl", {}, pairs.map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))));
}

/** A link to a trial's log: the server's, or the file beside this page; plain text without one. */
function logLink(text, folder, { live, index }) {
  if (!folder) return h("span", {}, text);
  const name = encodeURIComponent(folder);
  const href = live ? `/experiments/${index}/trials/${name}/train.log` : `${name}/train.log`;
  return h("a", { href, target: "_blank", rel: "noopener" }, text);
}
