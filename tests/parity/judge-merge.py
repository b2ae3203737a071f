"""Loads model folders with transformers and says what it found; with --base and --adapter, compares them with PEFT's own
merge: every weight, and the logits of one sequence.

    python tests/parity/judge-merge.py [--base BASE --adapter ADAPTER] [--bound 1e-6] FOLDER...

Needs torch, transformers and peft. PEFT merges in float32 and its result is rounded to the base's dtype, which a merge
keeps; --bound is on the largest difference of a weight beyond one rounding step, and on that of a logit relative to
their range times 1000. Exits 1 when a folder doesn't load cleanly or differs by more.
"""

import argparse
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def load(folder, dtype):
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", use_safetensors=True, output_loading_info=True
    )


def peft_merge(base, adapter):
    """The merged model as PEFT makes it in float32, rounded to the base's dtype, and one rounding step of that dtype."""
    dtype = load(base, "auto")[0].dtype
    model, _ = load(base, torch.float32)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return merged.to(dtype).float().eval(), 0.0 if dtype == torch.float32 else torch.finfo(dtype).eps


@torch.no_grad()
def logits(model):
    ids = (torch.arange(24)[None] * 7 + 3) % model.config.vocab_size
    return model(input_ids=ids).logits.float()


def beyond_rounding(actual, expected, epsilon):
    """Largest difference left when two roundings of nearly the same number may be one step apart."""
    return ((actual - expected).abs() - epsilon * expected.abs()).clamp(min=0).max().item()


def judge(folder, reference, bound):
    model, info = load(folder, "auto")
    problems = {key: sorted(info[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[key]}
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{folder}: {type(model).__name__}, {model.dtype}, {parameters:,} parameters, {problems or 'loads cleanly'}")
    if reference is None:
        return not problems
    merged, epsilon = reference
    expected, actual = merged.state_dict(), model.float().eval().state_dict()
    worst, name = max((beyond_rounding(actual[key], expected[key], epsilon), key) for key in expected)
    unequal = sum((actual[key] != expected[key]).sum().item() for key in expected)
    ours, theirs = logits(model), logits(merged)
    relative = ((ours - theirs).abs().max() / (theirs.max() - theirs.min())).item()
    print(f"  weights: largest difference {worst:.3g} beyond rounding ({name}); {unequal:,} of {parameters:,} not identical")
    print(f"  logits: largest difference {relative:.3g} of their range")
    return not problems and set(expected) == set(actual) and worst <= bound and relative <= 1000 * bound


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base")
    parser.add_argument("--adapter")
    parser.add_argument("--bound", type=float, default=1e-6)
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    arguments = parser.parse_args()
    if (arguments.base is None) != (arguments.adapter is None):
        parser.error("--base and --adapter go together")
    reference = peft_merge(arguments.base, arguments.adapter) if arguments.base else None
    results = [judge(folder, reference, arguments.bound) for folder in arguments.folders]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
