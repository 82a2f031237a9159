"""Captions say what is wrong with a picture, or that it is to be left alone, in words that training varies."""

import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from gigasr.config.training import RestorationConfig
from gigasr.data.damage import Blur, Damage, Jpeg, Noise, Sharpening, draw_damage
from gigasr.data.phrases import BLUR, JPEG, LEFT_ALONE, NOISE, PHRASES
from gigasr.data.words import compose, degrees, describe_damage
from gigasr.networks.text import CONTEXT_LENGTH, count_tokens

DRAWS = [draw_damage(RestorationConfig(), Random(f"draw/{i}")) for i in range(4000)]
SAID = [damage for damage in DRAWS if damage.is_said]
TRAINED = {phrasing: meaning for meaning, phrases in PHRASES.items() for phrasing in phrases.trained}
HELD_OUT = {phrasing: meaning for meaning, phrases in PHRASES.items() for phrasing in phrases.held_out}
CONTENT = "a red barn at dusk"


def read(caption: str, phrasings: dict[str, str]) -> list[str]:
    """The meanings of a caption that consists of such phrasings, longest first; fails where it doesn't."""
    if not caption:
        return []
    for phrasing in sorted(phrasings, key=len, reverse=True):
        if caption == phrasing or caption.startswith(f"{phrasing}, "):
            return [phrasings[phrasing], *read(caption[len(phrasing) + 2 :], phrasings)]
    pytest.fail(f"{caption!r} is no list of phrasings")


def meanings(damage: Damage, times: int = 200) -> Counter[str]:
    """How often each meaning is said of a damage."""
    return Counter(meaning for i in range(times) for meaning in read(describe_damage(damage, Random(i)), TRAINED))


def test_each_phrasing_has_one_meaning_and_is_either_trained_or_held_out() -> None:
    phrasings = [p for phrases in PHRASES.values() for part in phrases for p in part]
    assert len(phrasings) == len(set(phrasings)) == len(TRAINED) + len(HELD_OUT)
    assert all(len(phrases.trained) >= 6 and len(phrases.held_out) >= 2 for phrases in PHRASES.values())
    assert all(phrasing == phrasing.strip().lower() and phrasing for phrasing in phrasings)


def test_no_training_caption_has_a_phrasing_that_is_held_out() -> None:
    assert not [(trained, held) for trained in TRAINED for held in HELD_OUT if held in trained]
    for number, damage in enumerate(SAID):
        caption = compose("", damage, Random(number))
        assert read(caption, TRAINED) and not any(held in caption for held in HELD_OUT)


def test_held_out_captions_have_no_phrasing_of_training() -> None:
    for number, damage in enumerate(SAID):
        assert read(compose("", damage, Random(number), held_out=True), HELD_OUT)


def test_every_phrasing_is_said() -> None:
    for phrasings, held_out in ((TRAINED, False), (HELD_OUT, True)):
        said = {p for i, d in enumerate(SAID * 3) for p in describe_damage(d, Random(i), held_out).split(", ")}
        assert {part for phrasing in phrasings for part in phrasing.split(", ")} == said


def test_the_words_of_everyday_are_in_the_vocabulary() -> None:
    assert {
        "noisy",
        "grainy",
        "noisy, grainy",
        "jpeg artifacts",
        "blurry",
        "clean, sharp",
        "old photo",
    } <= TRAINED.keys()


def test_the_words_of_the_documentation_are_in_the_vocabulary() -> None:
    page = (Path(__file__).parents[1] / "docs" / "prompts.md").read_text(encoding="utf-8")
    examples = [word for row in re.findall(r"^\|.*\|$", page, re.MULTILINE) for word in re.findall(r"`([^`]+)`", row)]
    assert len(examples) > 30 and set(examples) <= TRAINED.keys()


def test_silence_is_as_common_as_speech_and_content_stands_before_half_of_either() -> None:
    captions = [compose(CONTENT, damage, Random(i)) for i, damage in enumerate(DRAWS)]
    counts = Counter((caption.startswith(CONTENT), caption.removeprefix(CONTENT) != "") for caption in captions)
    assert all(count / len(DRAWS) == pytest.approx(0.25, abs=0.025) for count in counts.values()) and len(counts) == 4


def test_content_shows_as_often_as_is_asked_for() -> None:
    for share in (0.0, 0.8, 1.0):
        captions = [compose(CONTENT, damage, Random(i), content=share) for i, damage in enumerate(DRAWS)]
        assert sum(CONTENT in caption for caption in captions) / len(DRAWS) == pytest.approx(share, abs=0.025)


def test_without_content_and_speech_the_caption_is_empty() -> None:
    assert {compose("", damage, Random(0)) for damage in DRAWS if not damage.is_said} == {""}


def test_the_same_source_gives_the_same_caption_and_others_vary_it() -> None:
    damage = Damage(noise=Noise(20), blur=Blur(1.0), jpegs=(Jpeg(40),), is_said=True)
    captions = [compose(CONTENT, damage, Random(i)) for i in range(200)]
    assert captions == [compose(CONTENT, damage, Random(i)) for i in range(200)]
    assert len(set(captions)) > 150


