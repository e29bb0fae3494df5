"""Rank tables and the environments made from them, for jobs on one and on several servers."""

import json
import os

import pytest

from densenet_keras.backends.ascend import chips, job_table, rank_table
from densenet_keras.backends.ascend.host import HOST
from densenet_keras.backends.ascend.machine import Machine, _addresses, _device_ids
from densenet_keras.backends.ascend.rank_environment import (
    complete_environment,
    core_range,
    rank_environments,
    ranks_here,
)
from densenet_keras.commands import main as cli
from densenet_keras.errors import UsageError
from densenet_keras.settings.config import Config

HCCN_CONF = "".join(
    f"address_{n}=192.168.{100 + n % 4}.{101 - n // 4}\nnetmask_{n}=255.255.255.0\n" for n in range(8)
)
SERVER = Machine("node1", ("10.0.0.1",), tuple(range(8)), tuple(range(96)), 96)


def entry(device, address, rank):
    return {"device_id": str(device), "device_ip": address, "rank_id": str(rank)}


def two_servers(**changes):
    values = {
        "version": "1.0",
        "server_count": "2",
        "server_list": [
            {
                "server_id": f"10.0.0.{server + 1}",
                "host_nic_ip": "reserve",
                "device": [entry(d, f"192.0.2.{server * 8 + d + 1}", server * 8 + d) for d in range(8)],
            }
            for server in range(2)
        ],
        "status": "completed",
    }
    values.update(changes)
    return values


def grouped(pods=(("job-worker-0", "10.0.0.1", (0, 1)), ("job-worker-1", "10.0.0.2", (0, 1)))):
    return {
        "group_count": "1",
        "group_list": [
            {
                "group_name": "worker",
                "device_count": str(sum(len(devices) for _, _, devices in pods)),
                "instance_count": str(len(pods)),
                "instance_list": [
                    {
                        "devices": [
                            {"device_id": str(d), "device_ip": f"192.0.2.{10 * p + d + 1}"} for d in devices
                        ],
                        "pod_name": name,
                        "server_id": server,
                    }
                    for p, (name, server, devices) in enumerate(pods)
                ],
            }
        ],
        "status": "completed",
    }


@pytest.fixture
def save(tmp_path):
    def write(values, name="table.json"):
        path = tmp_path / name
        path.write_text(values if isinstance(values, str) else json.dumps(values))
        return str(path)

    return write


def config(tmp_path, size, **changes):
    return Config().replace(backend="ascend", rank_size=size, log_dir=str(tmp_path / "run"), **changes)


# What a table may say.


def test_a_sound_table_of_two_servers_passes(save):
    table = rank_table.load(save(two_servers()))
    table.check(16)
    assert sorted(table.ranks()) == list(range(16))
    server, device = table.ranks()[9]
    assert (server.server_id, device.device_id, device.device_ip) == ("10.0.0.2", 1, "192.0.2.10")


def change(path, value):
    def apply(values):
        place = values
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return apply


