// The page is complete without this: it filters and folds the changed answers, and opens all for print.
document.documentElement.classList.remove("no-script");
const choices = [...document.querySelectorAll(".controls select")];
const flips = [...document.querySelectorAll(".flip")];
const more = document.getElementById("flips-more");
let most = 10;
function filterFlips() {
  let n = 0;
  for (const flip of flips) {
    const fits = choices.every((c) => !c.value || flip.dataset[c.name].split("|").includes(c.value));
    n += fits;
    flip.hidden = !fits || n > most;
  }
  document.getElementById("flips-shown").textContent = `${Math.min(n, most)} of ${n} shown`;
  more.hidden = n <= most;
}
function showAll() {
  most = Infinity;
  filterFlips();
}
choices.forEach((choice) => choice.addEventListener("change", filterFlips));
if (more) {
  more.addEventListener("click", showAll);
  filterFlips();
  addEventListener("beforeprint", showAll);
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => (d.open = true)));
