import datetime
import glob
import io
import json
import math
import threading

import pytest
import tensorflow as tf

from densenet_keras.errors import RunError
from densenet_keras.schedule import Progress, StepLogs
from densenet_keras.settings.config import OptimizerConfig
from densenet_keras.training.callbacks import (
    CheckpointSaver,
    Console,
    CosineLearningRate,
    Evaluate,
    Metrics,
    ProgressBar,
    TensorBoard,
    Throughput,
)
from densenet_keras.training.callbacks.console import log_line
from densenet_keras.training.callbacks.evaluation import TABLE_HEADER, table_row
from densenet_keras.training.callbacks.metrics import holds_evaluation
from densenet_keras.training.evaluation import EvalResult
from tests.support import toy_training as toy
from tests.support.toy_training import ToyBackend

RESULT = EvalResult(top1=75.67, top5=92.77, loss=1.015, images=50000, seconds=12.5)


def logs(step=1, steps=1, seconds=1.0, timed_steps=None, data_wait_seconds=math.nan, **scalars):
    timed_steps = steps if timed_steps is None else timed_steps
    progress = Progress(step, step / 10, steps, timed_steps, seconds, data_wait_seconds)
    return StepLogs({"loss": 2.0, "total_loss": 3.0, "learning_rate": 0.1, **scalars}, progress)


def lines_of(path):
    with open(str(path)) as file:
        return [json.loads(line) for line in file]


class TestLearningRate:
    callback = CosineLearningRate(OptimizerConfig(), steps_per_epoch=5004)

    def test_passes_what_the_schedule_says_for_the_last_step_of_a_chunk(self):
        self.callback.on_train_batch_end(0, logs(step=150120, learning_rate=self.callback.value(150119)))

    def test_a_rate_rounded_to_float16_ends_the_run(self):
        rounded = float(tf.float16.as_numpy_dtype(self.callback.value(150119)))
        with pytest.raises(RunError, match="step 150120 used learning rate 0.0910.*mixed precision"):
            self.callback.on_train_batch_end(0, logs(step=150120, learning_rate=rounded))

    @pytest.mark.parametrize("rate", [math.nan, 0.0, 0.1])
    def test_so_does_the_rate_of_another_step(self, rate):
        with pytest.raises(RunError, match="global step"):
            self.callback.on_train_batch_end(0, logs(step=150120, learning_rate=rate))


def test_what_was_shown_of_steps_gone_back_from_is_taken_back(tmp_path):
    plan = toy.plan(100, log_interval_steps=10)
    throughput, metrics = Throughput(plan), Metrics(str(tmp_path), first_step=0)
    for step in (10, 20):
        line = logs(step=step, steps=10)
        throughput.on_train_batch_end(0, line)
        metrics.on_train_batch_end(0, line)
    throughput.on_train_batch_end(0, logs(step=25, steps=5, seconds=100.0))
    for callback in (throughput, metrics):
        callback.on_rewind(10, "words")
    line = logs(step=20, steps=10, seconds=1.0)
    throughput.on_train_batch_end(0, line)
    assert line["images_per_second"] == 10 * plan.global_batch / 1.0
    metrics.on_train_batch_end(0, line)
    metrics.close()
    assert [(each["step"], each["images_per_second"]) for each in lines_of(tmp_path / "metrics.jsonl")] == [
        (10, 40.0), (20, 40.0)
    ]  # fmt: skip


