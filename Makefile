# make demo: install, write the demo data, train, evaluate, predict. make test: everything that must hold.
# Both can be repeated; what is already there is not done again.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
RUN := work_dirs/linear_demo
PICTURES := data/demo/classification/test

.PHONY: demo test test-slow lint clean

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Kestrel needs Python 3.10 or newer, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

data/demo/demo.json: $(READY) tools/make_demo_data.py
	$(BIN)/python tools/make_demo_data.py data/demo
	@touch $@

$(RUN)/best.pth: data/demo/demo.json
	$(BIN)/python tools/train.py configs/demo/linear_demo.py --resume

demo: $(RUN)/best.pth
	$(BIN)/python tools/test.py $(RUN)/best.pth --out $(RUN)/test/metrics.json
	$(BIN)/python tools/predict.py $(RUN)/best.pth $(PICTURES) --out predictions/linear_demo
	@echo
	@echo 'Look at  predictions/linear_demo/contact_sheet.png   what the classifier says of the test pictures'
	@echo '         $(RUN)/test/confusion_matrix.png   what it takes for what'

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

test: lint
	$(BIN)/python -m pytest -m 'not slow'

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

clean:
	rm -rf .venv work_dirs predictions data/demo
