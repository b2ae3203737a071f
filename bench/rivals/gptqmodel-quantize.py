"""Quantizes a model with GPTQModel and prints seconds and peak memory as JSON.

usage: gptqmodel.py MODEL OUTPUT WINDOWS

WINDOWS is a JSON file with the calibration windows as lists of token ids, so that both sides read the same tokens.
"""

import json
import os
import resource
import sys
import time

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

from gptqmodel import GPTQModel, QuantizeConfig

model_folder, output, windows_file = sys.argv[1:4]
windows = json.load(open(windows_file))
calibration = [{"input_ids": window, "attention_mask": [1] * len(window)} for window in windows]
model = GPTQModel.load(model_folder, QuantizeConfig(bits=4, group_size=128), device="cpu")
start = time.perf_counter()
before = resource.getrusage(resource.RUSAGE_SELF)
model.quantize(calibration, batch_size=8)
model.save(output)
after = resource.getrusage(resource.RUSAGE_SELF)
cpu = sum(getattr(after, key) - getattr(before, key) for key in ("ru_utime", "ru_stime"))
print(json.dumps({"seconds": time.perf_counter() - start, "cpuSeconds": cpu, "peakBytes": after.ru_maxrss * 1024}))
