#!/usr/bin/env python3
"""Writes templates/: what LLaMA-Factory's own encoder makes of conversations in each template that is known here.

usage: templates-reference.py LLAMAFACTORY [OLDER]     (needs torch, transformers, tokenizers)

The arguments are folders that hold the package `llamafactory` 0.9.5 and, for templates that later releases dropped,
0.9.2 (an unpacked wheel each). What it imports beside torch and transformers is stood in for by empty modules. Two tiny
tokenizers are written: bytes, and SentencePiece's with its space before a text. reference.json holds for each tokenizer,
template and case a digest of the token ids and labels (or of the prompt's ids), and 'error' where it refuses.
"""

import hashlib
import json
import pathlib
import re
import subprocess
import sys
import types

HERE = pathlib.Path(__file__).parent / "templates"
OLD_NAMES = ["baichuan", "baichuan2", "orion", "xverse"]
# `empty` ends answers with the end token here; it is left out on purpose.
NAMES = """alpaca breeze chatglm3 chatml chatml_de cohere cpm4 deepseek deepseek3 deepseekr1 deepseekcoder default exaone falcon
falcon_h1 fewshot gemma gemma2 gemma3 glm4 glm4_moe glm4_7 glmz1 granite3 granite4 hunyuan intern2 llama2 llama2_zh llama3
llama4 mimo ministral mistral mistral_small moonlight olmo openchat openchat-3.6 opencoder phi phi_small phi4 phi4_mini
qwen qwen3 qwen3_nothink qwen3_5 qwen3_5_nothink qwen3_6 sailor seed_coder smollm smollm2 solar starchat vicuna xuanyuan yi yuan
zephyr""".split()

TOOLS = json.dumps([
    {"name": "weather", "description": "The weather of a \"place\" – now.", "parameters": {
        "type": "object", "required": ["city"], "properties": {
            "city": {"type": "string", "description": "A city"},
            "unit": {"type": "string", "enum": ["C", "F"], "description": "Degrees"},
            "days": {"type": "array", "items": {"type": "integer"}},
            "scale": {"type": "number", "minimum": -0.5, "maximum": 12}}}},
    {"type": "function", "function": {"name": "stop", "description": "", "parameters": {"type": "object", "properties": {}}}},
], ensure_ascii=False)
NUMBERS = '[{"name": "f", "parameters": {"properties": {"x": {"type": ["number", "null"], "enum": ["1"], "of": [1.0, 1e-7, 1E5, -0, -0.0, 12345678901234567890, 1.5e300, {}, []]}}}}]'
CALL = '{"name": "weather", "arguments": {"city": "Zürich", "days": [1, 2.50, -0.0], "scale": 1e5, "exact": true}}'
Q, A, F, O = "user", "assistant", "function", "observation"