FIRST, SECOND = ("server_list", 0, "device"), ("server_list", 1, "device")
WRONG = {
    "rank twice": (change((*FIRST, 3, "rank_id"), "2"), ["10.0.0.1", "device 3", "rank_id 2", "device 2"]),
    "rank gap": (change((*FIRST, 3, "rank_id"), "16"), ["10.0.0.1", "device 3", "rank_id 16", "0 to 15"]),
    "device twice": (change((*FIRST, 3, "device_id"), "2"), ["10.0.0.1", "device_id 2", "2 times"]),
    "no such device": (change((*FIRST, 3, "device_id"), "8"), ["10.0.0.1", "device_id 8", "0 to 7"]),
    "address twice": (change((*FIRST, 3, "device_ip"), "192.0.2.9"), ["device 0", "192.0.2.9", "10.0.0.1"]),
    "address malformed": (
        change((*FIRST, 3, "device_ip"), "192.0.2"),
        ["device 3", "'192.0.2'", "hccn_tool"],
    ),
    "address zeros": (change((*FIRST, 3, "device_ip"), "192.0.2.04"), ["device 3", "'192.0.2.04'"]),
    "address of loopback": (change((*FIRST, 3, "device_ip"), "127.0.0.1"), ["device 3", "'127.0.0.1'"]),
    "endless number": (change((*FIRST, 3, "device_id"), "9" * 5000), ["5000 characters", "at most 6 digits"]),
    "address empty": (change((*FIRST, 3, "device_ip"), ""), ["device 3", "not the IP address"]),
    "count": (change(("server_count",), "1"), ["server_count is '1'", "2 servers"]),
    "status": (change(("status",), "initializing"), ["'initializing'", "'completed'"]),
    "version": (change(("version",), "1.2"), ["'1.2'", "'1.0'"]),
    "server twice": (change(("server_list", 1, "server_id"), "10.0.0.1"), ["'10.0.0.1'", "servers 0 and 1"]),
    "no server id": (change(("server_list", 1, "server_id"), ""), ["server 1", "1 to 64"]),
    "long server id": (change(("server_list", 1, "server_id"), "n" * 65), ["server 1", "1 to 64"]),
    "crossing ranks": (
        lambda v: (change((*FIRST, 7, "rank_id"), "8")(v), change((*SECOND, 0, "rank_id"), "7")(v)),
        [
            "10.0.0.1 has the ranks 0, 1, 2, 3, 4, 5, 6, 8",
            "10.0.0.2 has the ranks 7, 9",
            "follow one another",
        ],
    ),
    "three devices": (
        lambda v: v["server_list"][0].update(device=v["server_list"][0]["device"][:3]),
        ["10.0.0.1", "3 devices", "1, 2, 4 or 8"],
    ),
    "uneven": (
        lambda v: v["server_list"][0].update(device=v["server_list"][0]["device"][:4]),
        ["different numbers", "every server"],
    ),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_broken_rule_is_named_with_file_place_value_and_remedy(save, name):
    spoil, expected = WRONG[name]
    values = two_servers()
    spoil(values)
    path = save(values)
    with pytest.raises(UsageError) as error:
        rank_table.load(path).check(16)
    for text in [path, *expected]:
        assert text in str(error.value)


def one_server(devices, **changes):
    """The table of one server with these devices."""
    values = two_servers(server_count="1", **changes)
    del values["server_list"][1]
    values["server_list"][0]["device"] = [
        entry(device, f"192.0.2.{device + 1}", rank) for rank, device in enumerate(devices)
    ]
    return values


@pytest.mark.parametrize("devices", [(0, 1, 2), (3, 4), (1, 2, 5, 6, 7), tuple(range(16))])
def test_any_devices_of_one_server_work_together_on_a_910b(save, devices):
    table = rank_table.load(save(one_server(devices)))
    table.check(len(devices), chips.ATLAS_A2)
    with pytest.raises(UsageError, match="devices"):
        table.check(len(devices), chips.ATLAS_910)


def test_several_servers_of_a_910b_bring_equal_numbers_up_to_eight(save):
    values = two_servers()
    for server in values["server_list"]:
        server["device"] = server["device"][:3]
    for rank, device in enumerate(values["server_list"][1]["device"]):
        device["rank_id"] = str(3 + rank)
    rank_table.load(save(values)).check(6, chips.ATLAS_A2)
    del values["server_list"][1]["device"][2]
    with pytest.raises(UsageError, match="different numbers of devices"):
        rank_table.load(save(values)).check(5, chips.ATLAS_A2)


def test_several_servers_of_a_910c_bring_all_their_dies(save):
    values = two_servers()
    for number, server in enumerate(values["server_list"]):
        server["device"] = [
            entry(die, f"192.0.{number}.{die + 1}", 16 * number + die) for die in range(16)
        ]  # fmt: skip
    rank_table.load(save(values)).check(32, chips.ATLAS_A3)
    with pytest.raises(UsageError, match="16 devices; each of several servers may bring 1 to 8"):
        rank_table.load(save(values)).check(32, chips.ATLAS_A2)


def test_a_server_may_have_a_name_of_64_characters(save):
    values = two_servers()
    values["server_list"][0]["server_id"] = "n" * 64
    rank_table.load(save(values)).check(16)


def test_the_count_of_servers_is_optional_in_version_1_2_alone(save):
    values = two_servers(version="1.2", super_pod_list=[{"super_pod_id": "0"}])
    del values["server_count"]
    rank_table.load(save(values)).check(16, chips.ATLAS_A3)
    values["version"] = "1.0"
    with pytest.raises(UsageError, match="server_count is ''"):
        rank_table.load(save(values)).check(16, chips.ATLAS_A3)


def test_devices_of_one_super_pod_need_no_addresses(save):
    values = two_servers(version="1.2", super_pod_list=[{"super_pod_id": "0"}])
    for server in values["server_list"]:
        for device in server["device"]:
            del device["device_ip"]
    rank_table.load(save(values)).check(16, chips.ATLAS_A3)
    values["super_pod_list"].append({"super_pod_id": "1"})
    with pytest.raises(UsageError, match="is not the IP address of a NIC"):
        rank_table.load(save(values)).check(16, chips.ATLAS_A3)


def test_version_1_2_is_for_the_910b_and_keeps_what_is_not_read_here(save, tmp_path):
    values = one_server((0, 1, 2), version=1.2, super_pod_list=[{"super_pod_id": 0}])
    values["server_list"][0]["device"][1].update(device_id=1, device_port=16667)
    path = save(values)
    rank_environments(config(tmp_path, 3, rank_table=path, npu="910b"), {}, machine=SERVER)
    with open(tmp_path / "run" / "rank_table.json") as file:
        written = json.load(file)
    assert written["version"] == "1.2"
    assert written["super_pod_list"] == [{"super_pod_id": "0"}]
    assert written["server_list"][0]["device"][1] == {**entry(1, "192.0.2.2", 1), "device_port": "16667"}
    with pytest.raises(UsageError, match="version is '1.2', but the 910 reads '1.0'"):
        rank_environments(config(tmp_path, 3, rank_table=path, npu="910"), {}, machine=SERVER)


@pytest.mark.parametrize("size", [3, 5, 6])
def test_a_910b_starts_any_number_of_ranks_on_its_server(tmp_path, size):
    ranks = environments(tmp_path, size, npu="910b")
    assert [rank["DEVICE_ID"] for rank in ranks] == list(map(str, range(size)))


def test_one_server_of_a_910b_needs_no_nic_configuration(tmp_path):
    nowhere = str(tmp_path / "nowhere")
    rank_environments(config(tmp_path, 3, npu="910b"), {}, hccn_conf_path=nowhere, machine=SERVER)
    with open(tmp_path / "run" / "rank_table.json") as file:
        (server,) = json.load(file)["server_list"]
    assert server["device"] == [{"device_id": str(n), "rank_id": str(n)} for n in range(3)]
    with pytest.raises(UsageError, match="nowhere cannot be read"):
        rank_environments(config(tmp_path, 2, npu="910"), {}, hccn_conf_path=nowhere, machine=SERVER)


def test_an_address_may_be_of_version_6(save):
    values = one_server((0, 1))
    for number, device in enumerate(values["server_list"][0]["device"]):
        device["device_ip"] = f"2001:db8::{number + 1}"
    rank_table.load(save(values)).check(2)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DEVICE_ID", "9", "DEVICE_ID=9, but only /dev/davinci0, .* are visible here; correct or unset it"),
        ("ASCEND_DEVICE_ID", "8", "ASCEND_DEVICE_ID=8, but it counts the devices here.*: 0 to 7; correct"),
        ("DEVICE_ID", "first", "DEVICE_ID=first must be a whole number"),
    ],
)
def test_a_device_that_does_not_exist_is_refused_whoever_starts_the_rank(
    tmp_path, save, name, value, message
):
    wrong = {name: value}
    with pytest.raises(UsageError, match=message):
        rank_environments(config(tmp_path, 1), wrong, machine=SERVER)
    task = {**wrong, "RANK_ID": "1", "RANK_SIZE": "2"}
    two = config(tmp_path, 2, rank_table=save(one_server((0, 1))))
    with pytest.raises(UsageError, match=message):
        complete_environment(two, task, machine=SERVER)


