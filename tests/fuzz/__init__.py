"""Coverage-guided fuzzing of everything that takes other people's bytes: `make fuzz`, and a short run in `make test`.

targets.py      which targets there are, and what of them is watched for coverage
codec.py ...    one target a file: `run(data)` holds its oracles, `seeds()` are inputs worth starting from
oracles.py      what holds for every target: time, memory, no pickle, no process, no file written
child.py        one target in one process under atheris (libFuzzer)
campaign.py     children side by side, progress, the report
distil.py       the corpus that is kept here, less than 200 KB
"""
