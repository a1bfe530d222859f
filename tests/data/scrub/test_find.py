"""Each rule finds its identifiers and leaves similar texts alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.data.scrub.check_digits import (
    IBAN_LENGTHS,
    is_card,
    is_iban,
    is_resident_id,
    luhn,
)
from cloister.data.scrub.find import RULES, chosen_types, find
from cloister.data.scrub.spans import TYPES, Span, fold, merged
from cloister.errors import UsageError


def found(text: str) -> list[tuple[str, str]]:
    return [(span.type, text[span.start : span.end]) for span in find(text)]


@pytest.mark.parametrize(
    ("text", "kind", "identifier"),
    [
        ("card 4111 1111 1111 1111 declined", "CARD", "4111 1111 1111 1111"),
        ("paid by 5555555555554444.", "CARD", "5555555555554444"),
        ("Amex 3782-822463-10005", "CARD", "3782-822463-10005"),
        (
            "卡号６２２８４８０４０２５６４８９００１８，谢谢",
            "CARD",
            "６２２８４８０４０２５６４８９００１８",
        ),
        ("6228 4804 0256 4890 018", "CARD", "6228 4804 0256 4890 018"),
        ("to GB82 WEST 1234 5698 7654 32 now", "IBAN", "GB82 WEST 1234 5698 7654 32"),
        ("de89370400440532013000", "IBAN", "de89370400440532013000"),
        ("身份11010519491231002X号", "RESIDENT_ID", "11010519491231002X"),
        ("身份证号：110105491231002", "RESIDENT_ID", "110105491231002"),
        ("SSN 536-90-4399", "SSN", "536-90-4399"),
        ("social security number is 536904399", "SSN", "536904399"),
        ("打13812345678找我", "PHONE", "13812345678"),
        ("手机：１３８－１２３４－５６７８", "PHONE", "１３８－１２３４－５６７８"),
        ("(010) 62345678转", "PHONE", "(010) 62345678"),
        ("0755-83345678", "PHONE", "0755-83345678"),
        ("+44 20 7946 0958", "PHONE", "+44 20 7946 0958"),
        ("dial 0049 30 901820", "PHONE", "0049 30 901820"),
        ("(415) 555-2671 is mine", "PHONE", "(415) 555-2671"),
        ("1-415-555-2671", "PHONE", "1-415-555-2671"),
        ("reach me at 4155552671", "PHONE", "4155552671"),
        ("to anna.b+x@mail.example.co.uk.", "MAIL", "anna.b+x@mail.example.co.uk"),
        ("邮箱zhang_san＠163．com谢谢", "MAIL", "zhang_san＠163．com"),
        ("müller@firma.de", "MAIL", "müller@firma.de"),
        ("见https://a.cn/x?y=1，再说", "URL", "https://a.cn/x?y=1"),
        ("(see http://a.org/w_(x)).", "URL", "http://a.org/w_(x)"),
        ("见t.cn/zlWri再说", "URL", "t.cn/zlWri"),
        ("www.example.com!", "URL", "www.example.com"),
        ("http://例子.中国/路", "URL", "http://例子.中国/路"),
        ("host 192.168.2.17:80", "IP", "192.168.2.17"),
        ("2001:db8::8a2e:370:7334.", "IP", "2001:db8::8a2e:370:7334"),
        ("MRN: 00123456", "MRN", "00123456"),
        ("病历号为A2024001", "MRN", "A2024001"),
        ("住院号：２０２４００１５", "MRN", "２０２４００１５"),
        ("account number 8842-1190", "ACCOUNT", "8842-1190"),
        ("QQ 12345678", "ACCOUNT", "12345678"),
        ("on 2024-03-05T10:00", "DATE", "2024-03-05"),
        ("on 31.12.2023", "DATE", "31.12.2023"),
        ("on 3/14/23,", "DATE", "3/14/23"),
        ("March 3rd, 2021 at noon", "DATE", "March 3rd, 2021"),
        ("the 3rd of March", "DATE", "3rd of March"),
        ("seen 5 May 2020", "DATE", "5 May 2020"),
        ("since Sept. 2019", "DATE", "Sept. 2019"),
        ("２０２４年３月５日出院", "DATE", "２０２４年３月５日"),
        ("二〇二一年十月三十一日", "DATE", "二〇二一年十月三十一日"),
        ("三月五号来", "DATE", "三月五号"),
        ("98年3月", "DATE", "98年3月"),
        ("出生日期：19800229", "DATE", "19800229"),
    ],
)
def test_an_identifier_is_found_whole(text: str, kind: str, identifier: str) -> None:
    assert found(text) == [(kind, identifier)]


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112 has a wrong check digit",
        "1234567890123452 has the check and no issuer",
        "pi is 3.14159265358979323846",
        "GB82 WEST 1234 5698 7654 33",
        "110105194912310021 has a wrong check character",
        "666-12-3456, 900-12-3456, 000-12-3456, 123-00-4567, 123-45-0000",
        "version 1.2.3, ratio 1/2, at 12:30:45, std::vector, ::1",
        "on 2023-02-30, 13月5日, 2月30日, 三月三十二日",
        "we may 3 times, I may see, march 5 miles",
        "911, room 4-1-7, 15 of 20, 100-200-300",
        "user @handle, a@b, x@.com, and/or, U.S./Canada, a.com",
        "256.1.1.1 and 1.2.3.4.5",
        "MRN unknown; account closed; call 911",
        "很快，好吃，味道足，量大，25块3份",
        "",
    ],
)
def test_what_only_looks_like_one_is_left(text: str) -> None:
    assert found(text) == []


def test_a_candidate_that_fails_hides_no_identifier_behind_it() -> None:
    assert found("1 4111 1111 1111 1111 2") == [("CARD", "4111 1111 1111 1111")]
    assert found("12.12.12.2024") == []
    assert found("10086 13812345678") == [("PHONE", "13812345678")]


def test_identifiers_that_overlap_are_replaced_together() -> None:
    assert found("http://x.org/?m=a@b.com") == [("URL", "http://x.org/?m=a@b.com")]
    spans = merged([Span(0, 5, "DATE", "a"), Span(3, 9, "PHONE", "b"), Span(9, 11, "URL", "c")])
    assert spans == [Span(0, 9, "PHONE", "b"), Span(9, 11, "URL", "c")]


def test_one_number_in_two_spellings_is_one_identifier() -> None:
    for one, other in [
        ("13812345678", "+86 138-1234-5678"),
        ("(415) 555-2671", "+1 415 555 2671"),
        ("A@B.com", "a@b.COM"),
        ("2024年3月5日", "2024-03-05"),
        ("4111111111111111", "４１１１ １１１１ １１１１ １１１１"),
    ]:
        assert find(one)[0].value == find(other)[0].value


def test_only_the_types_asked_for_are_found() -> None:
    text = "a@b.com, 13812345678"
    assert [span.type for span in find(text, chosen_types(["mail"]))] == ["MAIL"]
    assert chosen_types([]) == TYPES
    with pytest.raises(UsageError, match="--type: 'FAX' given; one of RESIDENT_ID"):
        chosen_types(["fax"])


@settings(deadline=None)
@given(st.text("0123456789", min_size=14, max_size=17))
def test_luhn_has_one_check_digit_for_all_others(digits: str) -> None:
    assert sum(luhn(digits + last) for last in "0123456789") == 1


@settings(deadline=None)
@given(st.integers(0, 15), st.integers(1, 9))
def test_a_card_with_one_wrong_digit_is_none(place: int, change: int) -> None:
    card = "4111111111111111"
    wrong = card[:place] + str((int(card[place]) + change) % 10) + card[place + 1 :]
    assert is_card(card)
    assert not is_card(wrong)


@settings(deadline=None)
@given(st.sampled_from(sorted(IBAN_LENGTHS)), st.data())
def test_an_iban_has_its_country_s_length_and_check(country: str, data: st.DataObject) -> None:
    size = IBAN_LENGTHS[country] - 4
    rest = data.draw(st.text("0123456789ABCXYZ", min_size=size, max_size=size))
    number = "".join(str(int(c, 36)) for c in rest + country + "00")
    iban = f"{country}{98 - int(number) % 97:02}{rest}"
    assert is_iban(iban)
    assert not is_iban(iban + "0")
    assert not is_iban(country + f"{(int(iban[2:4]) + 1) % 100:02}" + rest)


def test_a_resident_id_needs_a_province_a_real_date_and_its_check_character() -> None:
    assert is_resident_id("11010519491231002X")  # GB 11643-1999, annex A
    assert not is_resident_id("110105194912310029")
    for text in ("99010519491231002", "11010519490231002"):
        assert not any(is_resident_id(text + last) for last in "0123456789X")


@settings(deadline=None)
@given(st.text(st.sampled_from("a一十二年日mr.Ww/-( x三:@1月.cn"), max_size=40))
def test_a_text_that_is_not_searched_holds_nothing_that_a_rule_finds(text: str) -> None:
    assert (find(text) == []) == (not any(any(rule.spans(fold(text))) for rule in RULES))


@settings(deadline=None)
@given(st.text(max_size=60))
def test_spans_are_in_order_within_the_text_and_cover_what_any_rule_found(text: str) -> None:
    spans = find(text)
    ends = [0, *(span.end for span in spans)]
    assert all(end <= span.start < span.end for end, span in zip(ends, spans, strict=False))
    assert ends[-1] <= len(text)
    covered = {place for span in spans for place in range(span.start, span.end)}
    for rule in RULES:
        for span in rule.spans(fold(text)):
            assert covered.issuperset(range(span.start, span.end))


@settings(deadline=None)
@given(st.text())
def test_folding_moves_no_character(text: str) -> None:
    assert len(fold(text)) == len(text)
    assert fold("１２３-٤٥६") == "123-456"