def test_numbers_are_rewritten_as_the_strings_that_the_library_reads(save, tmp_path):
    values = two_servers(server_count=2, version=1.0)
    values["server_list"][1]["device"][3].update(device_id=3, rank_id=11)
    path = save(values)
    environments = rank_environments(config(tmp_path, 16, rank_table=path), {}, machine=SERVER)
    (written,) = {environment["RANK_TABLE_FILE"] for environment in environments}
    assert written == str(tmp_path / "run" / "rank_table.json")
    with open(written) as file:
        table = json.load(file)
    assert (table["version"], table["server_count"]) == ("1.0", "2")
    assert table["server_list"][1]["device"][3] == entry(3, "192.0.2.12", 11)
    assert rank_table.load(written).has_numbers is False


def test_a_table_that_is_no_text_or_holds_endless_numbers_is_refused_in_words(save, tmp_path):
    path = tmp_path / "binary.json"
    path.write_bytes(b'{"status": "\xff"}')
    with pytest.raises(UsageError, match=r"binary.json is not text \(byte 12\).*write it anew"):
        rank_table.load(str(path))
    endless = json.dumps(two_servers()).replace('"device_id": "3"', '"device_id": ' + 5000 * "9", 1)
    with pytest.raises(UsageError, match=r"device_id is '9+\.\.\. \(5000 characters\)'"):
        rank_table.load(save(endless))
    counted = json.dumps(two_servers()).replace('"server_count": "2"', '"server_count": ' + 5000 * "9", 1)
    with pytest.raises(UsageError, match=r"server_count is '9+\.\.\. \(5000 characters\)', but"):
        rank_table.load(save(counted)).check(16)


def test_a_nic_configuration_that_is_no_text_is_refused_in_words(tmp_path):
    path = tmp_path / "hccn.conf"
    path.write_bytes(b"address_0=\xff\xfe")
    with pytest.raises(UsageError, match=r"hccn.conf is not text \(byte 10\).*--rank_table"):
        rank_environments(config(tmp_path, 2), {}, hccn_conf_path=str(path), machine=SERVER)


def test_one_server_needs_no_addresses_but_all_or_none(save):
    values = two_servers(server_count="1")
    del values["server_list"][1]
    for device in values["server_list"][0]["device"]:
        del device["device_ip"]
    table = rank_table.load(save(values))
    table.check(8)
    values["server_list"][0]["device"][0]["device_ip"] = "192.0.2.1"
    with pytest.raises(UsageError, match="device 1: device_ip ''"):
        rank_table.load(save(values)).check(8)


@pytest.mark.parametrize(("values", "ranks"), [(two_servers(), 16), (grouped(), 4)])
def test_a_left_over_table_says_to_unset_it(save, tmp_path, values, ranks):
    with pytest.raises(UsageError, match=f"{ranks} ranks, but --rank_size is 1; unset RANK_TABLE_FILE"):
        rank_environments(config(tmp_path, 1), {"RANK_TABLE_FILE": save(values)}, machine=SERVER)


def test_a_variable_that_names_no_table_any_more_says_to_unset_it(tmp_path):
    gone = {"RANK_TABLE_FILE": str(tmp_path / "gone.json")}
    with pytest.raises(UsageError, match="does not exist; unset RANK_TABLE_FILE"):
        rank_environments(config(tmp_path, 1), gone, machine=SERVER)


