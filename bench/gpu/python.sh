# Sourced: $python and what it finds. PYTHON or FPDT_PYTHON name another than the checkout's own environment or the machine's.
python="${PYTHON:-${FPDT_PYTHON:-}}"
if [ -z "$python" ]; then
  if [ -x .venv/bin/python ]; then python=.venv/bin/python; else python=python3; fi
fi
export PYTHONPATH="$PWD/bench:$PWD/python${PYTHONPATH:+:$PYTHONPATH}"
