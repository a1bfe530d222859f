"use strict";

// Says of an answer whether it was right. page.js offers each answer here, with its receipt.
const FEEDBACK_TEXTS = {
  en: {
    right: "Was this right?", yes: "Yes", no: "No", label: "Right is", labels: "Right are",
    score: "The right score", reply: "A better reply", item: "What the person took next",
    entities: "The right entities", none: "no entity", from: "From word", to: "to word",
    type: "Type", add: "Add", person: "Whose text is it? The person's id",
    record: "Or the record's id (cloister_unit), if it is a record's text",
    consent: "The person whom the text is about agrees that text, answer and correction are stored at this " +
      "institution, and may train its next model under its privacy budget.",
    documents: "This answer was given from documents: what you say is read here, and never trained on.",
    send: "Send", whose: "Give the person's id or the record's.",
    thanks: "Thank you. It is stored at this institution, and a person reviews it before it is used.",
  },
  zh: {
    right: "回答正确吗?", yes: "正确", no: "不正确", label: "正确答案", labels: "正确的标签",
    score: "正确的评分", reply: "更好的回复", item: "此人接下来选择了什么",
    entities: "正确的实体", none: "不是实体", from: "从第几个词", to: "到第几个词",
    type: "类型", add: "添加", person: "文本属于谁?请填此人的编号",
    record: "如果是某条记录的文本,也可填记录编号(cloister_unit)",
    consent: "文本所涉及的人同意:文本、回答和更正保存在本机构,并可在隐私预算内用于训练下一个模型。",
    documents: "此回答取自文档:您的意见会在本机构阅读,但绝不用于训练。",
    send: "提交", whose: "请填写此人的编号或记录编号。",
    thanks: "谢谢。内容保存在本机构,使用前会由专人审核。",
  },
};
// Choices beyond this are typed, with suggestions, and not listed.
const MOST_LISTED = 50;

const feedback = { said: FEEDBACK_TEXTS.en, about: null, given: null, read: null };

// Offers the control for an answer, or takes it away: offer(null).
feedback.offer = async (given) => {
  feedback.given = given && given.receipt ? given : null;
  at("feedback").hidden = !feedback.given;
  if (!feedback.given) return;
  if (!feedback.about) {
    feedback.about = await (await fetch("/v1/feedback", { headers: headers() })).json();
  }
  for (const choice of document.getElementsByName("right")) choice.checked = false;
  at("consent").checked = false;
  at("feedback-form").hidden = false;
  at("feedback-said").replaceChildren();
  feedback.chosen();
};

feedback.translate = (language) => {
  feedback.said = FEEDBACK_TEXTS[language];
  for (const node of document.querySelectorAll("[data-said]")) {
    node.textContent = feedback.said[node.dataset.said];
  }
  if (feedback.given) feedback.chosen();
};

feedback.chosen = () => {
  const right = document.querySelector("input[name=right]:checked");
  at("feedback-more").hidden = !right;
  at("feedback-documents").hidden = !feedback.given.documents;
  const control = at("correction");
  control.replaceChildren();
  feedback.read = null;
  if (right && right.value === "no") {
    feedback.read = CONTROLS[feedback.about.kind](control, feedback.given, feedback.about);
  }
};

feedback.send = async (event) => {
  event.preventDefault();
  const person = at("person").value.trim();
  const unit = at("unit").value.trim();
  if (!person && !unit) {
    feedback.tell(feedback.said.whose, true);
    at("person").focus();
    return;
  }
  const { input, answer, receipt } = feedback.given;
  const body = { input, answer, receipt, is_right: !feedback.read, consent: at("consent").checked };
  if (person) body.person = person;
  if (unit) body.unit = unit;
  if (feedback.read) body.correction = feedback.read();
  try {
    await post("/v1/feedback", body);
    at("feedback-form").hidden = true;
    feedback.tell(feedback.said.thanks, false);
    at("feedback-said").focus();
  } catch (error) {
    feedback.tell(error.isSaid ? error.message : words.gone, true);
  }
};

feedback.tell = (text, isTrouble) => {
  const node = made("p", text);
  node.setAttribute("role", isTrouble ? "alert" : "status");
  at("feedback-said").replaceChildren(node);
};

// A label around a control, for people who see it and for those who hear it.
function labelled(text, control) {
  const row = made("label", "", "field");
  row.append(made("span", text), control);
  return row;
}