def talk(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


CASES = {
    "single": dict(messages=talk((Q, "Hi  \"there\"\n"), (A, "Hello.\n\n"))),
    "turns": dict(messages=talk((Q, "one"), (A, " two"), (Q, "\nthree"), (A, "vier é 你好"), (Q, " "), (A, "six")),
                  system="Be kind."),
    "thoughts": dict(messages=talk((Q, "1+1"), (A, "<think>\nadd\n</think>\n\ntwo"), (Q, "2+2"), (A, "four"), (Q, "3+3"),
                                   (A, "<think>\nadd\nagain\n</think>\n\n\nsix <think>\nx\n</think>\n\n!"))),
    "half": dict(messages=talk((Q, "q"), (A, "so </think> it is"), (Q, "r"), (A, "<think>cut"))),
    "tools": dict(messages=talk((Q, "Weather?"), (F, CALL), (O, '{"sky": "clear"}'), (A, "Clear.")), tools=TOOLS,
                  system="Use tools."),
    "numbers": dict(messages=talk((Q, "x"), (A, "y")), tools=NUMBERS),
    "tools-alone": dict(messages=talk((Q, "Weather?"), (A, "No.")), tools=TOOLS),
    "thought-call": dict(messages=talk((Q, "W?"), (F, "<think>\nlook\n</think>\n\n" + CALL), (O, "x"), (A, "y")), tools=TOOLS),
    "marked-call": dict(messages=talk((Q, "W?"), (F, f"I look. <tool_call>{CALL}</tool_call>"), (O, "x"), (A, "y")), tools=TOOLS),
    "two-calls": dict(messages=talk((Q, "W?"), (F, f"[{CALL}, {{\"name\": \"stop\", \"arguments\": {{}}}}]"), (O, "x"), (A, "y")),
                      tools=TOOLS),
}
# Llama 3's list of tools names the day.
DAY = (2026, 3, 7)
# What a training config says beside the template's name.
SETTINGS = {
    "": {},
    "off": dict(enable_thinking=False),
    "last": dict(mask_history=True),
    "last-kept": dict(mask_history=True, preserve_thinking=True),
    "last-off": dict(mask_history=True, enable_thinking=False),
    "cut": dict(cutoff_len=40),
    "hermes": dict(tool_format="qwen"),
    "system": dict(default_system="Spoken by default."),
}


def stand_ins():
    class Any:
        def __getattr__(self, name): return Any()
        def __call__(self, *a, **k): return Any()
        def __mro_entries__(self, bases): return (object,)
        def __getitem__(self, key): return Any()
        def __or__(self, other): return Any()

    class Module(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"): raise AttributeError(name)
            return Any()

    for name in ["datasets", "fsspec", "torchaudio", "av", "llamafactory.data.mm_plugin", "llamafactory.hparams",
                 "llamafactory.extras.misc", "llamafactory.extras.packages"]:
        sys.modules[name] = Module(name)


def load(folder):
    """LLaMA-Factory's template and supervised processor, without what reads images or starts a trainer."""
    sys.path.insert(0, str(folder))
    import peft  # noqa: F401  (before the stand-ins, which it would ask for their origin)
    import transformers  # noqa: F401
    stand_ins()
    for name in ["llamafactory", "llamafactory.data", "llamafactory.extras", "llamafactory.data.processor"]:
        package = types.ModuleType(name)
        package.__path__ = [str(pathlib.Path(folder, *name.split(".")))]
        sys.modules[name] = package
    import importlib
    logging = types.ModuleType("llamafactory.extras.logging")
    quiet = types.SimpleNamespace(**{n: (lambda *a, **k: None) for n in
                                     ["info_rank0", "warning_rank0", "warning_rank0_once", "info_rank0_once"]})
    logging.get_logger = lambda *a: quiet
    sys.modules["llamafactory.extras.logging"] = logging
    sys.modules["llamafactory.extras"].logging = logging

    class Plugin:
        def process_messages(self, messages, *rest): return messages
        def process_token_ids(self, ids, labels, *rest): return ids, labels
    sys.modules["llamafactory.data.mm_plugin"].get_mm_plugin = lambda *a, **k: Plugin()
    template = importlib.import_module("llamafactory.data.template")
    supervised = importlib.import_module("llamafactory.data.processor.supervised")
    return template, supervised


MARK = re.compile(r"<\|[^|<>]+\|>|<｜[^｜]+｜>|\[/?[A-Za-z_]{3,}\]|<(?:start|end)_of_turn>|<eos>|<sop>|<sep>|<eod>|<reserved_\d+>")


def write_tokenizers(template):
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    texts = []
    for one in template.TEMPLATES.values():
        for form in [one.format_prefix, one.format_system, one.format_user, one.format_assistant, one.format_observation]:
            for slot in form.slots:
                texts.append(slot if isinstance(slot, str) else json.dumps(slot, ensure_ascii=False) if isinstance(slot, dict) else "")
    marks = sorted(set(MARK.findall("\n".join(texts))) | {f"<reserved_{n}>" for n in (102, 103, 106, 107)})
    named = ["<s>", "</s>"]
    bytes_tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
                                           | {"sop": 256}, merges=[]))
    bytes_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_tokenizer.decoder = decoders.ByteLevel()
    letters = [chr(c) for c in range(32, 127)] + ["▁", "▁a", "▁H", "th", "er", "so", "sop"]
    pieces = ["<unk>"] + [f"<0x{b:02X}>" for b in range(256)] + [c for c in letters if c != " "]
    space = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)},
                                 merges=[("▁", "a"), ("▁", "H"), ("t", "h"), ("e", "r"), ("s", "o"), ("so", "p")],
                                 unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    space.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    space.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    for name, tokenizer in [("bytes", bytes_tokenizer), ("space", space)]:
        tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in named + marks])
        folder = HERE / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False))
        (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}) + "\n")


