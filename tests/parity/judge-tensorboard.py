"""Reads a TensorBoard folder with TensorBoard's own reader and prints its scalars as JSON: {tag: [[step, value], …]}.

    python tests/parity/judge-tensorboard.py FOLDER
"""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1])
events.Reload()
tags = events.Tags()["scalars"]
print(json.dumps({tag: [[point.step, point.value] for point in events.Scalars(tag)] for tag in tags}))
