// Asks for this page every few seconds and puts its main part in place of the old one. What is
// open stays open, what was scrolled stays where it was; nothing is swapped under a selection.
"use strict";
(() => {
  const EVERY = 5000;

  function swap(fresh) {
    const main = document.querySelector("main");
    const open = [...main.querySelectorAll("details[open]")].map((part) => part.id);
    const boxes = [...main.querySelectorAll(".wide")].map((box) => box.scrollLeft);
    main.replaceWith(fresh.querySelector("main"));
    document.getElementById("as-of").replaceWith(fresh.getElementById("as-of"));
    open.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
    document.querySelectorAll("main .wide").forEach((box, at) => {
      if (at < boxes.length) box.scrollLeft = boxes[at];
    });
  }

  async function refresh() {
    const isRead = document.querySelector("main").contains(document.activeElement);
    if (document.hidden || isRead || !getSelection().isCollapsed) return;
    try {
      const answer = await fetch(location.pathname, { cache: "no-store" });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!fresh.querySelector("main")) throw new Error(answer.status);
      swap(fresh);
    } catch {
      document.getElementById("as-of").classList.add("stale");
    }
  }

  document.querySelectorAll("[data-end]").forEach((box) => {
    box.scrollLeft = box.scrollWidth;
  });
  setInterval(refresh, EVERY);
})();
