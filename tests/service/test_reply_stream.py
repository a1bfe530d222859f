"""A streamed reply is the reply, in pieces."""

import pytest

from cloister.data.records import ChatRecord, Message
from cloister.models.limits import limits_of
from cloister.service.reply_stream import (
    LEAST_TEMPERATURE,
    REPLY_TOKENS,
    AskedReply,
    Decoding,
    Reply,
    TooLongError,
    can_join,
    decode,
    prompt_of,
    room_for,
)
from cloister.service.reply_stream import _held_back as held_back
from cloister.service.versions import Version
from cloister.tasks.chat import CausalChat
from cloister.training.generation import replies_to

CHAT = ChatRecord((Message("user", "the patient has chest pain"), Message("assistant", "…")))


def pieces(version: Version, how: Decoding, most_pieces: int = 10**6) -> tuple[list[str], str, str]:
    found: list[str] = []
    prompt = prompt_of(version.model, CHAT)
    asked = AskedReply(prompt, how, found.append, lambda: len(found) >= most_pieces)
    (reply,) = decode(version.model, [asked])
    assert reply.prompt_tokens == len(prompt)
    assert reply.reply_tokens <= (how.most_tokens or REPLY_TOKENS)
    return found, reply.text, reply.reason


def test_the_pieces_are_the_reply_that_is_scored(chat: Version) -> None:
    found, text, _ = pieces(chat, Decoding(12))
    workspace = chat.model.workspace
    assert isinstance(workspace.task, CausalChat)
    prompt = prompt_of(chat.model, CHAT)
    known = replies_to(workspace.network, workspace.task, workspace.tokenizer, [prompt], 12)
    assert "".join(found) == text == known[0]
    assert len(found) > 3


def test_a_reply_ends_before_a_stop_and_no_piece_shows_a_part_of_it(chat: Version) -> None:
    _, whole, _ = pieces(chat, Decoding(12))
    words = whole.split(" ")
    stop = f" {words[1]} {words[2]}"
    found, text, reason = pieces(chat, Decoding(12, stops=(stop,)))
    assert text == "".join(found) == whole[: whole.index(stop)]
    assert reason == "stop"


def test_a_reply_that_is_cut_says_so(chat: Version) -> None:
    assert pieces(chat, Decoding(3))[2] == "length"


def test_decoding_ends_where_nobody_waits(chat: Version) -> None:
    found, text, _ = pieces(chat, Decoding(12), most_pieces=2)
    assert len(found) == 2
    assert len(text) < len(pieces(chat, Decoding(12))[1])


def test_a_seed_draws_the_same_reply_and_others_differ(chat: Version) -> None:
    drawn = [pieces(chat, Decoding(12, 1.5, seed=seed))[1] for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


@pytest.mark.parametrize("temperature", [5e-324, 1e-39, LEAST_TEMPERATURE])
def test_a_temperature_of_almost_nothing_draws_the_likeliest(
    chat: Version, temperature: float
) -> None:
    assert pieces(chat, Decoding(12, temperature, seed=1)) == pieces(chat, Decoding(12))


def test_a_conversation_without_room_for_a_reply_is_refused(chat: Version) -> None:
    with pytest.raises(TooLongError, match="shorten the conversation"):
        pieces(chat, Decoding(10**6))


def test_a_reply_of_no_stated_length_fits_what_the_base_reads(chat: Version) -> None:
    positions = limits_of(chat.model.workspace.network.base).positions
    prompt = prompt_of(chat.model, CHAT)
    assert positions is not None
    assert room_for(chat.model, prompt, Decoding()) == min(REPLY_TOKENS, positions - len(prompt))
    with pytest.raises(TooLongError, match="shorten the conversation"):
        room_for(chat.model, prompt * 99, Decoding())


def test_what_may_be_a_stop_or_half_a_character_waits() -> None:
    assert held_back("so END", ("ENDE",)) == 3
    assert held_back("so EN", ("END", "N!")) == 2
    assert held_back("so", ("END",)) == 0
    assert held_back("so\ufffd\ufffd", ()) == 2


SAID = ["fever", "the patient has chest pain at rest", "severe rash", "mild cough since monday"]


def alone(version: Version, text: str, how: Decoding) -> tuple[Reply, list[str]]:
    found: list[str] = []
    prompt = prompt_of(version.model, ChatRecord((Message("user", text), Message("assistant", ""))))
    (reply,) = decode(version.model, [AskedReply(prompt, how, found.append, lambda: False)])
    return reply, found


def test_replies_together_are_those_alone_each_with_its_own_end(chat: Version) -> None:
    """Other prompts, lengths and stop texts beside a reply change nothing of it."""
    whole, _ = alone(chat, SAID[1], Decoding(12))
    stop = whole.text.split(" ")[2]
    hows = [Decoding(3), Decoding(12, stops=(stop,)), Decoding(9), Decoding(1)]
    expected = [alone(chat, text, how) for text, how in zip(SAID, hows, strict=True)]
    found: list[list[str]] = [[] for _ in SAID]
    asked = [
        AskedReply(
            prompt_of(chat.model, ChatRecord((Message("user", text), Message("assistant", "")))),
            how,
            pieces.append,
            lambda: False,
        )
        for text, how, pieces in zip(SAID, hows, found, strict=True)
    ]
    assert len({len(one.prompt) for one in asked}) > 1
    replies = decode(chat.model, asked)
    assert list(zip(replies, found, strict=True)) == expected
    assert [reply.reply_tokens for reply in replies][::3] == [3, 1]
    assert replies[1].reason == "stop"


def test_a_caller_who_leaves_ends_its_own_reply_alone(chat: Version) -> None:
    left, stays = list[str](), list[str]()
    prompt = prompt_of(chat.model, CHAT)
    gone, reply = decode(
        chat.model,
        [
            AskedReply(prompt, Decoding(12), left.append, lambda: len(left) >= 2),
            AskedReply(prompt, Decoding(12), stays.append, lambda: False),
        ],
    )
    assert gone.reply_tokens < reply.reply_tokens
    assert "".join(stays) == reply.text == alone_text(chat)
    assert reply.text.startswith("".join(left))


def alone_text(version: Version) -> str:
    return pieces(version, Decoding(12))[1]


def test_sampled_replies_are_decoded_alone(chat: Version) -> None:
    assert can_join(chat.model, Decoding())
    assert can_join(chat.model, Decoding(temperature=LEAST_TEMPERATURE / 2))
    assert not can_join(chat.model, Decoding(temperature=0.7, seed=1))
