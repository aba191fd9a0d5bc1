// The curves of the loss: what the policy says of them round by round, the start's, the winner's.

class Curves {
  constructor() {
    Object.assign(this, card("curves", "The curves"));
    this.at = null; // the round that the slider was left at; null: always the latest
    this.playing = null;
    this.slider = h("input", { type: "range", min: 0, value: 0, "aria-label": "Round of the policy", oninput: () => this.move(Number(this.slider.value)) });
    this.told = h("output", { class: "told" });
    this.play = h("button", { type: "button", onclick: () => this.toggle() }, "Play");
    this.controls = h("div", { class: "controls" }, this.play, this.slider, this.told);
    this.key = h("div");
    this.heads = h("div");
    this.numbers = h("div");
    const details = h("details", {}, h("summary", {}, "The control points in numbers"), this.numbers);
    this.note = h("p", { class: "note" }, "x is how far an element’s score lies above a positive’s (0.5: equal), u how well a box fits. loss = mean over positives of 1 − I1(u) + I3(u) · Σ H2(x) (1 − I2(u of the other)) / Σ H1(x).");
    this.body.append(this.key, this.controls, this.heads, details, this.note);
    this.panels = new Map();
  }

  update({ history }) {
    this.policy = history.policy;
    this.found = history.found;
    const heads = this.policy.heads;
    this.element.hidden = !heads.length;
    if (this.element.hidden) return;
    const last = this.policy.rounds.length - 1;
    this.controls.hidden = last < 1;
    // Who asks for less motion steps with the slider.
    this.play.hidden = calm.matches;
    this.slider.max = Math.max(0, last);
    show(this.heads, heads.map((one) => [one.head, one.curves.map((curve) => [curve.name, curve.role])]), () => heads.map((one) => this.row(one)));
    this.draw();
  }

  row({ head, curves }) {
    const panels = curves.map((curve) => {
      const figure = new Figure();
      figure.element.append(h("figcaption", {}, h("b", {}, curve.name), curve.role ? ` ${curve.role}` : ""));
      this.panels.set(`${head} ${curve.name}`, figure);
      return figure.element;
    });
    return h("div", {}, head ? h("h3", {}, head) : null, h("div", { class: "panels" }, panels));
  }

  /** The slider, or the play button, goes to a round; the last one is followed as it grows. */
  move(index) {
    const last = this.policy.rounds.length - 1;
    this.at = index >= last ? null : index;
    this.draw();
  }

  toggle() {
    if (this.playing !== null) return this.stop();
    this.play.textContent = "Pause";
    let index = this.index() >= this.policy.rounds.length - 1 ? 0 : this.index();
    this.move(index);
    this.playing = setInterval(() => {
      index += 1;
      this.move(index);
      if (index >= this.policy.rounds.length - 1) this.stop();
    }, Math.max(120, Math.min(600, 8000 / this.policy.rounds.length)));
  }

  stop() {
    clearInterval(this.playing);
    this.playing = null;
    this.play.textContent = "Play";
  }

  index() {
    const last = this.policy.rounds.length - 1;
    return this.at === null ? last : Math.min(this.at, last);
  }

  words(index) {
    const round = this.policy.rounds[index];
    if (round === 0) return "policy of the start";
    return `policy after round ${round - 1}${index === this.policy.rounds.length - 1 ? ", the latest" : ""}`;
  }

  draw() {
    const index = this.index();
    const told = index < 0 ? "" : this.words(index);
    this.slider.value = Math.max(0, index);
    this.slider.setAttribute("aria-valuetext", told);
    setText(this.told, told);
    const curves = this.policy.heads.flatMap((one) => one.curves);
    show(this.key, [index >= 0, curves.some((c) => c.found), curves.some((c) => c.start), this.found], ([policy, found, start, title]) => legend([
      ...(policy ? [{ part: "trial", label: "the policy’s mean", kind: "line" }, { part: "trial", label: "90 % and half of its samples", kind: "band" }] : []),
      ...(found ? [{ part: "best", label: title, kind: "line" }] : []),
      ...(start ? [{ part: "start", label: "where the search started", kind: "dash" }] : []),
    ]));
    for (const { head, curves: own } of this.policy.heads) {
      for (const curve of own) this.panel(this.panels.get(`${head} ${curve.name}`), head, curve, index, told);
    }
    show(this.numbers, [index, this.policy.heads], () => this.table(index));
  }

  panel(figure, head, curve, index, told) {
    const size = Math.min(figure.plot.clientWidth || 200, 320);
    const ticks = { range: [-0.02, 1.02], tickvals: [0, 0.5, 1], ticktext: ["0", "0.5", "1"], fixedrange: true };
    const layout = {
      height: size,
      margin: { l: 30, r: 10, t: 6, b: 40 },
      dragmode: false,
      xaxis: axis(/^H/.test(curve.name) ? "score difference x" : "localisation u", ticks),
      yaxis: axis("", ticks),
    };
    figure.draw(curveTraces(curve, index, this.policy.grid), layout, curveText(head, curve, index, told, this.found));
  }

  table(index) {
    const points = (some) => (some ? some.map(([x, y]) => `(${(x / 1000).toFixed(3)}, ${(y / 1000).toFixed(3)})`).join(" ") : MINUS);
    const rows = this.policy.heads.flatMap(({ head, curves }) => curves.map((curve) => [
      `${head ? `${head} ` : ""}${curve.name}`, points(curve.mean[index]), points(curve.found), points(curve.start)]));
    const columns = ["curve", "the policy’s mean", this.found || "found", "start"].map((title) => ({ title }));
    return table("Control points (x, y) of the curves", columns, rows);
  }
}

function curveTraces(curve, index, grid) {
  const unit = (values) => values.map((value) => value / 1000);
  const line = (points, part, dash, width, markers) => (points ? [{
    type: "scatter", mode: markers ? "lines+markers" : "lines", x: unit(points.map((p) => p[0])), y: unit(points.map((p) => p[1])),
    line: { color: colour(part), width, dash }, marker: { size: 5, color: colour(part) }, hovertemplate: "(%{x:.3f}, %{y:.3f})<extra></extra>", cliponaxis: false,
  }] : []);
  const band = (low, high, alpha) => [
    { type: "scatter", mode: "lines", x: grid, y: unit(low), line: { width: 0 }, hoverinfo: "skip" },
    { type: "scatter", mode: "lines", x: grid, y: unit(high), line: { width: 0 }, fill: "tonexty", fillcolor: tint("trial", alpha), hoverinfo: "skip" },
  ];
  const bands = curve.bands[index];
  return [
    ...(bands ? [...band(bands[0], bands[3], 0.13), ...band(bands[1], bands[2], 0.2)] : []),
    ...line(curve.start, "start", "dash", 1.6, false),
    ...line(curve.mean[index], "trial", "solid", 2.2, true),
    ...line(curve.found, "best", "solid", 2.2, true),
  ];
}

function curveText(head, curve, index, told, found) {
  const through = (points) => points.map(([x, y]) => `(${(x / 1000).toFixed(2)}, ${(y / 1000).toFixed(2)})`).join(", ");
  const parts = [`Curve ${curve.name}${head ? ` of ${head}` : ""}${curve.role ? `, ${curve.role}` : ""}.`];
  if (curve.mean[index]) parts.push(`Mean of the ${told}: through ${through(curve.mean[index])}.`);
  if (curve.found) parts.push(`${found}: through ${through(curve.found)}.`);
  if (curve.start) parts.push(`Start: through ${through(curve.start)}.`);
  return parts.join(" ");
}
