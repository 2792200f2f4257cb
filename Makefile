UV := $(shell command -v uv 2>/dev/null || echo .venv-uv/bin/uv)
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock:
	$(LOCK) pyproject.toml requirements/dev.in --extra compile-cpu --extra serve --group build --group lint --group test --group demo --overrides requirements/overrides.txt -o requirements/dev.txt
	$(LOCK) pyproject.toml --extra serve --group test -o requirements/serve.txt
	$(LOCK) --group proto -o requirements/proto.txt
