#!/usr/bin/env python3
"""Writes paragraphs.json: what nltk, jieba and rouge_chinese, put together as in LLaMA-Factory, say of texts with paragraphs."""
import json, os
import jieba
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_chinese import Rouge

PAIRS = [
    ("Two steps:\n\n1. Mix.\n\n2. Bake.", "Two steps:\n1. Mix the eggs.\n\n2. Bake."),
    ("今天天气很好。\n我们去公园。", "今天天气很好。我们去公园吧。"),
    ("他说：“你好。”\n\n然后走了！真的？是的。", "他说：“你好。”然后走了！是的。"),
    ("\n\nwait...... what……  no \n", " wait...... what\n\n\nno"),
    ("a \n \t \n b", "a\n\nb"),
    ("。。。？！”。 \n ", "？\n。"),
]

rows = []
for predict, label in PAIRS:
    hypothesis, reference = " ".join(jieba.cut(predict)), " ".join(jieba.cut(label))
    rouge = Rouge().get_scores(hypothesis, reference)[0]
    bleu = sentence_bleu([list(label)], list(predict), smoothing_function=SmoothingFunction().method3)
    percent = lambda value: round(value * 100, 4)
    rows.append({"predict": predict, "label": label, "bleu-4": percent(bleu), **{name: percent(one["f"]) for name, one in rouge.items()}})
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "paragraphs.json"), "w") as out:
    json.dump(rows, out, ensure_ascii=False, indent=1)
    out.write("\n")
