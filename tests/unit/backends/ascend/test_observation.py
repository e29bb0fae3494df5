"""What is read of npu-smi and of the libraries' logs."""

from densenet_keras.backends.ascend import chips, observation

# Ascend 910A, as npu-smi 21.0.2 prints it; the second device has processes in use of it.
TABLE = """
+-------------------------------------------------------------------------------------------+
| npu-smi 21.0.2                       Version: 21.0.2                                      |
+----------------------+---------------+----------------------------------------------------+
| NPU   Name           | Health        | Power(W)     Temp(C)           Hugepages-Usage(page)|
| Chip                 | Bus-Id        | AICore(%)    Memory-Usage(MB)  HBM-Usage(MB)        |
+======================+===============+====================================================+
| 0     910A           | OK            | 69.3         36                0    / 0             |
| 0                    | 0000:C1:00.0  | 0            591  / 15137      0    / 32768         |
+======================+===============+====================================================+
| 1     910A           | OK            | 67.6         36                0    / 0             |
| 0                    | 0000:81:00.0  | 12           2104 / 15137      21510/ 32768         |
+======================+===============+====================================================+
| NPU     Chip         | Process id    | Process name             | Process memory(MB)      |
| 1       0            | 4711          | python3.7                | 21400                   |
+======================+===============+====================================================+
"""


def test_memory_is_that_of_the_right_column():
    assert observation.memory_mb(TABLE) == {"0": 0, "1": 21510}


def test_a_910b_is_read_too():
    text = TABLE.replace("910A ", "910B3").replace("/ 32768", "/ 65536")
    assert observation.memory_mb(text) == {"0": 0, "1": 21510}


# Atlas A3, as npu-smi 25.2 prints it: two dies a package, each with a number of its own.
DIES = """
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip  Phy-ID              | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 2     Ascend910           | OK            | 165.3       36                0    / 0             |
| 0     4                   | 0000:9D:00.0  | 0           0    / 0          3143 / 65536         |
+------------------------------------------------------------------------------------------------+
| 2     Ascend910           | OK            | -           36                0    / 0             |
| 1     5                   | 0000:9F:00.0  | 0           0    / 0          2887 / 65536         |
+===========================+===============+====================================================+
"""


def test_dies_of_a_package_are_devices():
    assert observation.memory_mb(DIES) == {"4": 3143, "5": 2887}


def test_devices_are_named():
    assert observation.kinds(TABLE) == ["910A"]
    assert observation.kind(["910A"]) is chips.ATLAS_910
    assert observation.kind(["910B1", "910B3"]) is chips.ATLAS_A2
    assert observation.kind(observation.kinds(DIES)) is chips.ATLAS_A3


def test_another_text_says_nothing():
    assert observation.memory_mb("dcmi model initialized failed") == {}


def test_lines_of_logs_are_quoted(tmp_path):
    (tmp_path / "plog").mkdir()
    (tmp_path / "plog" / "plog-1.log").write_text("[INFO] a\n[INFO] Insert op success, b\n" * 9)
    assert observation.logged(str(tmp_path), "Insert op success") == ["[INFO] Insert op success, b"] * 4
