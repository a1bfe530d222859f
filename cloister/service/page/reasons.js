"use strict";

// Shows how far each word of a text moved its answer: asked for by a button, since it takes a pass
// for each word.
const REASONS_TEXTS = {
  en: {
    why: "Which words count?",
    legend: "Each word was left out, and the model asked again. Blue: the word speaks for the answer. " +
      "Red, dotted: against it. This shows what the model used, not whether it is right.",
    most: "Most", none: "No word moved the answer.",
  },
  zh: {
    why: "哪些词起了作用?",
    legend: "逐个去掉词语后重新提问。蓝色:支持该答案的词。红色虚线:反对该答案的词。" +
      "这只说明模型依据了什么,不说明答案是否正确。",
    most: "影响最大", none: "没有词影响答案。",
  },
};
const REASONED = ["sequence-classification", "multi-label-classification", "scoring", "text-pairs"];
// Strengths that are told apart by colour, and words that are named below.
const STEPS = 3;
const MOST_NAMED = 3;

const reasons = { said: REASONS_TEXTS.en, found: null };

reasons.translate = (language) => { reasons.said = REASONS_TEXTS[language]; };

// The button beneath an answer, or what it found; nothing for a task that has no reasons.
reasons.beneath = (input, render) => {
  if (!REASONED.includes(about.task)) return [];
  if (reasons.found) return reasons.shown([].concat(input), reasons.found);
  const button = made("button", reasons.said.why, "plain why");
  button.type = "button";
  button.addEventListener("click", async () => {
    button.disabled = true;
    if (button.nextSibling) button.nextSibling.remove(); // what an earlier try said
    try {
      const answer = await (await post("/v1/predict", { inputs: [input], reasons: true })).json();
      if (last !== render) return; // something else was asked meanwhile
      reasons.found = answer.predictions[0].because;
      render();
      at("reasons").focus();
    } catch (error) {
      button.after(Object.assign(made("p", error.isSaid ? error.message : words.gone, "cut"),
        { role: "alert" }));
      button.disabled = false; // so that it can be tried again
    }
  });
  return [button];
};

reasons.shown = (texts, found) => {
  const most = Math.max(...found.map((one) => Math.abs(one.moved)), 0);
  const node = made("div");
  node.id = "reasons";
  node.tabIndex = -1;
  node.append(made("p", reasons.said.legend, "cut"));
  texts.forEach((text, place) => node.append(reasons.text(text, place, found, most)));
  const ordered = [...found].sort((a, b) => Math.abs(b.moved) - Math.abs(a.moved));
  const named = ordered.slice(0, MOST_NAMED).filter((one) => one.moved).map((one) => {
    const word = Array.from(texts[one.text]).slice(...one.characters).join("");
    return `${word} (${one.moved > 0 ? "+" : "−"}${Math.abs(one.moved).toFixed(2)})`;
  });
  const line = named.length ? `${reasons.said.most}: ${named.join(", ")}` : reasons.said.none;
  node.append(made("p", line, "cut"));
  return [node];
};

// A text whose words are marked by how far they moved the answer. The service counts code points.
reasons.text = (text, place, found, most) => {
  const points = Array.from(text);
  const sentence = made("p", "", "sentence reasons");
  let end = 0;
  for (const one of found.filter((word) => word.text === place)) {
    const [first, after] = one.characters;
    const step = most ? Math.round((STEPS * Math.abs(one.moved)) / most) : 0;
    sentence.append(points.slice(end, first).join(""));
    const word = points.slice(first, after).join("");
    sentence.append(step ? made("mark", word, `${one.moved > 0 ? "for" : "against"} step${step}`) : word);
    end = after;
  }
  sentence.append(points.slice(end).join(""));
  return sentence;
};
