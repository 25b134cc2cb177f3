import pytest

from mmie.scripts import dominant, letter_counts, letters_of, share_in


def test_danda_and_digits_are_letters_of_no_script():
    assert letter_counts("काम। १२ 34") == {"Deva": 2}
    assert letter_counts("আমি যাই।") == {"Beng": 4}


def test_dominant_script_is_that_of_most_letters():
    assert dominant("मैं office") == "Latn"
    assert dominant("यह ۔") == "Deva"
    assert dominant("12 । ?") == "Zyyy"


def test_share_counts_letters_only():
    assert share_in("Deva", "कख ab।") == 0.5
    assert share_in("Deva", "...") == 0.0
    assert share_in("Jpan", "日本のカ") == 1.0


@pytest.mark.parametrize("code", ["Hindi", "Qqqq", "]", "deva"])
def test_a_code_that_is_no_script_is_refused(code):
    with pytest.raises(ValueError, match="ISO 15924"):
        letters_of(code)