function options(values, chosen) {
  const select = made("select");
  for (const [value, text] of values) {
    const option = made("option", text);
    option.value = value;
    option.selected = value === chosen;
    select.append(option);
  }
  return select;
}

function choice(control, text, labels, chosen) {
  if (labels.length <= MOST_LISTED) {
    const select = options(labels.map((label) => [label, label]), chosen);
    control.append(labelled(text, select));
    return select;
  }
  const typed = made("input");
  typed.required = true;
  typed.setAttribute("list", "choices");
  const list = made("datalist");
  list.id = "choices";
  for (const label of labels) list.append(Object.assign(made("option"), { value: label }));
  control.append(labelled(text, typed), list);
  return typed;
}

function correctLabel(control, { answer }, { labels }) {
  const said = answer.label || answer.passages[0].id;
  // What was said is wrong: it begins with another.
  const select = choice(control, feedback.said.label, labels, labels.find((one) => one !== said));
  return () => ({ label: select.value });
}

function correctLabels(control, { answer }, { labels }) {
  const set = made("fieldset");
  set.append(made("legend", feedback.said.labels));
  const boxes = labels.map((label) => {
    const box = Object.assign(made("input"), { type: "checkbox", value: label });
    box.checked = answer.labels.includes(label);
    const row = made("label", "", "choice");
    row.append(box, made("span", label));
    set.append(row);
    return box;
  });
  control.append(set);
  return () => ({ labels: boxes.filter((box) => box.checked).map((box) => box.value) });
}

function correctScore(control, { answer }, { score_range: [low, high], score_step: step }) {
  const typed = made("input");
  Object.assign(typed, { type: "number", min: low, max: high, step: step || "any", required: true });
  typed.value = answer.grade === null ? answer.score.toFixed(2) : answer.grade;
  control.append(labelled(feedback.said.score, typed));
  return () => ({ score: Number(typed.value) });
}

function correctReply(control, { answer }) {
  const typed = made("textarea", answer.reply);
  typed.required = true;
  typed.rows = 4;
  control.append(labelled(feedback.said.reply, typed));
  return () => ({ reply: typed.value });
}

function correctItem(control, given, { labels }) {
  const own = given.input.split(/\s+/);
  const others = labels.filter((label) => !own.includes(label));
  const select = choice(control, feedback.said.item, others, others[0]);
  return () => ({ item: select.value });
}

// Entities one a line, each with its type or none; and a line that adds one.
function correctEntities(control, { input, answer }, { labels }) {
  const words_ = input.match(/\S+/g);
  const set = made("fieldset");
  set.append(made("legend", feedback.said.entities));
  const rows = [];
  const kinds = labels.map((label) => [label, label]);
  const line = (first, end, type) => {
    const select = options([...kinds, ["", feedback.said.none]], type);
    rows.push({ first, end, select });
    set.insertBefore(labelled(words_.slice(first, end).join(" "), select), adding);
  };
  const numbered = words_.map((word, place) => [String(place), `${place + 1} ${word}`]);
  const from = options(numbered, "0");
  const to = options(numbered, "0");
  const type = options(kinds, labels[0]);
  const add = made("button", feedback.said.add, "plain");
  add.type = "button";
  const adding = made("div", "", "adding");
  adding.append(labelled(feedback.said.from, from), labelled(feedback.said.to, to),
    labelled(feedback.said.type, type), add);
  set.append(adding);
  add.addEventListener("click", () => {
    const [first, last] = [Number(from.value), Number(to.value)].sort((a, b) => a - b);
    line(first, last + 1, type.value);
  });
  for (const one of answer.entities) line(one.words[0], one.words[1], one.type);
  control.append(set);
  return () => ({
    entities: rows.filter(({ select }) => select.value)
      .map(({ first, end, select }) => ({ type: select.value, words: [first, end] })),
  });
}

const CONTROLS = {
  text: correctLabel, pairs: correctLabel, labels: correctLabels, score: correctScore,
  messages: correctReply, items: correctItem, tokens: correctEntities,
};

function listenForFeedback() {
  at("feedback-form").addEventListener("submit", feedback.send);
  for (const choice_ of document.getElementsByName("right")) {
    choice_.addEventListener("change", feedback.chosen);
  }
}
