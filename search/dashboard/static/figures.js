// What all figures have in common: colours of the page, no modebar, a text for who cannot see them.

const narrow = () => window.innerWidth < 640;
const coarse = window.matchMedia("(pointer: coarse)");
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

/** The colour that a part has now, light or dark: colour("trial"). */
function colour(part) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${part}`).trim();
}

/** A colour "#rrggbb" of a part, made translucent. */
function tint(part, alpha) {
  const hex = colour(part);
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${red},${green},${blue},${alpha})`;
}

/** Plotly reads a little HTML in its texts; names from files are meant as they stand. */
function plain(text) {
  return String(text).replace(/[&<>]/g, (one) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[one]).replace(/\s+/g, " ");
}

function axis(title, more = {}) {
  return {
    title: { text: title, standoff: 8 },
    gridcolor: colour("grid"),
    linecolor: colour("grid"),
    tickfont: { color: colour("muted"), size: 11 },
    zeroline: false,
    fixedrange: coarse.matches, // a finger that passes over a figure scrolls the page
    ...more,
  };
}

/** A figure in the page: an image to a screen reader, described by `alt`. */
class Figure {
  constructor() {
    this.plot = h("div", { class: "plot", role: "img" });
    this.element = h("figure", {}, this.plot);
    this.signature = "";
  }

  draw(traces, layout, alt) {
    this.plot.setAttribute("aria-label", alt);
    // Nothing is drawn twice: Plotly takes longer than a frame, and a hover would blink.
    const width = this.plot.clientWidth;
    const signature = JSON.stringify([traces, layout, width]);
    if (!width || signature === this.signature) return;
    this.signature = signature;
    const whole = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("ink") },
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("muted"), font: { color: colour("ink") } },
      hovermode: "closest",
      showlegend: false,
      uirevision: "kept", // a zoom outlives new trials
      dragmode: coarse.matches ? false : "zoom",
      margin: { l: 52, r: 12, t: 10, b: 44 },
      ...layout,
      width,
    };
    this.plot.style.height = `${whole.height}px`; // before it is drawn, so that nothing jumps
    Plotly.react(this.plot, traces, whole, { displayModeBar: false, doubleClick: "reset" });
  }
}

/** What the colours mean, beside the figure: [{part, label, kind}], kind: line, dash, dot, cross, band. */
function legend(entries) {
  const items = entries.map(({ part, label, kind }) => {
    const mark = h("span", { class: `mark ${kind}`, "aria-hidden": "true" });
    mark.style.setProperty("--part", `var(--${part})`);
    return h("li", {}, mark, label);
  });
  return h("ul", { class: "legend" }, items);
}

/** Round numbers to label an axis of `count` rounds with, about `most` of them. */
function roundTicks(count, most) {
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((size) => count / size <= most) || 1000;
  return Array.from({ length: Math.ceil(count / step) }, (_, index) => index * step);
}
