"""Text of the script on an adapter's card, in parts that `export.snippets` assembles."""

from __future__ import annotations

OPENING = """\
{json}import torch
from peft import PeftModel
{head}from transformers import {classes}

base = {base}
{before}tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
tokenizer.truncation_side = "right"
model = {network}.from_pretrained(
    base, dtype=torch.{dtype}, trust_remote_code=False{part}{quantized}
)
{layers}model = PeftModel.from_pretrained(model, "adapter").eval()
"""

# For a study that used only the first layers of its base.
LAYERS = """\
model.{blocks} = model.{blocks}[:{layers}]  # the study's base ends after so many layers
model.config.num_hidden_layers = {layers}
"""

# For a base that was unpacked from a GGUF file.
UNPACKED = """\
# Unpacked once from the GGUF file with this SHA-256, as the study read it.
base = str(find_base(base))
check_base(Path(base), "{sha256}")
"""

# For a base whose folder holds several networks, of which the study used the text network.
PART_CONFIG = """\
config = AutoConfig.from_pretrained(base, trust_remote_code=False).get_text_config()
config.tie_word_embeddings = {tied}
"""
PART = """,
    config=config, key_mapping={names}"""

QUANTIZED = {
    "none": "",
    "8bit": ",\n    quantization_config=BitsAndBytesConfig(load_in_8bit=True),",
    "4bit": """,
    quantization_config=BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    ),""",
}

ROWS = """\
texts = ["…"]
rows = [
    tokenizer(text[:{characters}], truncation=True, max_length={length}{special})["input_ids"]
    or [{pad}]
    for text in texts
]
"""
# For a prompt before and behind each text; the prompt is never cut.
PROMPTED_ROWS = """\
texts, rows = ["…"], []
before, behind = {before}, {behind}
for text in texts:
    text = text[:{characters}]
    encoded = tokenizer(before + text + behind, return_offsets_mapping=True)
    ids, places, end = encoded["input_ids"], encoded["offset_mapping"], len(before + text)
    tail = 0  # the prompt's last tokens
    while tail < len(ids) and not places[-1 - tail][0] < places[-1 - tail][1] <= end:
        tail += 1
    if len(ids) > {length}:
        ids = ids[: max({length} - tail, 0)] + ids[len(ids) - min(tail, {length}) :]
    rows.append(ids or [{pad}])
"""
# For two texts that are read together; of a long pair the longer text is cut first.
PAIRS = """\
pairs, rows, segments = [("…", "…")], [], []
for first, second in pairs:
    first, second = first[:{characters}], second[:{characters}]
    encoded = tokenizer(first, {second}, truncation="longest_first", max_length={length})
    rows.append(encoded["input_ids"] or [{pad}])
    segments.append(encoded.get("token_type_ids") or [0] * len(rows[-1]))
"""
# For two texts of which each is read by itself, one after the other.
APART = """\
pairs = [("…", "…")]
texts = [text for pair in pairs for text in pair]
"""
# What the head reads of their vectors.
VECTORS = """
    first, second = features.float()[0::2], features.float()[1::2]
    features = torch.cat([first, second, (first - second).abs()], dim=1)"""
COSINE = """
    first, second = features.float()[0::2], features.float()[1::2]
    features = torch.nn.functional.cosine_similarity(first, second, dim=1).unsqueeze(1)"""
# For a base that reads token types: 0 for the first text, 1 for the second.
SEGMENTS = """\
padded = [row + [0] * (longest - len(row)) for row in segments]
batch["token_type_ids"] = torch.tensor(padded).to(model.device)
"""
# Pads rows to a batch on the right, with the study's padding id, as training did.
PADDED = """\
longest = max(len(row) for row in rows)
batch = {{
    "input_ids": torch.tensor([row + [{pad}] * (longest - len(row)) for row in rows]),
    "attention_mask": torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows]),
}}
batch = {{name: tensor.to(model.device) for name, tensor in batch.items()}}
"""
BATCH = ROWS + PADDED
PROMPTED = PROMPTED_ROWS + PADDED

SEQUENCES = """\
head = load_file("adapter/head.safetensors")
task = json.load(open("adapter/cloister.json", encoding="utf-8"))["task"]

{batch}with torch.no_grad():
    output = model(**batch)
{leading}{features}
    {logits}
{predicted}
"""
LINEAR = 'logits = features.float().cpu() @ head["weight"].T + head["bias"]'
# For retrieval: cosines with the passages.
COMPARED = """\
query = torch.nn.functional.normalize(features.float().cpu() @ head["map"].T, dim=1)
    logits = query @ head["passages"].T"""
