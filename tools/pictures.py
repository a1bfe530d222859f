"""Pictures of the served page in docs/images, taken by a headless Chromium.

    python tools/pictures.py FOLDER

FOLDER keeps what is served for them, so that a second call takes the pictures alone: the
quickstart's notes with a head trained in six rounds, SmolLM2 with an adapter as it begins, and a
handbook of three pages. Look at each picture before it is committed; none may exceed 100 kB.
"""

from __future__ import annotations

import argparse
import io
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from cloister.adapter.tensors import Adapter  # noqa: E402
from cloister.data.config import DataConfig  # noqa: E402
from cloister.export.adapter_folder import ReleaseFacts, export  # noqa: E402
from cloister.models.config import LoraConfig, ModelConfig  # noqa: E402
from cloister.tasks.config import TaskConfig  # noqa: E402
from cloister.training.workspace import open_workspace  # noqa: E402
from tests.support.browser import Tab, browser_tab  # noqa: E402

IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 100_000
CHAT = "HuggingFaceTB/SmolLM2-135M-Instruct"
RETRIEVER = "sentence-transformers/all-MiniLM-L6-v2"
DESKTOP, TELEPHONE = 900, 390
# The quickstart, with its head alone: a minute of training.
HEAD_ALONE = ("--set", "lora.train=none", "--set", "federation.num_rounds=6")
DONE = "document.querySelector('#answer .card') && !document.getElementById('send').disabled"
HANDBOOK = {
    "returns.txt": "A parcel can be sent back within 30 days. Print the label from your account, "
    "and bring the parcel to any post office. The money is back within five working days.",
    "opening-hours.txt": "The help desk is open from 8 to 18 on working days, and from 9 to 13 on "
    "Saturdays. It is closed on public holidays.",
    "lost-card.txt": "A lost card is blocked at once under Cards, Block. A new one comes by post "
    "within three working days, and the old number is never used again.",
}


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        name: Of its file, without ending.
        served: What is served: `notes`, `chat` or `assistant`.
        asked: What is typed.
        width: The page's; the height follows.
        is_dark: Whether the reader wishes dark colours.
        then: What is done with the answer, in the page's JavaScript.
        until: What is true afterwards.
    """

    name: str
    served: str
    asked: str
    width: int = DESKTOP
    is_dark: bool = False
    then: str = ""
    until: str = "true"


# The answer was wrong: the form for what is right.
WRONG = "document.querySelector('input[value=no]').click()"
FORM = "document.querySelector('#correction select')"
PICTURES = (
    Picture(
        "serve-labels",
        "notes",
        "A rash, and chest pain that spreads to the left arm at night.",
        then="document.querySelector('.why').click()",
        until="document.getElementById('reasons')",
    ),
    Picture(
        "serve-feedback", "notes", "An itchy rash on both arms since May.", then=WRONG, until=FORM
    ),
    Picture(
        "serve-feedback-telephone",
        "notes",
        "An itchy rash on both arms since May.",
        TELEPHONE,
        is_dark=True,
        then=WRONG,
        until=FORM,
    ),
    Picture("serve-chat", "chat", "Say in one sentence what a parcel label is."),
    Picture("serve-assistant", "assistant", "How do I send a parcel back?"),
    Picture(
        "serve-assistant-telephone",
        "assistant",
        "I lost my card. What happens now?",
        TELEPHONE,
        is_dark=True,
    ),
)


def main() -> None:
    """Makes what is missing, and takes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="keeps what is served")
    parser.add_argument("--only", nargs="*", default=[], help="names of pictures")
    parser.add_argument("--chat", default=CHAT, help="the chat's base, or its folder here")
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [one for one in PICTURES if not asked.only or one.name in asked.only]
    for served in dict.fromkeys(one.served for one in wanted):
        options = prepared(folder, served, asked.chat)
        with (
            service(*options, "--feedback", str(folder / f"{served}.db")) as address,
            browser_tab(folder / "browser") as tab,
        ):
            for one in wanted:
                if one.served == served:
                    take(tab, address, one)


def prepared(folder: Path, served: str, base: str) -> list[str]:
    """What is served, made if it is not there yet, as arguments of `cloister serve`."""
    if served == "notes":
        notes = folder / "notes"
        if not notes.exists():
            cloister("simulate", *HEAD_ALONE, "--no-twin", "--out", str(notes))
        return [str(notes)]
    chat = folder / "chat"
    if not chat.exists():
        untrained_chat(chat, base)
    if served == "chat":
        return [str(chat)]
    index = folder / "handbook.index"
    if not index.exists():
        handbook = folder / "handbook"
        handbook.mkdir(exist_ok=True)
        for name, text in HANDBOOK.items():
            (handbook / name).write_text(text)
        cloister("index", "build", str(handbook), "--model", RETRIEVER, "--out", str(index))
    return [str(chat), "--documents", str(index)]


def untrained_chat(folder: Path, base: str) -> None:
    """SmolLM2 with an adapter as it begins, which changes nothing."""
    lora = LoraConfig(target_modules=("q_proj", "v_proj"), top_layers=1)
    task = TaskConfig(kind="causal-lm", max_length=512)
    workspace = open_workspace(ModelConfig(base=base), lora, task, (), 0)
    about = ModelConfig(base=base, sha256=workspace.base_sha256)
    facts = ReleaseFacts(about, lora, task, DataConfig(), 0)
    export(folder, workspace, Adapter(workspace.start), facts)


def cloister(*words: str) -> None:
    """Runs a command, as it would be typed."""
    command = [sys.executable, "-m", "cloister", *words]
    subprocess.run(command, check=True, cwd=ROOT)


@contextmanager
def service(*options: str) -> Iterator[str]:
    """A service on a free port, and its address."""
    command = [sys.executable, "-m", "cloister", "serve", *options, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    try:
        said = iter(process.stderr)
        address = next((line for line in said if line.startswith("http")), None)
        if address is None:
            sys.exit(f"{' '.join(command)}: does not serve")
        yield address.split(" (")[0]
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()


def take(tab: Tab, address: str, one: Picture) -> None:
    """Asks, waits for the answer, and writes the picture of the whole page."""
    tab.look(one.width, 700, dark=one.is_dark)
    tab.open(address)
    tab.wait("document.activeElement.id === 'text' && about")
    tab.press(*one.asked)
    tab.value("document.getElementById('send').focus()")
    tab.press("Enter")
    while not tab.value(f"Boolean({DONE})"):  # a reply may take longer than a test waits
        time.sleep(0.5)
    if one.then:
        tab.wait("!document.getElementById('feedback').hidden && feedback.about")
        tab.value(one.then)
        tab.wait(one.until)
    tab.value("document.activeElement.blur()")
    height = int(tab.value("document.documentElement.scrollHeight"))
    tab.look(one.width, height, dark=one.is_dark)
    file = IMAGES / f"{one.name}.png"
    tab.picture(file)
    shrink(file)
    sys.stdout.write(f"{file}: {file.stat().st_size} bytes\n")


def shrink(file: Path) -> None:
    """Rewrites a picture with 255 colours, of which a page of text has fewer.

    Raises:
        SystemExit: It is larger than `MOST_BYTES` all the same.
    """
    packed = io.BytesIO()
    with Image.open(file) as image:
        image.convert("RGB").quantize(255).save(packed, "PNG", optimize=True)
    if packed.tell() > MOST_BYTES:
        sys.exit(f"{file}: {packed.tell()} bytes; at most {MOST_BYTES} are kept")
    file.write_bytes(packed.getvalue())


if __name__ == "__main__":
    main()
