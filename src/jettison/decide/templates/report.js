// The page is complete without this: it only filters the changed answers and opens details for print.
document.documentElement.classList.remove("no-script");
const choices = [...document.querySelectorAll(".controls select")];
const flips = [...document.querySelectorAll(".flip")];
function filterFlips() {
  let shown = 0;
  for (const flip of flips) {
    const fits = choices.every((c) => !c.value || flip.dataset[c.name].split("|").includes(c.value));
    flip.hidden = !fits;
    shown += fits;
  }
  document.getElementById("flips-shown").textContent = `${shown} of ${flips.length} shown`;
}
choices.forEach((choice) => choice.addEventListener("change", filterFlips));
if (choices.length) filterFlips();
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => (d.open = true)));