# For recommendation: each person is read as the texts of their last items.
PEOPLE = """\
items = [json.loads(line) for line in open("adapter/items.jsonl", encoding="utf-8")]
vectors = load_file("adapter/items.safetensors")["vectors"]
places = {{one["item"]: place for place, one in enumerate(items)}}
people = [["…", "…"]]  # ids of what each person has, oldest first
had = [list(dict.fromkeys(places[item] for item in person[-{most}:])) for person in people]
texts = ["{between}".join(items[n]["text"] for n in reversed(some[-{last}:])) for some in had]
"""
# The prediction from logits [B, C], by task.
PREDICTED = {
    "multi-label-classification": """\
predicted = [
    [label for label, share in zip(task["labels"], row) if share > 0.5]
    for row in logits.sigmoid().tolist()
]""",
    "retrieval": """\
names = sorted(task["passages"])
predicted = [[names[place] for place in row] for row in logits.topk(min(5, len(names))).indices]""",
    "scoring": """\
low, high = task["score_range"]
predicted = (low + (high - low) * logits[:, 0].double().sigmoid()).tolist()""",
    "recommendation": """\
scores, predicted = logits @ vectors.T, []
for row, some in zip(scores, had):
    row[some] = -torch.inf
    best = row.topk(min(10, len(items) - len(some)))
    ids = [items[place]["item"] for place in best.indices.tolist()]
    predicted.append(list(zip(ids, best.values.tolist())))""",
}
ONE_LABEL = 'predicted = [task["labels"][index] for index in logits.argmax(1).tolist()]'

# For prompt tuning: drops the states of the prompt's vectors, which come before the text's own.
LEADING = "    output.last_hidden_state = output.last_hidden_state[:, {leading}:]\n"

FEATURES = {
    "mean": """\
    mask = batch["attention_mask"].unsqueeze(-1).to(output.last_hidden_state.dtype)
    features = (output.last_hidden_state * mask).sum(1) / mask.sum(1)""",
    "cls": "    features = output.last_hidden_state[:, 0]",
    "pooler": "    features = output.pooler_output",
    "last": """\
    last = batch["attention_mask"].sum(1) - 1
    features = output.last_hidden_state[range(len(last)), last]""",
}
NORMALIZED = """
    features = torch.nn.functional.normalize(features, dim=1) * features.shape[1] ** 0.5"""

TOKENS = """\
head = load_file("adapter/head.safetensors")
types = json.load(open("adapter/cloister.json", encoding="utf-8"))["task"]["labels"]
labels = ["O", *(f"{{place}}-{{kind}}" for kind in types for place in "BI")]

words = ["…"]
text = " ".join(words)[:{characters}].rstrip(" ")
encoded = tokenizer(text, truncation=True, max_length={length}, return_offsets_mapping=True)
ids = torch.tensor([encoded["input_ids"] or [{pad}]]).to(model.device)
with torch.no_grad():
    output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
{leading}    logits = output.last_hidden_state.float().cpu() @ head["weight"].T + head["bias"]
# A word's tag is that of its first token; a word that was cut has none.
best, places = logits[0].argmax(1).tolist(), encoded["offset_mapping"]
tags, start, following = [], 0, 0
for word in words:
    end = start + len(word)
    mine = [n for n, (a, b) in enumerate(places) if max(a, start) < min(b, end) and n >= following]
    tags.append(labels[best[mine[0]]] if mine else "O")
    following = mine[0] + 1 if mine else following
    start = end + 1
"""

CAUSAL = """\

# Logits of whole texts, as the template writes them.
{batch}with torch.no_grad():
    logits = model(**batch).logits{leading}

# A reply: to the study's template, on the date that it was trained with, up to the end of the turn.
from datetime import date

messages = [{{"role": "user", "content": "…"}}]
text = tokenizer.apply_chat_template(
    messages, chat_template=open("adapter/chat_template.jinja", encoding="utf-8").read(),
    add_generation_prompt=True, tokenize=False, strftime_now=date(2024, 7, 26).strftime,
)
prompt = tokenizer(text, add_special_tokens={frame})["input_ids"][-{prompt}:] or [{pad}]
ids = torch.tensor([prompt]).to(model.device)
with torch.no_grad():
    output = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens={new}, do_sample=False,
        pad_token_id={pad}, eos_token_id={ends},
    )
reply = tokenizer.decode(output[0, ids.shape[1]:], skip_special_tokens=True){cut}
"""