def test_a_device_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UsageError, match="DEVICE_ID=9, but only /dev/davinci0, .* are visible here"):
        rank_environments(config(tmp_path, 1), {"DEVICE_ID": "9"}, machine=SERVER)


def test_all_broken_rules_are_reported_at_once(save):
    values = two_servers(server_count="3")
    values["server_list"][0]["device"][3]["device_ip"] = "nonsense"
    with pytest.raises(UsageError, match=r"(?s)server_count.*nonsense"):
        rank_table.load(save(values)).check(16)


@pytest.mark.parametrize("size", [1, 8, 17])
def test_the_table_must_have_the_size_of_the_job(save, size):
    with pytest.raises(UsageError, match=f"16 devices, but --rank_size is {size}"):
        rank_table.load(save(two_servers())).check(size)


@pytest.mark.parametrize(
    ("devices", "allowed"),
    [
        ([0], True),
        ([7], True),
        ([0, 1], True),
        ([1, 3], True),
        ([4, 6], True),
        ([3, 4], False),
        ([0, 1, 2], False),
        ([0, 1, 2, 3], True),
        ([4, 5, 6, 7], True),
        ([2, 3, 4, 5], False),
        ([0, 1, 2, 3, 4, 5], False),
        (list(range(8)), True),
    ],
)
def test_device_sets_that_the_910_connects(devices, allowed):
    table = rank_table.from_hccn_conf(HCCN_CONF, devices, "10.0.0.1")
    if allowed:
        table.check(len(devices))
    else:
        with pytest.raises(UsageError, match="1, 2, 4 or 8|both networks"):
            table.check(len(devices))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 99999, "is not JSON"),
        ("[]", "one JSON object"),
        ('{"status": "completed"}', "neither server_list nor group_list"),
        ('{"server_list": {}}', "must be a list"),
        ('{"server_list": [{"device": [{"device_id": "x"}]}]}', r"server_list\[0\], device\[0\].*'x'"),
        (json.dumps(dict(grouped(), group_count="2")), "group_count is '2', but 1 are listed"),
    ],
)
def test_unreadable_tables_name_the_file_and_the_place(save, content, message):
    path = save(content)
    with pytest.raises(UsageError, match=message) as error:
        rank_table.load(path)
    assert path in str(error.value)


def test_a_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        rank_table.load(str(tmp_path / "none.json"))


def test_the_old_form_counts_ranks_in_its_order(save):
    table = rank_table.load(save(grouped()))
    table.check(4)
    places = [
        (rank, server.server_id, device.device_id) for rank, (server, device) in sorted(table.ranks().items())
    ]
    assert places == [(0, "10.0.0.1", 0), (1, "10.0.0.1", 1), (2, "10.0.0.2", 0), (3, "10.0.0.2", 1)]


def test_pods_of_one_server_in_the_old_form_are_one_server(save):
    pods = [(str(n), "10.0.0.1", (n,)) for n in range(4)]
    table = rank_table.load(save(grouped(pods)))
    table.check(4)
    assert len(table.servers) == 1
    assert table.servers[0].names[::2] == ("10.0.0.1",) * 4


def test_a_written_table_is_version_1_of_strings_and_reads_back(tmp_path):
    path = str(tmp_path / "folder" / "rank_table.json")
    made = rank_table.from_hccn_conf(HCCN_CONF, [4, 5], "10.0.0.1")
    rank_table.write(made, path)
    with open(path) as file:
        values = json.load(file)
    assert values["version"] == "1.0"
    assert values["server_count"] == "1"
    assert values["server_list"][0]["device"] == [
        entry(4, "192.168.100.100", 0),
        entry(5, "192.168.101.100", 1),
    ]
    rank_table.load(path).check(2)
    assert os.listdir(os.path.dirname(path)) == ["rank_table.json"]


# /etc/hccn.conf


def test_a_device_without_an_address_is_named():
    with pytest.raises(UsageError, match=r"address_6= for device 6.*hccn_tool -i 6"):
        rank_table.from_hccn_conf(HCCN_CONF.replace("address_6=", "#address_6="), range(8), "10.0.0.1")


def test_two_addresses_of_a_device_are_refused():
    with pytest.raises(UsageError, match="device 0 has the addresses"):
        rank_table.from_hccn_conf(HCCN_CONF + "address_0=10.1.1.1\n", [0], "10.0.0.1")


def test_the_command_joins_the_configurations_of_several_servers(save, tmp_path, capsys):
    second = HCCN_CONF.replace("192.168.", "192.169.")
    arguments = [f"10.0.0.1={save(HCCN_CONF, 'a')}", f"10.0.0.2={save(second, 'b')}"]
    path = str(tmp_path / "common.json")
    assert cli.run_command(["rank_table", path, *arguments]) == 0
    assert "16 ranks on 2 servers" in capsys.readouterr().out
    rank_table.load(path).check(16)
    assert cli.run_command(["rank_table", path, arguments[0], f"10.0.0.2={save(HCCN_CONF, 'b')}"]) == 2
    assert "is also that of" in capsys.readouterr().err
    assert cli.run_command(["rank_table", path]) == 2


