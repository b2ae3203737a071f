"""Drives the fine-tuning API with OpenAI's Python client: BASE_URL CHATS.jsonl → one line of JSON."""

import json
import sys
import time

from openai import OpenAI

base_url, chats = sys.argv[1:]
client = OpenAI(base_url=base_url, api_key="none")
with open(chats, "rb") as content:
    file = client.files.create(file=content, purpose="fine-tune")
job = client.fine_tuning.jobs.create(
    model="anneal-tiny",
    training_file=file.id,
    suffix="python",
    hyperparameters={"n_epochs": 2},
    extra_body={"lora": {"r": 2}},
)
deadline = time.monotonic() + 100
while job.status not in ("succeeded", "failed", "cancelled") and time.monotonic() < deadline:
    time.sleep(0.5)
    job = client.fine_tuning.jobs.retrieve(job.id)
events = list(client.fine_tuning.jobs.list_events(job.id, limit=100))
checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
answer = client.chat.completions.create(
    model=job.fine_tuned_model, messages=[{"role": "user", "content": "Hello!"}], max_tokens=8
)
client.files.delete(file.id)
print(
    json.dumps(
        {
            "status": job.status,
            "model": job.fine_tuned_model,
            "events": len(events),
            "steps": [checkpoint.step_number for checkpoint in checkpoints],
            "answer": answer.choices[0].message.content,
        }
    )
)
