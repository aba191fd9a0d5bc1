// What did not have to run: rejected samples, rungs, early stops; and the final race.

function raceSection() {
  const pick = ({ history }) => (history.race ? [history.race, history.noise, history.settings] : null);
  return new Section("race", "The final race", pick, ([race, noise, { score, reward }]) => {
    const rows = race.rows.map((one) => [
      `${one.winner ? "★ " : ""}${one.label}`, chance(one.probability), spread(one.val, one.stderr), String(one.n), raceState(one, race.over)]);
    const columns = titles("candidate", "is the best", `#${score} on val`, "#n", "in the race");
    const strong = race.rows.flatMap((one, at) => (one.winner ? [at] : []));
    const told = noise ? ` One loss trained with other seeds spreads by ${number(noise.sd, 4)} (standard deviation, of ${plural(noise.n, "trial")}).` : "";
    const saved = race.saved ? ` ${plural(race.saved, "trial")} of its budget ${race.saved === 1 ? "was" : "were"} not needed.` : "";
    return [table("The final race", columns, rows, strong), note(
      `How likely each candidate is to have the best mean ${reward} of them all on val, mean ± standard error over n repeats. Who is too unlikely leaves, and those left run more repeats.${told}${saved}`)];
  });
}

function raceState({ dropped, winner }, over) {
  if (dropped !== null) return `left after ${plural(dropped, "repeat")}`;
  if (!over) return "yes";
  return winner ? "won" : "to its end";
}

/** A probability as a bar and in words. */
function chance(probability) {
  if (probability === null) return MINUS;
  const fill = h("span");
  fill.style.width = `${100 * probability}%`;
  const words = probability > 0.99 ? ">99%" : probability < 0.01 ? "<1%" : `${Math.round(100 * probability)}%`;
  return h("span", { class: "chance" }, h("span", { class: "track", "aria-hidden": "true" }, fill), words);
}

function sparedSection() {
  return new Section("spared", "Trials that were spared", ({ history }) => history.spared, ({ lines, stages, rungs, stopped, rounds, rejected, in_all: all }) => {
    const drawn = rounds.some(([, count]) => count !== null);
    const columns = titles("#round", ...(drawn ? ["#samples drawn", ...stages.map((stage) => `#rejected: ${stage}`)] : []),
      ...(rungs ? ["#in the rung"] : []), "#trained in full", ...(stopped ? ["#of them stopped"] : []));
    const rows = rounds.map(([round, count, counts, rung, search, ended]) => [
      round, ...(drawn ? [count ?? MINUS, ...counts] : []), ...(rungs ? [rung] : []), search, ...(stopped ? [ended] : [])].map(String));
    const reasons = rejected.map(([round, slot, attempt, stage, why, waived]) => [
      `round ${round} slot ${slot}`, String(attempt + 1), stage, `${why}${waived ? " (tried all the same: the last attempt)" : ""}`]);
    const list = h("details", {}, h("summary", {}, "The rejected samples and why"),
      table("Rejected samples", titles("sample", "#draw", "stage", "reason"), reasons), rejected.length < all ? note(`The first ${rejected.length} of ${all}.`) : null);
    return [h("ul", { class: "plain" }, lines.map((line) => h("li", {}, line))), table("Trials by round", columns, rows), reasons.length ? list : null];
  });
}
