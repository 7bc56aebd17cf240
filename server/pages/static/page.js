// Keeps the page fresh: asks for the part that changes, and puts in place what differs. What is being typed, opened or
// focused stays as it is. Without this script every page works; it is then as old as its loading.
"use strict";
(() => {
  const EVERY_MS = 5000;
  const PATIENCE_MS = 15000;
  const live = document.getElementById("live");
  const stale = document.getElementById("stale");
  const fresh = document.getElementById("fresh");
  let mark = "";
  let timer = 0;
  let heardAt = Date.now();

  const clock = (ms) => new Date(ms).toISOString().slice(11, 19);

  const say = (isFresh) => {
    fresh.textContent = isFresh ? `Live, as of ${clock(heardAt)}.` : `As of ${clock(heardAt)}.`;
    const isLate = Date.now() - heardAt > PATIENCE_MS;
    const words = isLate ? `The server does not answer. What you see is from ${clock(heardAt)} UTC.` : "";
    if (stale.textContent !== words) stale.textContent = words;
    stale.hidden = !isLate;
  };

  // Kept by the browser's side: what is open, what was typed.
  const isOurs = (element, name) =>
    (name === "open" && element.localName === "details") ||
    (name === "value" && element.localName === "input" && element.type !== "hidden");

  const align = (old, now) => {
    for (const { name } of [...old.attributes]) {
      if (!now.hasAttribute(name) && !isOurs(old, name)) old.removeAttribute(name);
    }
    for (const { name, value } of now.attributes) {
      if (old.getAttribute(name) !== value && !isOurs(old, name)) old.setAttribute(name, value);
    }
  };

  const isAlike = (old, now) => old.nodeType === now.nodeType && old.nodeName === now.nodeName && !old.id;

  // The child of ours that is to become this one: the one of its id, else the next one of its kind.
  const counterpart = (parent, next, now) => {
    if (now.id) return parent.querySelector(`:scope > [id="${CSS.escape(now.id)}"]`);
    let old = next;
    while (old && !isAlike(old, now)) old = old.nextSibling;
    return old;
  };

  const become = (old, now) => {
    if (old.isEqualNode(now)) return;
    if (now.nodeType !== Node.ELEMENT_NODE) {
      old.nodeValue = now.nodeValue;
      return;
    }
    align(old, now);
    if (!["textarea", "select"].includes(now.localName)) morph(old, now);
  };

  const morph = (parent, wanted) => {
    let next = parent.firstChild;
    for (const now of [...wanted.childNodes]) {
      const old = counterpart(parent, next, now);
      if (!old) {
        parent.insertBefore(now, next);
        continue;
      }
      if (old === next) next = next.nextSibling;
      else parent.insertBefore(old, next);
      become(old, now);
    }
    while (next) {
      const after = next.nextSibling;
      next.remove();
      next = after;
    }
  };

  const show = (text) => {
    const wanted = new DOMParser().parseFromString(`<body><div>${text}</div>`, "text/html").body.firstChild;
    const focused = document.activeElement;
    morph(live, wanted);
    // Moving an element takes the focus away from it.
    if (focused && focused.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
  };

  const look = async () => {
    clearTimeout(timer);
    try {
      const answer = await fetch(location.href, {
        headers: { "X-Scout-Live": "1", ...(mark && { "If-None-Match": mark }) },
        cache: "no-store",
        redirect: "error",
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      if (answer.status === 401) {
        location.reload();
        return;
      }
      if (answer.status === 200) {
        show(await answer.text());
        mark = answer.headers.get("ETag") || "";
      }
      if (answer.status === 200 || answer.status === 304) heardAt = Date.now();
      say(answer.status === 200 || answer.status === 304);
    } catch {
      say(false);
    }
    if (!document.hidden) timer = setTimeout(look, EVERY_MS);
  };

  // A page that answers a form must not ask for itself again: its address is that of the form.
  if (document.querySelector("[data-once]")) return;
  // What was done is said once, and not again to who loads the page anew or keeps its address.
  const here = new URL(location.href);
  if (here.searchParams.has("done")) {
    here.searchParams.delete("done");
    history.replaceState(null, "", here);
  }
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : look()));
  say(true);
  timer = setTimeout(look, EVERY_MS);
})();
