import json

from siamrpn_jax.training.logs import JsonLinesWriter, TensorBoardWriter


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonLinesWriter(path)
    writer.write(1, {"loss": 0.5})
    assert read(path) == [{"step": 1, "loss": 0.5}]  # before it is closed
    writer.write(2, {"loss": 0.25, "val_iou": 0.7})
    writer.close()
    assert read(path)[1] == {"step": 2, "loss": 0.25, "val_iou": 0.7}


def test_resumed_log_drops_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step}) for step in (1, 2, 3, 4)]
    path.write_text("\n".join(lines) + '\n{"step": 5, "lo')
    writer = JsonLinesWriter(path, start_step=3)
    writer.write(3, {"loss": 1.0})
    writer.close()
    assert [line["step"] for line in read(path)] == [1, 2, 3]


def test_tensorboard_reads_the_events(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = TensorBoardWriter(tmp_path)
    for step in (10, 20):
        writer.write(step, {"loss": 1.0 / step})
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(e.step, round(e.value, 3)) for e in events] == [(10, 0.1), (20, 0.05)]
