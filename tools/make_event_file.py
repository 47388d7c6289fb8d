#!/usr/bin/env python3
"""Writes tests/data/events.out.tfevents.sd by TensorBoard's own code: the events of the run in tests/logged_run.hpp, at
times 1000.5, 1001.5 and so on. Needs the package tensorboard.

    tools/make_event_file.py tests/data/events.out.tfevents.sd
"""
import itertools
import sys

from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


def main():
    times = itertools.count(1000.5)
    with open(sys.argv[1], "wb") as file:
        records = RecordWriter(file)

        def write(event, epoch, batch, scalars):
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()])
            source = SourceMetadata(writer=f"sd {event} {epoch} {batch}")
            records.write(Event(wall_time=next(times), step=batch, summary=summary,
                                source_metadata=source).SerializeToString())

        records.write(Event(wall_time=next(times), file_version="brain.Event:2").SerializeToString())
        write("fit_start", 0, 0, {"stochastic_depth/num_stochastic_layers": 9})
        for batch in range(1, 7):
            write("batch", (batch - 1) // 3, batch,
                  {"loss/train": 1 / batch, "learning_rate": 0.1, "stochastic_depth/kept_fraction[0]": 1,
                   "stochastic_depth/kept_fraction[1]": batch / 8})
            if batch % 3 == 0:
                write("epoch", batch // 3, batch, {"loss/train_epoch": 2 / batch})
                write("evaluation", batch // 3, batch, {"accuracy/eval": batch / 10})


main()