class TestThroughput:
    def callback(self, **changes):
        return Throughput(toy.plan(100, global_batch=8, log_interval_steps=10, **changes))

    def test_counts_all_steps_since_the_last_line(self):
        callback = self.callback()
        first, second = (
            logs(step=4, steps=4, seconds=1.0, data_wait_seconds=0.25),
            logs(step=10, steps=6, seconds=4.0, data_wait_seconds=0.25),
        )
        callback.on_train_batch_end(0, first)
        assert "images_per_second" not in first
        callback.on_train_batch_end(0, second)
        assert second["images_per_second"] == 8 * 10 / 5.0
        assert second["data_wait_fraction"] == 0.5 / 5.0
        third = logs(step=20, steps=10, seconds=1.0, data_wait_seconds=0.0)
        callback.on_train_batch_end(0, third)
        assert (third["images_per_second"], third["data_wait_fraction"]) == (80.0, 0.0)

    def test_leaves_compilation_out(self):
        callback = self.callback()
        first = logs(step=5, steps=5, timed_steps=4, seconds=2.0, data_wait_seconds=1.0)
        callback.on_train_batch_end(0, first)
        line = logs(step=10, steps=5, seconds=2.0, data_wait_seconds=1.0)
        callback.on_train_batch_end(0, line)
        assert (line["images_per_second"], line["data_wait_fraction"]) == (8 * 9 / 4.0, 0.5)

    def test_does_not_invent_a_speed_when_all_was_compilation(self):
        line = logs(step=10, steps=10, timed_steps=0, seconds=0.0)
        self.callback().on_train_batch_end(0, line)
        assert math.isnan(line["images_per_second"])

    def test_the_last_step_has_a_line(self):
        line = logs(step=100, steps=3)
        self.callback(iterations_per_loop=3).on_train_batch_end(0, line)
        assert "images_per_second" in line


class TestConsole:
    def test_the_line_is_the_originals(self):
        line = logs(step=150120, loss=3.373, total_loss=4.215, learning_rate=0.09106)
        line.progress = line.progress._replace(epoch=30.0)
        line.update(batch=3, size=32, images_per_second=4216.5, data_wait_fraction=math.nan)
        original = "step:%6i  epoch:%5.1f  FPS:%7.1f  loss:%6.3f  total_loss:%6.3f  lr:%7.5f"
        assert log_line(line) == original % (150120, 30.0, 4216.5, 3.373, 4.215, 0.09106)

    def test_further_fields_stand_behind_it(self):
        line = logs(images_per_second=10.0, data_wait_fraction=0.123, skipped_steps=2.0)
        assert log_line(line).endswith("lr:0.10000  data_wait: 12.3%  skipped_steps:2")

    def test_writes_where_a_line_is_due_to_terminal_and_file(self, tmp_path, capsys):
        plan = toy.plan(20, log_interval_steps=10)
        for _ in range(2):  # a continued run appends
            toy.run(plan, [Throughput(plan), Console(str(tmp_path / "run"), "train.log")])
        written = (tmp_path / "run" / "train.log").read_text()
        assert [line[:11] for line in written.splitlines()] == ["step:    10", "step:    20"] * 2
        assert capsys.readouterr().out == written

    def test_the_evaluation_table_is_the_originals(self, tmp_path, capsys):
        console = Console(str(tmp_path), "train.log")
        console.evaluation(85068, 17.0, RESULT, "2020-06-20 18:06:06")
        console.evaluation(90072, 18.0, RESULT, "2020-06-20 18:11:14")
        console.write("something else")
        console.evaluation(95076, 19.0, RESULT, "2020-06-20 18:16:22")
        console.close()
        header = " step  epoch  top1    top5     loss   checkpoint_time(UTC)"
        assert capsys.readouterr().out.splitlines() == [
            header,
            "85068   17.0  75.670   92.77    1.01  2020-06-20 18:06:06",
            "90072   18.0  75.670   92.77    1.01  2020-06-20 18:11:14",
            "something else",
            header,
            "95076   19.0  75.670   92.77    1.01  2020-06-20 18:16:22",
        ]
        original = "{:5d}  {:5.1f}  {:5.3f}  {:6.2f}  {:6.2f}  {time}"
        row = table_row(5, 0.5, RESULT, "now")
        assert header == TABLE_HEADER
        assert row == original.format(5, 0.5, RESULT.top1, RESULT.top5, RESULT.loss, time="now")