# The environments that the launcher gives.


def environments(tmp_path, size, env=None, machine=SERVER, conf=HCCN_CONF, **changes):
    path = tmp_path / "hccn.conf"
    if conf is not None:
        path.write_text(conf)
    return rank_environments(
        config(tmp_path, size, **changes), env or {}, hccn_conf_path=str(path), machine=machine
    )


def test_eight_ranks_of_one_server(tmp_path):
    ranks = environments(tmp_path, 8)
    path = str(tmp_path / "run" / "rank_table.json")
    rank_table.load(path).check(8)
    assert [rank.pop("DENSENET_KERAS_CORES") for rank in ranks] == [
        f"{12 * n}-{12 * n + 11}" for n in range(8)
    ]
    assert ranks == [
        {
            "RANK_ID": str(n),
            "RANK_SIZE": "8",
            "RANK_TABLE_FILE": path,
            "DEVICE_ID": str(n),
            "ASCEND_DEVICE_ID": str(n),
            "DEVICE_INDEX": str(n),
            "ASCEND_WORK_PATH": str(tmp_path / "run" / "rank_logs" / f"npu_{n}"),
            "JOB_ID": "densenet-keras",
            "HCCL_CONNECT_TIMEOUT": "3600",
            "HCCL_EXEC_TIMEOUT": "3604",
        }
        for n in range(8)
    ]


def test_one_rank_needs_no_table(tmp_path):
    (rank,) = environments(tmp_path, 1, conf=None)
    assert rank == {
        "RANK_ID": "0",
        "RANK_SIZE": "1",
        "DEVICE_ID": "0",
        "ASCEND_DEVICE_ID": "0",
        "DEVICE_INDEX": "0",
        "ASCEND_WORK_PATH": str(tmp_path / "run" / "rank_logs" / "npu_0"),
        "JOB_ID": "densenet-keras",
        "HCCL_CONNECT_TIMEOUT": "3600",
        "HCCL_EXEC_TIMEOUT": "3604",
    }
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"DEVICE_ID": "3"}, {"ASCEND_DEVICE_ID": "3"}),
        ({"ASCEND_DEVICE_ID": "5"}, {"DEVICE_ID": "5"}),
        ({"JOB_ID": ""}, {"JOB_ID": "densenet-keras", "DEVICE_ID": "0"}),
    ],
)
def test_one_rank_follows_the_device_that_is_set(tmp_path, env, expected):
    (rank,) = environments(tmp_path, 1, env, conf=None)
    assert {name: rank[name] for name in expected} == expected
    assert not {name for name, value in env.items() if value} & set(rank)


def test_what_the_user_set_stays(tmp_path):
    env = {
        "JOB_ID": "mine",
        "HCCL_CONNECT_TIMEOUT": "7200",
        "HCCL_EXEC_TIMEOUT": "600",
        "RANK_SIZE": "2",
        "DENSENET_KERAS_CORES": "0-1",
        "PATH": "/bin",
    }
    for rank in environments(tmp_path, 2, env):
        assert not set(env) & set(rank)


@pytest.mark.parametrize("seconds", [60, 1200, 20000])
def test_the_connection_waits_as_long_as_the_first_step_within_limits(tmp_path, seconds):
    (rank,) = environments(tmp_path, 1, first_step_timeout_seconds=seconds)
    assert rank["HCCL_CONNECT_TIMEOUT"] == str(min(max(seconds, 600), 7200))


@pytest.mark.parametrize(
    ("seconds", "waits"), [(60, "1836"), (1836, "1836"), (1837, "1904"), (3600, "3604"), (20000, "17340")]
)
def test_a_rank_that_has_compiled_waits_for_one_that_still_compiles(tmp_path, seconds, waits):
    (rank,) = environments(tmp_path, 1, first_step_timeout_seconds=seconds)
    assert rank["HCCL_EXEC_TIMEOUT"] == waits
    assert int(waits) % 68 == 0  # the 910 rounds down to this


