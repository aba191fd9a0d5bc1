// Several experiments beside each other: rewards, what they cost, how they differ, how they ended.

const PALETTE = ["one", "two", "three", "four", "five", "six"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star"];

class Comparison {
  constructor() {
    this.heading = h("h1", {}, "Comparison");
    this.key = h("div");
    this.head = h("section", { class: "card head", "aria-label": "What is compared" }, this.heading, this.key);
    this.rounds = this.part("compared-rounds", "Mean reward by round");
    this.trials = this.part("compared-trials", "Best so far by trials");
    this.hours = this.part("compared-hours", "Best so far by device time");
    this.results = card("results", "Results");
    this.differences = card("differences", "Differences of configuration");
    this.element = h("div", {}, this.head, this.rounds.element, h("div", { class: "two" }, this.trials.element, this.hours.element), this.results.element, this.differences.element);
  }

  part(id, title) {
    const made = card(id, title);
    const figure = new Figure();
    made.body.append(figure.element);
    return { ...made, figure };
  }

  update(views) {
    const known = views.filter((view) => view.history);
    if (!known.length) return;
    show(this.key, known.map((view) => [view.label, view.index]), (list) => legend(list.map(([label, index]) => (
      { part: PALETTE[index % PALETTE.length], label, kind: DASHES[Math.floor(index / PALETTE.length) % DASHES.length] === "solid" ? "line" : "dash" }))));
    this.drawRounds(known);
    this.drawBest(this.trials.figure, known, 0, "search trials that have finished");
    const units = [...new Set(known.map((view) => view.history.device.unit))];
    this.drawBest(this.hours.figure, known, 1, units.length === 1 ? `${units[0]} hours of search trials` : "hours of GPU, or of CPU where there is none");
    show(this.results.body, known.map((view) => [view.label, stateOf(view).text, view.history]), () => resultTable(known));
    show(this.differences.body, known.map((view) => [view.label, view.history.configuration]), () => differenceTable(known));
  }

  style(index) {
    return {
      line: { color: colour(PALETTE[index % PALETTE.length]), width: 2.2, dash: DASHES[Math.floor(index / PALETTE.length) % DASHES.length] },
      marker: { color: colour(PALETTE[index % PALETTE.length]), size: 7, symbol: SYMBOLS[index % SYMBOLS.length] },
    };
  }

  drawRounds(views) {
    const traces = views.map(({ history, label, index }) => ({
      type: "scatter", mode: "lines+markers", x: history.rounds.map((row) => row.round), y: history.rounds.map((row) => row.mean), ...this.style(index),
      text: history.rounds.map((row) => `${plain(label)}, round ${row.round}: mean ${number(row.mean, 4)}, best ${number(row.best, 4)}`), hoverinfo: "text", connectgaps: true,
    }));
    const most = Math.max(1, ...views.flatMap((view) => view.history.rounds.map((row) => row.round + 1)));
    const layout = { height: narrow() ? 300 : 380, xaxis: axis("round", { tickvals: roundTicks(most, 12) }), yaxis: axis("mean reward on val", { rangemode: "nonnegative" }) };
    const told = views.map(({ history, label }) => `${label}: ${history.rounds.map((row) => number(row.mean)).join(", ") || "none yet"}`);
    this.rounds.figure.draw(traces, layout, `Mean reward by round. ${told.join(". ")}.`);
  }

  drawBest(figure, views, at, title) {
    const traces = views.map(({ history, label, index }) => ({
      type: "scatter", mode: "lines+markers", x: history.best.map((step) => step[at]), y: history.best.map((step) => step[2]),
      ...this.style(index), line: { ...this.style(index).line, shape: "hv" },
      text: history.best.map((step) => `${plain(label)}: ${number(step[2], 4)} after ${step[0]} trials, ${number(step[1], 2)} hours`), hoverinfo: "text",
    }));
    const layout = { height: 320, xaxis: axis(title, { rangemode: "tozero" }), yaxis: axis("best reward on val", { rangemode: "nonnegative" }) };
    const told = views.map(({ history, label }) => {
      const last = history.best[history.best.length - 1];
      return `${label}: ${last ? `${number(last[2])} after ${last[0]} trials and ${number(last[1], 2)} hours` : "none yet"}`;
    });
    figure.draw(traces, layout, `Best reward so far by ${title}. ${told.join(". ")}.`);
  }
}

function resultTable(views) {
  const standing = (history, test) => history.standings.find(test);
  const shown = (one) => (one ? spread(one.test, one.std) : MINUS);
  const rows = views.map((view) => {
    const { history, label } = view;
    const best = standing(history, (one) => one.winner);
    const last = history.rounds[history.rounds.length - 1];
    return [
      label, stateOf(view).text, history.settings.reward, `${history.trials.rows.length} of ${history.settings.total ?? "?"}`, last ? number(last.best_so_far, 4) : MINUS,
      best ? best.label : MINUS, shown(best), shown(standing(history, (one) => one.role === "start")), shown(standing(history, (one) => one.role === "baseline")),
      `${number(history.device.hours, 2)} ${history.device.unit}`,
    ];
  });
  const columns = titles("experiment", "state", "reward", "#trials", "#best on val", "winner", "#winner on test", "#start on test", "#baseline on test", "#device hours");
  return [table("Results of the experiments", columns, rows), note("Mean ± standard deviation over the repeats on the third split, by each experiment’s own reward.")];
}

/** The settings that are not the same everywhere; names, and where things are stored, aside. */
function differenceTable(views) {
  const keys = [...new Set(views.flatMap((view) => Object.keys(view.history.configuration)))];
  const value = (view, key) => view.history.configuration[key] ?? MINUS;
  const differ = keys.filter((key) => !["name", "storage"].includes(key) && new Set(views.map((view) => value(view, key))).size > 1);
  if (!differ.length) return h("p", {}, "None: the configurations are the same.");
  const made = table("Settings that differ", titles("setting", ...views.map((view) => view.label)), differ.map((key) => [key, ...views.map((view) => value(view, key))]));
  made.classList.add("tall");
  return made;
}
