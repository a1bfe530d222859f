"use strict";

const at = (id) => document.getElementById(id);
let given = null;

function option(value, text) {
  const node = document.createElement("option");
  node.value = value;
  node.textContent = text;
  return node;
}

async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  });
  const found = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(found.error.message), { isSaid: true });
  return found;
}

function trouble(error) {
  at("trouble").textContent = error.isSaid ? error.message : "The tutor does not answer. See whether it runs.";
  at("trouble").hidden = false;
}

function show(told) {
  at("points").textContent = `${told.grade} of ${told.full} points (${told.score.toFixed(1)})`;
  at("dots").replaceChildren(...Array.from({ length: told.full }, (_, place) => {
    const dot = document.createElement("span");
    if (place < told.grade) dot.className = "had";
    return dot;
  }));
  at("hint-title").hidden = !told.material;
  at("hint").textContent = told.hint;
  at("material").hidden = !told.material;
  if (told.material) {
    at("title").textContent = told.material.title;
    at("text").textContent = told.material.text;
  }
  at("advice").hidden = false;
  given = told.given;
  const points = Array.from({ length: told.full + 1 }, (_, place) => option(place, String(place)));
  at("right").replaceChildren(...points);
  at("right").value = told.grade;
  at("kept").textContent = "";
  at("consent").checked = false;
  at("teacher").hidden = false;
}

async function ask(event) {
  event.preventDefault();
  if (at("send").disabled) return;
  at("send").disabled = true;
  at("trouble").hidden = true;
  try {
    show(await post("/advice", { question: at("question").value, answer: at("answer").value }));
  } catch (error) {
    at("advice").hidden = true;
    at("teacher").hidden = true;
    trouble(error);
  } finally {
    at("send").disabled = false;
  }
}

async function correct(event) {
  event.preventDefault();
  const { input, answer, receipt } = given;
  const right = Number(at("right").value);
  const body = { input, answer, receipt, person: at("person").value.trim(), consent: at("consent").checked };
  body.is_right = right === answer.grade;
  if (!body.is_right) body.correction = { score: right };
  try {
    await post("/feedback", body);
    at("kept").textContent = "Thank you. It is kept at this school, and somebody reviews it before it is used.";
  } catch (error) {
    at("kept").textContent = error.isSaid ? error.message : "It was not kept: the tutor does not answer.";
  }
}

async function begin() {
  const course = await (await fetch("/questions")).json();
  at("question").replaceChildren(...course.map((one) => option(one.key, one.text)));
  at("answer").focus();
}

at("ask").addEventListener("submit", ask);
at("answer").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
});
at("correct").addEventListener("submit", correct);
begin().catch(trouble);
