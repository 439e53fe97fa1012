# The work is done by the scripts in dev/; each says at its top what it does.

.PHONY: help setup demo test lint unit fuzz test-engine26 test-jupyterhub5 bench bench-quick clean

help:
	@echo 'make demo              a hub to log in to, at http://127.0.0.1:8000'
	@echo 'make test              all tests; lint, unit, test-engine26 and test-jupyterhub5 are parts of it'
	@echo 'make fuzz              50,000 requests of all kinds, in about ten minutes; make test tries some hundreds'
	@echo 'make bench             measure beside what one would do instead, in an hour or two; bench-quick in five minutes'
	@echo 'make setup             only install what these need'
	@echo 'make clean             remove what they made in this folder'

setup:
	@dev/setup

demo:
	@dev/demo

test:
	@dev/test

lint:
	@dev/test lint

unit:
	@dev/test unit

fuzz:
	@dev/test fuzz

test-engine26:
	@dev/test engine26

test-jupyterhub5:
	@dev/test jupyterhub5

bench:
	@dev/bench

bench-quick:
	@dev/bench --quick

clean:
	@dev/clean
