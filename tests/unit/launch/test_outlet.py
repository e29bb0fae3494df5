"""A reader of the console that pauses."""

import os
import select
import threading

import pytest

from densenet_keras.launch import outlet
from densenet_keras.launch.outlet import Outlet


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        os.close(descriptor)


def read_all(descriptor, expected_end):
    data = b""
    while not data.endswith(expected_end):
        assert select.select([descriptor], [], [], 30)[0], f"nothing comes after {data[-100:]}"
        data += os.read(descriptor, 1 << 16)
    return data


def test_everything_arrives_in_order(pipe):
    reader, writer = pipe
    shown = Outlet(writer, "the log")
    for number in range(1000):
        shown.put(b"%d\n" % number)
    shown.finish(lambda: False)
    assert read_all(reader, b"999\n") == b"".join(b"%d\n" % number for number in range(1000))


def test_a_reader_that_pauses_holds_up_nobody_and_learns_what_it_missed(pipe, monkeypatch):
    monkeypatch.setattr(outlet, "KEPT_BYTES", 1 << 16)
    reader, writer = pipe
    shown = Outlet(writer, "rank_logs/rank_0.log")
    for _ in range(1000):
        shown.put(b"x" * 999 + b"\n")  # returns although nobody reads
    ended = threading.Thread(target=shown.finish, args=(lambda: False,))
    ended.start()
    data = read_all(reader, b"holds them\n")
    ended.join()
    count = data.count(b"x" * 999 + b"\n")
    assert count < 300
    assert b"... %d bytes are not shown" % ((1000 - count) * 1000) in data
    assert b"rank_logs/rank_0.log holds them" in data


def test_who_wants_to_leave_need_not_wait_for_the_reader(pipe):
    reader, writer = pipe
    shown = Outlet(writer, "the log")
    shown.put(b"x" * (1 << 20))
    shown.finish(lambda: True)
    assert os.read(reader, 10) == b"x" * 10


def test_a_reader_that_is_gone_is_no_reason_to_fail():
    reader, writer = os.pipe()
    os.close(reader)
    shown = Outlet(writer, "the log")
    for _ in range(5):
        shown.put(b"x" * 1000)
    shown.finish(lambda: False)
    os.close(writer)