@pytest.mark.parametrize(
    ("size", "env", "message"),
    [
        (2, {"DEVICE_ID": "0"}, "DEVICE_ID=0 .*each needs its own; unset DEVICE_ID"),
        (2, {"RANK_SIZE": "8"}, "RANK_SIZE=8 .*--rank_size 2"),
        (1, {"CM_WORKER_SIZE": "8", "CM_CHIEF_IP": "10.0.0.1"}, "CM_CHIEF_IP=.*unset CM_CHIEF_IP, CM_WORKER"),
        (1, {"JOB_ID": "0123"}, "JOB_ID=0123 may have"),
        (1, {"JOB_ID": "my job"}, "JOB_ID=my job may have"),
        (1, {"HCCL_CONNECT_TIMEOUT": "30"}, "HCCL_CONNECT_TIMEOUT=30 must be 120 to 7200"),
        (1, {"HCCL_EXEC_TIMEOUT": "0"}, "HCCL_EXEC_TIMEOUT=0 must be 1 to 17340"),
        (1, {"DENSENET_KERAS_SHUTDOWN_SECONDS": "0"}, "DENSENET_KERAS_SHUTDOWN_SECONDS=0 must be at least 1"),
        (1, {"DEVICE_ID": "first"}, "DEVICE_ID=first must be a whole number"),
        (3, {}, "--rank_size 3 on one server.*--rank_table"),
        (16, {}, "--rank_size 16 on one server.*--rank_table"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, size, env, message):
    with pytest.raises(UsageError, match=message):
        environments(tmp_path, size, env)


@pytest.mark.parametrize("npu", ["910b", "910c"])
def test_where_no_limit_of_an_exchange_is_allowed_it_may_be_set(tmp_path, npu):
    (given,) = environments(tmp_path, 1, {"HCCL_EXEC_TIMEOUT": "0"}, npu=npu)
    assert "HCCL_EXEC_TIMEOUT" not in given
    (long,) = environments(tmp_path, 1, npu=npu, first_step_timeout_seconds=20000)
    assert int(long["HCCL_EXEC_TIMEOUT"]) >= 20000


def test_no_nic_configuration_says_what_to_do(tmp_path):
    with pytest.raises(UsageError, match=r"hccn.conf cannot be read.*--rank_table"):
        environments(tmp_path, 2, conf=None)


def test_a_dry_run_plans_without_device_or_file(tmp_path):
    ranks = environments(tmp_path, 8, machine=Machine(cores=(0, 1), core_count=2), conf=None, dry_run=True)
    assert [rank["DEVICE_ID"] for rank in ranks] == [str(n) for n in range(8)]
    assert ranks[0]["RANK_TABLE_FILE"] == str(tmp_path / "run" / "rank_table.json")
    assert not (tmp_path / "run").exists()
    assert "DENSENET_KERAS_CORES" not in ranks[0]


def test_a_container_numbers_its_devices_from_zero(tmp_path):
    container = Machine("pod", ("172.17.0.2",), (4, 5, 6, 7), tuple(range(48, 96)), 96)
    ranks = environments(tmp_path, 4, machine=container)
    assert [(rank["DEVICE_ID"], rank["ASCEND_DEVICE_ID"]) for rank in ranks] == [
        ("4", "0"),
        ("5", "1"),
        ("6", "2"),
        ("7", "3"),
    ]
    assert ranks[3]["DENSENET_KERAS_CORES"] == "84-95"
    with pytest.raises(UsageError, match=r"devices \[4, 5, 6, 7\], but 8 of"):
        environments(tmp_path, 8, machine=container)
    straddling = Machine("pod", ("172.17.0.2",), (3, 4), (0,), 1)
    with pytest.raises(UsageError, match="of one network"):
        environments(tmp_path, 2, machine=straddling)


def test_devices_that_the_runtime_hides_are_neither_used_nor_counted(tmp_path):
    visible = {"ASCEND_RT_VISIBLE_DEVICES": "4,5,6,7"}
    ranks = environments(tmp_path, 4, env=visible)
    assert [(rank["DEVICE_ID"], rank["ASCEND_DEVICE_ID"]) for rank in ranks] == [
        ("4", "0"), ("5", "1"), ("6", "2"), ("7", "3"),
    ]  # fmt: skip
    (alone,) = environments(tmp_path, 1, env={"ASCEND_RT_VISIBLE_DEVICES": "6"})
    assert (alone["DEVICE_ID"], alone["ASCEND_DEVICE_ID"]) == ("6", "0")
    (second,) = environments(tmp_path, 1, env={**visible, "ASCEND_DEVICE_ID": "1"})
    assert second["DEVICE_ID"] == "5"
    with pytest.raises(UsageError, match="DEVICE_ID=0, but only /dev/davinci4, .* are visible here"):
        environments(tmp_path, 1, env={**visible, "DEVICE_ID": "0"})
    for mistake in ("5,4", "4,", "4, 5", "4,4", "8", "all"):
        with pytest.raises(UsageError, match="0 to 7, in ascending order"):
            environments(tmp_path, 1, env={"ASCEND_RT_VISIBLE_DEVICES": mistake})


# Several servers: the same command with the common table.


def test_each_server_knows_its_own_ranks_and_writes_nothing(save, tmp_path):
    values = two_servers(version=1.0)  # to be rewritten as text
    for server in values["server_list"]:
        server["device"] = server["device"][:2]
    for rank, device in enumerate(values["server_list"][1]["device"]):
        device["rank_id"] = str(2 + rank)
    four = config(tmp_path, 4, rank_table=save(values))
    here = [
        ranks_here(four, {"DENSENET_KERAS_SERVER_ID": name}, machine=SERVER)
        for name in ("10.0.0.1", "10.0.0.2")
    ]
    assert here == [[0, 1], [2, 3]]
    assert HOST.local_ranks(four) == 2  # who share the cores of a server
    assert HOST.local_ranks(four.replace(rank_table="nowhere")) == 4
    assert ranks_here(config(tmp_path, 1), {}, machine=SERVER) == [0]
    assert not os.path.exists(four.run.log_dir)


@pytest.mark.parametrize(
    ("host", "env", "first"),
    [
        (Machine("node1", ("10.0.0.1",)), {}, 0),
        (Machine("node2", ("172.17.0.1", "10.0.0.2")), {}, 8),
        (Machine("pod-1", ("172.17.0.2",)), {"XDL_IP": "10.0.0.2"}, 8),
        (Machine("pod-1", ("172.17.0.2",)), {"HOST_IP": "10.0.0.2"}, 8),
        (Machine("pod-1", ("10.0.0.1",)), {"DENSENET_KERAS_SERVER_ID": "10.0.0.2"}, 8),
    ],
)
def test_each_server_starts_its_own_ranks(tmp_path, save, host, env, first):
    path = save(two_servers())
    ranks = environments(tmp_path, 16, env, machine=host, conf=None, rank_table=path)
    assert [rank["RANK_ID"] for rank in ranks] == [str(first + n) for n in range(8)]
    assert [rank["DEVICE_ID"] for rank in ranks] == [str(n) for n in range(8)]
    assert {rank["RANK_TABLE_FILE"] for rank in ranks} == {path}
    assert {rank["RANK_SIZE"] for rank in ranks} == {"16"}


@pytest.mark.parametrize(
    ("host", "env", "message"),
    [
        (Machine("other", ("10.9.9.9",)), {}, "is this machine, other with 10.9.9.9.*SERVER_ID"),
        (SERVER, {"DENSENET_KERAS_SERVER_ID": "10.0.0.3"}, "10.0.0.3 is not a server of.*10.0.0.1, 10.0.0.2"),
        (SERVER, {"RANK_TABLE_FILE": "/elsewhere.json"}, "differ; unset"),
        (Machine("node1", ("10.0.0.1",), (0, 1)), {}, "device 2, but only /dev/davinci0, /dev/davinci1"),
    ],
)
def test_a_server_that_cannot_take_its_part_is_refused(tmp_path, save, host, env, message):
    with pytest.raises(UsageError, match=message):
        environments(tmp_path, 16, env, machine=host, conf=None, rank_table=save(two_servers()))


def test_a_table_of_one_server_needs_no_known_name(tmp_path, save):
    values = two_servers(server_count="1")
    del values["server_list"][1]
    ranks = environments(tmp_path, 8, {"RANK_TABLE_FILE": save(values)}, machine=Machine("pod"), conf=None)
    assert len(ranks) == 8
    assert "RANK_TABLE_FILE" not in ranks[0]


def test_the_old_form_is_translated_for_the_ranks(tmp_path, save):
    path = save(grouped())
    env = {"MA_CURRENT_INSTANCE_NAME": "job-worker-1"}
    ranks = environments(tmp_path, 4, env, machine=Machine("pod"), conf=None, rank_table=path)
    assert [rank["RANK_ID"] for rank in ranks] == ["2", "3"]
    translated = rank_table.load(ranks[0]["RANK_TABLE_FILE"])
    assert translated.form == "server_list"
    translated.check(4)


def test_modelarts_names_the_folder_of_its_table(tmp_path, save):
    save(grouped(), "jobstart_hccl.json")
    env = {"RANK_TABLE_FILE": str(tmp_path), "MA_CURRENT_INSTANCE_NAME": "job-worker-0"}
    ranks = environments(tmp_path, 4, env, machine=Machine("pod"), conf=None)
    assert [rank["RANK_ID"] for rank in ranks] == ["0", "1"]
    assert ranks[0]["RANK_TABLE_FILE"] == str(tmp_path / "run" / "rank_table.json")


class Clock:
    """Time that only passes while the code under test pauses."""

    def __init__(self, monkeypatch):
        self.seconds, self.pauses, self.at_third_pause = 0.0, 0, lambda: None
        monkeypatch.setattr(job_table, "time", self)

    def monotonic(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += seconds
        self.pauses += 1
        if self.pauses == 3:
            self.at_third_pause()


def test_a_volcano_pod_finds_the_mounted_table_and_waits_until_it_is_complete(tmp_path, save, monkeypatch):
    path = save({"status": "initializing"})
    monkeypatch.setattr(job_table, "MOUNTED_TABLE", path)
    clock = Clock(monkeypatch)
    clock.at_third_pause = lambda: save(two_servers())
    ranks = environments(
        tmp_path, 16, {"XDL_IP": "10.0.0.2"}, machine=Machine("densenet-121-worker-1"), conf=None
    )
    assert clock.pauses == 3
    assert [rank["RANK_ID"] for rank in ranks] == [str(n) for n in range(8, 16)]
    assert ranks[0]["RANK_TABLE_FILE"] == path


def test_waiting_for_a_table_ends(tmp_path, save, monkeypatch):
    path = save({"status": "initializing"})
    monkeypatch.setattr(job_table, "MOUNTED_TABLE", path)
    clock = Clock(monkeypatch)
    with pytest.raises(UsageError, match="status is 'initializing'"):
        environments(tmp_path, 16, machine=Machine("pod"), conf=None)
    assert clock.seconds == job_table.TABLE_WAIT_SECONDS


# Ranks that a scheduler started.

MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "9",
    "OMPI_COMM_WORLD_SIZE": "16",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "8",
}
SRUN = {
    "SLURM_PROCID": "9",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
    "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "4711",
}


@pytest.mark.parametrize(("environ", "job"), [(MPIRUN, "densenet-keras"), (SRUN, "slurm-4711")])
def test_tasks_of_mpirun_and_srun(tmp_path, save, environ, job):
    path = save(two_servers())
    host = Machine("node2", ("10.0.0.2",), tuple(range(8)), tuple(range(96)), 96)
    added = complete_environment(config(tmp_path, 16, rank_table=path), environ, machine=host)
    assert added == {
        "RANK_ID": "9",
        "RANK_SIZE": "16",
        "RANK_TABLE_FILE": path,
        "DEVICE_ID": "1",
        "ASCEND_DEVICE_ID": "1",
        "DEVICE_INDEX": "9",
        "ASCEND_WORK_PATH": str(tmp_path / "run" / "rank_logs" / "npu_9"),
        "JOB_ID": job,
        "HCCL_CONNECT_TIMEOUT": "3600",
        "HCCL_EXEC_TIMEOUT": "3604",
        "DENSENET_KERAS_CORES": "12-23",
    }


def test_a_task_that_its_scheduler_has_bound_keeps_its_cores(tmp_path, save):
    host = Machine("node2", ("10.0.0.2",), tuple(range(8)), (5, 6, 7), 96)
    added = complete_environment(config(tmp_path, 16, rank_table=save(two_servers())), MPIRUN, machine=host)
    assert "DENSENET_KERAS_CORES" not in added


def test_a_task_on_the_wrong_server_is_refused(tmp_path, save):
    with pytest.raises(UsageError, match="rank 9 runs on server 10.0.0.1, but .* puts it on 10.0.0.2"):
        complete_environment(config(tmp_path, 16, rank_table=save(two_servers())), MPIRUN, machine=SERVER)


def test_tasks_on_several_servers_need_the_common_table(tmp_path):
    with pytest.raises(UsageError, match="16 ranks, of which 8 run on this server.*--rank_table"):
        complete_environment(config(tmp_path, 16), MPIRUN, machine=SERVER)


def test_tasks_of_one_server_make_the_same_table(tmp_path):
    path = tmp_path / "hccn.conf"
    path.write_text(HCCN_CONF)
    made = set()
    for rank in range(2):
        environ = {
            "OMPI_COMM_WORLD_RANK": str(rank),
            "OMPI_COMM_WORLD_SIZE": "2",
            "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
            "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
        }
        added = complete_environment(config(tmp_path, 2), environ, hccn_conf_path=str(path), machine=SERVER)
        assert (added["RANK_ID"], added["DEVICE_ID"]) == (str(rank), str(rank))
        with open(added["RANK_TABLE_FILE"]) as file:
            made.add(file.read())
    assert len(made) == 1


def test_a_modelarts_process_keeps_what_the_platform_set(tmp_path, save):
    path = save(two_servers())
    environ = {
        "RANK_ID": "9",
        "RANK_SIZE": "16",
        "ASCEND_DEVICE_ID": "1",
        "RANK_TABLE_FILE": path,
        "MA_CURRENT_HOST_IP": "10.0.0.2",
    }
    pod = Machine("pod", cores=(0,), core_count=1)
    added = complete_environment(config(tmp_path, 16), environ, machine=pod)
    assert added == {
        "DEVICE_ID": "1",
        "DEVICE_INDEX": "9",
        "ASCEND_WORK_PATH": str(tmp_path / "run" / "rank_logs" / "npu_9"),
        "JOB_ID": "densenet-keras",
        "HCCL_CONNECT_TIMEOUT": "3600",
        "HCCL_EXEC_TIMEOUT": "3604",
    }


@pytest.mark.parametrize("old_form", [False, True])
def test_a_rank_that_the_launcher_started_lacks_nothing(tmp_path, save, old_form):
    table = grouped([("0", "10.0.0.1", (0, 1, 2, 3))]) if old_form else None
    changes = {"rank_table": save(table)} if old_form else {}
    for rank in environments(tmp_path, 4, **changes):
        assert complete_environment(config(tmp_path, 4, **changes), rank, machine=SERVER) == {}


def test_a_lone_process_needs_only_its_device(tmp_path):
    added = complete_environment(config(tmp_path, 1), {}, machine=SERVER)
    assert (added["RANK_ID"], added["DEVICE_ID"]) == ("0", "0")
    assert "RANK_TABLE_FILE" not in added


# The machine.


@pytest.mark.parametrize(
    ("cores", "ranks", "expected"),
    [
        (range(8), 2, ["0-3", "4-7"]),
        (range(7), 2, ["0-2", "3-6"]),
        ((0, 2, 3, 9), 2, ["0-0,2-2", "3-3,9-9"]),
        (range(2), 8, [""] * 8),
        (range(8), 1, [""]),
    ],
)
def test_cores_are_shared_without_overlap(cores, ranks, expected):
    assert [core_range(list(cores), rank, ranks) for rank in range(ranks)] == expected


def test_device_nodes_are_counted_without_the_managers(tmp_path):
    for name in ("davinci10", "davinci2", "davinci_manager", "davinciX"):
        (tmp_path / name).write_text("")
    assert _device_ids(str(tmp_path)) == (2, 10)


def test_this_machine_can_be_read():
    machine = Machine.probe()
    assert machine.cores
    assert "127.0.0.1" not in _addresses()