class TestMetrics:
    def run(self, folder, total_steps=20, first_step=0, **settings):
        plan = toy.plan(total_steps, log_interval_steps=5, eval_interval_steps=10)
        metrics = Metrics(str(folder), first_step)
        evaluate = Evaluate(plan, lambda step: RESULT, [metrics.evaluation])
        toy.run(plan, [Throughput(plan), metrics, evaluate], first_step=first_step, **settings)
        return lines_of(folder / "metrics.jsonl")

    def test_a_line_for_each_log_line_and_each_evaluation(self, tmp_path):
        lines = self.run(tmp_path)
        training = [line for line in lines if "top1" not in line]
        assert [line["step"] for line in training] == [5, 10, 15, 20]
        assert set(training[0]) == {
            "step",
            "epoch",
            "images_per_second",
            "data_wait_fraction",
            "loss",
            "total_loss",
            "learning_rate",
            "time",
        }
        assert (training[1]["epoch"], training[1]["loss"]) == (1.0, 0.1)
        times = [datetime.datetime.strptime(line.pop("time"), "%Y-%m-%dT%H:%M:%S%z") for line in lines]
        now = datetime.datetime.now(datetime.timezone.utc)
        assert all(abs(now - time) < datetime.timedelta(minutes=10) for time in times)
        assert [line for line in lines if "top1" in line] == [
            {"step": step, "epoch": step / 10, **RESULT._asdict()} for step in (10, 20)
        ]

    def test_what_is_not_a_number_is_null(self, tmp_path):
        backend = ToyBackend(on_step=lambda step: {"loss": math.nan, "total_loss": math.inf})
        line = self.run(tmp_path, backend=backend)[0]
        assert (line["loss"], line["total_loss"]) == (None, None)

    def test_a_resumed_run_forgets_the_lost_future_and_a_torn_line(self, tmp_path):
        self.run(tmp_path)
        with open(str(tmp_path / "metrics.jsonl"), "a") as file:
            file.write('{"step": 3, "lo')
        lines = self.run(tmp_path, total_steps=30, first_step=12)
        assert [line["step"] for line in lines] == [5, 10, 10, 15, 20, 20, 25, 30, 30]

    def test_a_new_run_starts_an_empty_file(self, tmp_path):
        self.run(tmp_path)
        assert len(self.run(tmp_path)) == 6


def events_in(folder):
    """Values by tag and step, and the graphs, of the event files in a folder."""
    found, graphs = {}, []
    for path in glob.glob(str(folder / "events.*")):
        for event in tf.compat.v1.train.summary_iterator(path):
            graphs += [event.graph_def] if event.graph_def else []
            for value in event.summary.value:
                found[value.tag, event.step] = value
    return found, graphs


def test_tensorboard_reads_the_scalars(tmp_path):
    plan = toy.plan(20, log_interval_steps=10, eval_interval_steps=20)
    with tf.Graph().as_default() as graph:
        tf.constant(1.0, name="node")
        graph.finalize()
        board = TensorBoard(str(tmp_path), 0, graph, {"lr": 0.1, "model": "densenet121"})
        evaluate = Evaluate(plan, lambda step: RESULT, [board.evaluation])
        toy.run(plan, [Throughput(plan), board, evaluate])
    found, graphs = events_in(tmp_path)
    assert found["loss", 10].simple_value == pytest.approx(0.1)
    assert found["train/learning_rate", 20].simple_value == pytest.approx(0.1)
    (shown,) = graphs
    assert [node.name for node in tf.compat.v1.GraphDef.FromString(shown).node] == ["node"]
    settings = found["settings", 0]
    assert settings.metadata.plugin_data.plugin_name == "text"
    assert b"| lr | 0.1 |" in tf.make_ndarray(settings.tensor).item()
    validation, _ = events_in(tmp_path / "validation")
    assert validation["loss", 20].simple_value == pytest.approx(1.015), "in the chart of the training's"
    assert validation["validation/top1", 20].simple_value == pytest.approx(75.67)
    assert ("validation/top1", 10) not in validation


