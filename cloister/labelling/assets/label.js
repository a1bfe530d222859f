// Shows one record at a time and sends each answer; what is shown comes from the server alone.
// Texts of records are set as text, never as HTML.
"use strict";
(() => {
  const KEYS = "1234567890abcdefghijklmnopqrtvwxyz";
  const get = (id) => document.getElementById(id);
  let words = WORDS[(navigator.language || "en").startsWith("zh") ? "zh" : "en"];
  let facts = null; // what may be answered, and the page's names
  let shown = null; // the record
  let chosen = []; // labels that are on, or tags
  let from = 0; // selected words: from the one that was selected first
  let to = 0; // to the one that the cursor is at
  let isBusy = false;

  // The token stands behind #, which is not sent; it is kept for a reload, out of sight.
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.has("token")) sessionStorage.setItem("token", given.get("token"));
  if (given.get("lang") in WORDS) words = WORDS[given.get("lang")];
  if (location.hash) history.replaceState(null, "", location.pathname);
  const token = sessionStorage.getItem("token");

  async function ask(path, body) {
    const headers = { authorization: `Bearer ${token}` };
    const options = body === undefined ? { headers }
      : { headers, method: "POST", body: JSON.stringify(body) };
    let answer;
    try {
      answer = await fetch(path, { cache: "no-store", ...options });
    } catch {
      throw new Error(words.gone);
    }
    if (answer.status === 401) throw new Error(words.noToken);
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
    return found;
  }

  // One request at a time; a key that is pressed meanwhile would answer a record not yet read.
  async function once(act) {
    if (isBusy) return;
    isBusy = true;
    try {
      await act();
      trouble("");
    } catch (error) {
      trouble(error.message);
    } finally {
      isBusy = false;
    }
  }

  function trouble(text) {
    get("trouble").textContent = text;
    get("trouble").hidden = !text;
  }

  const go = (query) => once(async () => show(await ask(`record?${query}`)));
  const save = (answer) =>
    once(async () => show(await ask("answer", { at: shown.at, answer })));
  const undo = () => once(async () => show(await ask("undo", {})));
  const back = () => shown.at > 0 && go(`at=${shown.at - 1}`);
  const forward = () => shown.at < shown.total && go(`at=${shown.at + 1}`);
  const skip = () => go(`after=${shown.at}`);

  function show(state) {
    shown = state;
    const isEnd = state.at >= state.total;
    get("record").hidden = isEnd;
    get("end").hidden = !isEnd;
    if (isEnd) end();
    else {
      const blank = facts.kind === "entities" ? state.words.map(() => "O") : [];
      chosen = Array.isArray(state.answer) ? [...state.answer] : blank;
      if (facts.kind === "one" && state.answer !== null) chosen = [state.answer];
      from = to = 0;
      get("score").value = facts.kind === "score" && state.answer !== null ? state.answer : "";
      window.scrollTo(0, 0);
    }
    draw();
  }

  function draw() {
    document.documentElement.lang = words.lang;
    document.title = `${shown.answered}/${shown.total} · ${facts.source}`;
    get("source").textContent = facts.source;
    get("annotator").textContent = words.as(facts.annotator);
    get("language").textContent = words.other;
    get("bar").max = shown.total;
    get("bar").value = shown.answered;
    const at = Math.min(shown.at + 1, shown.total);
    get("count").textContent = words.count(at, shown.total, shown.answered);
    for (const id of ["back", "undo", "skip", "forward", "save", "last"]) {
      get(id).textContent = words[id];
    }
    get("first-open").textContent = words.firstOpen;
    get("undo").disabled = !shown.can_undo;
    get("back").disabled = shown.at === 0;
    get("save").hidden = facts.kind === "one";
    get("keys").textContent = words.keys[facts.kind];
    get("alone").textContent = words.alone;
    get("scoring").hidden = facts.kind !== "score";
    get("score-name").textContent = words.score + words.range(facts.lowest, facts.highest);
    if (shown.at >= shown.total) return;
    drawText();
    drawLabels();
    if (facts.kind === "score") get("score").focus();
  }

  function drawText() {
    const box = get("text");
    box.textContent = "";
    box.classList.toggle("long", shown.text.length > 400);
    if (facts.kind !== "entities") {
      box.textContent = shown.text;
      return;
    }
    let place = 0;
    shown.words.forEach((word, at) => {
      const start = shown.text.indexOf(word, place);
      if (start > place) box.append(shown.text.slice(place, start));
      place = Math.max(place, start) + word.length;
      box.append(drawWord(word, at));
    });
    box.append(shown.text.slice(place));
  }

  function drawWord(word, at) {
    const part = document.createElement("span");
    const tag = chosen[at];
    part.textContent = word;
    part.className = "word";
    part.dataset.at = at;
    if (at >= Math.min(from, to) && at <= Math.max(from, to)) part.classList.add("selected");
    if (tag !== "O") {
      part.classList.add("entity", `e${facts.labels.indexOf(tag.slice(2)) % 6}`);
      part.title = tag.slice(2);
      if (tag.startsWith("B-")) part.dataset.type = tag.slice(2);
    }
    return part;
  }

  function drawLabels() {
    const group = get("labels");
    group.textContent = "";
    facts.labels.forEach((label, index) => {
      const button = document.createElement("button");
      const key = document.createElement("kbd");
      key.textContent = KEYS[index];
      button.type = "button";
      button.append(key, label);
      button.classList.add(`e${index % 6}`);
      if (facts.kind !== "entities") {
        button.setAttribute("aria-pressed", String(chosen.includes(label)));
      }
      button.addEventListener("click", () => choose(index));
      group.append(button);
    });
  }

  function choose(index) {
    const label = facts.labels[index];
    if (label === undefined || shown.at >= shown.total) return;
    if (facts.kind === "one") {
      save(label);
      return;
    }
    if (facts.kind === "several") {
      chosen = chosen.includes(label) ? chosen.filter((one) => one !== label) : [...chosen, label];
    } else mark(label);
    draw();
  }

  // Gives the selected words one entity, or none; what is left of one that was cut begins anew.
  function mark(label) {
    const first = Math.min(from, to);
    const last = Math.max(from, to);
    for (let at = first; at <= last; at++) {
      chosen[at] = label === null ? "O" : `${at === first ? "B" : "I"}-${label}`;
    }
    if ((chosen[last + 1] || "").startsWith("I-")) {
      chosen[last + 1] = `B-${chosen[last + 1].slice(2)}`;
    }
    from = to = Math.min(last + 1, shown.words.length - 1);
  }

  function submit() {
    if (shown.at >= shown.total) return;
    if (facts.kind !== "score") {
      save(chosen);
      return;
    }
    const text = get("score").value.trim().replace(",", ".");
    if (text === "" || !Number.isFinite(Number(text))) trouble(words.badScore);
    else save(Number(text));
  }

  function move(step, isExtended) {
    to = Math.max(0, Math.min(to + step, shown.words.length - 1));
    if (!isExtended) from = to;
    draw();
    document.querySelector(".word.selected")?.scrollIntoView({ block: "nearest" });
  }

  async function end() {
    const open = shown.total - shown.answered;
    get("end-title").textContent = open ? words.open(open) : words.done;
    get("end-words").textContent = words.saved(facts.file);
    get("next-command").textContent = facts.next;
    get("first-open").hidden = !open;
    get("agreement").hidden = true;
    if (open) return;
    try {
      const found = await ask("agreement");
      if (found.agreement) drawAgreement(found.agreement);
    } catch (error) {
      trouble(error.message);
    }
  }

  function drawAgreement(rows) {
    const table = get("agreement");
    table.textContent = "";
    table.createCaption().textContent = words.agreement;
    const head = table.createTHead().insertRow();
    words.columns.forEach((name) => {
      const cell = document.createElement("th");
      cell.textContent = name;
      head.append(cell);
    });
    const body = table.createTBody();
    rows.forEach(([name, value, low, high]) => {
      const row = body.insertRow();
      row.insertCell().textContent = name;
      row.insertCell().textContent = value === null ? words.none : value.toFixed(3);
      const interval = low === null ? "" : `${low.toFixed(3)} – ${high.toFixed(3)}`;
      row.insertCell().textContent = interval;
    });
    table.hidden = false;
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || shown === null) return;
    // Keys that come with an input method are letters of a word, not commands.
    if (event.isComposing) return;
    const isEntities = facts.kind === "entities" && shown.at < shown.total;
    const isButton = event.target instanceof HTMLButtonElement;
    const acts = {
      ArrowLeft: () => (isEntities ? move(-1, event.shiftKey) : back()),
      ArrowRight: () => (isEntities ? move(1, event.shiftKey) : forward()),
      ArrowUp: isEntities ? back : null,
      ArrowDown: isEntities ? forward : null,
      Backspace: isEntities ? () => { mark(null); draw(); } : null,
      Enter: facts.kind === "one" || isButton ? null : submit,
      u: undo,
      s: skip,
    };
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    let act = acts[key] || null;
    const index = key.length === 1 ? KEYS.indexOf(key) : -1;
    if (act === null && index >= 0 && facts.kind !== "score") act = () => choose(index);
    if (act === null) return;
    event.preventDefault();
    act();
  }

  function onPick(event) {
    const part = event.target.closest(".word");
    if (part === null) return;
    to = Number(part.dataset.at);
    if (!event.shiftKey) from = to;
    draw();
  }

  const clicks = { back, forward, skip, undo, save: submit, last: back };
  for (const [id, act] of Object.entries(clicks)) get(id).addEventListener("click", act);
  get("first-open").addEventListener("click", () => go("after=-1"));
  get("text").addEventListener("click", onPick);
  get("scoring").addEventListener("submit", (event) => event.preventDefault());
  get("language").addEventListener("click", () => {
    words = words === WORDS.en ? WORDS.zh : WORDS.en;
    draw();
    if (shown.at >= shown.total) end();
  });
  document.addEventListener("keydown", onKey);
  once(async () => {
    facts = await ask("begin");
    show(facts);
  });
})();
