# Everything is built into .venv and _build. Start with: make book
PYTHON ?= python3
PORT ?= 8000
VENV = .venv/bin/python

.PHONY: help book test bench experiments notebooks classroom grade serve lab clean environment

help:
	@echo "make book    install what is needed, run the chapters, build _build/html/index.html"
	@echo "make test    build what is stale, check the style, run all tests"
	@echo "make bench   time the transform beside PyTorch's, about four minutes on an idle machine"
	@echo "make experiments  run all recorded experiments again, hours; stopped, it goes on where it was"
	@echo "                  on the workers of a dask cluster: SCHEDULER=tcp://192.168.0.7:8786"
	@echo "make notebooks    the chapters as .ipynb, clean and executed, with all they need, in _build/notebooks"
	@echo "make classroom    the assignments for students and with solutions, in _build/classroom"
	@echo "make grade SUBMISSIONS=folder    grade what students handed in: a folder for each, notebooks in it"
	@echo "make serve   show the built book at http://localhost:$(PORT) (another port: PORT=8001)"
	@echo "make lab     open the chapters in JupyterLab, as copies of your own in lab/"
	@echo "make clean   remove _build; .venv, lab/ and downloaded data stay"
	@echo "Another Python than python3: make book PYTHON=python3.12"

environment:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "make: there is no $(PYTHON). Install Python 3.11, 3.12 or 3.13, or name one: make book PYTHON=python3.12" >&2; \
	  exit 1; }
	@"$(PYTHON)" book/_ext/environment.py "$(PYTHON)"

book: environment
	@$(VENV) book/_ext/build.py

test: book
	@$(VENV) -m ruff check
	@$(VENV) -m ruff format --check
	@$(VENV) -m pytest

bench: environment
	@$(VENV) -m bnlib bench

experiments: environment
	@$(VENV) -m bnlib rerun $(if $(SCHEDULER),--engine dask --scheduler "$(SCHEDULER)")

notebooks: book
	@$(VENV) book/_ext/notebooks.py

classroom: environment
	@$(VENV) book/_ext/classroom.py make

grade: environment
	@$(VENV) book/_ext/classroom.py grade "$(SUBMISSIONS)"

serve:
	@test -f _build/html/index.html || { echo "make: no book is built yet. First: make book" >&2; exit 1; }
	@$(VENV) -c "import socket; socket.create_server(('127.0.0.1', int('$(PORT)')))" 2>/dev/null || { \
	  echo "make: port $(PORT) is not free. Take another: make serve PORT=8001" >&2; exit 1; }
	@echo "The book is at http://localhost:$(PORT)/ (stop with Ctrl-C)"
	@$(VENV) -m http.server --bind 127.0.0.1 --directory _build/html "$(PORT)"

lab: environment
	@$(VENV) book/_ext/lab.py

clean:
	rm -rf _build
