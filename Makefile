# make demo: install, write the demo data, train, evaluate, predict. make test: everything that must hold.
# Both can be repeated; what is already there is not done again.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
DEMOS := linear ssdlite deeplabv3
.PHONY: demo test test-install test-layers test-slow test-export kills lint clean

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Falconet needs Python 3.10 or newer, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

# Other data makes the demo's models void.
data/demo/demo.json: tools/make_demo_data.py | $(READY)
	$(BIN)/python tools/make_demo_data.py data/demo
	rm -rf $(DEMOS:%=work_dirs/%_demo)
	@touch $@

# metrics.json is written last: a run that was interrupted goes on.
work_dirs/%_demo/metrics.json: data/demo/demo.json
	$(BIN)/python tools/train.py configs/demo/$*_demo.py --resume

# What each task's demo predicts.
linear_pictures := data/demo/classification/test
ssdlite_pictures := data/demo/coco/test2017
# The scenes of VOC's list test, which share a folder with those of train and val there.
deeplabv3_pictures := data/demo/coco/test2017

define evaluate_and_predict
	$(BIN)/python tools/test.py work_dirs/$(1)_demo/best.pth --out work_dirs/$(1)_demo/test/metrics.json
	$(BIN)/python tools/predict.py work_dirs/$(1)_demo/best.pth $($(1)_pictures) --out predictions/$(1)_demo

endef

demo: $(DEMOS:%=work_dirs/%_demo/metrics.json)
	$(foreach name,$(DEMOS),$(call evaluate_and_predict,$(name)))
	@echo
	@echo 'Look at  predictions/linear_demo/contact_sheet.png    what the classifier says of the test pictures'
	@echo '         predictions/ssdlite_demo/contact_sheet.png   what the detector finds in the test scenes'
	@echo '         predictions/deeplabv3_demo/contact_sheet.png the class of every pixel of the same scenes'
	@echo '         work_dirs/{linear,deeplabv3}_demo/test/confusion_matrix.png, work_dirs/ssdlite_demo/test/precision_recall.png'
	@echo '         work_dirs/{linear,ssdlite,deeplabv3}_demo/report.html    what was trained, and what it gets wrong'

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

# These compile the kernels, for half a minute, which then lie on the disk for all others.
test-layers: $(READY)
	$(BIN)/python -m pytest -m 'not slow' tests/layers

# The engines have a process of their own: a signal that Python is sent while their threads sleep can end it.
WORKERS := -n logical --maxprocesses 4 --dist worksteal
test:
	$(MAKE) -j 2 lint test-layers
	$(BIN)/python -m pytest $(WORKERS) -m 'not slow' --ignore tests/layers --ignore tests/deploy
	$(BIN)/python -m pytest $(WORKERS) -m 'not slow' tests/deploy --ignore tests/deploy/test_web.py

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow --ignore tests/deploy
	$(BIN)/python -m pytest -m slow tests/deploy || test $$? -eq 5  # none are

# The wheel, in an environment of its own, beside a user's modules of the same names as our packages.
test-install: $(READY)
	rm -rf build/wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	FALCONET_WHEEL=$$(ls build/wheel/falconet-*.whl) $(BIN)/python -m pytest tests/test_install.py

# What phones and browsers run. litert-torch asks for an older typing-extensions than
# pydantic: they are installed apart. What this machine lacks is skipped, and said at the end.
ORT_WEB := onnxruntime-web-1.30.0
test-export: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,litert,executorch,web,coreml]' selenium
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'litert-torch==0.10.0'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt typing-extensions pydantic
	test -f $(ORT_WEB).tgz || npm pack --silent $(subst web-,web@,$(ORT_WEB)) || echo 'no npm, or no network: the page is not tested unless its files were given before'
	$(BIN)/python -m pytest -rs -m 'not slow' tests/deploy/test_mobile.py tests/deploy/test_coreml.py tests/deploy/test_int8.py tests/deploy/memory
	test ! -f $(ORT_WEB).tgz || export FALCONET_WEB_RUNTIME=$(ORT_WEB).tgz; $(BIN)/python -m pytest -rs -m 'not slow' tests/deploy/test_web.py

# Trainings that are killed and continued: about 40 minutes.
kills: $(READY)
	$(BIN)/python benchmarks/kills.py --kills 100

clean:
	rm -rf .venv build work_dirs predictions data/demo
