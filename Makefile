# `make` or `make help` lists what can be done here. The work is done by the scripts in deploy/.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help up down clean logs ps scale join test check bench chaos images fn venv runtimes hub-gc hub-password

RUNNERS ?=
API ?=
SCHEDULERS ?=
HUB_USER ?=
export RUNNERS API SCHEDULERS HUB_USER

help: ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / && $$1 != "help" {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "Variables: API_PORT=8080 HUB_PORT=5000 RUNNERS=1 API=1 SCHEDULERS=1 IMAGES=auto|pull|build"
	@echo "API_PORT and the settings of the services may also stand in deploy/.env, as lines NAME=value"

up: ## From nothing to a function that answers over HTTP; run it at any time
	@deploy/up

down: ## Stop everything; data stay
	@deploy/compose down --remove-orphans

clean: ## Stop everything and remove its data, networks and function containers
	@deploy/clean

logs: ## Follow the logs of all services
	@deploy/compose logs --follow --tail 100

ps: ## Show the containers of the platform and their health
	@deploy/compose ps

scale: ## Change how many run, of what is given: make scale RUNNERS=3 API=2 SCHEDULERS=2
	@deploy/scale

join: ## Run functions here for a platform elsewhere: make join MQ_URL=redis://HOST
	@deploy/join

hub-gc: ## Free the space of images in the hub that no tag and no route needs
	@deploy/hub-gc

hub-password: ## Let the hub ask for a password: make hub-password HUB_USER=fn
	@deploy/hub-password

test: ## Run all tests, getting first what they lack
	@deploy/test

check: venv ## Check format, lint, types, and run the unit tests
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/python -m pytest tests/unit

bench: up ## Measure calls beside `docker run` and Redis: make bench BENCH="--only hot,cold"
	@deploy/bench $(BENCH)

chaos: ## Kill, freeze and cut off parts of a platform under load: make chaos MINUTES=5
	@deploy/chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(if $(RATE),--rate $(RATE)) \
		$(if $(HOSTS),--hosts $(HOSTS))

images: ## Get the container images: pulled, or built where no registry answers
	@deploy/engine
	@deploy/images

fn: ## Pack the client fn into one file: dist/fn
	@deploy/fn

runtimes: ## Build the base images of functions, for the hub too: LANGUAGES="python go"
	@deploy/runtimes $(LANGUAGES)

venv: ## Fill .venv with what tests and checks import
	@deploy/venv