@pytest.mark.parametrize("damage", [Damage(), *(d for d in SAID[:400] if d.keep == "all")])
def test_what_is_clean_and_what_is_to_stay_is_called_the_same(damage: Damage) -> None:
    assert meanings(damage, 50).keys() == {"clean", "untouched", "sharp"}


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (Damage(noise=Noise(4)), {"noise", "noise, light", "colour noise"}),
        (Damage(noise=Noise(30, "gray")), {"noise", "noise, strong", "grain"}),
        (Damage(noise=Noise(13, "camera", 0.5)), {"noise", "noise, medium", "camera noise"}),
        (Damage(jpegs=(Jpeg(85),)), {"jpeg", "jpeg, light"}),
        (Damage(jpegs=(Jpeg(25), Jpeg(90, 0))), {"jpeg", "jpeg, strong", "jpeg, again", "colour bleeding"}),
        (Damage(jpegs=(Jpeg(25, 0),)), {"jpeg", "jpeg, strong"}),
        (Damage(blur=Blur(0.4)), {"blur", "blur, light"}),
        (Damage(blur=Blur(1.8, "motion")), {"blur", "blur, strong", "motion"}),
        (Damage(shrunk=2.0), {"shrunk", "blur"}),
        (Damage(sharpening=Sharpening(1.0, 100)), {"sharpening"}),
        (Damage(colours=32), {"colours"}),
        (Damage(before=Damage(noise=Noise(50))), {"noise", "noise, strong", "colour noise"}),
        (Damage(before=Damage(noise=Noise(9)), noise=Noise(30)), {"noise", "noise, strong", "colour noise"}),
    ],
)
def test_a_caption_says_what_is_wrong_and_how_much_and_invents_nothing(damage: Damage, expected: set[str]) -> None:
    said = meanings(damage)
    assert expected <= said.keys() <= expected | {"bad"}


def test_of_several_causes_all_are_said_often_and_some_are_left_out_sometimes() -> None:
    damage = Damage(noise=Noise(20), blur=Blur(1.0), jpegs=(Jpeg(40),))
    groups = {"noise": NOISE, "jpeg": JPEG, "blur": BLUR}
    said = [read(describe_damage(damage, Random(i)), TRAINED) for i in range(1000)]
    causes = [{name for name, group in groups.items() if group.keys() & set(names)} for names in said]
    counts = Counter(len(names) for names in causes)  # none where the caption only calls it bad
    assert counts[3] / 1000 == pytest.approx(0.9 * 0.7, abs=0.04) and counts[0] / 1000 == pytest.approx(0.1, abs=0.03)
    first = Counter(
        next(name for name, group in groups.items() if names[0] in group) for names in said if names != ["bad"]
    )
    assert all(count / 900 == pytest.approx(1 / 3, abs=0.06) for count in first.values())


def test_kept_grain_is_asked_for_and_never_called_a_fault() -> None:
    damage = Damage(noise=Noise(20, "grain", 0.5), jpegs=(Jpeg(40),), keep="grain", is_said=True)
    for number in range(200):
        said = read(describe_damage(damage, Random(number)), TRAINED)
        assert said.count("grain kept") == 1 and not NOISE.keys() & set(said) and "bad" not in said
    assert meanings(Damage(noise=Noise(20), keep="grain")).keys() == {"grain kept"}


def test_an_origin_is_named_for_about_half_of_what_comes_from_there() -> None:
    said = [d for d in SAID if d.origin and d.keep == "nothing" and d.noise]
    named = [d.origin in read(describe_damage(d, Random(i)), TRAINED) for i, d in enumerate(said * 10)]
    assert sum(named) / len(named) == pytest.approx(0.5, abs=0.06)
    assert set(meanings(Damage(origin="screenshot"))) == {"screenshot"}


def test_degrees_overlap_where_they_border() -> None:
    named = [degrees(value, 8, 18, 2) for value in (5, 7, 9, 12, 17, 19, 25)]
    light, medium, strong = "light", "medium", "strong"
    assert named == [
        (light,),
        (light, medium),
        (light, medium),
        (medium,),
        (medium, strong),
        (medium, strong),
        (strong,),
    ]


def test_captions_leave_a_tower_room_for_the_content() -> None:
    captions = [compose("", damage, Random(i), held_out) for held_out in (False, True) for i, damage in enumerate(SAID)]
    assert (
        max(map(count_tokens, captions)) <= CONTEXT_LENGTH - 25
    )  # the longest captions of content in photos512 have 24


def test_what_has_faults_to_mend_is_never_called_clean() -> None:
    for damage in [d for d in SAID if d.keep == "nothing" and (d.noise or d.jpegs)]:
        assert not LEFT_ALONE.keys() & meanings(damage, 3).keys()
