// The formulas of a search that has any: the start's, the candidates', the best samples'.

function formulasSection() {
  const pick = ({ history }) => (history.formulas ? [history.formulas, history.settings] : null);
  return new Section("formulas", "The formulas", pick, ([{ names, rows }, { score }]) => {
    const columns = titles("loss", `#${score} on val`, `#${score} on test`, ...names);
    const cells = rows.map((one) => [
      `${one.winner ? "★ " : ""}${one.label}`, number(one.val), number(one.test), ...one.formulas.map((formula) => h("code", {}, formula))]);
    const strong = rows.flatMap((one, at) => (one.winner ? [at] : []));
    return [table("The formulas", columns, cells, strong), note(
      "classification: x the logit, y 1 for the class of a positive and 0 elsewhere, w the IoU of a positive’s box. regression: i, u and e the areas of intersection, union and enclosing box. " +
      "gd, alf, erf and erfc are scaled to go from 0 to 1 as the sigmoid does.")];
  });
}
