"use strict";

const TEXTS = {
  en: {
    items: "Ids of what a person has, oldest first, with blanks between them",
    language: "Language", title: "Try the model", token: "Token", text: "Text",
    first: "First text", second: "Second text", nothing: "No label applies.", grade: "grade",
    message: "Message", send: "Ask", fresh: "New conversation", hint: "Ctrl + Enter asks",
    calibration: "Probabilities are the network's own and were not calibrated. ",
    doubt: "A reply can be wrong: check what matters. ",
    nothing_kept: "What you type goes to this service only, and it keeps nothing.",
    feedback_kept: "What you type goes to this service only. It keeps what you send as feedback, " +
      "and nothing else.",
    because: "because of",
    none: "No entity was found.", cut: "The text is longer than what the model reads; its end was cut.",
    you: "You", model: "Model", passages: "From the documents", waiting: "…", denied: "A token is needed, or this one is not known.",
    busy: "Too many requests at this moment. Ask again in a few seconds.",
    gone: "The service does not answer. See whether it runs.",
    tasks: { "sequence-classification": "labels for texts", "token-classification": "entities in texts",
             "causal-lm": "a chat", "text-pairs": "labels for pairs of texts",
             "multi-label-classification": "several labels for texts", scoring: "scores of texts",
             recommendation: "what a person may take next", retrieval: "passages that answer" },
  },
  zh: {
    items: "某人已有物品的编号,从旧到新,以空格分隔",
    language: "语言", title: "试用模型", token: "令牌", text: "文本",
    first: "第一段文本", second: "第二段文本", nothing: "没有适用的标签。", grade: "等级",
    message: "消息", send: "提问", fresh: "新对话", hint: "按 Ctrl + Enter 提问",
    calibration: "概率直接来自网络,未经校准。", doubt: "回复可能有误,重要内容请核实。",
    nothing_kept: "您输入的内容只发送给本服务,服务不会保存。",
    feedback_kept: "您输入的内容只发送给本服务,服务只保存您提交的反馈。",
    because: "因为",
    none: "没有找到实体。", cut: "文本超过模型能读取的长度,末尾已被截断。",
    you: "您", model: "模型", passages: "来自文档", waiting: "……", denied: "需要令牌,或该令牌无效。",
    busy: "目前请求过多,请几秒后再试。",
    gone: "服务没有响应,请检查它是否在运行。",
    tasks: { "sequence-classification": "文本分类", "token-classification": "实体识别", "causal-lm": "对话",
             "text-pairs": "文本对分类", "multi-label-classification": "多标签分类", scoring: "评分",
             recommendation: "推荐", retrieval: "段落检索" },
  },
};
// Labels that are shown; a study may have thousands.
const MOST_SHOWN = 8;

const at = (id) => document.getElementById(id);
let words = TEXTS.en;
let about = null;
let turns = [];
let last = null;

function made(tag, text = "", kind = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  if (kind) node.className = kind;
  return node;
}

function translate(language) {
  words = TEXTS[language];
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll("[data-text]")) {
    node.textContent = words[node.dataset.text];
  }
  describe();
  reasons.translate(language);
  if (last) last();
  feedback.translate(language);
}

function describe() {
  if (!about) return;
  const chats = about.task === "causal-lm";
  const pairs = about.task === "text-pairs";
  const items = about.task === "recommendation";
  at("prompt").textContent = chats ? words.message : pairs ? words.first
    : items ? words.items : words.text;
  at("second-row").hidden = !pairs;
  at("second").required = pairs;
  at("fresh").hidden = !chats;
  at("note").textContent = (chats ? words.doubt : words.calibration) +
    (about.feedback ? words.feedback_kept : words.nothing_kept);
  const task = words.tasks[about.task] || about.task;
  at("about").textContent = `${about.model} · ${task} · ${about.version}`;
}

function show(...nodes) {
  const card = made("div", "", "card");
  card.append(...nodes);
  at("answer").replaceChildren(card);
}

function trouble(text) {
  show(made("p", text));
  at("answer").firstChild.classList.add("trouble");
  at("answer").firstChild.setAttribute("role", "alert");
}

function classified(found) {
  // One label, or all that apply.
  const chosen = found.labels || [found.label];
  const nodes = [made("p", chosen.join(" · ") || words.nothing, "label")];
  const ranked = Object.entries(found.probabilities).sort((a, b) => b[1] - a[1]);
  ranked.slice(0, MOST_SHOWN).forEach(([label, share]) => {
    const row = made("div", "", chosen.includes(label) ? "share first" : "share");
    const meter = made("meter");
    meter.value = share;
    meter.setAttribute("aria-label", label);
    row.append(made("b", label), meter, made("span", `${(100 * share).toFixed(1)} %`));
    nodes.push(row);
  });
  return nodes;
}

// Passages, nearest first: what a query found, or what a reply cites.
function passages(found) {
  const list = made("ol", "", "passages");
  for (const one of found) {
    const item = made("li", "", one.cited === false ? "uncited" : "");
    const name = one.title || one.id || one.source;
    item.append(made("b", name), made("span", one.similarity.toFixed(3)), made("p", one.text));
    list.append(item);
  }
  return list;
}

