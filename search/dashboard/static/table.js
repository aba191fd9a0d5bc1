// Tables that a screen reader can read: captions, scopes, and headers that sort by keyboard.

/**
 * A plain table that scrolls by itself where a screen is too narrow for it.
 * columns: [{title, number}]; rows: texts or elements, the first of a row is its header.
 * strong: the indices of rows that stand out.
 */
function table(caption, columns, rows, strong = []) {
  const body = rows.map((row, index) =>
    h("tr", { class: strong.includes(index) ? "strong" : null }, row.map((value, at) => cell(columns[at], value, at))));
  const head = h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col", class: kind(column) }, column.title))));
  return scroller(caption, h("table", {}, h("caption", { class: "unseen" }, caption), head, h("tbody", {}, body)));
}

/** Around what may be wider than the screen; the keyboard can scroll it. */
function scroller(label, inner) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, inner);
}

function cell(column, value, at) {
  const long = typeof value === "string" && value.length > 40;
  const attributes = { class: kind(column) || (long ? "long" : null) };
  return at === 0 ? h("th", { ...attributes, scope: "row" }, value) : h("td", attributes, value);
}

function kind(column) {
  return column.number ? "num" : null;
}

/**
 * A table whose rows are kept: what did not change keeps its place, its focus and its element.
 * columns: [{title, number, value(row), text(row)}], sorted by `value`, shown by `text`.
 */
class SortedTable {
  constructor(caption, columns, keyOf) {
    Object.assign(this, { columns, keyOf, sorted: null, down: false });
    this.kept = new Map();
    this.headers = columns.map((column, index) => this.header(column, index));
    this.body = h("tbody");
    const head = h("thead", {}, h("tr", {}, this.headers));
    this.element = scroller(caption, h("table", {}, h("caption", { class: "unseen" }, caption), head, this.body));
    this.rows = [];
  }

  header(column, index) {
    const button = h("button", { type: "button", class: "sort", onclick: () => this.sortBy(index) }, column.title);
    return h("th", { scope: "col", class: kind(column) }, button);
  }

  /** Sort by a column, the other way round at the second time. */
  sortBy(index) {
    this.down = this.sorted === index ? !this.down : false;
    this.sorted = index;
    this.headers.forEach((header, at) => {
      if (at === index) header.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else header.removeAttribute("aria-sort");
    });
    this.show(this.rows);
  }

  show(rows) {
    this.rows = rows;
    let at = this.body.firstChild;
    for (const row of this.inOrder(rows)) {
      const element = this.elementOf(row);
      if (element === at) at = at.nextSibling;
      else this.body.insertBefore(element, at);
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  inOrder(rows) {
    if (this.sorted === null) return rows;
    const value = this.columns[this.sorted].value;
    const sign = this.down ? -1 : 1;
    return [...rows].sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === null || b === null) return (a === null) - (b === null); // what has no value is last
      return sign * (typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
    });
  }

  elementOf(row) {
    const key = this.keyOf(row);
    const signature = JSON.stringify(row);
    const kept = this.kept.get(key);
    if (kept && kept.signature === signature) return kept.element;
    const element = h("tr", {}, this.columns.map((column, at) => cell(column, column.text(row), at)));
    if (kept) kept.element.replaceWith(element);
    this.kept.set(key, { signature, element });
    return element;
  }
}
