"""How answers are written down."""

import io
import json

from densenet_keras.prediction import answers
from densenet_keras.prediction.answers import Answer, Guess

GOOD = Answer("a.jpg", (Guess(3, "cat", 0.75), Guess(1, "dog, wild", 0.25)))
BAD = Answer("b.jpg", error="it is cut off")


def test_json_holds_top_or_error_and_can_be_read_back():
    values = json.loads(json.dumps([GOOD.as_json(), BAD.as_json()]))
    assert values[0]["top"][0] == {"class": 3, "label": "cat", "probability": 0.75}
    assert values[1] == {"path": "b.jpg", "error": "it is cut off"}
    assert [Answer.from_json(value) for value in values] == [GOOD, BAD]


def test_csv_has_a_column_for_each_guess_and_quotes_what_needs_it():
    file = io.StringIO()
    answers.write_csv(file, [GOOD, BAD], top_k=2)
    lines = file.getvalue().splitlines()
    assert lines[0] == "path,error,class_1,label_1,probability_1,class_2,label_2,probability_2"
    assert lines[1] == 'a.jpg,,3,cat,0.750000,1,"dog, wild",0.250000'
    assert lines[2] == "b.jpg,it is cut off"


def test_the_table_names_what_could_not_be_read():
    assert answers.table([GOOD, BAD]) == ["a.jpg  cat 75.0%  dog, wild 25.0%", "b.jpg  error: it is cut off"]
