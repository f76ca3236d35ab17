// Looks again every few seconds and puts the new <main> in place of the old one, unless somebody is reading
// a selection or the page is hidden. Without scripts the pages are the same; they are then reloaded by hand.
"use strict";
const EVERY_MS = 4000;
async function look() {
  const busy = document.hidden || String(getSelection()) !== "";
  if (!busy) {
    try {
      const reply = await fetch(location.pathname + location.search, { credentials: "same-origin" });
      if (reply.status === 401) return location.reload();
      if (reply.ok) {
        const fresh = new DOMParser().parseFromString(await reply.text(), "text/html").getElementById("live");
        const live = document.getElementById("live");
        const open = [...live.querySelectorAll("details")].map((one) => one.open);
        const left = [...live.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
        fresh.querySelectorAll("details").forEach((one, i) => { one.open = Boolean(open[i]); });
        live.replaceWith(fresh);
        fresh.querySelectorAll(".scroll").forEach((one, i) => { one.scrollLeft = left[i] || 0; });
        document.body.classList.remove("stale");
      }
    } catch {
      document.body.classList.add("stale");
    }
  }
  setTimeout(look, EVERY_MS);
}
setTimeout(look, EVERY_MS);
