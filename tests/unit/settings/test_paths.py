"""Paths as people write them: with a tilde, as an address, in another encoding, edited on Windows."""

import json
import os

import pytest

from densenet_keras.commands import export, main, predict
from densenet_keras.errors import EXIT_USAGE, UsageError
from densenet_keras.settings import arguments, rules
from densenet_keras.settings import config as configuration
from densenet_keras.settings.config import Config


def parse(*argv):
    return main.parse("train", ["--model", "densenet_tiny", *argv], {})


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return str(tmp_path)


@pytest.mark.parametrize("flag", ["data_dir", "log_dir", "restore_path", "rank_table"])
def test_a_tilde_is_the_home_folder_where_no_shell_expands_it(home, flag):
    assert parse(f"--{flag}=~/a").get(flag) == f"{home}/a"


@pytest.mark.parametrize("command", [predict, export])
def test_so_is_one_in_a_flag_of_predict_and_export(home, command):
    name = command.__name__.rpartition(".")[2]
    settings = arguments.parse_tool(name, command.Settings, command.EXAMPLE, ["--restore=~/a"])
    assert settings.restore == f"{home}/a"


def test_a_tilde_in_a_file_of_settings_is_the_home_folder_too(home):
    assert Config.from_json({"run": {"log_dir": "~/a"}}).run.log_dir == f"{home}/a"
    with open(f"{home}/c.json", "w") as file:
        json.dump({"run": {"log_dir": "~/b"}}, file)
    assert parse("--config=~/c.json").run.log_dir == f"{home}/b"


def test_the_home_of_nobody_is_refused():
    with pytest.raises(UsageError, match="no user of that name"):
        parse("--log_dir", "~nobody_of_that_name/a")


@pytest.mark.parametrize("flag", ["data_dir", "log_dir", "restore_path"])
@pytest.mark.parametrize("address", ["s3://b/m", "obs://b/m", "gs://b", "http://h/d", "hdfs://h", "s3:/b"])
def test_an_address_is_no_folder(flag, address):
    with pytest.raises(UsageError, match=f"--{flag} {address}: must be a local path.*copy"):
        parse(f"--{flag}", address)


@pytest.mark.parametrize("path", ["a:b", "run:1/x", "./s3:/x", "C:"])
def test_a_colon_alone_makes_no_address(path):
    assert parse("--log_dir", path).run.log_dir == path


def test_a_path_that_is_not_utf8_is_refused_before_anything_starts():
    with pytest.raises(UsageError, match="--log_dir .*is not UTF-8"):
        parse("--log_dir", os.fsdecode(b"/tmp/caf\xe9"))


@pytest.mark.parametrize("flag", ["log_dir", "restore_path"])
def test_a_name_that_tensorflow_would_take_for_another_is_refused(flag, monkeypatch):
    assert parse(f"--{flag}", "模型").get(flag) == "模型"
    monkeypatch.setattr(rules.os, "fsencode", lambda path: path.encode("gbk"))
    with pytest.raises(UsageError, match=f"--{flag} 模型: the locale .*PYTHONUTF8=1"):
        parse(f"--{flag}", "模型")
    with pytest.raises(UsageError, match="--restore 模型: the locale"):
        arguments.parse_tool("predict", predict.Settings, predict.EXAMPLE, ["--restore", "模型", "a.jpg"])
    assert parse("--data_dir", "数据").data.data_dir == "数据", "which Python opens"
    monkeypatch.setattr(rules.os, "fsencode", lambda path: path.encode("latin-1"))
    with pytest.raises(UsageError, match=f"--{flag} 模型: the locale"):
        parse(f"--{flag}", "模型")


def test_a_file_of_settings_edited_on_windows_is_read(tmp_path):
    text = json.dumps(Config().to_json(), indent=2)
    path = tmp_path / "run.json"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert configuration.load(str(path)) == Config()


@pytest.mark.parametrize("content", [b"[" * 99999, b"\xff\xfe{", b"{", b"null", b'{"model": {"model": []}}'])
def test_a_file_that_holds_no_settings_is_named(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=str(path)):
        configuration.load(str(path))


@pytest.mark.parametrize("spoil", [
    lambda path: path.write_text('{"model": {"model": "resnet"}}'),
    lambda path: path.mkdir(),
    lambda path: path.symlink_to("nowhere"),
])  # fmt: skip
def test_a_run_json_that_cannot_be_right_is_refused_where_a_run_continues(tmp_path, spoil):
    for ending in (".index", ".data-00000-of-00001"):
        (tmp_path / f"model.ckpt-1{ending}").write_bytes(b"")
    spoil(tmp_path / "run.json")
    with pytest.raises(UsageError, match=f"{tmp_path}/run.json"):
        parse("--log_dir", str(tmp_path))


def test_a_current_folder_that_is_deleted_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main.run_command(["train", "--synthetic_data", "true"]) == EXIT_USAGE
    assert "current folder" in capsys.readouterr().err
