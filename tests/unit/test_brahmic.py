import unicodedata

import pytest

from mmie.brahmic import BLOCKS, respell


@pytest.mark.parametrize(
    ("script", "text", "devanagari"),
    [
        ("Guru", "ਸਭ ਤੋਂ ਪਹਿਲਾਂ ਮੇਨ ਸਵਿੱਚ ਬੰਦ ਕਰੋ।", "सभ तों पहिलां मेन सविच्च बंद करो।"),  # addak, tippi, danda
        ("Guru", "ਹਰ ਅੱਖਰ ਪੱਥਰ", "हर अक्खर पत्थर"),  # a doubled aspirate begins without breath
        ("Guru", "ਸ਼ਹਿਰ ਵਿੱਚ ਜ਼ਰੂਰ", "शहिर विच्च ज़रूर"),
        ("Beng", "আগে দরজায় তালা দিয়েছিলে?", "आगे दरजाय ताला दियेछिले?"),
        ("Beng", "হঠাৎ ১২ টি GPS", "हठात् १२ टि GPS"),
        ("Gujr", "ગુજરાતી", "गुजराती"),
        ("Telu", "తెలుగు", "तॆलुगु"),
    ],
)
def test_a_neighbour_in_devanagari(script, text, devanagari):
    assert respell(text, script) == unicodedata.normalize("NFC", devanagari)


@pytest.mark.parametrize("script", BLOCKS)
def test_every_letter_of_a_block_has_its_like_in_devanagari(script):
    letters = [chr(BLOCKS[script] + place) for place in range(0x70)]
    known = [c for c in letters if unicodedata.category(c)[0] in "LMN" and "LENGTH MARK" not in unicodedata.name(c)]
    assert len(known) > 50
    for letter in known:
        (first, *_) = respell(letter, script)
        assert unicodedata.name(first).startswith("DEVANAGARI")


def test_another_script():
    with pytest.raises(KeyError, match="Arab"):
        respell("سلام", "Arab")
