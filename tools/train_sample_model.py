#!/usr/bin/env python3
"""Train the small Llama that ships inside the package, from one plain-text file.

It writes a whole HuggingFace directory: weights, config, tokenizer and model card. Needs torch,
transformers, tokenizers, safetensors and tqdm, and no GPU. The same text, options, thread count and
library versions give the same model.
"""

import argparse
import hashlib
import json
import math
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm import tqdm
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

SPECIAL = {"pad": "<pad>", "bos": "<s>", "eos": "</s>"}  # ids 0, 1, 2; Llama has the last two there
HINTS = """The packaged model was trained with the defaults on Tiny Shakespeare, which is the file
data/tinyshakespeare/input.txt of github.com/karpathy/char-rnn. A first try of two minutes:

  python tools/train_sample_model.py input.txt sample_model --steps 150 --warmup 30

While both losses in the progress bar fall, more --steps help; when only the training loss falls,
the model learns the text by heart, and more --dropout or --weight-decay help. The weights with the
best held-out loss are kept. On a busy machine, set OMP_WAIT_POLICY=PASSIVE in the environment."""
# Words with the space before them; punctuation with the line breaks after it (one token for ":\n").
WORDS = r"'(?:[sdmt]|ll|ve|re)\b| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+\n*|\s+(?!\S)|\s+"


def parse_args():
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=HINTS, formatter_class=as_written)
    parser.add_argument("text", type=Path, help="UTF-8 text; blank lines separate its passages")
    parser.add_argument("output", type=Path, help="directory to write; made if missing")

    def option(name, default, text):
        text = f"{text} (default: {default})"
        parser.add_argument(name, type=type(default), default=default, metavar="X", help=text)

    option("--steps", 2000, "optimiser steps; 2000 take twenty minutes on two idle cores")
    option("--batch", 12, "windows of text per step")
    option("--context", 256, "tokens per window, and the longest sequence of the model")
    option("--lr", 4e-3, "peak learning rate, reached after --warmup steps; then a cosine to zero")
    option("--warmup", 100, "steps of linear warm-up")
    option("--weight-decay", 1.0, "AdamW's decay of the matrices")
    option("--dropout", 0.2, "dropout on the embedding and on what each block adds to it")
    option("--evaluations", 10, "how often to measure the held-out loss")
    option("--held-out", 0.1, "fraction of the text, from its end, that is never trained on")
    option("--vocab", 1024, "tokens: 3 special ones, the 256 bytes, and merges that are learned")
    option("--hidden", 192, "width of the residual stream")
    option("--intermediate", 512, "width of the MLP")
    option("--layers", 4, "number of layers")
    option("--heads", 6, "attention heads")
    option("--kv-heads", 2, "key-value heads; fewer than --heads is grouped-query attention")
    option("--seed", 1, "seed of everything random")
    return parser.parse_args()


def train_tokenizer(text, vocab_size):
    """Byte-level BPE: its alphabet is all 256 bytes, so every UTF-8 text survives a round trip."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    options = {"special_tokens": list(SPECIAL.values()), "initial_alphabet": alphabet}
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, **options)
    tokenizer.train_from_iterator([text], trainer)
    forms = {"single": "<s> $A", "pair": "<s> $A <s>:1 $B:1"}
    bos = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(**forms, special_tokens=[bos])
    return tokenizer


def encode(tokenizer, text):
    """The ids of a text, and where in them its lines and its passages (after blank lines) start."""
    lines = re.split(r"(?<=\n)(?=[^\n])", text)
    ids, line_starts, passage_starts = [], [], [0]
    encodings = tokenizer.encode_batch(lines, add_special_tokens=False)
    for line, encoding in zip(lines, encodings, strict=True):
        line_starts.append(len(ids))
        ids += encoding.ids
        if line.endswith("\n\n"):
            passage_starts.append(len(ids))
    return torch.tensor(ids), torch.tensor(line_starts), torch.tensor(passage_starts)


def windows(ids, starts, context, bos):
    """Inputs and targets of a batch: each window begins with bos, and predicts the token after."""
    targets = torch.stack([ids[start : start + context] for start in starts])
    return F.pad(targets[:, :-1], (1, 0), value=bos), targets


@torch.no_grad()
def held_out_loss(model, ids, context, batch, bos):
    """Mean loss per token. Windows overlap by half, and only their second half is scored."""
    model.eval()
    half, losses = context // 2, []
    for group in torch.arange(0, len(ids) - context + 1, half).split(batch):
        inputs, targets = windows(ids, group, context, bos)
        loss = F.cross_entropy(model(inputs).logits.mT, targets, reduction="none")
        losses.append(loss[:, half:].flatten())
    return torch.cat(losses).double().mean().item()


def make_config(args, tokenizer):
    """What config.json says, in the layout that old and new readers of HuggingFace files know."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": args.vocab,
        "hidden_size": args.hidden,
        "intermediate_size": args.intermediate,
        "num_hidden_layers": args.layers,
        "num_attention_heads": args.heads,
        "num_key_value_heads": args.kv_heads,
        "head_dim": args.hidden // args.heads,
        "max_position_embeddings": args.context,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        "attention_bias": False,
        "tie_word_embeddings": True,
        "initializer_range": 0.06,  # with 0.02 so narrow a model learns several times more slowly
    } | {f"{name}_token_id": tokenizer.token_to_id(token) for name, token in SPECIAL.items()}