class TestProgressBar:
    def test_a_bar_counts_to_the_end_and_shows_loss_and_speed(self):
        stream, plan = io.StringIO(), toy.plan(20, log_interval_steps=10)
        toy.run(plan, [Throughput(plan), ProgressBar(plan, 5, interactive=True, stream=stream)], first_step=5)
        last = stream.getvalue().split("\r")[-1]
        assert "20/20" in last
        assert "loss 0.200" in last
        assert "images/s" in last

    def test_off_a_terminal_few_whole_lines(self):
        stream, plan = io.StringIO(), toy.plan(200)
        toy.run(plan, [Throughput(plan), ProgressBar(plan, 0, interactive=False, stream=stream)])
        assert "\r" not in stream.getvalue()
        first, last = stream.getvalue().splitlines()
        assert "compiling" in first
        assert last.startswith("200/200 steps (100%), 00:00 left, loss 2.000")

    def test_nothing_is_left_after_a_run_of_one_chunk(self):
        stream, plan = io.StringIO(), toy.plan(2, iterations_per_loop=2)
        toy.run(plan, [ProgressBar(plan, 0, interactive=False, stream=stream)])
        assert stream.getvalue().splitlines()[-1].startswith("2/2 steps (100%), 00:00 left")

    @pytest.mark.parametrize("interactive", [True, False])
    def test_its_thread_ends_with_it_also_after_a_failure(self, interactive):
        def fail(step):
            raise RuntimeError

        before, plan = threading.active_count(), toy.plan(3)
        bar = ProgressBar(plan, 0, interactive, io.StringIO())
        with pytest.raises(RuntimeError):
            toy.run(plan, [bar], backend=ToyBackend(on_step=fail))
        # tqdm keeps one monitor thread of its own.
        assert threading.active_count() <= before + 1
        assert "compiling" not in [thread.name for thread in threading.enumerate()]

    def test_graphs_that_are_compiled_later_are_announced_as_the_first_one_is(self):
        stream, plan, backend = io.StringIO(), toy.plan(3), ToyBackend()
        watchdog = toy.Watchdog()

        def compiling(step):
            with backend.compiling({1: "loops of 2 steps", 2: "single steps"}.get(step, "another")):
                return {}

        backend.on_step = compiling
        bar = ProgressBar(plan, 0, interactive=False, stream=stream)
        toy.run(plan, [bar], backend=backend, watchdog=watchdog)
        assert stream.getvalue().splitlines()[:3] == [
            "first step: compiling, this may take minutes",
            "single steps: compiling, this may take minutes",
            "another: compiling, this may take minutes",
        ]
        phases = [what for what, seconds in watchdog.phases if seconds == 60.0]
        assert "compiling the graph of single steps" in phases


class TestCheckpointSaver:
    def saved(self, plan, *others, **settings):
        steps = []
        toy.run(plan, [CheckpointSaver(plan, steps.append), *others], **settings)
        return steps

    def test_saves_at_its_interval_and_at_the_end(self):
        assert self.saved(toy.plan(17, save_interval_steps=5, iterations_per_loop=3)) == [5, 10, 15, 17]

    def test_saves_the_end_once(self):
        assert self.saved(toy.plan(10, save_interval_steps=5)) == [5, 10]

    def test_saves_when_interrupted(self):
        stop = toy.Stop()
        stop.signal = 15
        assert self.saved(toy.plan(10), stop=stop) == [1]

    def test_saves_again_what_a_stopping_callback_may_have_changed(self):
        stopper = tf.keras.callbacks.LambdaCallback()
        stopper.on_epoch_end = lambda epoch, logs: setattr(stopper.model, "stop_training", True)
        assert self.saved(toy.plan(20, save_interval_steps=10), stopper) == [10, 10]

    def test_saves_nothing_when_nothing_was_trained(self):
        assert self.saved(toy.plan(10), first_step=10) == []


