import time

from router.scoring.text.templates import LEAST_TEXTS, Templates

FRAME = "You sort messages of a bank's customers. Answer with one of: card, fee, pin.\n\nMessage: "
END = "\n\nAnswer with the name alone, in lower case."
MESSAGES = [f"{start} my {thing}" for start in ("Where is", "What about", "I lost") for thing in ("card", "fee", "pin")]


def test_the_frame_is_read_apart_from_the_message() -> None:
    found = Templates.fit([FRAME + m + END for m in MESSAGES])
    assert found.split(FRAME + "Unheard of" + END) == ("Unheard of", FRAME + END)
    assert found.split("No frame at all") == ("No frame at all", "")


def test_every_application_has_its_own_frame_even_where_they_begin_alike() -> None:
    header = "You are the assistant of the bank, be brief and kind. "
    frames = [header + "Name the intent of this customer's message: ", header + "Translate this letter into French: "]
    found = Templates.fit([f + m + " " + m[::-1] for f in frames for m in MESSAGES * 2])
    for frame in frames:
        assert found.split(frame + "zebra") == ("zebra", frame)
    assert found.split(header + "zebra") == ("zebra", header)


def test_words_that_messages_often_begin_with_are_no_frame() -> None:
    texts = [FRAME + "What is the " + w for w in "abcdefghijklmnopqrst"] + [FRAME + m for m in MESSAGES]
    assert Templates.fit(texts).beginnings == (FRAME,)


def test_messages_without_a_frame_stay_whole() -> None:
    found = Templates.fit(MESSAGES * 5)
    assert found == Templates() and found.split(MESSAGES[0]) == (MESSAGES[0], "")
    assert Templates.fit([]) == Templates() == Templates.fit([FRAME] * (LEAST_TEXTS - 1))


def test_frame_and_message_never_overlap() -> None:
    found = Templates(("a b c d ",), ("c d e",))
    assert found.split("a b c d e") == ("e", "a b c d ")


def test_long_texts_are_learnt_quickly() -> None:
    texts = ["x y " * 3000 + m + str(i) for i in range(200) for m in MESSAGES]
    start = time.process_time()
    assert len(Templates.fit(texts).beginnings) == 1
    assert time.process_time() - start < 2