def make_model(config, dropout):
    model = LlamaForCausalLM(LlamaConfig.from_dict(config | {"use_cache": False}))
    for name, module in model.named_modules():
        if name.endswith(("embed_tokens", "o_proj", "down_proj")):
            module.register_forward_hook(lambda m, _, out: F.dropout(out, dropout, m.training))
        if name.endswith(("o_proj", "down_proj")):  # as in GPT-2: depth does not widen the stream
            module.weight.data /= math.sqrt(2 * config["num_hidden_layers"])
    return model


def train(model, args, train_text, held_out, bos):
    """Whenever the held-out loss is the lowest so far, write the weights."""
    ids, *starts = train_text
    line_starts, passage_starts = (s[s <= len(ids) - args.context] for s in starts)
    parameters = list(model.parameters())
    matrices, norms = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim == 1]
    groups = [{"params": matrices}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, args.lr, (0.9, 0.98), weight_decay=args.weight_decay)

    def rate(step):
        if step < args.warmup:
            return (step + 1) / args.warmup
        progress = (step - args.warmup) / max(1, args.steps - args.warmup)
        return 0.5 + 0.5 * math.cos(math.pi * progress)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    best, every = math.inf, max(1, args.steps // args.evaluations)
    bar = tqdm(range(1, args.steps + 1), unit="step")
    for step in bar:
        # Three windows of four start a passage, which teaches how to begin; the others any line.
        pools = [line_starts if row % 4 == 3 else passage_starts for row in range(args.batch)]
        picked = [pool[torch.randint(len(pool), ())] for pool in pools]
        inputs, targets = windows(ids, picked, args.context, bos)
        model.train()
        loss = F.cross_entropy(model(inputs).logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % every == 0 or step == args.steps:
            measured = held_out_loss(model, held_out, args.context, args.batch, bos)
            tqdm.write(f"step {step}: held-out {measured:.4f}, training {loss:.4f} nats per token")
            if measured < best:
                best = measured
                tensors = {k: v.to(torch.bfloat16) for k, v in model.state_dict().items()}
                del tensors["lm_head.weight"]  # tied to the embedding
                save_file(tensors, args.output / "model.safetensors", metadata={"format": "pt"})
        bar.set_postfix(train=f"{loss:.3f}", held_out=f"{best:.3f}")


def write_jsons(output, config, tokenizer):
    output.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(output / "tokenizer.json"))
    tokenizer_config = {f"{name}_token": token for name, token in SPECIAL.items()} | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    for name, content in {
        "config.json": config | {"torch_dtype": "bfloat16"},
        "generation_config.json": {k: config[k] for k in ("bos_token_id", "eos_token_id")},
        "tokenizer_config.json": tokenizer_config,
    }.items():
        (output / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_card(args, text, held_text):
    """The model card. What it says is measured on the saved, rounded weights; returns its facts."""
    tokenizer = Tokenizer.from_file(str(args.output / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(args.output, dtype=torch.float32)
    held_out, bos = encode(tokenizer, held_text)[0], model.config.bos_token_id
    loss = held_out_loss(model, held_out, args.context, args.batch, bos)
    per_character = loss * len(held_out) / len(held_text)
    torch.manual_seed(args.seed)
    sampling = {"do_sample": True, "temperature": 0.8, "top_k": 0, "pad_token_id": 0}
    sample = model.generate(torch.tensor([[bos]]), max_new_tokens=200, **sampling)[0].tolist()
    facts = vars(args) | {
        "sha256": hashlib.sha256(args.text.read_bytes()).hexdigest(),
        "size": model.num_parameters(),
        "characters": len(text),
        "held_out_characters": len(held_text),
        "loss": loss,
        "perplexity": math.exp(loss),
        "per_character": per_character,
        "sample": tokenizer.decode(sample).strip(),
    }
    card = Path(__file__).with_name("sample_model_card.md").read_text(encoding="utf-8")
    (args.output / "README.md").write_text(card.format_map(facts), encoding="utf-8")
    return facts


def main():
    args = parse_args()
    torch.manual_seed(args.seed)
    text = args.text.read_text(encoding="utf-8")
    cut = text.rfind("\n\n", 0, int(len(text) * (1 - args.held_out))) + 2
    tokenizer = train_tokenizer(text[:cut], args.vocab)
    config = make_config(args, tokenizer)
    model = make_model(config, args.dropout)
    train_text, (held_out, _, _) = encode(tokenizer, text[:cut]), encode(tokenizer, text[cut:])
    if min(len(train_text[0]), len(held_out)) < args.context:
        raise SystemExit(f"{args.text} is too short: both parts need {args.context} tokens or more")
    print(f"{model.num_parameters():,} parameters, {len(train_text[0]):,} training tokens")
    write_jsons(args.output, config, tokenizer)
    train(model, args, train_text, held_out, config["bos_token_id"])
    facts = write_card(args, text[:cut], text[cut:])
    print("{per_character:.4f} nats per held-out character\n\n{sample}".format_map(facts))


if __name__ == "__main__":
    main()
