// All trials: sorted by any column, filtered by phase and status.

const PHASES = ["baseline", "start", "rung", "search", "final"];
const STATUSES = ["ok", "stopped", "diverged", "failed"];

class Trials {
  constructor(id) {
    Object.assign(this, card("trials", "Trials"));
    this.phase = this.choice("phase", PHASES);
    this.status = this.choice("status", STATUSES);
    this.count = h("p", { class: "count", "aria-live": "polite" });
    this.table = new SortedTable("Trials", this.columns(), (trial) => [trial.phase, trial.round, trial.slot, trial.repeat].join("-"));
    this.table.element.classList.add("tall");
    this.body.append(h("div", { class: "controls" }, this.phase.label, this.status.label, this.count), this.table.element);
    this.view = { live: false, index: 0 };
    this.all = [];
  }

  choice(name, values) {
    const select = h("select", { onchange: () => this.filter() }, h("option", { value: "" }, "all"), values.map((value) => h("option", { value }, value)));
    return { label: h("label", {}, `${name} `, select), select };
  }

  columns() {
    const text = (title, value) => ({ title, value: (trial) => value(trial) ?? null, text: (trial) => value(trial) || MINUS });
    const num = (title, value, digits) => ({ title, number: true, value, text: (trial) => (value(trial) === null ? MINUS : number(value(trial), digits)) });
    const order = (trial) => ((PHASES.indexOf(trial.phase) * 1e5 + trial.round) * 1e4 + trial.slot) * 1e3 + trial.repeat;
    return [
      { title: "trial", value: order, text: (trial) => logLink(place(trial) + (trial.phase === "final" ? ` (${trial.label})` : ""), trial.folder, this.view) },
      { title: "status", value: (trial) => STATUSES.indexOf(trial.status), text: (trial) => h("span", { class: `end ${trial.status}` }, trial.status) },
      num("reward", (trial) => trial.reward, 4),
      num("test", (trial) => trial.test, 4),
      num("seconds", (trial) => trial.seconds, 1),
      text("fingerprint", (trial) => trial.fingerprint),
      num("attempts", (trial) => trial.attempts, 0),
      text("node", (trial) => trial.node),
      { title: "finished", value: (trial) => trial.finished, text: (trial) => moment(trial.finished) },
      text("error", (trial) => trial.error),
    ];
  }

  update(view) {
    this.view = view;
    this.all = trialsOf(view.history);
    this.element.hidden = !this.all.length;
    this.filter();
  }

  filter() {
    const [phase, status] = [this.phase.select.value, this.status.select.value];
    const rows = this.all.filter((trial) => (!phase || trial.phase === phase) && (!status || trial.status === status));
    this.table.show(rows);
    setText(this.count, rows.length === this.all.length ? plural(rows.length, "trial") : `${rows.length} of ${plural(this.all.length, "trial")}`);
  }
}
