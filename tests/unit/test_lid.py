import pytest

from mmie import lid_words
from mmie.lid import Detector, normalise, words_of

LANGUAGES = ["en", "hi", "hi_latn", "ur", "pa", "bn", "mr"]

# Written for these tests; halves of sentences, as continuations are.
LABELLED = {
    "en": [
        "so the children ran home before the rain started",
        " of the river, where an old boat was waiting for them.",
        "I will call you when the train arrives",
        "She bought three mangoes and a loaf of bread",
    ],
    "hi": [
        "और बच्चे बारिश शुरू होने से पहले घर भाग गए।",
        " के किनारे एक पुरानी नाव उनका इंतज़ार कर रही थी।",
        "ट्रेन पहुँचते ही मैं तुम्हें फ़ोन करूँगा",
        "उसने तीन आम और एक डबलरोटी ख़रीदी।",
        "ों का कहना है कि दाम और बढ़ेंगे",
    ],
    "hi_latn": [
        "aur bachche barish shuru hone se pehle ghar bhaag gaye",
        " ke kinare ek purani naav unka intezaar kar rahi thi.",
        "train pahunchte hi main tumhe phone karunga",
        "usne teen aam aur ek double roti kharidi",
        "mujhe nhi pta wo kb aayega",
    ],
    "ur": [
        "اور بچے بارش شروع ہونے سے پہلے گھر بھاگ گئے۔",
        " کے کنارے ایک پرانی کشتی ان کا انتظار کر رہی تھی۔",
        "ٹرین پہنچتے ہی میں تمہیں فون کروں گا",
    ],
    "pa": ["ਤੇ ਬੱਚੇ ਮੀਂਹ ਤੋਂ ਪਹਿਲਾਂ ਘਰ ਭੱਜ ਗਏ।", " ਦੇ ਕੰਢੇ ਇੱਕ ਪੁਰਾਣੀ ਬੇੜੀ ਖੜ੍ਹੀ ਸੀ।"],
    "bn": ["আর বাচ্চারা বৃষ্টির আগেই বাড়ি পালাল।", " ধারে একটা পুরনো নৌকা দাঁড়িয়ে ছিল।"],
    "mr": [
        "आणि मुले पाऊस सुरू होण्याआधी घरी पळाली.",
        " काठावर एक जुनी होडी त्यांची वाट पाहत होती.",
        "गाडी आली की मी तुला फोन करतो",
        "तिने तीन आंबे आणि एक पाव विकत घेतला",
    ],
    "other": [
        "Mein Bruder ist so groß wie mein Vater",
        "Bugün hava çok güzel ve ben parka gitmek istiyorum",
        "यो किताब धेरै राम्रो छ तर महँगो पनि छ",
        "این کتاب را دیروز از کتابخانه گرفتم و هنوز نخوانده‌ام",
        "Привет, как дела сегодня?",
        "今日はいい天気ですね",
    ],
    "und": [
        "",
        "   ",
        "।।। 12 ३४ ...",
        " 1000000000000000000",
        "a",
        "\ufffd\ufffd",
        "\ud800\udc00",
        "\u200d\u200c\x00",
        "में में में में में में",
        "कककककककककककक",
        "ाेी क ्ि ोै ेे",
        "hai hai hai hai hai",
        "लमागवीलै नग सौबीमेहें औरा नूँसेरि क मक ग शक लसाची",
        "द चिल्ड्रन रैन होम बिफ़ोर द रेन स्टार्टिड अंड द बोट",
        "रायग ukha कख ٹڈ ਕਖ",
    ],
}
CASES = [(language, text) for language, texts in LABELLED.items() for text in texts]


@pytest.fixture(scope="module")
def detector():
    return Detector("package", LANGUAGES)


@pytest.mark.parametrize(("language", "text"), CASES)
def test_labelled_examples(detector, language, text):
    assert detector.identify(text).language == language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("कल office में team meeting है और सब आएँगे", "hi"),
        ("Kal office mein meeting ke baad main tumhe call karunga", "hi_latn"),
        ("The word नमस्ते means hello and is used every day", "en"),
    ],
)
def test_code_mixed_text_is_in_the_language_of_its_function_words(detector, text, language):
    assert detector.identify(text).language == language


def test_english_with_a_few_words_that_romanised_hindi_has_too(detector):
    text = "The challenge for the people is to do so in the main hall"
    assert detector.identify(text).language == "en"


def test_tags_and_addresses_do_not_count(detector):
    text = "<strong>और वह घर</strong> https://example.org/the-and-with जा रहा है"
    assert detector.identify(text).language == "hi"


def test_a_text_cut_inside_a_character_is_still_identified(detector):
    whole = "और बच्चे बारिश से पहले घर भाग गए"
    for end in range(40, len(whole.encode())):
        assert detector.identify(whole.encode()[:end].decode("utf-8", "replace")).language == "hi"


def test_danda_does_not_make_bengali_or_punjabi_devanagari(detector):
    assert detector.identify("আমি যাই। । ।").script == "Beng"


def test_script_and_rule_say_how(detector):
    found = detector.identify("ਅੱਜ ਮੀਂਹ ਪਵੇਗਾ")
    assert (found.language, found.script, found.confidence, found.fasttext, found.rule) == (
        "pa",
        "Guru",
        1.0,
        "",
        "script",
    )
    found = detector.identify("धन्यवाद मित्रवर")
    assert found.fasttext and found.cld3


@pytest.mark.parametrize("text", ["का" * 5000, "a b " * 3000, "और घर " * 2000, "\n\n\t", "<" * 500, "😀" * 50, "ि"])
def test_any_text_has_an_answer(detector, text):
    found = detector.identify(text)
    assert found.language in {*LANGUAGES, "other", "und"}
    assert 0 <= found.confidence <= 1


def test_a_language_outside_the_corpus_is_other():
    detector = Detector("package", ["en", "fr"])
    assert detector.identify("Le chien de mon frère ne mange pas de viande").language == "fr"
    assert detector.identify("और बच्चे बारिश से पहले घर भाग गए").language == "other"


def test_a_language_no_detector_knows():
    with pytest.raises(ValueError, match=r"`data.scripts.klingon`: no detector knows this language"):
        Detector("package", ["en", "klingon"])


def test_a_model_that_is_not_there():
    with pytest.raises(ValueError, match=r"`lid.fasttext: /no/lid.bin`: there is no such file"):
        Detector("/no/lid.bin", ["en"])


def test_words_and_normalised_text():
    assert normalise("एक\u200dदो\n<b>तीन</b>\ufffd") == "एकदो तीन"
    assert words_of("don't stop। 12 काम-धंधा") == ["don't", "stop", "काम", "धंधा"]


def test_a_word_is_in_one_list_of_its_language_and_of_one_language():
    own = [lid_words.HINDI, lid_words.MARATHI, lid_words.NEPALI, lid_words.ROMAN, lid_words.ENGLISH]
    assert sum(map(len, own)) == len(frozenset().union(*own))
    assert not lid_words.HINDI & lid_words.HINDI_SHARED
    assert not lid_words.ROMAN & lid_words.ROMAN_SHARED
    assert not lid_words.ENGLISH & lid_words.ENGLISH_SHARED
