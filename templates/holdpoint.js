// What the review page can do beyond forms: news, keys, and a look at whether all was seen that is about to be sent.
// Nothing here decides: the server checks digest, session, person and policy of every form, with or without this script.
// No text ever becomes markup in here.

const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const page = $("[data-page]")?.dataset.page;

/** Says something in the page's own place for it, with a way to load the page again. */
function tell(text) {
  const place = $("#news");
  if (!place) return;
  const again = document.createElement("a");
  again.href = location.href;
  again.textContent = "load it again (.)";
  place.replaceChildren(text + " ", again);
  place.hidden = false;
}

const isTyping = (element) => ["INPUT", "TEXTAREA", "SELECT"].includes(element?.tagName);

// ---- news -------------------------------------------------------------------------------------------------------

/** The inbox loads itself again, unless somebody is at work in it; what a person reads, or is about to decide on, never moves. */
function follow() {
  const live = $("#live");
  if (!live || !["inbox", "group", "hold"].includes(page)) return;
  const source = new EventSource("/events");
  const show = (is) => {
    live.textContent = is ? "● live" : "○ not live";
    live.dataset.on = is ? "yes" : "no";
  };
  source.onopen = () => show(true);
  source.onerror = () => show(false);
  let due = 0;
  const heard = (event) => {
    const about = JSON.parse(event.data);
    if (page !== "hold") {
      // Of a group nothing is loaded by itself: its button decides on what stands there.
      if (page === "group" || isTyping(document.activeElement) || $(".at")) return tell("There is news.");
      clearTimeout(due);
      due = setTimeout(() => location.reload(), 250);
      return;
    }
    const shown = $("[data-hold]").dataset;
    const other = event.type === "reset" || (about.id === shown.hold && String(about.version) !== shown.version);
    if (other) {
      tell("This hold may have changed since you loaded it.");
      all("form[data-decides] button").forEach((button) => (button.disabled = true));
    }
  };
  const kinds = "created updated claimed escalated edited approved rejected withdrawn revoked stale expired succeeded failed unknown not_executed";
  kinds.split(" ").forEach((kind) => source.addEventListener(`hold.${kind}`, heard));
  source.addEventListener("reset", heard);
  addEventListener("pagehide", () => source.close());
}

// ---- clocks -----------------------------------------------------------------------------------------------------

/** Counts down to a time that the server has named; only a display, the server's clock decides. */
function clocks() {
  const times = all("time[data-until]");
  if (!times.length) return;
  const tick = () =>
    times.forEach((time) => {
      const left = Math.floor((Date.parse(time.dateTime) - Date.now()) / 1000);
      const two = (n) => String(n).padStart(2, "0");
      const hours = Math.floor(left / 3600);
      const rest = `${two(Math.floor(left / 60) % 60)}:${two(left % 60)}`;
      time.dataset.left = left <= 0 ? "over" : hours ? `${hours}:${rest}` : rest;
      time.classList.toggle("soon", left < 300);
    });
  tick();
  setInterval(tick, 1000);
}

// ---- what was seen ----------------------------------------------------------------------------------------------

/** More than a few lines: such a part was seen when its end was, too. Pixels. */
const TALL = 80;

/**
 * Whatever approves opens once every part of what will be sent and changed, and the evidence, has been in view and every
 * fold is open; on high a few seconds later. Scrolling past counts: the point is that nothing stays below the fold unseen.
 */
