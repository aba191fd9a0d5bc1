// Rewards by round: every trial, the mean and the best so far, baseline and start, the final race.

class Rewards {
  constructor() {
    Object.assign(this, card("rewards", "Reward by round"));
    this.figure = new Figure();
    this.key = h("div");
    this.numbers = h("div");
    const details = h("details", {}, h("summary", {}, "The rounds in numbers"), this.numbers);
    this.body.append(this.key, this.figure.element, details);
  }

  update({ history }) {
    const { rounds, levels, settings } = history;
    this.element.hidden = !rounds.length && !Object.keys(levels).length;
    if (this.element.hidden) return;
    const trials = trialsOf(history);
    const scale = new RoundAxis(settings, rounds, trials);
    show(this.key, rewardKey(levels, trials), legend);
    show(this.numbers, rounds, roundTable);
    const layout = {
      height: narrow() ? 320 : 400,
      xaxis: axis("round", { range: scale.range, tickvals: scale.ticks, ticktext: scale.labels }),
      yaxis: axis(`reward (${plain(settings.reward)} on val)`, { rangemode: "nonnegative" }),
      shapes: [...levelBands(levels), ...scale.border()],
    };
    this.figure.draw(rewardTraces(rounds, levels, trials, scale), layout, rewardText(rounds, levels));
  }
}

/** Where a trial stands: rounds one after another, slots side by side in theirs, then the race. */
class RoundAxis {
  constructor(settings, rounds, trials) {
    this.rounds = Math.max(settings.rounds || 0, ...rounds.map((row) => row.round + 1), 1);
    this.samples = Math.max(settings.samples || 0, ...trials.filter((t) => t.phase === "search").map((t) => t.slot + 1), 1);
    const finals = trials.filter((trial) => trial.phase === "final");
    this.candidates = finals.length ? Math.max(...finals.map((trial) => trial.round + 1)) : 0;
    this.step = Math.min(3, Math.max(0.5, this.rounds / 12));
    this.end = this.rounds - 0.5;
    this.range = [-0.6, this.end + this.step * this.candidates + 0.1];
    this.ticks = roundTicks(this.rounds, narrow() ? 6 : 12);
    this.labels = this.ticks.map(String);
    if (this.candidates) {
      this.ticks.push(this.end + (this.step * this.candidates) / 2);
      this.labels.push("final race");
    }
  }

  x(trial) {
    if (trial.phase === "search") return trial.round + 0.6 * ((trial.slot + 0.5) / this.samples - 0.5);
    return this.end + this.step * (trial.round + 0.5);
  }

  border() {
    if (!this.candidates) return [];
    const line = { color: colour("muted"), width: 1, dash: "dot" };
    return [{ type: "line", x0: this.end, x1: this.end, y0: 0, y1: 1, yref: "paper", line }];
  }
}

function rewardTraces(rounds, levels, trials, scale) {
  const search = trials.filter((trial) => trial.phase === "search" && trial.reward !== null);
  const dots = (name, some, marker) => ({
    type: "scatter", mode: "markers", name, x: some.map((trial) => scale.x(trial)), y: some.map((trial) => trial.reward),
    text: some.map((trial) => `${plain(trial.label)}: ${number(trial.reward, 4)} (${trial.status})`), hoverinfo: "text", marker,
  });
  const line = (name, part, y, shape) => ({
    type: "scatter", mode: "lines+markers", name, x: rounds.map((row) => row.round), y,
    text: rounds.map((row, at) => `${name}, round ${row.round}: ${number(y[at], 4)}`), hoverinfo: "text",
    line: { color: colour(part), width: 2.2, shape }, marker: { color: colour(part), size: shape ? 1 : rounds.length > 40 ? 3 : 6 }, connectgaps: true,
  });
  const level = ([phase, { label, mean, std, n }]) => ({
    type: "scatter", mode: "lines", name: phase, x: scale.range, y: [mean, mean],
    text: `${plain(levelName(phase, { label }))}: ${spread(mean, std)} (n = ${n})`, hoverinfo: "text",
    line: { color: colour(phase), width: 1.8, dash: "dash" },
  });
  const final = trials.filter((trial) => trial.phase === "final" && trial.reward !== null);
  return [
    ...Object.entries(levels).map(level),
    dots("trial", search.filter((trial) => trial.status === "ok"), { color: tint("trial", 0.55), size: search.length > 400 ? 5 : 7 }),
    dots("stopped early", search.filter((trial) => trial.status === "stopped"), { color: colour("trial"), size: 7, symbol: "circle-open", line: { width: 1.4 } }),
    dots("diverged", search.filter((trial) => trial.status === "diverged"), { color: colour("bad"), size: 8, symbol: "x-thin", line: { color: colour("bad"), width: 2 } }),
    line("mean", "trial", rounds.map((row) => row.mean)),
    line("best so far", "best", rounds.map((row) => row.best_so_far), "hvh"),
    dots("final", final, { color: colour("best"), size: 8, symbol: "diamond-open", line: { width: 1.6 } }),
  ];
}

function levelBands(levels) {
  return Object.entries(levels).map(([phase, { mean, std }]) => ({
    type: "rect", xref: "paper", x0: 0, x1: 1, y0: mean - std, y1: mean + std,
    fillcolor: tint(phase, 0.14), line: { width: 0 }, layer: "below",
  }));
}

/** "baseline: Focal + GIoU"; a start's label may say already what it is. */
function levelName(phase, { label }) {
  const own = label.replace(`${phase}: `, "");
  return own === phase ? phase : `${phase}: ${own}`;
}

function rewardKey(levels, trials) {
  const has = (test) => trials.some(test);
  const entry = (part, label, kind, there = true) => (there ? [{ part, label, kind }] : []);
  const of = (phase) => `${levelName(phase, levels[phase])} (± std)`;
  return [
    ...entry("trial", "a trial", "dot", has((trial) => trial.phase === "search")),
    ...entry("trial", "stopped early: an estimate", "ring", has((trial) => trial.phase === "search" && trial.status === "stopped")),
    ...entry("bad", "diverged", "cross", has((trial) => trial.phase === "search" && trial.status === "diverged")),
    ...entry("trial", "mean of the round", "line"),
    ...entry("best", "best so far", "line"),
    ...Object.keys(levels).map((phase) => ({ part: phase, label: of(phase), kind: "dash" })),
    ...entry("best", "a repeat of a final candidate", "diamond", has((trial) => trial.phase === "final")),
  ];
}

function rewardText(rounds, levels) {
  const means = rounds.map((row) => `${row.round}: ${number(row.mean)}`).join(", ");
  const lines = Object.entries(levels).map(([phase, level]) => ` ${levelName(phase, level)}: ${spread(level.mean, level.std)}.`);
  const best = rounds.length ? ` Best so far ${number(rounds[rounds.length - 1].best_so_far)}.` : "";
  return `Reward of every trial by round. Mean of the rounds: ${means || "none yet"}.${best}${lines.join("")}`;
}

function roundTable(rounds) {
  const columns = ["round", "with a reward", "mean", "best", "best so far"].map((title) => ({ title, number: true }));
  const rows = rounds.map((row) => [String(row.round), String(row.n), ...[row.mean, row.best, row.best_so_far].map((value) => number(value, 4))]);
  return table("Rewards by round", columns, rows);
}
