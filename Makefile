# Everything that a fresh machine needs is installed by these targets; only Python 3.11 or newer is expected.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ORACLE := $(VENV)/.oracle
DEVICES := iphone-15-pro pixel-9 raspberry-pi-5
OUT := bundles
EFFORT := low

.PHONY: demo test test-apps lint bench bench-quality clean

$(STAMP): pyproject.toml
	./tools/install.sh "$(PYTHON)" "$(VENV)"
	touch $(STAMP)

# SmolLM2 for a phone of each kind and a board, each validated against the reference model, in the quickest way;
# EFFORT=normal, as exports do without the option, takes minutes more for a third of the loss.
demo: $(STAMP)
	$(BIN)/satchel export smollm2 $(DEVICES:%=--device %) --effort $(EFFORT) --output $(OUT) --overwrite
	$(BIN)/satchel run $(OUT)/SmolLM2-135M-Instruct-pixel-9.satchel --prompt "What is the capital of France?"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# llama.cpp is an oracle for tokenizers; pip compiles it, which needs a C++ compiler.
$(ORACLE): $(STAMP)
	@if command -v c++ >/dev/null; then $(BIN)/python -m pip --disable-pip-version-check -q install "llama-cpp-python==0.3.36"; \
	else echo "NOT RUN: comparisons with llama.cpp, since there is no C++ compiler"; fi
	touch $(ORACLE)

# Lint, then all tests; what is skipped is named at the end.
test: lint $(ORACLE)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup
	./tools/test_web.sh
	./tools/test_android.sh --quick --if-possible
	@echo "NOT RUN: Swift, and the Android app itself: make test-apps"

# All three apps as far as they can be built here, with SmolLM2 besides tiny bundles: some 4 GB of toolchains, half an hour.
PIXEL := $(OUT)/SmolLM2-135M-Instruct-pixel-9.satchel
test-apps: $(STAMP)
	test -d $(PIXEL) || $(BIN)/satchel export smollm2 --device pixel-9 --effort low --output $(OUT)
	SATCHEL_PROMPTS=1 ./tools/test_web.sh $(PIXEL)
	SATCHEL_PROMPTS=1 SATCHEL_BUNDLE=$(PIXEL) ./tools/test_android.sh
	./tools/test_ios.sh

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

# Quality against size beside onnxruntime-genai, llama.cpp and coremltools: an hour or so.
bench-quality: $(ORACLE)
	$(BIN)/python benchmarks/compare.py --coremltools --plot docs/quantization.svg

clean:
	rm -rf $(VENV) $(OUT) .pytest_cache .mypy_cache .ruff_cache