class TestEvaluate:
    def evaluated(self, plan, *others, **settings):
        steps = []
        evaluate = Evaluate(plan, lambda step: steps.append(step) or RESULT)
        toy.run(plan, [evaluate, *others], **settings)
        return steps

    def test_evaluates_at_its_interval_and_at_the_end(self):
        assert self.evaluated(toy.plan(50, eval_interval_steps=20)) == [20, 40, 50]

    def test_evaluates_an_end_within_an_epoch(self):
        assert self.evaluated(toy.plan(23, eval_interval_steps=20, iterations_per_loop=9)) == [20, 23]

    def test_evaluates_the_end_once(self):
        assert self.evaluated(toy.plan(20, eval_interval_steps=20)) == [20]

    def test_makes_up_for_an_evaluation_that_an_earlier_run_did_not_reach(self):
        steps = []
        evaluate = Evaluate(
            toy.plan(40, eval_interval_steps=20), lambda step: steps.append(step) or RESULT, missed_step=20
        )
        toy.run(toy.plan(40, eval_interval_steps=20), [evaluate], first_step=20)
        assert steps == [20, 40]

    def test_metrics_tell_which_evaluations_were_made(self, tmp_path):
        assert not holds_evaluation(str(tmp_path), 5)
        metrics = Metrics(str(tmp_path), 0)
        metrics.on_train_batch_end(4, StepLogs({"images_per_second": 1.0}, Progress(5, 1.0, 5, 5, 1.0, 0.0)))
        assert not holds_evaluation(str(tmp_path), 5)
        metrics.evaluation(5, 1.0, RESULT, "2020-06-20 18:06:06")
        metrics.close()
        assert holds_evaluation(str(tmp_path), 5)
        assert not holds_evaluation(str(tmp_path), 4)

    def test_evaluates_where_a_callback_stops_training(self):
        stopper = tf.keras.callbacks.LambdaCallback()
        stopper.on_epoch_end = lambda epoch, logs: setattr(stopper.model, "stop_training", True)
        assert self.evaluated(toy.plan(50, eval_interval_steps=20), stopper) == [10]

    def test_a_signal_is_not_kept_waiting(self):
        stop = toy.Stop()
        stop.signal = 2
        assert self.evaluated(toy.plan(50, eval_interval_steps=20), stop=stop) == []

    def test_later_callbacks_find_the_results_in_the_logs_of_that_epoch(self):
        plan, recorder = toy.plan(30, eval_interval_steps=20), toy.Recorder()
        toy.run(plan, [Evaluate(plan, lambda step: RESULT), recorder])
        ends = [entry for name, _, entry in recorder.calls if name == "on_epoch_end"]
        assert [entry.get("val_top1") for entry in ends] == [None, 75.67, 75.67]
        assert (ends[1]["val_top5"], ends[1]["val_loss"]) == (92.77, 1.015)
        assert set(recorder.params["metrics"]) >= {"val_top1", "val_top5", "val_loss", "loss"}

    def test_early_stopping_on_accuracy_counts_evaluations_only(self):
        accuracies = iter([50.0, 60.0, 55.0, 58.0, 70.0])
        plan = toy.plan(1000, eval_interval_steps=20)
        evaluate = Evaluate(plan, lambda step: RESULT._replace(top1=next(accuracies)))
        stopping = tf.keras.callbacks.EarlyStopping("val_top1", patience=2, mode="max")
        assert toy.run(plan, [evaluate, stopping]) == 80

    def test_reports_carry_step_epoch_and_time(self):
        plan, reports = toy.plan(10, eval_interval_steps=10), []
        clock = datetime.datetime(2020, 6, 20, 18, 6, 6, tzinfo=datetime.timezone.utc).timestamp()
        report = lambda *arguments: reports.append(arguments)  # noqa: E731
        toy.run(plan, [Evaluate(plan, lambda step: RESULT, [report], clock=lambda: clock)])
        assert reports == [(10, 1.0, RESULT, "2020-06-20 18:06:06")]
