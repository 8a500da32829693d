// Keeps a page up to date: every few seconds it asks for what is in #live again, and puts it there if it is other. Boxes that
// are ticked stay ticked, and nothing is replaced under somebody's focus. On the page of a run, new episodes are offered by a
// button, because whoever reads one must not lose it. The server escapes what it sends; it becomes part of this page as it would
// by loading the page anew.
"use strict";
(function () {
  const SECONDS = 3;
  const more = document.getElementById("more");
  const loaded = Number((document.getElementById("live") || { dataset: {} }).dataset.episodes || 0);
  let tag = "";

  function inUse(live) {
    const focused = document.activeElement;
    return live.contains(focused) && focused !== live && !focused.matches("input[type=checkbox]");
  }

  function put(live, fresh) {
    const ticked = new Set([...live.querySelectorAll("input:checked")].map((box) => box.value));
    const focused = live.contains(document.activeElement) ? document.activeElement.value : null;
    const opened = [...live.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
    live.replaceWith(fresh);
    for (const box of fresh.querySelectorAll("input[type=checkbox]")) {
      box.checked = ticked.has(box.value);
      if (focused !== null && box.value === focused) box.focus();
    }
    fresh.querySelectorAll(".scroll").forEach((box, place) => {
      box.scrollLeft = opened[place] || 0;
    });
  }

  function offer(live) {
    const now = Number(live.dataset.episodes || 0);
    if (!more || now <= loaded) return;
    if (!more.firstChild) {
      const button = document.createElement("button");
      button.type = "button";
      button.addEventListener("click", () => location.reload());
      more.append(button);
      more.hidden = false;
    }
    more.firstChild.textContent = `${now - loaded} more episode${now - loaded === 1 ? " has" : "s have"} ended: load them`;
  }

  async function update() {
    const live = document.getElementById("live");
    if (!live || document.hidden) return;
    const path = live.dataset.live || location.pathname;
    const answer = await fetch(path + location.search, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
    if (answer.status !== 200) return;
    tag = answer.headers.get("ETag") || "";
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("live");
    const current = document.getElementById("live");
    if (!fresh || fresh.isEqualNode(current)) return;
    if (inUse(current)) {
      tag = "";
      return;
    }
    put(current, document.adoptNode(fresh));
    offer(fresh);
  }

  async function again() {
    try {
      await update();
    } catch (error) {
      // The server has ended, or starts again: the page stays as it is, and asks again.
    }
    setTimeout(again, SECONDS * 1000);
  }

  setTimeout(again, SECONDS * 1000);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) update().catch(() => {});
  });
})();