function scored(found) {
  const grade = found.grade === null ? "" : ` (${words.grade} ${found.grade})`;
  return [made("p", `${found.score.toFixed(2)}${grade}`, "label")];
}

function ranked(found) {
  const list = made("ol");
  for (const one of found.items) {
    const row = made("li", `${one.item} (${one.score.toFixed(2)})`);
    if (one.because) row.append(made("small", `${words.because} ${one.because.item}`, "because"));
    list.append(row);
  }
  return [list];
}

function tagged(found, text) {
  if (!found.entities.length) return [made("p", words.none)];
  const sentence = made("p", "", "sentence");
  // The service counts code points, JavaScript halves of them.
  const points = Array.from(text);
  let end = 0;
  for (const entity of found.entities) {
    const [first, after] = entity.characters;
    sentence.append(points.slice(end, first).join(""));
    const mark = made("mark", points.slice(first, after).join(""));
    mark.append(made("small", `${entity.type} ${(100 * entity.probability).toFixed(0)} %`));
    sentence.append(mark);
    end = after;
  }
  sentence.append(points.slice(end).join(""));
  return [sentence];
}

function talked() {
  show(...turns.map((turn) => {
    const own = turn.role === "user";
    const node = made("div", "", own ? "turn own" : "turn model");
    node.append(made("b", own ? words.you : words.model), turn.content || words.waiting);
    if (turn.passages && turn.passages.length) {
      node.append(made("b", words.passages), passages(turn.passages));
    }
    return node;
  }));
}

function headers() {
  const token = at("token").value.trim();
  const named = { "content-type": "application/json" };
  if (token) named.authorization = `Bearer ${token}`;
  return named;
}

async function post(path, body) {
  const answer = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body) });
  if (answer.ok) return answer;
  if (answer.status === 401) at("token-row").hidden = false;
  const known = { 401: words.denied, 429: words.busy }[answer.status];
  const said = known || (await answer.json()).error.message;
  throw Object.assign(new Error(said), { isSaid: true });
}

async function predict(text) {
  const input = about.task === "text-pairs" ? [text, at("second").value] : text;
  const body = { inputs: [input] };
  if (about.task === "recommendation") body.reasons = true;
  const document_ = await (await post("/v1/predict", body)).json();
  const found = document_.predictions[0];
  reasons.found = null;
  last = () => {
    const nodes = found.entities ? tagged(found, text)
      : found.passages ? [passages(found.passages)]
      : found.probabilities ? classified(found)
      : found.items ? ranked(found) : scored(found);
    if (found.is_cut) nodes.push(made("p", words.cut, "cut"));
    show(...nodes, ...reasons.beneath(input, last));
  };
  last();
  await feedback.offer(document_.receipts && { input, answer: found, receipt: document_.receipts[0] });
}

async function chat(text) {
  turns.push({ role: "user", content: text });
  const sent = turns.map((turn) => ({ role: turn.role, content: turn.content }));
  const reply = { role: "assistant", content: "" };
  let receipt = null;
  turns.push(reply);
  last = talked;
  talked();
  try {
    const answer = await post("/v1/chat/completions", { messages: sent, stream: true });
    await followed(answer.body, (event) => {
      const choice = event.choices[0];
      if (choice && choice.delta.content) reply.content += choice.delta.content;
      if (event.passages) reply.passages = event.passages;
      if (event.receipt) receipt = event.receipt;
      talked();
    });
    at("text").value = "";
    await feedback.offer(receipt && {
      input: sent, answer: { reply: reply.content }, receipt, documents: Boolean(about.documents),
    });
  } catch (error) {
    turns = turns.slice(0, -2);
    throw error;
  }
}

async function followed(body, take) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") continue;
      take(JSON.parse(data));
    }
  }
}

async function ask(event) {
  event.preventDefault();
  const text = at("text").value;
  if (!text.trim() || at("send").disabled) return;
  at("send").disabled = true;
  feedback.offer(null);
  at("answer").setAttribute("aria-busy", "true");
  try {
    if (!about) await learn();
    await (about.task === "causal-lm" ? chat(text) : predict(text));
  } catch (error) {
    last = null;
    trouble(error.isSaid ? error.message : words.gone);
  } finally {
    at("send").disabled = false;
    at("answer").setAttribute("aria-busy", "false");
  }
}

async function learn() {
  about = await (await fetch("/healthz")).json();
  describe();
}

at("ask").addEventListener("submit", ask);
at("ask").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
});
at("fresh").addEventListener("click", () => {
  turns = [];
  last = null;
  feedback.offer(null);
  at("answer").replaceChildren();
  at("text").focus();
});
at("language").addEventListener("change", (event) => translate(event.target.value));
listenForFeedback();
const own = navigator.language.startsWith("zh") ? "zh" : "en";
at("language").value = own;
translate(own);
learn().catch(() => trouble(words.gone));
at("text").focus();
