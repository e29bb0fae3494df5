from densenet_keras.training.callbacks import Evaluate, Metrics, Summary, metrics
from densenet_keras.training.evaluation import EvalResult
from tests.support import toy_training as toy
from tests.support.toy_training import Stop, ToyBackend


def result(top1):
    return EvalResult(top1=top1, top5=90.0, loss=1.5, images=10, seconds=1.0)


def said(plan, top1=(), past=None, **settings):
    """What is written; evaluations give `top1` in turn."""
    lines, now, results = [], [0.0], iter(top1)

    def clock():
        now[0] += 7
        return now[0]

    summary = Summary(plan, lines.append, "RUN", "go on", past, clock)
    evaluate = Evaluate(plan, lambda step: result(next(results)), [summary.evaluation])
    toy.run(plan, [evaluate, summary], **settings)
    return lines


def test_an_epoch_is_one_line_with_its_time_losses_rate_and_accuracy():
    lines = said(toy.plan(20, eval_interval_steps=20), [50.0])
    assert lines[0] == "epoch 1 in 00:07: loss 0.055, total_loss 1.055, learning_rate 0.10000"
    assert lines[1].startswith("epoch 2 in 00:07: loss 0.155,")
    assert lines[1].endswith("val_loss 1.500, val_top1 50.00%, val_top5 90.00%")


def test_the_end_says_steps_time_accuracy_folder_and_what_trains_longer():
    *_, end, command = said(toy.plan(20, eval_interval_steps=10), [60.0, 50.0], past={5: 40.0})
    assert end.startswith("finished: 20 of 20 steps, 00:")
    assert "top-1 50.00% at the last evaluation, best 60.00% at step 10" in end
    assert end.endswith("step 20 is saved in RUN")
    assert command.endswith("raised: go on")


def test_the_best_may_be_that_of_an_earlier_start():
    assert "best 70.00% at step 5" in said(toy.plan(20, eval_interval_steps=20), [60.0], past={5: 70.0})[-2]


def test_one_step_is_no_steps():
    assert said(toy.plan(1), [50.0])[-2].startswith("finished: 1 of 1 step, ")


def test_after_a_signal_the_saved_step_and_the_command_that_continues():
    stop = Stop()

    def interrupt(step):
        if step == 3:
            stop.request(15)
        return {}

    end, command = said(toy.plan(20), backend=ToyBackend(on_step=interrupt), stop=stop)
    assert end.startswith("stopped by a signal: 3 of 20 steps, 00:")
    assert end.endswith("; step 3 is saved in RUN")
    assert command == "to continue: go on"


def test_accuracies_are_found_again_by_the_next_start(tmp_path):
    assert metrics.top1_by_step(str(tmp_path)) == {}
    writer = Metrics(str(tmp_path), 0)
    for step, top1 in ((10, 40.0), (20, float("nan")), (30, 60.0)):
        writer.evaluation(step, step / 10, result(top1), "now")
    writer.close()
    with open(str(tmp_path / "metrics.jsonl"), "a") as file:
        file.write(
            '{"step": 35, "other": "top1"}\n'
            + '{"top1": '
            + 100000 * "["
            + "\n"
            + '{"step": 1e999, "top1": 1.0}\n'
        )
        file.write('{"step": 40, "top1": 6')
    assert metrics.top1_by_step(str(tmp_path)) == {10: 40.0, 30: 60.0}