def digest(*lists):
    return hashlib.sha256(json.dumps(lists, separators=(",", ":")).encode()).hexdigest()[:12]


def encode(template_module, supervised, folder, name, case, setting):
    from transformers import PreTrainedTokenizerFast
    import copy
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), bos_token="<s>", eos_token="</s>")
    args = types.SimpleNamespace(**{**dict(
        template=name, train_on_prompt=False, tool_format=None, default_system=None, enable_thinking=True,
        preserve_thinking=False, mask_history=False, cutoff_len=100_000, packing=False), **setting})
    saved = template_module.TEMPLATES[name]
    template_module.TEMPLATES[name] = template = copy.deepcopy(saved)
    try:
        template_module.get_template_and_fix_tokenizer(tokenizer, args)
        # A stop that the tokenizer lacked would be a new token, which needs resize_vocab.
        messages = copy.deepcopy(case["messages"])
        processor = object.__new__(supervised.SupervisedDatasetProcessor)
        processor.template, processor.tokenizer, processor.processor, processor.data_args = template, tokenizer, None, args
        ids, labels = processor._encode_data_example(messages[:-1], messages[-1:], case.get("system", ""), case.get("tools", ""), [], [], [])
        asked = case["messages"][:-1] + [{"role": "assistant", "content": ""}]
        prompt, _ = template.encode_oneturn(tokenizer, copy.deepcopy(asked), case.get("system", ""), case.get("tools", ""))
        before, answer = template.encode_oneturn(tokenizer, copy.deepcopy(case["messages"]), case.get("system", ""), case.get("tools", ""))
        return [digest(ids, labels), digest(prompt), digest(before, answer)]
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        return ["error", type(error).__name__]
    finally:
        template_module.TEMPLATES[name] = saved


def runs(one, template):
    """Tokenizer, setting and case: every case once, and each setting where it says something."""
    yield from ((tokenizer, "", case) for tokenizer in ["bytes", "space"] for case in CASES)
    yield from (("bytes", setting, "turns") for setting in ["last", "cut", "system"])
    yield "bytes", "hermes", "tools"
    if isinstance(one, getattr(template, "ReasoningTemplate", ())):
        yield from (("bytes", setting, case) for setting in ["off", "last", "last-kept", "last-off"]
                    for case in CASES if (setting, case) != ("last", "turns"))


def main():
    older = len(sys.argv) > 3 and sys.argv[3] == "--older"
    template, supervised = load(sys.argv[1])
    if not older:
        write_tokenizers(template)
    names = OLD_NAMES if older else NAMES
    import datetime
    import importlib
    importlib.import_module("llamafactory.data.tool_utils").datetime = types.SimpleNamespace(now=lambda: datetime.datetime(*DAY))
    found = {}
    for name in names:
        for tokenizer, setting, case in runs(template.TEMPLATES[name], template):
            key = f"{tokenizer} {name} {setting} {case}"
            found[key] = encode(template, supervised, HERE / tokenizer, name, CASES[case], SETTINGS[setting])
    if older:
        # That release's tool formats and the label of an example's first token were others.
        kept = {key: [None, *value[1:]] for key, value in found.items() if value[0] != "error" and "hermes" not in key}
        print(json.dumps(kept))
        return
    if len(sys.argv) > 2:
        out = subprocess.run([sys.executable, __file__, sys.argv[2], "", "--older"], check=True, capture_output=True, text=True)
        found |= json.loads(out.stdout.strip().splitlines()[-1])
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in found.items()]
    (HERE / "reference.json").write_text(
        json.dumps({"day": DAY, "settings": SETTINGS, "cases": CASES}, ensure_ascii=False)[:-1] + ',\n"expected": {\n' + ",\n".join(lines) + "\n}}\n")
    print(len(found), "cases,", sum(v[0] == "error" for v in found.values()), "refused")


main()
