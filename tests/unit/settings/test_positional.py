"""Arguments without a flag's name, in any order among the flags."""

import pytest

from densenet_keras.commands import predict, verify
from densenet_keras.errors import UsageError
from densenet_keras.settings import arguments


def parse(command, *argv):
    name = command.__name__.rpartition(".")[2]
    return arguments.parse_tool(name, command.Settings, command.EXAMPLE, list(argv))


@pytest.mark.parametrize(
    ("argv", "pictures", "json"),
    [
        (["--restore", "m", "a.jpg", "b.jpg"], ("a.jpg", "b.jpg"), False),
        (["a.jpg", "--restore", "m", "b.jpg"], ("a.jpg", "b.jpg"), False),
        (["--restore", "m", "--json", "a.jpg"], ("a.jpg",), True),
        (["--json", "-", "--restore", "m"], ("-",), True),
        (["--restore", "m", "a.jpg", "--json"], ("a.jpg",), True),
        (["--restore", "m", "--json", "false", "a.jpg"], ("a.jpg",), False),
        (["--restore", "m", "--json=no", "a.jpg"], ("a.jpg",), False),
    ],
)
def test_pictures_stand_anywhere_and_a_switch_needs_no_value(argv, pictures, json):
    found = parse(predict, *argv)
    assert (found.restore, found.pictures, found.json) == ("m", pictures, json)


def test_one_argument_is_not_two():
    assert parse(verify, "--json", "run") == verify.Settings("run", True)
    with pytest.raises(UsageError, match="unexpected argument other"):
        parse(verify, "run", "--json", "other")