function seeing() {
  const form = $("form[data-approve]");
  if (!form) return;
  const button = $("button[type=submit]", form);
  const buttons = [button, ...all("form[data-approves] button[type=submit]")];
  const left = new Set(all("[data-hunk]"));
  const folds = new Set(all("details[data-sent]").filter((fold) => !fold.open));
  const note = document.createElement("p");
  note.className = "small";
  note.setAttribute("role", "status");
  button.before(note);
  buttons.forEach((one) => (one.disabled = true));
  const dwell = Number(form.dataset.dwell ?? 0) * 1000;
  let opening = false;
  const open = () => {
    const seen = document.createElement("input");
    Object.assign(seen, { type: "hidden", name: "seen", value: "all" });
    form.append(seen);
    note.textContent = "You have seen all of it.";
    buttons.forEach((one) => (one.disabled = $("#news")?.hidden === false));
  };
  const check = () => {
    if (opening) return;
    const parts = left.size + folds.size;
    note.textContent = parts ? `Opens when you have seen all of it: ${parts} to go (n: next).` : "One more moment to read.";
    if (parts) return;
    opening = true;
    setTimeout(open, dwell);
  };
  folds.forEach((fold) =>
    fold.addEventListener("toggle", () => {
      folds.delete(fold);
      check();
    }),
  );
  // A long part has ends of its own, in each of its cells, which are looked for once it is in view.
  const ends = new Map();
  const watch = (part, hunk) => {
    ends.set(part, hunk);
    watcher.observe(part);
  };
  const watchEnd = (part, hunk) => {
    const last = document.createElement("span");
    part.append(last);
    watch(last, hunk);
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, boundingClientRect } of entries.filter((e) => e.isIntersecting)) {
      const hunk = ends.get(target);
      watcher.unobserve(target);
      ends.delete(target);
      const isLong = target.tagName !== "SPAN" && boundingClientRect.height > TALL;
      if (isLong) (target.cells ? [...target.cells] : [target]).forEach((part) => watchEnd(part, hunk));
      if (![...ends.values()].includes(hunk)) left.delete(hunk);
    }
    check();
  });
  for (const hunk of left) {
    const parts = all("tr, pre, p, dd", hunk);
    (parts.length ? parts : [hunk]).forEach((part) => watch(part, hunk));
  }
  // The next fold, else the next part of the next hunk.
  form.nextHunk = () => {
    const [next] = [...folds, ...left];
    return [...ends].find(([, hunk]) => hunk === next)?.[0] ?? next;
  };
  check();
}

// ---- keys -------------------------------------------------------------------------------------------------------

const rows = () => all("table.lines tbody tr").filter((row) => $("a", row));

function step(by) {
  const list = rows();
  if (!list.length) return;
  const at = list.findIndex((row) => row.classList.contains("at"));
  list[at]?.classList.remove("at");
  const next = list[Math.min(Math.max(at + by, 0), list.length - 1)];
  next.classList.add("at");
  $("a", next).focus();
}

function nextHunk() {
  const hunk = $("form[data-approve]")?.nextHunk?.();
  if (!hunk) return;
  if (hunk.tagName === "DETAILS") hunk.open = true;
  hunk.scrollIntoView({ block: hunk.offsetHeight > innerHeight ? "start" : "center" });
  hunk.tabIndex = -1;
  hunk.focus({ preventScroll: true });
}

function focus(selector) {
  const target = $(selector);
  target?.closest("details")?.setAttribute("open", "");
  target?.scrollIntoView({ block: "center" });
  target?.focus();
}

/** `a`: approves medium, once all was seen; on high it only leads to the justification. */
function approve() {
  const form = $("form[data-approve]");
  if (!form) return;
  if (form.dataset.approve === "high") return focus("form[data-approve] textarea");
  const button = $("button[type=submit]", form);
  if (!button.disabled) form.requestSubmit(button);
  else nextHunk();
}

function help() {
  const dialog = $("#keys");
  if (dialog) dialog.open ? dialog.close() : dialog.showModal();
}

const keys = {
  j: () => step(1),
  k: () => step(-1),
  n: nextHunk,
  d: () => focus("[data-hunk] td, [data-hunk]"),
  a: approve,
  r: () => focus("#reason"),
  e: () => focus("#arguments"),
  u: () => focus("#undo-why"),
  l: () => $("#claim")?.click(),
  c: () => focus("#comment"),
  q: () => focus("#ask-message"),
  x: () => focus("#escalate-why"),
  g: () => $("a[data-group]")?.click(),
  i: () => (location.href = "/"),
  "/": () => focus("#search"),
  ".": () => location.reload(),
  "?": help,
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  // In the list of reasons a digit chooses one, as the keys of the page do elsewhere.
  if (event.target.id === "reason" && /^[1-9]$/.test(event.key)) {
    event.target.selectedIndex = Math.min(Number(event.key), event.target.options.length - 1);
    return event.preventDefault();
  }
  if (isTyping(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const action = keys[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

// A form is sent once: a second click on a slow answer must not look like a second decision.
addEventListener("submit", (event) => {
  if (event.defaultPrevented) return;
  setTimeout(() => all("button", event.target).forEach((button) => (button.disabled = true)), 0);
});
// A page that comes back from the browser's memory may be old.
addEventListener("pageshow", (event) => event.persisted && location.reload());

seeing();
follow();
clocks();
