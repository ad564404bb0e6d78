# Python functions: Debian's Python, with venv and through it pip.
ARG PYTHON=millrace/python:local
FROM ${PYTHON}
WORKDIR /function
LABEL millrace.runtime=python:3.11
