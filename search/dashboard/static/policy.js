// The policy itself: how each coordinate of theta moved, where it stands, and the gradient scale.

class Policy {
  constructor() {
    Object.assign(this, card("policy", "The policy"));
    this.map = new Figure();
    this.latest = new Figure();
    this.scale = new Figure();
    this.note = h("p", { class: "note" });
    this.scaleKey = h("div");
    this.scalePart = h("div", {}, h("h3", {}, "Gradient scale"), this.scaleKey, this.scale.element);
    this.mapPart = h("div", {}, h("h3", {}, "Change of the mean"), this.map.element);
    this.latestPart = h("div", {}, h("h3", {}, "Mean ± std now"), this.latest.element);
    this.body.append(h("div", { class: "two" }, this.mapPart, this.latestPart), this.note, this.scalePart);
  }

  update({ history }) {
    const policy = history.policy;
    // The mean of choices is none.
    this.element.hidden = !policy.rounds.length || (history.formulas !== null && !policy.heads.length);
    if (this.element.hidden) return;
    const last = policy.rounds[policy.rounds.length - 1];
    const height = 70 + 15 * policy.names.length;
    this.drawMap(policy, height);
    this.drawLatest(policy, height);
    this.scalePart.hidden = !policy.scales.length;
    if (policy.scales.length) this.drawScale(policy);
    setText(this.note, `Change: the mean of each coordinate of theta against that of the start, orange up, blue down, the strongest in full colour. Now: mean ± std ${last ? `after round ${last - 1}` : "at the start"}; the open square is where it started.`);
  }

  drawMap(policy, height) {
    const moved = policy.names.map((_, d) => policy.mean.map((mean) => mean[d] - policy.mean[0][d]));
    const most = Math.max(1e-9, ...moved.flat().map(Math.abs));
    const text = moved.map((row, d) => row.map((change, r) =>
      `${plain(policy.names[d])}, round ${policy.rounds[r]}: ${number(policy.mean[r][d])} ± ${number(policy.std[r][d])} (${change < 0 ? "−" : "+"}${Math.abs(change).toFixed(3)})`));
    const trace = {
      type: "heatmap", x: policy.rounds, y: policy.names.map((_, d) => d), z: moved, text, hoverinfo: "text", zmin: -most, zmax: most, xgap: policy.rounds.length > 30 ? 0 : 1, ygap: 1,
      colorscale: [[0, colour("trial")], [0.5, colour("card")], [1, colour("baseline")]], showscale: false,
    };
    const layout = {
      height, margin: { l: 104, r: 8, t: 6, b: 44 },
      xaxis: axis("round", { tickvals: roundTicks(policy.rounds.length, 8).map((at) => policy.rounds[at]), showgrid: false }),
      yaxis: coordinateAxis(policy.names),
    };
    this.map.draw([trace], layout, `Change of the policy's mean since round ${policy.rounds[0]}. ${strongest(policy, moved)}`);
  }

  drawLatest(policy, height) {
    const last = policy.rounds.length - 1;
    const rows = policy.names.map((_, d) => d);
    const now = {
      type: "scatter", mode: "markers", x: policy.mean[last], y: rows, marker: { color: colour("trial"), size: 7 },
      error_x: { type: "data", array: policy.std[last], color: colour("trial"), thickness: 1.4, width: 0 },
      text: rows.map((d) => `${plain(policy.names[d])}: ${spread(policy.mean[last][d], policy.std[last][d])}`), hoverinfo: "text",
    };
    const began = {
      type: "scatter", mode: "markers", x: policy.mean[0], y: rows, hoverinfo: "skip",
      marker: { symbol: "square-open", size: 9, color: colour("start"), line: { width: 1.6 } },
    };
    const layout = { height, margin: { l: 104, r: 12, t: 6, b: 44 }, xaxis: axis("theta", { range: [-0.03, 1.03] }), yaxis: coordinateAxis(policy.names) };
    const told = rows.map((d) => `${policy.names[d]} ${spread(policy.mean[last][d], policy.std[last][d])}`).join(", ");
    this.latest.draw([now, began], layout, `Mean and standard deviation of each coordinate in round ${policy.rounds[last]}: ${told}.`);
  }

  drawScale(policy) {
    const parts = ["trial", "best", "baseline", "start"];
    const part = (index) => parts[index % parts.length];
    const traces = policy.scales.flatMap(({ head, mean, bands }, index) => {
      const side = (level, fill) => ({
        type: "scatter", mode: "lines", x: policy.rounds, y: bands.map((band) => band[level]), line: { width: 0 }, hoverinfo: "skip",
        ...(fill ? { fill: "tonexty", fillcolor: tint(part(index), fill) } : {}),
      });
      const line = {
        type: "scatter", mode: "lines+markers", x: policy.rounds, y: mean, line: { color: colour(part(index)), width: 2.2 }, marker: { size: 5 },
        text: mean.map((value, at) => `${head ? `${plain(head)}, ` : ""}round ${policy.rounds[at]}: ${number(value)}`), hoverinfo: "text",
      };
      return [side(0), side(3, 0.12), side(1), side(2, 0.2), line];
    });
    show(this.scaleKey, policy.scales.map((one) => one.head), (heads) => legend(heads.flatMap((head, index) => [
      { part: part(index), label: head ? `${head}: that of the mean` : "that of the policy’s mean", kind: "line" },
      { part: part(index), label: "90 % and half of the samples", kind: "band" },
    ])));
    const layout = {
      height: 260,
      xaxis: axis("round", { tickvals: roundTicks(policy.rounds.length, 10).map((at) => policy.rounds[at]) }),
      yaxis: axis("gradient scale", { type: "log", range: [-1.05, 1.05], tickvals: [0.1, 0.2, 0.5, 1, 2, 5, 10] }),
    };
    const told = policy.scales.map(({ head, mean }) => `${head ? `${head}: ` : ""}from ${number(mean[0])} to ${number(mean[mean.length - 1])}`);
    this.scale.draw(traces, layout, `Gradient scale of the policy's mean by round, ${told.join("; ")}.`);
  }
}

function coordinateAxis(names) {
  return axis("", { tickvals: names.map((_, d) => d), ticktext: names.map(plain), range: [names.length - 0.4, -0.6], tickfont: { color: colour("muted"), size: 10 }, showgrid: false, automargin: false });
}

/** The coordinates that moved most, in words. */
function strongest(policy, moved) {
  const last = moved.map((row, d) => [policy.names[d], row[row.length - 1]]);
  last.sort((one, other) => Math.abs(other[1]) - Math.abs(one[1]));
  const told = last.slice(0, 8).map(([name, change]) => `${name} ${change < 0 ? "−" : "+"}${Math.abs(change).toFixed(3)}`);
  return `Those that moved most: ${told.join(", ")}.`;
}
