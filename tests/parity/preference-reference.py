"""Writes what TRL computes for preference, feedback and reward training of a tiny random llama: 20 steps of each loss.

Run with torch, transformers, peft and trl (1.16) installed:

    python tests/parity/preference-reference.py [--seed 7] [--out tests/parity/preference]

The folder then holds the model, the adapter (and value head) that each run starts from, and reference.json with each
step's examples and loss. Other seeds give other weights and data:
PREFERENCE_REFERENCE=FOLDER npx vitest run tests/parity/preference.test.ts

Two of TRL's definitions differ from LLaMA-Factory's, which Anneal follows, and are replaced here: ORPO's likelihood
term is the mean over the chosen answer's own tokens (TRL: over the whole batch's prompts and answers), and a reward
is the score at the last token of a linear head with a bias (TRL: none; it cancels out).
"""

import argparse
import json
import os
import pathlib
import random
import tempfile

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

arguments = argparse.ArgumentParser()
arguments.add_argument("--seed", type=int, default=7)
arguments.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "preference")
arguments = arguments.parse_args()

VOCABULARY, PAD, EOS = 64, 0, 1
STEPS, ROWS, RATE, BETA = 20, 4, 5e-3, 0.1
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

out = arguments.out
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(arguments.seed)
torch.set_num_threads(2)

config = LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    tie_word_embeddings=False,
    initializer_range=0.2,
    bos_token_id=EOS,
    eos_token_id=EOS,
    pad_token_id=PAD,
)
LlamaForCausalLM(config).save_pretrained(out / "model")

words = {"<pad>": PAD, "<eos>": EOS, "<unk>": 2} | {f"w{index}": index for index in range(3, VOCABULARY)}
tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")

draw = random.Random(arguments.seed)


def text(low, high):
    return " ".join(f"w{draw.randrange(3, VOCABULARY)}" for _ in range(draw.randint(low, high)))


def pairs():
    rows = [{"prompt": text(2, 6), "chosen": " " + text(1, 9), "rejected": " " + text(1, 9)} for _ in range(32)]
    return Dataset.from_list(rows)


def verdicts():
    rows = [{"prompt": text(2, 6), "completion": " " + text(1, 9), "label": draw.random() < 0.5} for _ in range(32)]
    return Dataset.from_list(rows)


def sequence(ids, mask, learned):
    kept = [(int(token), bool(learns)) for token, here, learns in zip(ids, mask, learned) if here]
    return {"ids": [token for token, _ in kept], "labels": [token if learns else -100 for token, learns in kept]}


def rows_of(inputs, prefix=""):
    ids, mask = inputs[f"{prefix}input_ids"], inputs[f"{prefix}attention_mask"]
    learned = inputs[f"{prefix}completion_mask"] if f"{prefix}completion_mask" in inputs else mask
    return [sequence(*row) for row in zip(ids, mask, learned)]


def record_of(inputs):
    """The examples of one batch, whatever form a trainer gives them."""
    if "label" in inputs:
        verdict = [bool(label) for label in inputs["label"]]
        parts = zip(rows_of(inputs), rows_of(inputs, "KL_"), verdict)
        return [{"answer": answer, "unrelated": unrelated, "desirable": label} for answer, unrelated, label in parts]
    if "chosen_input_ids" in inputs:
        sides = []
        for side in ["chosen", "rejected"]:
            labels = inputs[f"{side}_labels"]
            sides.append(
                [
                    sequence(ids, mask, label != -100)
                    for ids, mask, label in zip(
                        inputs[f"{side}_input_ids"], inputs[f"{side}_attention_mask"], labels
                    )
                ]
            )
    else:
        rows = rows_of(inputs)
        sides = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return [{"chosen": chosen, "rejected": rejected} for chosen, rejected in zip(*sides)]


def recorded(trainer_class):
    class Recorded(trainer_class):
        records = []

        def compute_loss(self, model, inputs, *rest, **named):
            loss = super().compute_loss(model, inputs, *rest, **named)
            self.records.append({"examples": record_of(inputs), "loss": loss.detach().item()})
            return loss

    return Recorded


class OwnTokensORPO(ORPOTrainer):
    def concatenated_forward(self, model, batch):
        chosen, rejected, *logits = super().concatenated_forward(model, batch)[:4]
        return (chosen, rejected, *logits, -chosen.mean())


def run(name, trainer_class, config_class, dataset, model=None, modules_to_save=None, **options):
    with tempfile.TemporaryDirectory() as folder:
        args = config_class(
            output_dir=folder,
            max_steps=STEPS,
            per_device_train_batch_size=ROWS,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            optim="adamw_torch",
            seed=arguments.seed,
            bf16=False,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            gradient_checkpointing=False,
            use_cpu=True,
            max_length=64,
            **options,
        )
        adapter = LoraConfig(
            r=4,
            lora_alpha=8,
            lora_dropout=0.0,
            target_modules=LINEAR,
            task_type="SEQ_CLS" if modules_to_save else "CAUSAL_LM",
            modules_to_save=modules_to_save,
        )
        torch.manual_seed(arguments.seed + 1)
        trainer = recorded(trainer_class)(
            model=model or LlamaForCausalLM.from_pretrained(out / "model", dtype=torch.float32),
            args=args,
            train_dataset=dataset,
            processing_class=tokenizer,
            peft_config=adapter,
        )
        # DPOTrainer and the others move the model to bf16 only when told to; the adapter stays in float32.
        start = {key: value.clone().contiguous() for key, value in get_peft_model_state_dict(trainer.model).items()}
        save_file(start, out / f"start-{name}.safetensors")
        trainer.train()
    print(name, [round(record["loss"], 4) for record in trainer.records][:: STEPS // 4])
    return trainer.records


def reward_model():
    model = AutoModelForSequenceClassification.from_pretrained(out / "model", num_labels=1, dtype=torch.float32)
    model.config.pad_token_id = PAD
    return model


cases = {
    "sigmoid": run("sigmoid", DPOTrainer, DPOConfig, pairs(), beta=BETA, loss_type=["sigmoid"]),
    "hinge": run("hinge", DPOTrainer, DPOConfig, pairs(), beta=BETA, loss_type=["hinge"]),
    "ipo": run("ipo", DPOTrainer, DPOConfig, pairs(), beta=BETA, loss_type=["ipo"]),
    "orpo": run("orpo", OwnTokensORPO, ORPOConfig, pairs(), beta=BETA),
    "simpo": run(
        "simpo", CPOTrainer, CPOConfig, pairs(), beta=BETA, loss_type="simpo", simpo_gamma=0.5, cpo_alpha=0.0
    ),
    "kto": run("kto", KTOTrainer, KTOConfig, verdicts(), beta=BETA, desirable_weight=1.0, undesirable_weight=1.5),
    "rm": run("rm", RewardTrainer, RewardConfig, pairs(), model=reward_model(), modules_to_save=["score"]),
}
reference = {
    "seed": arguments.seed,
    "rank": 4,
    "alpha": 8,
    "learning_rate": RATE,
    "beta": BETA,
    "simpo_gamma": 0.5,
    "kto_rejected_weight": 1.5,
    "cases": cases,
}
(out / "reference.json").write_text(json.dumps(reference, separators=(",", ":")) + "\n")
