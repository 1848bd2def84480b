# Included by the Makefile: the checks of infra/, the workflows and the Dockerfile.
MANIFESTS := build/manifests/venv
CHECK := PYTHONPATH=src $(MANIFESTS)/bin/python infra/check

.PHONY: manifests-images lock-manifests

manifests: $(MANIFESTS)/.setup ## check infra/, the workflows and the Dockerfile, offline
	@$(CHECK)

manifests-images: $(MANIFESTS)/.setup # write infra/components/images from images.lock
	@$(CHECK) --write-images

# The hashes are checked: two of the packages carry a program of another project.
$(MANIFESTS)/.setup: infra/requirements.lock
	@test -n "$(PYTHON)" || { echo "Python 3.11 is missing: install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	rm -rf $(MANIFESTS)
	$(PYTHON) -m venv $(MANIFESTS)
	$(MANIFESTS)/bin/pip install --quiet --no-deps --no-compile --require-hashes -r infra/requirements.lock
	@touch $@

lock-manifests: # resolve infra/requirements.in into infra/requirements.lock again
	@test -x build/uv/bin/uv || { $(PYTHON) -m venv build/uv && build/uv/bin/pip install --quiet uv; }
	build/uv/bin/uv pip compile infra/requirements.in --python-version 3.11 --no-header --no-annotate --quiet \
		--generate-hashes --output-file infra/requirements.lock
