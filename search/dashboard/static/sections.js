// The tables of the page: standings, metrics, time, failures, events, what to do next.

/** A section whose whole body is built from a part of the data, and rebuilt when that changes. */
class Section {
  constructor(id, title, pick, build) {
    Object.assign(this, card(id, title), { pick, build });
  }

  update(view) {
    const value = this.pick(view);
    this.element.hidden = value === null;
    if (value !== null) show(this.body, value, this.build);
  }
}

const titles = (...names) => names.map((name) => (name.startsWith("#") ? { title: name.slice(1), number: true } : { title: name }));
const note = (text) => h("p", { class: "note" }, text);

function standingsSection() {
  const pick = ({ history }) => (history.standings.length ? [history.standings, history.settings, history.confirmation] : null);
  return new Section("standings", "Standings", pick, ([rows, { score, reward }, confirmed]) => {
    const cells = rows.map((one) => [
      `${one.winner ? "★ " : ""}${one.label}`, spread(one.test, one.std), number(one.val), String(one.n), one.role, counts(one.statuses)]);
    const columns = titles("loss", `#${score} on test`, `#${score} on val`, "#n", "role", "repeats");
    const strong = rows.flatMap((one, at) => (one.winner ? [at] : []));
    const told = confirmed ? h("p", { class: confirmed[1] ? "" : "alarm" }, confirmed[0]) : null;
    return [table("Standings on the third split", columns, cells, strong), told, note(
      `${reward} (0 to 1, COCO’s definitions), mean ± standard deviation over n repeats with fresh seeds, all under the same budget. No reward ever came from test. ` +
      "A diverged repeat counts as 0, a failed one is left out. The winner ★ is the candidate with the best mean on val of those that did not leave the race, so test had no say in it.")];
  });
}

function metricsSection() {
  const pick = ({ history }) => (history.metrics.rows.length ? history.metrics : null);
  return new Section("metrics", "All metrics on test", pick, ({ columns, rows }) => [
    table("All metrics on test", titles("loss", ...columns.map((name) => `#${name}`)), rows.map(([label, ...values]) => [label, ...values.map((value) => number(value))])),
    note("Means over the repeats that ended well. AP, and AP at IoU 0.5 and 0.75, of small, medium and large objects: higher is better. oLRP, the error at each class’s " +
      "best score threshold, and its parts there (loc: 1 − IoU of what was found, fp: 1 − precision, fn: 1 − recall): lower is better."),
  ]);
}

function timeSection() {
  return new Section("time", "Where the time went", ({ history }) => history.time, ({ total, trials, parts, overhead }) => {
    const bar = h("div", { class: "parts", "aria-hidden": "true" }, Object.entries(parts).map(([name, seconds]) => {
      const piece = h("span", { class: name });
      piece.style.width = `${(100 * seconds) / total}%`;
      return piece;
    }));
    const rows = [...Object.entries(parts), ["all trials", total]].map(([name, seconds]) => [
      h("span", { class: `key ${name.replace(" ", "-")}` }, name), duration(seconds), `${Math.round((100 * seconds) / total)}%`, `${number(seconds / trials, 1)} s`]);
    const told = overhead ? h("p", {}, `Wall time ${duration(overhead.wall)} with ${overhead.slots} trials side by side: `, h("strong", {}, number(overhead.ratio, 2)),
      " times the ideal (sum of the trials’ time divided by the slots), which is what the search itself costs.") : null;
    return [bar, table("Where the time went", titles("part", "#sum", "#share", "#a trial"), rows), told];
  });
}

function faultsSection() {
  const pick = ({ history, index, live }) => [trialsOf(history).filter((trial) => trial.status === "diverged" || trial.status === "failed"), history.images, history.fingerprints, history.damaged, index, live];
  return new Section("faults", "Failures and skipped images", pick, ([failed, images, fingerprints, damaged, index, live]) => {
    const parts = [];
    if (failed.length) {
      const rows = failed.map((trial) => [logLink(["rung", "search"].includes(trial.phase) ? place(trial) : `${trial.label}, repeat ${trial.repeat}`, trial.folder, { index, live }), trial.status, trial.error || MINUS, String(trial.attempts)]);
      parts.push(table("Trials that did not end well", titles("trial", "status", "reason", "#attempts"), rows));
    }
    if (images.in_all) {
      parts.push(h("h3", {}, `Skipped images: ${images.in_all}`));
      parts.push(table("Skipped images", titles("image", "reason", "#trials"), images.rows.map(([file, why, times]) => [file, why, String(times)])));
      if (images.rows.length < images.in_all) parts.push(note(`The first ${images.rows.length} of them.`));
    }
    if (fingerprints.length) {
      parts.push(h("h3", {}, "Same fingerprint, different theta"), h("p", { class: "alarm" }, "These trials were given different thetas and yet trained with what looks like the same loss:"));
      parts.push(table("Trials with the same fingerprint", titles("fingerprint", "trials"), fingerprints.map(([print, labels]) => [print, labels.join(", ")])));
    }
    if (damaged.length) parts.push(h("h3", {}, "Files left out"), h("ul", {}, damaged.map((reason) => h("li", {}, reason))));
    return parts.length ? parts : h("p", {}, "Every trial ended well, no image was skipped, and no two thetas looked alike.");
  });
}

function eventsSection() {
  const pick = ({ status }) => (status && status.events.length ? [status.events, status.events_in_all] : null);
  return new Section("events", "Events", pick, ([events, all]) => {
    const list = events.map(([when, text]) => h("li", {}, h("time", { datetime: when === null ? null : new Date(when * 1000).toISOString() }, moment(when)), " ", text));
    const more = events.length < all ? note(`The latest ${events.length} of ${all}; events.jsonl has them all.`) : null;
    return [scroller("Events, the latest first", h("ol", { class: "events" }, list)), more];
  });
}

function retrainSection() {
  return new Section("retrain", "Train with what was found", ({ history }) => history.trained, (trained) => [
    h("p", {}, trained ? "In the experiment’s directory, best.yaml holds all that a full training needs:" : "best.yaml is written when the search has ended. It will then train with"),
    h("pre", { tabindex: "0" }, "paploss train best.yaml"),
  ]);
}
